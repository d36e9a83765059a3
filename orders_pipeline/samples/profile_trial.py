"""A client's file tried with a profile, or without one: what is read of it, and a profile that may fit, to begin with.

What a column may be called is guessed here and nowhere else; what is guessed is marked as that. Nothing is kept.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from orders_pipeline.batches.artifacts import CONVERTED, STAGED
from orders_pipeline.clients.file_names import encoding_shown, is_converted, is_json, is_workbook
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.scratch import Scratch, scratch_files
from orders_pipeline.intake import json_file
from orders_pipeline.intake.csv_file import Dialect, Limits, Names
from orders_pipeline.intake.csv_file.chosen_rows import choice_places
from orders_pipeline.intake.csv_file.encoding import detect_text
from orders_pipeline.intake.csv_file.physical_lines import TextSpan, read_blocks, split_lines
from orders_pipeline.intake.csv_file.staged_rows import CONTROL
from orders_pipeline.intake.file_staging import stage_file, unpacked
from orders_pipeline.records.normalise import normalise_header
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import SETTINGS, FileRejected, message
from orders_pipeline.samples.header_guesses import GUESSES
from orders_pipeline.samples.profile_guesses import (
    Sample,
    first_rows,
    guess_amount,
    guess_settings,
    is_unquoted,
    named_place,
)
from orders_pipeline.samples.trial_outcome import of_words, outcome_of
from orders_pipeline.samples.trial_table import DEFAULTS, Trial, table_of
from orders_pipeline.samples.unmet_words import unmet_words

HEAD_LINES = 20
SHOWN_ROWS = 5
SAMPLE_ROWS = 2_000  # looked at to guess what their cells are
DELIMITERS = (",", "\t", ";", "|")
FAMILY_NAME, GIVEN_NAME = re.compile(r"姓|last[ _-]?name|氏(?!名)"), re.compile(r"(?<![姓氏])名(?!前)|first[ _-]?name")
YEN_BESIDE = re.compile(
    r"(?!.*tax).*(送料|手数料|包装料|ラッピング料|値引|割引|クーポン|ポイント利用"
    r"|shipping[- ]price|postage|fee\b|discount|gift-wrap-price)"
)
READING = re.compile(r"カナ|フリガナ|かな|kana")
DATE_FORMATS = (
    (re.compile(r"[0-9]{14}"), {"format": "%Y%m%d%H%M%S"}),
    (re.compile(r"[0-9]{12}"), {"format": "%Y%m%d%H%M"}),
    (re.compile(r"[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2} .+"), {"until": " "}),
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T.+"), {"until": "T"}),
)


def try_profile(
    path: Path, limits: Limits, profile: Profile, client_code: str | None = None, *, in_file: bool = False
) -> dict[str, Any]:
    """Return what a file is read as with a profile, what it lacks and comes to, its first rows, and a TOML table.

    The table is one to begin with, or what is to be added to that of the client, where it is `in_file`. Nothing is guessed
    that the profile names, right or wrong: the file comes to what it would come to as a batch.
    """
    trial = Trial()
    with scratch_files() as folder:
        source, name = unpacked(limits, path, path.name, folder)
        text = _text(source, name, limits, folder)
        _look(text, name, profile, trial)
        fitting = _fitting(profile, trial)
        try:
            staged = stage_file(limits, fitting, source, name, folder)
            trial.encoding = staged.encoding
            trial.mapped = {column: [staged.header[at] for at in places] for column, places in staged.columns.items()}
            trial.rows = _first_rows(folder, fitting)
            trial.outcome = outcome_of(folder, fitting, staged)
            trial.refusal = trial.outcome.refusal
            span = detect_text(text, encoding=None if is_converted(name) else fitting.encoding, with_controls=True)
            dialect = Dialect(trial.delimiter, is_converted(name) or fitting.quoting == "double")
            trial.unmet = unmet_words(text, span, dialect, staged.header, trial.header_line, fitting)
        except FileRejected as refusal:
            if refusal.code == "F_CONTROL_CHARS":  # then it may be no text at all, and there is nothing to show
                raise
            trial.refusal = refusal
    said = profile.model_fields_set if in_file else None
    return _answer(path.name, trial, fitting, partial(table_of, path.name, trial, client_code=client_code, said=said))


def _text(path: Path, name: str, limits: Limits, folder: Scratch) -> Path:
    """Return where a file's text is: its own, or what a workbook or JSON is converted to."""
    if is_workbook(name):
        from orders_pipeline.intake import excel_file  # noqa: PLC0415 - its library is slow to import

        excel_file.write_csv(path, folder / CONVERTED, max_bytes=limits.max_bytes, max_rows=limits.max_rows)
    elif is_json(name):
        json_file.write_csv(path, folder / CONVERTED, name, max_rows=limits.max_rows, max_columns=limits.max_columns)
    return folder / CONVERTED if is_converted(name) else path


