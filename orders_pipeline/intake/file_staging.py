"""Staging of one file, CSV, workbook or JSON: encoding, header and shape checked, its rows numbered and written as Parquet.

How each kind is read is in `csv_file/`, `excel_file/` and `json_file.py`. The batch that the file is of is in `steps.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Row

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import CONVERTED, ORIGINAL, STAGED
from orders_pipeline.clients.file_names import is_compressed, is_converted, is_json, is_workbook
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.scratch import Scratch
from orders_pipeline.intake import compressed_file, csv_file, json_file
from orders_pipeline.intake.csv_file import Limits, StagedFile
from orders_pipeline.intake.duplicate_rows import KEYS, hashed
from orders_pipeline.intake.manifest import Manifest
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.record_type import Kind, RowContext
from orders_pipeline.records.rejections import FileRejected, Rejection
from orders_pipeline.system.settings import Settings

UNPACKED = "unpacked"  # a workbook that was in an archive


@dataclass(frozen=True)
class UnregisteredFile:
    """A file that is looked at and becomes no batch; its attributes have the names of a batch's columns."""

    batch_id: str
    client_code: str
    csv_source: str
    source_sha256: str
    encoding: str = ""
    corrects: str | None = None


SourceFile: TypeAlias = Row[Any] | UnregisteredFile  # a batch's row, or what is like one


@dataclass(frozen=True)
class Staging:
    """A staged file: what was read, the layout of its text, the batch whose rows it corrects, the group it belongs to.

    The layout, which is kept as JSON, says how records can be found in the text and written like it.
    """

    file: StagedFile
    layout: Mapping[str, Any]
    corrects: str | None
    import_group: str

    @property
    def made(self) -> tuple[str, ...]:
        """Return the names of the files that staging wrote."""
        return (CONVERTED, STAGED) if self.layout["text"] == CONVERTED else (STAGED,)


def stage_checked(
    database: Database,
    limits: Limits,
    profile: Profile,
    file: SourceFile,
    manifest: Manifest | None,
    source: Path,
    folder: Scratch,
) -> Staging:
    """Stage a file into a folder, checked against its manifest's hash and the batch that it names; raise FileRejected."""
    if manifest is not None:
        manifest.check_bytes(file.source_sha256)
    source, name = unpacked(limits, source, file.csv_source, folder)
    staged = stage_file(limits, profile, source, name, folder)
    corrects, group = _import_group(database, file, staged)
    dialect = _dialect(profile, name)
    text = CONVERTED if is_converted(name) or is_compressed(file.csv_source) else ORIGINAL
    layout = {
        "text": text,
        "is_converted": is_converted(name),
        "delimiter": dialect.delimiter,
        "has_quotes": dialect.has_quotes,
        "header_span": staged.header_span,
        "surplus": staged.row_width - len(staged.header),
        "headers": _headers(profile, staged),
        "places": {column: list(places) for column, places in staged.columns.items()},
        "line_ending": staged.line_ending,
        "has_bom": staged.has_bom,
    }
    return Staging(staged, layout, corrects, group)


def _headers(profile: Profile, staged: StagedFile) -> dict[str, list[str]]:
    """Return the file's own headers of each column; of an amount that is made of several, all of these."""
    headers = {column: [staged.header[at] for at in places] for column, places in staged.columns.items()}
    grouping = profile.grouping()
    parts = () if grouping is None else (*grouping.factors, *grouping.added, *grouping.added_each_line)
    if parts:
        own = headers.get(ORDERS.amount, [])
        headers[ORDERS.amount] = [*own, *(header for part in parts for header in headers.get(part, ()))]
    return headers


def limits_of(settings: Settings, profile: Profile) -> Limits:
    """Return how large a client's files may be."""
    return Limits(max_bytes=profile.max_bytes or settings.max_bytes, max_rows=profile.max_rows or settings.max_rows)


def unpacked(limits: Limits, source: Path, name: str, folder: Path | Scratch) -> tuple[Path, str]:
    """Return a local file and its name, or what is in it where it is compressed; raise FileRejected.

    A text is kept as the others are that are made of a client's file.
    """
    if not is_compressed(name):
        return source, name
    inside = compressed_file.name_inside(source, name)
    target = folder / (UNPACKED if is_converted(inside) else CONVERTED)
    compressed_file.unpack(source, name, target, limits.max_bytes)
    return target, inside


