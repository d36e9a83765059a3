"""A file's bytes read as a batch's are, without a database: staged and validated, or refused; and what must hold then.

Bytes in, outcomes out. Which bytes to read is said by `sheets` (good structure) and `mutations` (broken ones).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake.csv_file import Limits, StagedFile, read_records, records
from orders_pipeline.intake.csv_file.physical_lines import read_blocks
from orders_pipeline.intake.file_staging import stage_file
from orders_pipeline.intake.validation import Validated, accepted_schema, nothing_sealed, validate
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import CODES, HINTS, REJECTIONS_SCHEMA, FileRejected, message
from orders_pipeline_tests.support.factories import row_context

DEFAULT = Profile()
CHANNEL = "none"  # the default of a profile
LIMITS = Limits(max_bytes=1 << 20, max_rows=300)
NUMBERS = {"limit", "row", "line", "offset", "expected", "found", "count", "first_row"}
KINDS = {"ZIP or Excel (.xlsx)", "ZIP", "gzip", "PDF", "Excel (.xls)", "7z", "RAR", "xz", "Zstandard", "HTML or XML"}
LATIN = ("cp1252", "cp1250", "cp850", "cp852", "mac_roman", "iso8859_15", "iso8859_2")
CHOICE = "(?:payment_method = invoice|email = |note)"
CHOSEN_BY = re.compile(rf"{CHOICE}(?:, {CHOICE})*|{CHOICE}: [0-9]+ \([#0-9, .]+\)(?:, {CHOICE}: [0-9]+ \([#0-9, .]+\))*")
READINGS = {"UTF-8, CP932", "CP932, EUC-JP", *(f"CP932, {codec}" for codec in LATIN)}


@dataclass(frozen=True)
class Refused:
    """A file rejected whole."""

    code: str
    detail: Mapping[str, str]


@dataclass(frozen=True)
class Staged:
    """A file whose rows are numbered: what was found out about it, and its rows."""

    file: StagedFile
    table: pa.Table

    @property
    def numbers(self) -> list[int]:
        return self.table.column("import_row_number").to_pylist()


@dataclass(frozen=True)
class Judged:
    """What validation made of a staged file; `sealed` are the personal cells of accepted rows."""

    summary: Validated
    accepted: pa.Table
    rejections: pa.Table
    sealed: pd.DataFrame


@contextmanager
def _reader(block_bytes: int | None, may_be_even: bool) -> Iterator[None]:
    """Have files read in blocks of another size, and all of them by the strict reader if the faster may not be used."""
    with pytest.MonkeyPatch.context() as patch:
        if block_bytes is not None:
            patch.setattr(read_blocks, "__defaults__", (block_bytes,))
        if not may_be_even:
            patch.setattr(records, "read_even", lambda block, delimiter: None)
        yield


def staged(
    folder: Path, data: bytes, profile: Profile = DEFAULT, *, block_bytes: int | None = None, may_be_even: bool = True
) -> Staged | Refused:
    """Stage a file with a profile; in the folder is nothing then but the file and what was made of it."""
    source, target = folder / "orders.csv", folder / "staged.parquet"
    for path in folder.iterdir():
        path.unlink()
    source.write_bytes(data)
    try:
        with _reader(block_bytes, may_be_even):
            file = stage_file(LIMITS, profile, source, source.name, folder)
    except FileRejected as refusal:
        assert [path.name for path in folder.iterdir()] == [source.name]
        return Refused(refusal.code, refusal.detail)
    assert {path.name for path in folder.iterdir()} == {source.name, target.name}
    assert source.read_bytes() == data
    return Staged(file, pq.read_table(target))


def judged(folder: Path, encoding: str, chunk_rows: int = 100) -> Judged:
    """Validate the file staged in the folder last."""
    frames = [pd.DataFrame()]

    def seal(rows: pa.RecordBatch) -> pa.Array:
        frames.append(rows.to_pandas().set_index("import_row_number"))
        return nothing_sealed(rows)

    accepted, rejections = folder / "accepted.parquet", folder / "rejections.parquet"
    summary = validate(
        folder / "staged.parquet",
        accepted,
        rejections,
        record_type=ORDERS,
        context=row_context(encoding=encoding, default_notify_channel=CHANNEL),
        seal=seal,
        existing=lambda references: {},
        chunk_rows=chunk_rows,
    )
    return Judged(summary, pq.read_table(accepted), pq.read_table(rejections), pd.concat(frames))


def check_refusal(refused: Refused) -> None:
    """Assert that a refusal has a code and words for it, and says nothing of what any cell holds."""
    assert refused.code.startswith("F_")
    _check_said(refused.code, refused.detail)


def check_staged(folder: Path, found: Staged) -> None:
    """Assert that the records of a staged file follow each other and add up, and come back as they were sent."""
    table, file = found.table, found.file
    source = folder / "orders.csv"
    size = source.stat().st_size
    assert file.rows_total == table.num_rows + file.rows_blank + file.rows_skipped
    assert table.num_rows > 0
    assert all(0 < number <= file.rows_total for number in found.numbers)
    for name in ("import_row_number", "line", "offset"):
        column = table.column(name).to_pylist()
        assert column == sorted(set(column)), name
    spans = list(zip(table.column("offset").to_pylist(), table.column("length").to_pylist(), strict=True))
    ends = [sum(file.header_span), *(offset + length for offset, length in spans)]
    assert all(end <= offset for end, (offset, _) in zip(ends, spans, strict=False))
    assert ends[-1] <= size
    for record in read_records(source, spans):
        record.decode(codec_of(file.encoding))
    shaped = table.filter(table.column("shape_ok"))
    for name in ORDERS.column_names:
        assert shaped.column(name).null_count == 0
        assert table.column(name).null_count == table.num_rows - shaped.num_rows


def check_judged(found: Staged, verdict: Judged) -> None:
    """Assert that every row is accepted or rejected, once and in order, and that verdicts say nothing of cells."""
    summary, table = verdict.summary, verdict.rejections
    assert verdict.accepted.schema.equals(accepted_schema(ORDERS))
    assert table.schema.equals(REJECTIONS_SCHEMA)
    accepted = verdict.accepted.column("import_row_number").to_pylist()
    given_back = table.column("import_row_number").to_pylist()
    assert accepted == sorted(set(accepted))
    assert given_back == sorted(given_back)
    assert sorted([*accepted, *set(given_back)]) == found.numbers
    assert (summary.rows_accepted, summary.rows_rejected) == (len(accepted), len(set(given_back)))
    not_orders = found.file.rows_blank + found.file.rows_skipped
    assert found.file.rows_total == summary.rows_accepted + summary.rows_rejected + not_orders
    assert summary.amount_accepted == (pc.sum(verdict.accepted.column("amount")).as_py() or 0)
    lines = dict(zip(found.numbers, found.table.column("line").to_pylist(), strict=True))
    for each in table.to_pylist():
        assert each["line"] == lines[each["import_row_number"]]
        assert each["column"] is None or each["column"] in ORDERS.column_names
        assert each["code"].startswith("R_")
        _check_said(each["code"], json.loads(each["detail"]))


def codec_of(encoding: str) -> str:
    """Return Python's codec for text without its byte order mark."""
    return {"utf-8-sig": "utf-8"}.get(encoding, encoding)


