"""Pages of `orders_pipeline/docs/` that are made from the catalogue, or have parts that are: written anew by

    python -m orders_pipeline_tests.support.generated_pages

What people write is in the pages themselves, outside the marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import orders_pipeline
from orders_pipeline.records.orders import EXAMPLE, ORDERS
from orders_pipeline.records.rejections import CODES, SETTINGS, message

DOCS = Path(orders_pipeline.__file__).parent / "docs"
PART = re.compile(r"(<!-- made from the catalogue: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
KINDS = {"code": "code", "number": "whole number", "date": "date", "text": "text"}


def table(*lines: tuple[str, ...]) -> Iterator[str]:
    head, *rows = lines
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def columns() -> Iterator[str]:
    head = ("Column", "Japanese headers", "Required", "Type", "At most", "Example", "Codes")
    rows = [
        (
            f"`{column.name}`",
            ", ".join(column.aliases),
            "yes" if column.required else "",
            KINDS[column.kind],
            f"{column.max_length} characters",
            EXAMPLE.get(column.name, ""),
            ", ".join(
                f"`{code}`" for code in dict.fromkeys(rule.code for rule in (*column.text_rules, *column.typed_rules))
            ),
        )
        for column in ORDERS.columns
    ]
    yield from table(head, *rows)


def codes(prefix: str) -> Callable[[], Iterator[str]]:
    def made() -> Iterator[str]:
        found = sorted(code for code in CODES if code.startswith(prefix))
        head = ("Code", "English", "日本語", "In the client's profile")
        cells = [(f"`{each}`", message(each, "en"), message(each, "ja"), SETTINGS.get(each, "")) for each in found]
        has_settings = any(settings for *_, settings in cells)
        yield from table(*([head, *cells] if has_settings else [each[:3] for each in (head, *cells)]))

    return made


PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    "columns": columns,
    **{f"codes_{letter}": codes(f"{letter}_") for letter in "FRWPN"},
}


def made(page: str) -> str:
    """Return a page with its parts as they have to be."""
    return PART.sub(lambda found: found[1] + "".join(f"{line}\n" for line in PARTS[found[2]]()) + found[3], page)


def pages() -> dict[Path, str]:
    """Return each page that has such parts, as it is."""
    texts = {path: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
    return {path: text for path, text in texts.items() if PART.search(text)}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(made(text), "utf-8")