def _look(text: Path, name: str, profile: Profile, trial: Trial) -> None:
    """Find the encoding, the delimiter, the header and which of its cells may be which column."""
    said = profile.model_fields_set
    span = _span(text, None if is_converted(name) else profile.encoding, trial)
    head = _head(text, span)
    if not head:
        raise FileRejected("F_EMPTY")
    delimiters = (",",) if is_converted(name) else (profile.delimiter, *(() if "delimiter" in said else DELIMITERS))
    number, trial.delimiter = _header_in(head, delimiters, profile)
    trial.header_line = number + 1
    if not is_converted(name) and "quoting" not in said and is_unquoted(head[number:], trial.delimiter):
        trial.settings["quoting"] = "none"
    dialect = Dialect(trial.delimiter, "quoting" not in trial.settings and profile.quoting == "double")
    trial.header, *rows = _records(head[number:], dialect)
    found = _guessed(trial.header, profile)
    trial.encoding = span.encoding
    trial.mapped = {column: [trial.header[at]] for at, column in sorted(found.items())}
    if trial.delimiter != profile.delimiter and not is_converted(name):
        trial.settings["delimiter"] = trial.delimiter
    _look_around(head, number, rows, profile, trial)
    even = [row for row in rows if len(row) == len(trial.header) and not any(map(CONTROL.search, row))]
    sample = Sample(trial.header, even, {column: at for at, column in found.items()})
    settings = guess_settings(sample, profile)
    trial.settings |= settings
    trial.guessed |= settings.keys()
    for column in settings.get("ignore", ()):
        trial.mapped.pop(column, None)
    if "customer_name" not in trial.mapped and "customer_name" not in profile.columns:
        _join_names(trial)
    for at, column in sorted(found.items()):
        if column in trial.mapped:
            _place(trial, profile, column, at, sample)


def _header_in(head: Sequence[str], delimiters: Sequence[str], profile: Profile) -> tuple[int, str]:
    """Return the line where the most columns are named, and the delimiter between them."""
    best = (-1, 0, "")
    for delimiter in dict.fromkeys(delimiters):
        for number in range(min(HEAD_LINES, len(head))):
            cells = Dialect(delimiter).cells_of(head[number : number + HEAD_LINES])
            score = len(set(_guessed(cells, profile).values()))
            if score > best[0]:
                best = score, number, delimiter
    return best[1:]


def _look_around(head: Sequence[str], number: int, rows: list[list[str]], profile: Profile, trial: Trial) -> None:
    """Note what stands around the table: comments, titles above the header, a second row of it, which `rows` lose."""
    above = [line.strip() for line in head[:number] if line.strip() and not line.lower().startswith(("sep=", '"sep='))]
    last = next((line.strip() for line in reversed(head) if line.strip()), "") if len(head) < SAMPLE_ROWS else ""
    is_row = len(Dialect(trial.delimiter).cells_of([last])) == len(trial.header)
    said = profile.model_fields_set
    if "comment" not in said and "#" in {each[:1] for each in (*above, "" if is_row else last)}:
        trial.settings["comment"] = "#"
        above = [line for line in above if not line.startswith("#")]
    if above and "header_line" not in said:
        trial.settings["header_line"] = trial.header_line
    is_as_wide = bool(rows) and len(rows[0]) == len(trial.header)
    if is_as_wide and "header_rows" not in said and len(_guessed(rows[0], profile)) > 1:
        trial.settings["header_rows"] = 2
        del rows[0]
    trial.guessed.update(trial.settings)


