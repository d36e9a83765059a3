"""Sample files: repeatable, realistic, good where they say good and bad in the way they say bad."""

import csv
import re
import tracemalloc
from collections import Counter
from datetime import timedelta

import pytest

from orders_pipeline.batches import batches
from orders_pipeline.intake.validation import nothing_sealed, validate
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import CODES
from orders_pipeline.samples.damage import EXCEL, SPOILERS
from orders_pipeline.samples.synthetic import CODES as MADE
from orders_pipeline.samples.synthetic import RatesError, write_sample, write_template
from orders_pipeline_tests.support.factories import TODAY, judge_rows, row_context, write_staged


def read(path, encoding="utf-8"):
    with path.open(encoding=encoding, newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def validated(path, folder, encoding="utf-8", earlier=()):
    header, rows = read(path, encoding)
    columns = [ORDERS.header_names()[name] for name in header]
    cells = [dict(zip(columns, row, strict=True)) if len(row) == len(header) else None for row in rows]
    return validate(
        write_staged(folder / "staged.parquet", cells),
        folder / "accepted.parquet",
        folder / "rejections.parquet",
        record_type=ORDERS,
        context=row_context(encoding=encoding),
        seal=nothing_sealed,
        existing=lambda names: {name: "20260601-000000000001" for name in names if name in earlier},
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932", "utf-16", "euc_jp"])
def test_a_sample_is_good_and_bad_exactly_as_it_says(tmp_path, encoding):
    sample = write_sample(tmp_path / "s.csv", rows=400, bad=0.2, encoding=encoding, today=TODAY, japanese_headers=True)
    found = validated(tmp_path / "s.csv", tmp_path, encoding)
    assert found.rejections == sample.bad
    assert found.rows_rejected == sample.bad.total() == 80
    assert found.rows_accepted == sample.rows - sample.bad.total()
    assert found.amount_accepted == sample.amount


def test_bad_rows_are_spread_over_all_codes_a_file_alone_can_get(tmp_path):
    sample = write_sample(tmp_path / "s.csv", rows=200, bad=0.2, today=TODAY)
    assert sample.bad.keys() == {code for code in CODES if code.startswith("R_")} - {"R_REF_EXISTS"} - NEVER_MADE


# codes that only rows get which are no sample's: the template's, corrections, totals, lines, and orders that came before
NEVER_MADE = {
    "R_TOTAL_ROW",
    "R_CODE_CHANGED",
    "R_EXAMPLE_ROW",
    "R_REF_EXISTS_DIFFERS",
    "R_QUOTE",
    "R_REF_SPENT",
    "R_REF_CHANGED",
    "R_CORRECTED_ROW",
    "R_CORRECTED_BEFORE",
    "R_ENCODING_DAMAGE",
    "R_ORDER_INCOMPLETE",
    "R_TOO_MANY_LINES",
    "R_TO_DECIDE",
}


def test_every_row_code_of_the_catalogue_can_be_made():
    assert set(MADE) == {code for code in CODES if code.startswith("R_")} - NEVER_MADE


@pytest.mark.parametrize("code", MADE)
def test_a_code_is_made_at_the_rate_asked_for_and_no_other_is(tmp_path, code):
    write_sample(tmp_path / "before.csv", rows=200, seed=3, bad=0, today=TODAY)
    earlier = {row[0].lower() for row in read(tmp_path / "before.csv")[1]}
    sample = write_sample(tmp_path / "s.csv", rows=200, seed=4, bad=0, reject={code: 0.1}, today=TODAY)
    found = validated(tmp_path / "s.csv", tmp_path, earlier=earlier)
    assert found.rejections == sample.bad == {code: 20}
    assert (found.rows_accepted, found.amount_accepted) == (180, sample.amount)


@pytest.mark.parametrize("seed", range(4))
def test_all_rates_at_once_with_excel_leave_rows_with_one_code_each(tmp_path, seed):
    rates = {code: 0.02 for code in MADE if code != "R_REF_EXISTS"} | {"R_EMAIL": 0.1}
    sample = write_sample(
        tmp_path / "s.csv", rows=500, seed=seed, bad=0.1, reject=rates, excel=0.12, encoding="cp932", today=TODAY
    )
    found = validated(tmp_path / "s.csv", tmp_path, "cp932")
    assert sample.excel == dict.fromkeys(EXCEL, 10)
    assert sample.bad["R_EMAIL"] == 50 + 2
    assert found.rejections == sample.bad
    assert found.rows_rejected == sample.bad.total()
    assert found.amount_accepted == sample.amount


@pytest.mark.parametrize("trick", EXCEL)
def test_what_excel_spoilt_is_accepted_or_rejected_as_its_name_says(tmp_path, trick):
    sample = write_sample(tmp_path / "s.csv", rows=60, bad=0, excel=0.6, today=TODAY)
    header, plain = read(tmp_path / "s.csv")
    rows = [dict(zip(header, row, strict=True)) for row in plain]
    spoilt = [row for row in rows if SPOILT[trick](row)]
    assert 2 <= len(spoilt) <= sample.excel[trick] == 6  # an amount below 1,000 has no separator
    code = EXCEL[trick][0]
    assert judge_rows(spoilt).codes == [[code] if code else []] * len(spoilt)


SPOILT = {
    "date_with_slashes": lambda row: "/" in row["order_date"],
    "date_as_serial": lambda row: row["order_date"].isdigit(),
    "leading_zero_lost": lambda row: row["phone"].startswith("9"),
    "full_width_digits": lambda row: not row["amount"].isascii(),
    "thousands_separator": lambda row: "," in row["amount"],
    "scientific_notation": lambda row: "E+" in row["amount"],
}


@pytest.mark.parametrize(
    "rates", [{"R_REF_DUP_IN_FILE": 1.0}, {"R_REF_CONFLICT": 1.0}, dict.fromkeys(SPOILERS, 1 / len(SPOILERS))]
)
@pytest.mark.parametrize("rows", [1, 2, 3, 13, 50])
def test_files_of_bad_rows_alone_hold_what_they_say(tmp_path, rates, rows):
    sample = write_sample(tmp_path / "s.csv", rows=rows, bad=0, reject=rates, today=TODAY)
    found = validated(tmp_path / "s.csv", tmp_path)
    assert found.rejections == sample.bad
    assert found.rows_rejected == sample.bad.total() >= rows - len(rates)
    assert found.rows_accepted == rows - sample.bad.total()


@pytest.mark.parametrize(("bad", "reject"), [(0.6, {"R_EMAIL": 0.5}), (0, {"R_EMAIL": -0.1}), (0, {"R_EMAYL": 0.1})])
def test_rates_that_no_file_can_have_are_refused(tmp_path, bad, reject):
    with pytest.raises(RatesError):
        write_sample(tmp_path / "s.csv", rows=10, bad=bad, reject=reject)


def test_a_large_sample_is_made_in_the_memory_of_a_small_one(tmp_path):
    peaks = []
    for rows in (4_000, 20_000):
        tracemalloc.start()
        write_sample(tmp_path / "s.csv", rows=rows, bad=0.1, excel=0.1, today=TODAY)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 5_000_000  # the customers that are remembered


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_references(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_sample(tmp_path / name, rows=50, seed=seed, bad=0.1, reject={"R_EMAIL": 0.1}, excel=0.1, today=TODAY)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    references = [{row[0] for row in read(tmp_path / name)[1]} for name in "ac"]
    assert references[0].isdisjoint(references[1])


def test_no_bad_rows_are_written_when_none_are_asked_for(tmp_path):
    sample = write_sample(tmp_path / "s.csv", rows=120, bad=0, today=TODAY)
    assert sample.bad == Counter()
    assert validated(tmp_path / "s.csv", tmp_path).rows_accepted == 120


@pytest.mark.parametrize(("rows", "bad"), [(1, 0), (1, 1), (2, 1), (7, 1), (0, 0.5)])
def test_small_files_have_the_rows_they_say(tmp_path, rows, bad):
    sample = write_sample(tmp_path / "s.csv", rows=rows, bad=bad, today=TODAY)
    assert len(read(tmp_path / "s.csv")[1]) == sample.rows == rows
    assert sample.bad.total() == round(rows * bad)


def test_s20_a_sample_writes_to_nobody_who_may_exist(tmp_path):
    write_sample(tmp_path / "s.csv", rows=3_000, bad=0.1, today=TODAY)
    header, cells = read(tmp_path / "s.csv")
    addresses = {row[header.index("email")] for row in cells}
    domains = {address.rpartition("@")[2] for address in addresses if address.count("@") == 1}
    assert len(domains) >= 3
    assert {domain for domain in domains if not re.fullmatch(r"example[.](com|net|org|jp|co[.]jp)|", domain)} == set()


def test_a_sample_looks_like_a_clients_file(tmp_path):
    write_sample(tmp_path / "s.csv", rows=3_000, bad=0, today=TODAY)
    header, cells = read(tmp_path / "s.csv")
    rows = [dict(zip(header, row, strict=True)) for row in cells]
    channels = Counter(row["notify_channel"] for row in rows)
    amounts = [int(row["amount"]) for row in rows]
    assert tuple(header) == ORDERS.column_names
    assert 300 < len({row["customer_code"] for row in rows}) <= 500
    assert {channel: round(count / 3_000, 1) for channel, count in channels.items()} == {
        "email": 0.7,
        "sms": 0.2,
        "none": 0.1,
    }
    assert set(ORDERS.column_names) - {name for row in rows for name, cell in row.items() if cell} == set()
    assert all(row["email"].rpartition("@")[2].startswith("example.") for row in rows)
    assert all(500 <= amount <= 1_000_000 for amount in amounts)
    assert 0 < sum(amount > 200_000 for amount in amounts) < 60
    assert min(row["order_date"] for row in rows) >= (TODAY - timedelta(days=300)).isoformat()


def test_the_template_is_an_example_under_its_header_which_comes_back(tmp_path):
    write_template(tmp_path / "t.csv")
    header, rows = read(tmp_path / "t.csv", "utf-8-sig")
    assert (tmp_path / "t.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert tuple(header) == ORDERS.column_names
    example = [dict(zip(header, row, strict=True)) for row in rows]
    assert judge_rows(example, row_context(today=batches.today())).codes == [["R_EXAMPLE_ROW"]]
