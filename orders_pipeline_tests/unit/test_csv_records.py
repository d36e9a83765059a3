"""Records of any file, whole or in blocks, by either reader: the same cells, numbers, lines and bytes."""

from __future__ import annotations

import csv
import io
import random
from functools import partial

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orders_pipeline.intake.csv_file import Dialect, Limits, records, staging
from orders_pipeline.intake.csv_file.physical_lines import TextSpan, read_blocks, split_lines
from orders_pipeline.intake.csv_file.quick_reader import read_even
from orders_pipeline.intake.csv_file.records import Chunk, EvenChunk, Records
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline_tests.support.csv_staging import HEADER, Harness


@pytest.fixture
def harness(tmp_path):
    return Harness(tmp_path)


def test_a_large_file_is_numbered_across_its_blocks(harness):
    rows = [f'A-{i:040d},"山田, {i}","{i}"' if i % 3 else f"A-{i:040d},山田,{i}" for i in range(60_000)]
    rows[20_000] = '"A-20000","two\r\nlines",1'
    rows[40_000] = "A-40000,short"
    rows[50_000] = ",,"
    limits = Limits(max_rows=1_000_000)
    found = harness.stage(HEADER + "\r\n".join(rows), limits)
    assert (found.rows_total, found.rows_blank) == (60_000, 1)
    assert harness.column("import_row_number") == [i + 1 for i in range(60_000) if i != 50_000]
    assert harness.column("line") == [i + 2 + (i > 20_000) for i in range(60_000) if i != 50_000]
    assert harness.records() == [row.encode() for row in rows if row != ",,"]
    assert [row["import_row_number"] for row in harness.rows() if not row["shape_ok"]] == [40_001]


def test_a_header_in_the_middle_of_a_large_file_is_found(harness):
    rows = "".join(f"A-{i:040d},山田,{i}\r\n" for i in range(60_000))
    refused = harness.refusal(HEADER + rows + HEADER + "A-x,b,1\r\n", Limits(max_rows=1_000_000))
    assert (refused.code, refused.detail) == ("F_HEADER_REPEATED", {"row": "60001", "line": "60002"})


def test_batches_are_collected_from_all_blocks_of_a_large_file(harness):
    rows = "".join(f"A-{i:040d},山田,{i},b-{i // 50_000}\r\n" for i in range(60_000))
    found = harness.stage(HEADER.strip() + ",_batch\r\n" + rows, Limits(max_rows=1_000_000))
    assert found.corrected_batches == ("b-0", "b-1")


def test_a_long_field_in_a_later_block_is_found(harness):
    rows = "".join(f"A-{i:040d},山田,{i}\r\n" for i in range(60_000))
    refused = harness.refusal(HEADER + rows + "A-x," + "b" * 70_000 + ",1\r\n" + rows, Limits(max_rows=1_000_000))
    assert (refused.code, refused.detail["row"]) == ("F_FIELD_TOO_LONG", "60001")


cells = st.text(st.sampled_from("ab1あ髙ｱ, '\t\"\r\n;"), max_size=5)
TERMINATORS = ("\n", "\r\n", "\r")
ENCODINGS = ("utf-8", "utf-8-sig", "cp932", "utf-16-le", "utf-16-be", "utf-16")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(row: list[str], quote_all: bool) -> str:
    """Write one record as a strict CSV writer would, without its terminator."""
    return ",".join('"' + cell.replace('"', '""') + '"' if quote_all or set(cell) & set(',"\r\n') else cell for cell in row)


@QUICK
@given(
    rows=st.lists(
        st.one_of(st.tuples(cells, cells, st.just("1")).map(list), st.sampled_from([[], ["", "", ""]])), max_size=12
    ),
    encoding=st.sampled_from(ENCODINGS),
    seed=st.randoms(use_true_random=False),
    is_ended=st.booleans(),
)
def test_numbers_lines_bytes_and_counts_are_right_for_any_rows(harness, rows, encoding, seed: random.Random, is_ended):
    inner = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(encoding, encoding)
    rows = [*rows, ["A-9", "髙橋", "1"]]  # tells the encodings apart
    pieces = [(HEADER.strip(), seed.choice(TERMINATORS))]
    pieces += [(written(row, seed.random() < 0.3), seed.choice(TERMINATORS)) for row in rows]
    # a blank line that begins with LF behind a lone CR would be one terminator with it
    pieces = [(text, "\r\n" if end == "\r" else end) for text, end in pieces]
    if seed.random() < 0.3:
        pieces = [(text, "\r") for text, _ in pieces]
    if not is_ended:
        pieces[-1] = (pieces[-1][0], "")
    bom = {"utf-8-sig": b"\xef\xbb\xbf", "utf-16": b"\xff\xfe"}.get(encoding, b"")
    found = harness.stage(bom + "".join(text + end for text, end in pieces).encode(inner))

    expected, line, offset = [], 1, len(bom)
    for number, (text, end) in enumerate(pieces):
        data = text.encode(inner)
        if number and any(rows[number - 1]):
            expected.append((number, line, offset, len(data), *rows[number - 1][:2]))
        line += sum(1 for _ in io.StringIO(text + end, newline="")) if text + end else 0
        offset += len(data) + len(end.encode(inner))
    names = ("import_row_number", "line", "offset", "length", "client_order_ref", "customer_name")
    staged = harness.rows()
    assert [tuple(row[name] for name in names) for row in staged] == expected
    assert all(row["shape_ok"] for row in staged)
    assert (found.encoding, found.rows_total) == ({"utf-16": "utf-16-le"}.get(encoding, encoding), len(rows))
    assert found.rows_total == len(staged) + found.rows_blank
    assert harness.records() == [pieces[row["import_row_number"]][0].encode(inner) for row in staged]