def _span(text: Path, said: str | None, trial: Trial) -> TextSpan:
    """Return a text's span, also where a few rows may have control characters: whether they are that, staging decides."""
    try:
        return _span_of(text, said, trial, with_controls=False)
    except FileRejected as refusal:
        if refusal.code != "F_CONTROL_CHARS":
            raise
        try:
            return _span_of(text, said, trial, with_controls=True)
        except FileRejected:
            raise refusal from None


def _span_of(text: Path, said: str | None, trial: Trial, *, with_controls: bool) -> TextSpan:
    """Return a text's span in the encoding that is said; where it can be read in two ways, Japanese is guessed."""
    try:
        return detect_text(text, encoding=said, with_controls=with_controls)
    except FileRejected as refusal:
        if said is not None or refusal.code not in ("F_ENCODING_AMBIGUOUS", "F_ENCODING"):
            raise
        for encoding in ("cp932", "utf-8", "euc_jp", "cp1252"):
            try:
                span = detect_text(text, encoding=encoding, with_controls=with_controls)
            except FileRejected:
                continue
            trial.settings["encoding"] = encoding
            trial.readings = refusal.detail.get("readings", "")
            return span
        raise


def _head(text: Path, span: TextSpan) -> list[str]:
    """Return the first lines of a text."""
    lines = (line for block in read_blocks(text, span) for line in split_lines(block.text))
    return list(islice(lines, SAMPLE_ROWS))


def _guessed(cells: Sequence[str], profile: Profile) -> dict[int, str]:
    """Return which column each cell of a header is, by the profile or else by a guess, each column once."""
    known = Names({normalise_header(name): column for name, column in profile.header_names().items()}, ())
    first = {column: at for at, column in reversed([*enumerate(known.columns(cells))]) if column is not None}
    found = {at: column for column, at in first.items()}
    words = [normalise_header(cell) for cell in cells]
    for column, names in GUESSES.items():
        if column in found.values() or column in profile.ignore or column in profile.columns:
            continue
        is_free = [at not in found for at in range(len(words))]
        exact = (at for name in names for at, word in enumerate(words) if is_free[at] and word == name)
        at = next(exact, None)
        if at is not None:
            found[at] = column
    return found


def _join_names(trial: Trial) -> None:
    """Note the two columns that are a family name and a given name, if there are such."""
    cells = [cell for cell in trial.header if not READING.search(normalise_header(cell))]
    parts = [
        next((cell for cell in cells if kind.search(normalise_header(cell))), None) for kind in (FAMILY_NAME, GIVEN_NAME)
    ]
    if None not in parts and parts[0] != parts[1]:
        trial.columns["customer_name"] = {"join": parts}
        trial.mapped["customer_name"] = [part for part in parts if part is not None]
        trial.guessed.add("customer_name")


def _records(lines: Sequence[str], dialect: Dialect) -> list[list[str]]:
    """Return the records in some lines, as far as they are any."""
    records: list[list[str]] = []
    with suppress(csv.Error):
        records.extend(dialect.reader(io.StringIO("".join(lines), newline="")))  # those before what is no CSV
    return records or [[]]


def _place(trial: Trial, profile: Profile, column: str, at: int, sample: Sample) -> None:
    """Note where a column is, and how its cells have to be read, unless the profile says so already."""
    header = trial.header[at]
    is_grouped = "grouped" in (profile.lines, trial.settings.get("lines"))
    rows = first_rows(sample) if is_grouped else sample.rows
    cells = [row[at].strip() for row in rows]
    filled = [cell for cell in cells if cell]
    if column == "payment_method":
        trial.outcome = of_words(pa.array(filled, pa.string()), profile, trial.mapped)
    if column in profile.columns:
        return
    known = {normalise_header(name) for name, of in profile.header_names().items() if of == column}
    named = named_place(trial.header, at)
    place: dict[str, Any] = {} if "occurrence" not in named and normalise_header(header) in known else named
    if column == "order_date":
        place |= next((how for pattern, how in DATE_FORMATS if filled and all(map(pattern.fullmatch, filled))), {})
    if column == "client_order_ref" and filled and all(cell.startswith("#") for cell in filled):
        place |= {"after": "#"}
    if column == "customer_code" and filled and _has_guests(cells, sample.cells("customer_name", rows)):
        place |= {"default": DEFAULTS[column]}
    if column == "amount" and is_grouped:
        place |= guess_amount(sample)
    if place:
        trial.columns[column] = {"header": header} | place
        trial.guessed.add(column)


