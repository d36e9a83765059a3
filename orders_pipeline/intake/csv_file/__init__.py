"""A client's CSV file: encoding (`encoding`), lines, records, header and shape checked, rows numbered (`staging`).

Cells stay as sent: what a value means, and which rows are good, is decided in `validation`.
"""

from orders_pipeline.intake.csv_file.dialect import Dialect
from orders_pipeline.intake.csv_file.frame import Frame
from orders_pipeline.intake.csv_file.header import Names
from orders_pipeline.intake.csv_file.skipped_rows import (
    SkippedName,
    any_was_skipped,
    skipped_names,
    skipped_references,
    skipped_runs,
)
from orders_pipeline.intake.csv_file.staged_rows import TO_DECIDE, UNCLEAR, Limits, cells_that_may_be
from orders_pipeline.intake.csv_file.staging import StagedFile, read_records, stage

__all__ = [
    "TO_DECIDE",
    "UNCLEAR",
    "Dialect",
    "Frame",
    "Limits",
    "Names",
    "SkippedName",
    "StagedFile",
    "any_was_skipped",
    "cells_that_may_be",
    "read_records",
    "skipped_names",
    "skipped_references",
    "skipped_runs",
    "stage",
]