@QUICK
@given(rows=st.lists(st.lists(st.text('ab"あ\\ ', min_size=1, max_size=4), min_size=2, max_size=4), min_size=1, max_size=15))
@example(rows=[['"a', "b"], ["a", 'b""'], ['"', '"a"']])
def test_in_an_unquoted_file_a_quotation_mark_is_a_character_for_either_reader(harness, rows):
    data = "".join("\t".join(row) + "\r\n" for row in rows).encode()
    harness.source.write_bytes(data)
    span, dialect = TextSpan("utf-8", has_bom=False, start=0, end=len(data)), Dialect("\t", has_quotes=False)
    (chunk,) = Records(read_blocks(harness.source, span), 0, dialect).chunks()
    assert isinstance(chunk, Chunk)
    assert chunk.rows == rows
    for block in read_blocks(harness.source, span):
        even = read_even(block, dialect)
        if even is not None:
            read = [list(row) for row in zip(*(column.to_pylist() for column in even.columns), strict=True)]
            assert [even.odd.get(at, row) for at, row in enumerate(read)] == rows
            assert even.last_lines.tolist() == list(range(1, len(rows) + 1))


def strictly(text: str) -> list[list[str]] | None:
    try:
        return list(csv.reader(split_lines(text), strict=True))
    except csv.Error:
        return None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text="\r\ufeffa,\ra,", encoding="utf-8")
@given(
    text=st.text(st.sampled_from('ab,"\r\nあ\ufeff\u2028 '), max_size=25),
    encoding=st.sampled_from(["utf-8", "utf-16-le"]),
)
def test_the_faster_reader_reads_what_the_strict_reader_reads_or_nothing(harness, text, encoding):
    data = text.encode(encoding)
    harness.source.write_bytes(data)
    for block in read_blocks(harness.source, TextSpan(encoding, has_bom=False, start=0, end=len(data))):
        even = read_even(block, Dialect())
        if even is not None:
            rows = enumerate(zip(*(each.to_pylist() for each in even.columns), strict=True))
            assert [even.odd.get(place, list(row)) for place, row in rows] == strictly(text)
            assert all(each[place].as_py() is None for each in even.columns for place in even.odd)
            reader = csv.reader(split_lines(text), strict=True)
            assert even.last_lines.tolist() == [reader.line_num for _ in reader]


def test_the_faster_reader_takes_quotes_line_breaks_and_delimiters_inside(harness):
    data = b'A-1,"a ""b"", c",1\r\n"A-2","two\r\nlines",""\r\nA-3,,\r\n"""A""","",x'
    harness.source.write_bytes(data)
    [block] = read_blocks(harness.source, TextSpan("utf-8", has_bom=False, start=0, end=len(data)))
    even = read_even(block, Dialect())
    assert even is not None
    assert [each.to_pylist() for each in even.columns] == [
        ["A-1", "A-2", "A-3", '"A"'],
        ['a "b", c', "two\r\nlines", "", ""],
        ["1", "", "", "x"],
    ]
    assert even.last_lines.tolist() == [1, 3, 4, 5]


