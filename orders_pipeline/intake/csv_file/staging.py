"""A client's CSV file: its shape checked, its rows numbered and staged as Parquet, in constant memory.

What makes the whole file unsafe raises FileRejected. Cells stay as sent: what a value means, and which rows are good, is
decided in `validation`. Bytes and lines are in `encoding` and `physical_lines`, records in `records`, header cells in
`header`, tables of rows in `staged_rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pyarrow.parquet import ParquetWriter

from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.infrastructure.parquet_file import new_parquet
from orders_pipeline.intake.csv_file.dialect import Dialect, NoRecordError
from orders_pipeline.intake.csv_file.encoding import detect_text
from orders_pipeline.intake.csv_file.frame import Frame, Table, find_table
from orders_pipeline.intake.csv_file.header import Names, check_delimiter, read_header
from orders_pipeline.intake.csv_file.physical_lines import TextSpan, read_blocks, split_lines
from orders_pipeline.intake.csv_file.records import Chunk, EvenChunk, Records
from orders_pipeline.intake.csv_file.shape import Shape, UnevenRowsError
from orders_pipeline.intake.csv_file.staged_rows import CONTROL, Limits, Reading, StagedRows, ToldApartBy
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.rejections import FileRejected, Rejection

_TITLE_ROWS = 20
# hardly a cell is the same twice: dictionaries and statistics only make the file larger and slower
_PARQUET: Mapping[str, Any] = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}


@dataclass(frozen=True)
class StagedFile:
    """What staging found out about a file.

    `encoding` is utf-8, utf-8-sig, cp932, utf-16-le or utf-16-be. `header` are the header's cells as sent, `header_span` its
    offset and length in bytes, `line_ending` its terminator. `row_width` is the number of cells of a row of the right shape.
    `columns` maps each known column to its places. `rows_total` counts every record after the header, those that are blank
    or skipped among them. `corrected_batches` holds the first three different values of the `_batch` column, and
    `corrected_from` the `row` and `line` where each comes first.
    """

    encoding: str
    has_bom: bool
    line_ending: str
    header: tuple[str, ...]
    header_span: tuple[int, int]
    row_width: int
    columns: Mapping[str, tuple[int, ...]]
    rows_total: int
    rows_blank: int
    rows_skipped: int
    corrected_batches: tuple[str, ...]
    corrected_from: tuple[Mapping[str, str], ...]
    warnings: tuple[Rejection, ...]


def stage(
    source: Path,
    staged: Path,
    *,
    header_names: Mapping[str, str],
    required: Sequence[str],
    limits: Limits,
    dialect: Dialect = Dialect(),  # noqa: B008 - it is frozen
    joined: Mapping[str, Sequence[str]] = MappingProxyType({}),
    encoding: str | None = None,
    amount: str | None = None,
    frame: Frame = Frame(),  # noqa: B008 - it is frozen
    skip: Sequence[RowChoice] = (),
    reject: Sequence[RowChoice] = (),
    told_apart_by: ToldApartBy | None = None,
    is_grouped: bool = False,
    has_certain_records: bool = False,
) -> StagedFile:
    """Check a file's encoding, header and shape, and write its rows to `staged` as Parquet; raise FileRejected.

    The Parquet file holds a row for every record that is not blank: `import_row_number`, `line`, `offset` and `length` in
    bytes, `shape_ok`, `corrects_row`, `unreadable`, `maybe_references`, then each column of `header_names`. `corrects_row`
    is what `_row` says, 0 where that is no number but `_batch` or `_row` says something, else null. `unreadable` is a code,
    mostly null. `maybe_references` are those cells of a row of the wrong shape that may be what rows are grouped by. Cells
    are as sent: "" where the file lacks the column, null where the row's shape is wrong or it is unreadable. The headers of
    a column of `joined` are joined by a space. The Parquet file appears whole or not at all, readable by its owner only. An
    `encoding` that is given is the only one tried. Cells of the column `amount` may not be split at a comma. What stands in
    the `frame` around the table is left out, and so are whole rows that `skip` chooses; where rows are grouped, with what
    follows such a row, is of the same order by what rows are `told_apart_by`, and is blank there. Of others `to_decide` says
    why `reject` chooses them, and `unclear` by which cell nobody can choose; both are mostly null. What is kept of the rows
    that were skipped is in `skipped_rows`.

    A row with control characters, or quotation marks escaped by a backslash, is unreadable and does not refuse the file if
    the next record is certain all the same: in a text that we wrote (`has_certain_records`), or where each line is a record
    by itself and at most half of them are unreadable.
    """
    if source.stat().st_size > limits.max_bytes:
        raise FileRejected("F_TOO_LARGE", {"limit": str(limits.max_bytes)})
    known = {normalise_header(name): column for name, column in header_names.items()}
    parts = {column: tuple(map(normalise_header, headers)) for column, headers in joined.items()}
    names = Names(known, tuple(required), parts)
    split = amount if dialect.delimiter == "," else None
    reading = Reading(names, limits, dialect, split, skip, reject, told_apart_by, is_grouped)
    try:
        return _stage(source, staged, reading, encoding, frame)
    except FileRejected as refusal:
        if refusal.code not in ("F_CONTROL_CHARS", "F_QUOTE"):
            raise
        try:
            anyway = replace(reading, may_have_controls=True, line_by_line=not has_certain_records)
            return _stage(source, staged, anyway, encoding, frame)
        except (NoRecordError, FileRejected):
            raise refusal from None


def _stage(source: Path, staged: Path, reading: Reading, encoding: str | None, frame: Frame) -> StagedFile:
    names, dialect = reading.names, reading.dialect
    span = detect_text(source, dialect, encoding, with_controls=reading.may_have_controls)
    table = find_table(source, span, frame, names, dialect)
    _check_first_line(source, table.span, dialect, names)
    try:
        return _write(source, staged, table, reading, allow_trailing=True)
    except UnevenRowsError:
        return _write(source, staged, table, reading, allow_trailing=False)


def read_records(source: Path, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Read records as sent, without their terminators, by (offset, length) in bytes."""
    with source.open("rb") as file:
        for offset, length in spans:
            file.seek(offset)
            yield file.read(length)