def _check_said(code: str, detail: Mapping[str, str]) -> None:
    assert code in CODES
    plain = {name: value for name, value in detail.items() if name != "nearest"}  # may have brackets of its own
    for language in ("en", "ja"):
        assert message(code, language, detail).isprintable()
        assert not set(message(code, language, plain)) & set("[]{}")
    for name, value in detail.items():
        assert _is_safe(name, value), name


def _is_safe(name: str, value: str) -> bool:
    """Tell whether a parameter is a number, a column of ours, a name close to one, or words from a list."""
    if name in NUMBERS:
        return value.isascii() and value.isdigit()
    if name == "columns":
        return set(value.split(", ")) <= set(ORDERS.column_names)
    if name == "nearest":
        return _is_like_a_name(value) or all(map(_is_like_a_name, value.split(", ")))
    if name in ("by", "said"):  # what a profile chooses rows by, in its words
        return CHOSEN_BY.fullmatch(value) is not None
    return value in {"kind": KINDS, "hint": set(HINTS), "readings": READINGS}.get(name, ())


def _is_like_a_name(cell: str) -> bool:
    name = normalise_header(cell)
    return any(
        known in name or name in known or difflib.SequenceMatcher(None, known, name, autojunk=False).ratio() > 0.5
        for known in ORDERS.header_names()
    )