def test_the_faster_reader_sets_records_of_another_width_aside(harness):
    harness.source.write_bytes(b'A-1\r\nA-2,"a,b"\r\n\r\nA-3,x,"y\nz"\r\nA-4,\r\nA-5,c')
    [block] = read_blocks(harness.source, TextSpan("utf-8", has_bom=False, start=0, end=harness.source.stat().st_size))
    even = read_even(block, Dialect())
    assert even is not None
    assert even.odd == {0: ["A-1"], 2: [], 3: ["A-3", "x", "y\nz"]}
    assert [each.to_pylist() for each in even.columns] == [
        [None, "A-2", None, None, "A-4", "A-5"],
        [None, "a,b", None, None, "", "c"],
    ]
    assert even.last_lines.tolist() == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "is_left"),
    [
        ("A-1,x\r\n\ufeffA-2,x\r\n", True),  # a mark where files were put together
        ('A-1,"x\r\n\ufeffy"\r\n', True),  # a line, if not a record
        ("A-1,\ufeffx\r\nA-2,x\ufeff\r\n", False),
        ("Ａ-1,x\r\nﾂ-2,x\r\n\uf8ff,x\r\n", False),  # begin with the same byte
        ("A-1,x\r\nA-2,x\r\nA", False),
        ("A-1,x\r\nA-2,x\r\n\ufeff", True),
    ],
)
def test_lines_that_begin_with_a_byte_order_mark_are_left_to_the_strict_reader(harness, text, is_left):
    harness.source.write_bytes(text.encode())
    [block] = read_blocks(harness.source, TextSpan("utf-8", has_bom=False, start=0, end=harness.source.stat().st_size))
    assert (read_even(block, Dialect()) is None) == is_left


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_block_knows_where_its_own_lines_end_wherever_it_begins(harness, encoding):
    lines = ["A-1,あ\r\n", "\ufeffA-2,x\n", "A-3,x\r", "A-4,yy\r\n", "A-5"]
    harness.source.write_bytes("".join(lines).encode(encoding))
    span = TextSpan(encoding, has_bom=False, start=0, end=harness.source.stat().st_size)
    found = []
    for block in read_blocks(harness.source, span, 20):
        data, ends = block.in_utf8()
        found += [data[begin:end].decode() for begin, end in zip([0, *ends], ends, strict=False)]
    assert found == lines


def test_a_block_of_which_every_record_has_another_width_is_left_to_the_strict_reader(harness):
    harness.source.write_bytes(b"A\r\nB,1\r\nC,1,2\r\n")
    [block] = read_blocks(harness.source, TextSpan("utf-8", has_bom=False, start=0, end=harness.source.stat().st_size))
    assert read_even(block, Dialect()) is None


usual = st.tuples(st.sampled_from(["A-1", "a b", "client_order_ref"]), cells, st.sampled_from(["1", ""]), st.just("7"))
odd = st.one_of(
    st.just([]),
    st.lists(st.sampled_from(["7", "7", "x", ""]), min_size=1, max_size=6),
    st.permutations(["client_order_ref", "customer_name", "amount", "x", "x"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.one_of(*[usual.map(list)] * 6, odd), min_size=5, max_size=40),
    last_column=st.sampled_from(["_row", "_batch", "email"]),
    block_bytes=st.integers(60, 400),
)
def test_either_reader_stages_the_same_rows_whatever_widths_they_have(harness, rows, last_column, block_bytes):
    header = ["client_order_ref", "customer_name", "amount", last_column]
    text = "".join(written(row, quote_all=False) + "\r\n" for row in [header, ["A-0", "x", "1", "7"], *rows])

    def staged() -> object:
        try:
            return harness.stage(text), harness.rows()
        except FileRejected as refusal:
            return refusal.code

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(staging, "read_blocks", partial(read_blocks, block_bytes=block_bytes))
        faster = staged()
        patched.setattr(records, "read_even", lambda *_: None)
        assert faster == staged()


@QUICK
@given(
    rows=st.lists(st.tuples(cells, cells).map(list), min_size=1, max_size=15),
    terminator=st.sampled_from(TERMINATORS),
    encoding=st.sampled_from(["utf-8", "cp932", "utf-16-le"]),
    block_bytes=st.integers(1, 40).map(lambda number: number * 2),
)
def test_blocks_of_any_size_give_the_same_records_and_places(harness, rows, terminator, encoding, block_bytes):
    text = "".join(written(row, quote_all=False) + terminator for row in [["x", "y"], *rows])
    data = text.encode(encoding)
    harness.source.write_bytes(data)
    span = TextSpan(encoding, has_bom=False, start=0, end=len(data))

    def read(size: int, *, may_be_even: bool) -> list[tuple[object, ...]]:
        records = Records(read_blocks(harness.source, span, size), 0, Dialect())
        found: list[tuple[object, ...]] = []
        for chunk in records.chunks():
            if may_be_even:
                records.begin_after(1)
            by_row = chunk.row_by_row() if isinstance(chunk, EvenChunk) else chunk
            assert isinstance(by_row, Chunk)
            places = by_row.places
            found += zip(places.lines.tolist(), places.offsets.tolist(), places.lengths.tolist(), by_row.rows, strict=True)
        return found

    whole = read(1 << 20, may_be_even=False)
    assert read(block_bytes, may_be_even=True) == whole
    assert [row for *_, row in whole] == strictly(text)
