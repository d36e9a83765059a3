"""The names of columns, as cells of a header and profiles write them: when two are the same name."""

from __future__ import annotations

import unicodedata

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"


def normalise_header(cell: str) -> str:
    """Return a header cell as names are compared: NFKC, without outer spaces and invisible characters, case folded."""
    return unicodedata.normalize("NFKC", cell).strip().strip(_INVISIBLE).strip().casefold()