def _has_guests(codes: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether customers have no code; a row that does not name one either may be a total."""
    return any(not code and (not names or names[at]) for at, code in enumerate(codes))


def _fitting(profile: Profile, trial: Trial) -> Profile:
    """Return the profile with what was guessed, as far as that makes sense together."""
    given = profile.model_dump(exclude_unset=True, by_alias=True)
    columns = given.get("columns", {}) | trial.columns
    try:
        return Profile.model_validate(given | trial.settings | ({"columns": columns} if columns else {}))
    except ValidationError:
        return profile


def _first_rows(folder: Scratch, profile: Profile) -> list[dict[str, str]]:
    """Return the first rows as they would be read: the client's cells in the catalogue's words."""
    with pq.ParquetFile(folder / STAGED) as file:
        table = next(file.iter_batches(SHOWN_ROWS), None)
    if table is None:
        return []
    rows: list[dict[str, str]] = [{} for _ in range(table.num_rows)]
    for column in ORDERS.column_names:
        cells: pa.Array = table.column(column)
        source = profile.columns.get(column)
        if source is not None:
            cells = source.translate(cells)
        for row, cell in zip(rows, cells.to_pylist(), strict=True):
            if cell:
                row[column] = cell
    return rows


def _answer(name: str, trial: Trial, fitting: Profile, table: Callable[[Sequence[str]], str]) -> dict[str, Any]:
    required = set(fitting.required_columns())
    missing = [column for column in fitting.required_columns() if column not in trial.mapped]
    placed = {normalise_header(header) for headers in trial.mapped.values() for header in headers}
    chosen_by = [choice.header for choice in (*fitting.skip, *fitting.reject)]
    placed |= {normalise_header(header) for header in (*chosen_by, *fitting.parts_of_amount)}
    not_used = [cell for cell in trial.header if cell.strip() and normalise_header(cell) not in placed]
    amount = fitting.columns.get(ORDERS.amount)
    if amount is not None and amount.is_summed:
        trial.left_out = [cell for cell in not_used if YEN_BESIDE.match(normalise_header(cell))]
    refusal = trial.refusal
    answer: dict[str, Any] = {
        "file": name,
        "encoding": None if trial.encoding is None else encoding_shown(name, trial.encoding),
        "delimiter": trial.delimiter,
        "header_line": trial.header_line,
        "columns": [
            {"column": column, "headers": list(trial.mapped.get(column, ())), "required": column in required}
            for column in ORDERS.column_names
            if column in trial.mapped or column in required
        ],
        "missing": missing,
        "not_used": not_used,
        "rows_chosen_by": [*dict.fromkeys(chosen_by)],
        "unmet": trial.unmet,
        "guessed": sorted(trial.guessed),
        "rows": trial.rows,
        "outcome": dict(trial.outcome.counts),
        "skipped": trial.outcome.skipped,
        "profile": table(missing),
    }
    if refusal is not None:
        sentence = message(refusal.code, "en", refusal.detail)
        settings = _naming(refusal, trial.header, fitting) or SETTINGS.get(refusal.code, "")
        answer["error"] = {"code": refusal.code, "message": sentence, "detail": dict(refusal.detail), "settings": settings}
    return answer


def _naming(refusal: FileRejected, header: Sequence[str], profile: Profile) -> str:
    """Return which of `skip` and `reject` names what a file is refused for the lack of, nothing where neither does."""
    for setting in ("skip", "reject"):
        try:
            choice_places(header, getattr(profile, setting))
        except FileRejected as why:
            if (why.code, why.detail) == (refusal.code, refusal.detail) and why.code == "F_HEADER_MISSING":
                return f"`{setting}` names {why.detail['columns']}; `optional` is for what only some files have"
    return ""
