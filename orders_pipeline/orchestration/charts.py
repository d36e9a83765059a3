"""Charts for Dagster's pages: an image within a line of Markdown, which is shown at once while it is short.

Values in, Markdown out; what is drawn is chosen by who asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

WIDTH, ROW, BAR = 420, 18, 160
MOST_ROWS = 6  # of 1,000 characters and more Dagster shows a link
_ENCODED = str.maketrans({"<": "%3C", ">": "%3E", "#": "%23", "%": "%25", "&": "%26"})


def bars(title: str, values: Mapping[str, int]) -> dg.MetadataValue[str]:
    """Return a bar for each of the largest values, beside its number and name."""
    most = max(values.values(), default=0) or 1
    largest = sorted(values.items(), key=lambda each: -each[1])[:MOST_ROWS]
    rows = "".join(
        f"<rect y='{ROW * at + 3}' width='{max(BAR * value // most, 1)}' height='12'/>"
        f"<text x='{BAR + 6}' y='{ROW * at + 14}'>{value:,} {name}</text>"
        for at, (name, value) in enumerate(largest)
    )
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{ROW * len(largest)}' fill='#77a' "
        f"font-family='sans-serif' font-size='12'>{rows}</svg>"
    )
    return dg.MetadataValue.md(f"![{title}](<data:image/svg+xml,{svg.translate(_ENCODED)}>)")