def _check_first_line(source: Path, span: TextSpan, dialect: Dialect, names: Names) -> None:
    """Refuse what the first line with text gives away: nothing there, markup, another delimiter."""
    for block in read_blocks(source, span):
        for line in split_lines(block.text):
            if line.strip():
                if line.lstrip().startswith("<"):
                    raise FileRejected("F_NOT_CSV", {"kind": "HTML or XML"})
                check_delimiter(line, dialect, names)
                return
    raise FileRejected("F_EMPTY")


def _write(source: Path, target: Path, where: Table, reading: Reading, *, allow_trailing: bool) -> StagedFile:
    """Read the whole table once and write its rows to `target`."""
    span, more_rows = where.span, where.header_rows - 1
    blocks = read_blocks(source, span)
    records = Records(blocks, span.start, reading.dialect, where.lines_before, line_by_line=reading.line_by_line)
    chunks = records.chunks()
    first, place = _first_filled(chunks)
    if place in first.unreadable or (reading.may_have_controls and any(map(CONTROL.search, first.rows[place]))):
        raise NoRecordError
    header = read_header(first.rows[place], reading.names, _following(first, place, chunks), reading.limits.max_columns)
    records.begin_after(int(first.places.numbers[place]) + more_rows)
    shape = Shape(header, allow_trailing=allow_trailing)
    staging = StagedRows(header, shape, reading, span.encoding)
    with new_parquet(target, staging.schema, **_PARQUET) as writer:
        _write_behind(writer, staging, chain([first.after(place + more_rows)], _behind_header(chunks)))
        if not (staging.rows_filled or (staging.batches and staging.chosen.may_close)):
            raise FileRejected("F_NO_ROWS", staging.chosen.detail if staging.chosen.count else {})
        if reading.line_by_line and staging.rows_unreadable * 2 > staging.rows_filled:
            raise NoRecordError  # nor is this a file with a few bad rows
        writer.add_key_value_metadata(staging.chosen.kept)
        shape.check_all()
        staging.amounts.check_all(last_cell_left_off=shape.last_cell_left_off)
    unknown = header.unknown_but([each.name for each in (*reading.skip, *reading.reject)])
    offset, length = int(first.places.offsets[place]), int(first.places.lengths[place])
    return StagedFile(
        encoding=span.encoding,
        has_bom=span.has_bom,
        line_ending=_line_ending(source, span, offset + length, int(first.places.terminators[place])),
        header=header.cells,
        header_span=(offset, length),
        row_width=shape.width,
        columns=header.columns,
        rows_total=staging.rows_total,
        rows_blank=staging.rows_total - staging.rows_filled - staging.chosen.count,
        rows_skipped=staging.chosen.count,
        corrected_batches=tuple(staging.batches),
        corrected_from=tuple(staging.batches.values()),
        warnings=(
            *([Rejection(None, int(first.places.lines[place]), None, "W_UNKNOWN_COLUMN", unknown)] if unknown else ()),
            *([Rejection(None, None, None, "W_ROWS_SKIPPED", staging.chosen.detail)] if staging.chosen.count else ()),
            *_counted("W_LINES_LEFT_OUT", where.left_out),
            *([Rejection(None, 1, None, "W_SEP_LINE")] if where.has_sep else ()),
            *_counted("W_BOM", records.marks),
        ),
    )