def stage_file(limits: Limits, profile: Profile, source: Path, name: str, folder: Path | Scratch) -> StagedFile:
    """Write the numbered rows of a local file, `unpacked` where it was compressed, into a folder; raise FileRejected.

    The text of a workbook or of JSON is kept beside them.
    """
    encoding = profile.encoding
    hidden = 0
    if is_workbook(name):
        from orders_pipeline.intake import excel_file  # noqa: PLC0415 - its library is slow to import, and CSV does without

        names = csv_file.Names(profile.header_names(), profile.required_columns())
        choices = [choice.header for choice in (*profile.skip, *profile.reject)]
        wanted = excel_file.OrderSheet(names, _kinds(profile), profile.sheet, choices)
        workbook, source, encoding = source, folder / CONVERTED, None
        hidden = excel_file.write_csv(workbook, source, max_bytes=limits.max_bytes, max_rows=limits.max_rows, wanted=wanted)
    elif is_json(name):
        document, source, encoding = source, folder / CONVERTED, None
        json_file.write_csv(document, source, name, max_rows=limits.max_rows, max_columns=limits.max_columns)
    if is_converted(name):
        limits = replace(limits, max_bytes=source.stat().st_size)  # what it is made of may be smaller than the text
    staged = csv_file.stage(
        source,
        folder / STAGED,
        header_names=profile.header_names(),
        required=profile.required_columns(),
        joined=profile.joined_headers(),
        limits=limits,
        dialect=_dialect(profile, name),
        encoding=encoding,
        amount=None if is_converted(name) else ORDERS.amount,
        frame=_frame(profile, name),
        has_certain_records=is_converted(name),
        told_apart_by=(ORDERS.identity, partial(_orders_of, profile)),
        is_grouped=profile.grouping() is not None,
        skip=profile.skip,
        reject=profile.reject,
    )
    if not hidden:
        return staged
    warning = Rejection(None, None, None, "W_HIDDEN_ROWS", {"count": str(hidden)})
    return replace(staged, warnings=(*staged.warnings, warning))


def _orders_of(profile: Profile, cells: pa.Array) -> npt.NDArray[np.uint64]:
    """Return a number for the order that each cell names, 0 for an empty one."""
    translate = {name: source.translate for name, source in profile.columns.items()}
    context = RowContext(batches.today(), "", profile.notify_channel, translate)
    references = ORDERS.folded(ORDERS.by_name[ORDERS.identity].normalised(cells, context))
    return np.where(pc.equal(references, "").to_numpy(zero_copy_only=False), np.uint64(0), hashed(references, KEYS[0]))


def _dialect(profile: Profile, name: str) -> csv_file.Dialect:
    """Return how cells are written in the text of a client's file."""
    return csv_file.Dialect() if is_converted(name) else csv_file.Dialect(profile.delimiter, profile.quoting != "none")


def _kinds(profile: Profile) -> dict[str, Kind]:
    """Return what each column of a client's files has, also those that are only parts of its amount."""
    others: dict[str, Kind] = dict.fromkeys(profile.header_names().values(), "number")
    return others | {column.name: column.kind for column in ORDERS.columns}


def _frame(profile: Profile, name: str) -> csv_file.Frame:
    """Return what stands around the orders in a client's file, and nothing in JSON."""
    if is_json(name):
        return csv_file.Frame()
    return csv_file.Frame(profile.header_line, profile.header_rows, profile.comment, profile.footer_lines)


def _import_group(database: Database, file: SourceFile, staged: StagedFile) -> tuple[str | None, str]:
    """Return the one batch that a file's `_batch` column names, or None, and the group the file belongs to."""
    if not staged.corrected_batches:
        return None, file.batch_id
    corrects = staged.corrected_batches[0]
    with database.begin() as transaction:
        group = transaction.scalar("group_of_batch", batch_id=corrects, client_code=file.client_code)
    if group is None:
        raise FileRejected("F_BATCH_COLUMN", {**staged.corrected_from[0], "hint": "no_batch"})
    if len(staged.corrected_batches) > 1:
        raise FileRejected("F_BATCH_COLUMN", {**staged.corrected_from[1], "hint": "another_batch"})
    return corrects, str(group)
