"""The files of a batch: their names and where they lie in the storage. What they hold belongs to who writes them."""

from __future__ import annotations

BATCHES = "batches/"
ORIGINAL = "original"
CONVERTED = "converted.csv"  # the text of an original that is none: a workbook
MANIFEST = "manifest.json"
STAGED = "staged.parquet"
ACCEPTED = "accepted.parquet"
REJECTIONS = "rejections.parquet"
ANSWERS = "answers.json"  # of a correcting file: which rows its own ones answer


def artifact(batch_id: str, name: str) -> str:
    """Return the storage key of one of a batch's files."""
    return f"{BATCHES}{batch_id}/{name}"