def _counted(code: str, count: int) -> Iterator[Rejection]:
    """Yield the warning that there were so many, if there were."""
    if count:
        yield Rejection(None, None, None, code, {"count": str(count)})


def _write_behind(writer: ParquetWriter, staging: StagedRows, chunks: Iterator[Chunk | EvenChunk]) -> None:
    """Write the rows of chunks as they come, each while the next one is read."""

    def write(chunk: Chunk | EvenChunk) -> None:
        writer.write_table(staging.table(chunk))

    written: Future[None] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="staging") as pool:
        try:
            for chunk in chunks:
                if written is not None:
                    written.result()
                written = pool.submit(write, chunk)
        except (FileRejected, NoRecordError):
            if written is not None:
                written.result()  # what is wrong with rows is said first, for they come before what cannot be read
            raise
        if written is not None:
            written.result()


def _first_filled(chunks: Iterator[Chunk | EvenChunk]) -> tuple[Chunk, int]:
    """Return the chunk with the first record that is not blank, and the record's place in it."""
    for chunk in map(_as_rows, chunks):
        for place, row in enumerate(chunk.rows):
            if any(row):
                return chunk, place
    raise FileRejected("F_EMPTY")


def _behind_header(chunks: Iterator[Chunk | EvenChunk]) -> Iterator[Chunk | EvenChunk]:
    """Read chunks without the last rows of a header that goes on in them."""
    for chunk in chunks:
        behind = chunk.places.numbers > 0
        if behind.any():
            yield chunk if behind.all() else chunk.select(behind)


def _following(chunk: Chunk, place: int, chunks: Iterator[Chunk | EvenChunk]) -> Iterator[list[str]]:
    """Read a few records behind the one at `place`, as far as they are CSV."""
    later = (row for each in chain([chunk.after(place)], map(_as_rows, chunks)) for row in each.rows)
    with suppress(FileRejected):
        yield from islice(later, _TITLE_ROWS)


def _as_rows(chunk: Chunk | EvenChunk) -> Chunk:
    return chunk.row_by_row() if isinstance(chunk, EvenChunk) else chunk


def _line_ending(source: Path, span: TextSpan, offset: int, length: int) -> str:
    return next(read_records(source, [(offset, length)])).decode(span.codec)
