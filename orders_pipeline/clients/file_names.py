"""Names of files: which are those of order files, the one form they are kept in, and how they are shown.

Where such files lie is said in `intake/landing/`; numbers in names are read in `sequences.py`.
"""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

TEXTS = (".csv", ".tsv", ".txt")
WORKBOOK, ZIP, GZIP = ".xlsx", ".zip", ".gz"
COMPRESSED = (*(text + GZIP for text in TEXTS), ZIP)
ENDINGS = (*TEXTS, WORKBOOK, *COMPRESSED)
JSON_DOCUMENT, JSON_LINES = ".json", (".ndjson", ".jsonl")  # not of the landing: manifests end so
NOT_A_DOCUMENT = (".", "~$")  # hidden, and what Excel puts beside a workbook that is open
SHOWN_CHARS = 100


def is_order_name(key: str) -> bool:
    """Return whether a name (or the last part of a key) is that of an order file and not of an upload under way."""
    name = key.rpartition("/")[2]
    return name.lower().endswith(ENDINGS) and not name.startswith(NOT_A_DOCUMENT)


def is_workbook(name: str) -> bool:
    """Return whether a file of this name is read as a workbook."""
    return name.lower().endswith(WORKBOOK)


def is_compressed(name: str) -> bool:
    """Return whether a file of this name is an order file in gzip, or in a ZIP archive."""
    return name.lower().endswith(COMPRESSED)


def is_zip(name: str) -> bool:
    """Return whether a file of this name is a ZIP archive with an order file."""
    return name.lower().endswith(ZIP)


def stem(name: str) -> str:
    """Return a name (or key) without the ending of an order file, or any other one."""
    ending = max((each for each in ENDINGS if name.lower().endswith(each)), key=len, default=PurePosixPath(name).suffix)
    return name.removesuffix(name[len(name) - len(ending) :])


def is_json(name: str) -> bool:
    """Say whether a file of this name is read as orders in JSON, in one document or one a line."""
    return name.lower().endswith((JSON_DOCUMENT, *JSON_LINES))


def is_converted(name: str) -> bool:
    """Say whether the text of a file of this name is made of it: it is a workbook, or JSON."""
    return is_workbook(name) or is_json(name)


def encoding_shown(name: str, encoding: str | None) -> str | None:
    """Return what is said of a file's encoding: what is no CSV has none, but the text that is made of it has."""
    if encoding and is_converted(name):
        return "workbook" if is_workbook(name) else "json"
    return encoding


def composed(name: str) -> str:
    """Return a name in the form it is kept and compared in: macOS sends marks and letters apart."""
    return unicodedata.normalize("NFC", name)


def forms_of(name: str) -> tuple[str, ...]:
    """Return the ways to write a name: as it is, composed, and with marks and letters apart."""
    return tuple(dict.fromkeys((name, composed(name), unicodedata.normalize("NFD", name))))


def shown(name: str) -> str:
    """Return a name from outside on one short line, with nothing in it that moves a cursor or cannot be seen."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return plain if len(plain) <= SHOWN_CHARS else plain[:SHOWN_CHARS] + "…"
