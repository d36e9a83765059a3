"""Staged files become accepted rows and rejections; numbers are those of the list of inputs."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.config import config_context

from orders_pipeline.intake import validation
from orders_pipeline.intake.validation import Validated, accepted_schema, nothing_sealed, validate
from orders_pipeline.records import rules
from orders_pipeline.records.judgement import Findings, Judge, RulesBroken, schemas_of
from orders_pipeline.records.orders import EXAMPLE, ORDERS
from orders_pipeline.records.rejections import CODES, REJECTIONS_SCHEMA
from orders_pipeline_tests.support.factories import judge_rows, order_row, order_rows, raw_cells, row_context, write_staged

ITEM = {"item_code": "A", "quantity": "2", "unit_price": "500", "amount": "1000"}

# One way to get each code that a row can get by itself.
BROKEN_BY = {
    "R_TOO_LONG": {"note": "長" * 501},
    "R_REQUIRED": {"customer_name": ""},
    "R_CHARS": {"note": "見本\u202e"},
    "R_REF_FORMAT": {"client_order_ref": "注文1"},
    "R_CUSTOMER_CODE": {"customer_code": "得意先1"},
    "R_DATE_FORMAT": {"order_date": "2026-02-30"},
    "R_DATE_AMBIGUOUS": {"order_date": "04/01/2026"},
    "R_DATE_RANGE": {"order_date": "2020-01-01"},
    "R_EMAIL": {"email": "nobody"},
    "R_PHONE": {"phone": "110", "notify_channel": "sms"},
    "R_ITEM_CODE": ITEM | {"item_code": ""},
    "R_QUANTITY": ITEM | {"quantity": "0"},
    "R_UNIT_PRICE": ITEM | {"unit_price": "x"},
    "R_AMOUNT_FORMAT": {"amount": "abc"},
    "R_AMOUNT_RANGE": {"amount": "0"},
    "R_AMOUNT_OVER_LIMIT": {"amount": "1000001"},
    "R_AMOUNT_MISMATCH": ITEM | {"amount": "999"},
    "R_CURRENCY": {"currency": "USD"},
    "R_PAYMENT_METHOD": {"payment_method": "cash"},
    "R_PAYMENT_TOKEN": {"payment_token": "short"},
    "R_NOTIFY_CHANNEL": {"notify_channel": "fax"},
    "R_FORBIDDEN_DATA": {"note": "4111111111111111"},
    "R_EXAMPLE_ROW": EXAMPLE,
    "R_CELL_ERROR": {"customer_name": "#N/A"},
    "R_CELL_FORMULA": {"customer_name": "#FORMULA!"},
    "R_CELL_FORMAT": {"amount": "#FORMAT! 1,000 (-1000)"},
}
BY_OTHER_ROWS = {"R_COLUMNS", "R_REF_DUP_IN_FILE", "R_REF_CONFLICT", "R_REF_EXISTS", "R_REF_EXISTS_DIFFERS", "R_REF_SPENT"}
BY_OTHER_ROWS |= {"R_TOTAL_ROW", "R_CODE_CHANGED", "R_QUOTE", "R_ORDER_INCOMPLETE", "R_TOO_MANY_LINES", "R_TO_DECIDE"}
BY_CORRECTED_ROWS = {"R_REF_CHANGED", "R_CORRECTED_ROW", "R_CORRECTED_BEFORE", "R_ENCODING_DAMAGE"}


@dataclass
class Outcome:
    """What validating a file left behind."""

    summary: Validated
    accepted: pa.Table
    rejections: list[dict]
    folder: Path
    sealed: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def accepted_rows(self):
        return self.accepted.column("import_row_number").to_pylist()

    @property
    def codes(self):
        return {(one["import_row_number"], one["code"]) for one in self.rejections}


@pytest.fixture
def run(tmp_path):
    def run(rows, *, numbers=None, known=None, chunk_rows=1000, context=None, **others) -> Outcome:
        frames = []

        def seal(rows):
            frames.append(rows.to_pandas().set_index("import_row_number"))
            return pa.array([f"sealed {number}".encode() for number in rows.column("import_row_number").to_pylist()])

        paths = {name: tmp_path / f"{name}.parquet" for name in ("staged", "accepted", "rejections")}
        summary = validate(
            write_staged(paths["staged"], rows, numbers=numbers),
            paths["accepted"],
            paths["rejections"],
            record_type=ORDERS,
            context=context or row_context(),
            seal=seal,
            existing=lambda references: {name: known[name] for name in references if name in (known or {})},
            chunk_rows=chunk_rows,
            **others,
        )
        rejections = pq.read_table(paths["rejections"])
        assert rejections.schema.equals(REJECTIONS_SCHEMA)
        sealed = pd.concat(frames) if frames else pd.DataFrame()
        return Outcome(summary, pq.read_table(paths["accepted"]), rejections.to_pylist(), tmp_path, sealed)

    return run


# What is accepted


def test_rows_that_are_the_same_as_orders_received_before_can_be_skipped(run):
    rows = order_rows(5)
    rows[3] |= {"email": "nobody"}
    known = dict.fromkeys(["ord-0001", "ord-0002", "ord-0004"], "20260630-000000000000")

    def differing(rows, references):
        return [["amount"] if reference == "ord-0002" else [] for reference in references]

    plain = run(rows, known=known, differing=differing)
    assert plain.codes >= {(1, "R_REF_EXISTS"), (2, "R_REF_EXISTS_DIFFERS"), (4, "R_REF_EXISTS"), (4, "R_EMAIL")}
    outcome = run(rows, known=known, differing=differing, settled=lambda _: known, chunk_rows=2)
    assert outcome.accepted_rows == [3, 5]
    assert outcome.codes == {(2, "R_REF_EXISTS_DIFFERS"), (4, "R_REF_EXISTS"), (4, "R_EMAIL")}
    found = outcome.summary
    assert (found.rows_accepted, found.rows_rejected, found.rows_same, found.amount_sent) == (2, 2, 1, 5000)
    assert found.rejections["R_REF_EXISTS"] == 1


@pytest.mark.parametrize("settled", [{}, {"ord-0001": "20260630-000000000009"}])
def test_a_row_is_not_skipped_for_an_order_that_may_go_or_has_gone_meanwhile(run, settled):
    known = {"ord-0001": "20260630-000000000000"}
    outcome = run(order_rows(2), known=known, settled=lambda _: settled)
    assert (outcome.accepted_rows, outcome.codes) == ([2], {(1, "R_REF_EXISTS")})


def test_phone_numbers_that_are_kept_as_they_were_sent_are_counted(run):
    rows = order_rows(6, phone="090-1234-5678")
    rows[1] |= {"phone": "1234"}
    rows[2] |= {"phone": "1234", "notify_channel": "sms"}
    rows[3] |= {"phone": "+1 212 555 0100"}
    rows[4] |= {"phone": ""}
    rows[5] |= {"phone": "なし", "amount": "x"}
    outcome = run(rows, chunk_rows=2)
    assert (outcome.accepted_rows, outcome.codes) == ([1, 2, 4, 5], {(3, "R_PHONE"), (6, "R_AMOUNT_FORMAT")})
    assert outcome.summary.warnings == {"W_PHONE": 2}
    assert outcome.sealed.loc[[2, 4], "phone"].tolist() == ["1234", "+1 212 555 0100"]


def test_accepted_rows_are_typed_and_hold_no_personal_column(run):
    outcome = run(
        [order_row(**ITEM, order_date="2026-06-15", note="内緒", phone="090-1234-5678", payment_token="tok_secret1")]
    )
    assert outcome.accepted.schema.equals(accepted_schema(ORDERS))
    assert outcome.accepted.to_pylist() == [
        {
            "import_row_number": 1,
            "client_order_ref": "ORD-0001",
            "order_date": date(2026, 6, 15),
            "customer_code": "C-001",
            "item_code": "A",
            "quantity": 2,
            "unit_price": 500,
            "amount": 1000,
            "payment_method": "invoice",
            "notify_channel": "email",
            "is_nobodys": False,
            "personal": b"sealed 1",
        }
    ]


def test_columns_left_empty_are_null(run):
    row = run([order_row()]).accepted.to_pylist()[0]
    assert [row[name] for name in ("order_date", "item_code", "quantity", "unit_price")] == [None] * 4


def test_types_are_those_the_database_expects():
    types = {one.name: str(one.type) for one in accepted_schema(ORDERS)}
    assert types["import_row_number"] == types["quantity"] == "int32"
    assert types["amount"] == types["unit_price"] == "int64"
    assert types["order_date"] == "date32[day]"
    assert types["personal"] == "binary"


def test_each_row_keeps_what_was_sealed_for_it_where_rows_are_sealed_in_parts(run, monkeypatch):
    monkeypatch.setattr(validation, "_SEALED_ROWS", 2)
    outcome = run([order_row(client_order_ref=f"A-{at}", note=f"note {at}") for at in range(1, 6)])
    assert outcome.accepted.column("personal").to_pylist() == [f"sealed {at}".encode() for at in range(1, 6)]
    assert outcome.sealed["note"].to_dict() == {at: f"note {at}" for at in range(1, 6)}


def test_personal_columns_are_handed_to_the_seal_normalised_and_by_row_number(run):
    outcome = run([order_row(phone="０９０-1234-5678", customer_name="カ\u3099ラス店")], numbers=[7])
    assert list(outcome.sealed.columns) == list(ORDERS.personal_columns)
    assert outcome.sealed.loc[7, ["phone", "customer_name", "note"]].tolist() == ["09012345678", "ガラス店", ""]


def test_no_personal_value_is_in_either_file(run):
    rows = [order_row(customer_name="秘密商店"), order_row(client_order_ref="B", email="秘密", note="秘密\u202e")]
    outcome = run(rows)
    assert outcome.codes == {(2, "R_EMAIL"), (2, "R_CHARS")}
    for name in ("accepted", "rejections"):
        assert "秘密" not in str(pq.read_table(outcome.folder / f"{name}.parquet").to_pylist())
        assert "秘密".encode() not in (outcome.folder / f"{name}.parquet").read_bytes()


def test_changed_cells_are_counted_by_column(run):
    outcome = run([order_row(amount="1,000"), order_row(client_order_ref=" B ", amount="￥1,000"), order_row(amount="1")])
    assert outcome.summary.normalised == Counter({"amount": 2, "client_order_ref": 1})


def test_files_are_readable_by_their_owner_only_and_nothing_else_is_left(run):
    folder = run(order_rows(3)).folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "accepted.parquet",
        "rejections.parquet",
        "staged.parquet",
    ]
    assert (folder / "accepted.parquet").stat().st_mode & 0o777 == 0o600


def test_a_failure_in_the_middle_leaves_no_file(run, tmp_path):
    def fail(_):
        raise ConnectionError

    staged = write_staged(tmp_path / "staged.parquet", order_rows(3))
    with pytest.raises(ConnectionError):
        validate(
            staged,
            tmp_path / "accepted.parquet",
            tmp_path / "rejections.parquet",
            record_type=ORDERS,
            context=row_context(),
            seal=nothing_sealed,
            existing=fail,
        )
    assert list(tmp_path.iterdir()) == [staged]


# What is rejected


@pytest.mark.parametrize("code", BROKEN_BY)
def test_a_rule_has_a_row_that_breaks_only_it(code):
    assert judge_rows([order_row(**BROKEN_BY[code])]).codes == [[code]]


def test_every_row_code_is_broken_by_some_test():
    assert {code for code in CODES if code.startswith("R_")} == BROKEN_BY.keys() | BY_OTHER_ROWS | BY_CORRECTED_ROWS


@pytest.mark.parametrize("number", ["018", "019", "022"])
def test_input_018_019_022_rows_of_the_wrong_shape_get_that_code_only(run, number):
    outcome = run([*order_rows(1), None, order_row(client_order_ref="B", amount="0")])
    assert outcome.codes == {(2, "R_COLUMNS"), (3, "R_AMOUNT_RANGE")}
    assert outcome.rejections[0] == {
        "import_row_number": 2,
        "line": 3,
        "column": None,
        "code": "R_COLUMNS",
        "detail": "{}",
    }


def test_input_035_numbers_of_rows_are_those_of_the_file(run):
    outcome = run([*order_rows(2), order_row(client_order_ref="B", amount="0")], numbers=[1, 3, 9])
    assert outcome.accepted_rows == [1, 3]
    assert outcome.codes == {(9, "R_AMOUNT_RANGE")}
    assert outcome.rejections[0]["line"] == 10


def test_input_093_a_file_of_bad_rows_reports_all_of_them(run):
    outcome = run(order_rows(5, amount="0"))
    assert (outcome.summary.rows_accepted, outcome.summary.rows_rejected) == (0, 5)
    assert outcome.accepted_rows == []
    assert outcome.codes == {(number, "R_AMOUNT_RANGE") for number in range(1, 6)}


def test_input_094_one_bad_row_does_not_hold_the_others(run):
    rows = order_rows(10_000)
    rows[4_321] = order_row(client_order_ref="ORD-4322", amount="abc")
    outcome = run(rows, chunk_rows=3_000)
    assert outcome.summary == Validated(9_999, 1, 9_999_000, 9_999_000, 1, Counter({"R_AMOUNT_FORMAT": 1}), Counter())
    assert outcome.accepted_rows == [number for number in range(1, 10_001) if number != 4_322]
    assert [one["import_row_number"] for one in outcome.rejections] == [4_322]


def test_input_098_rows_keep_the_order_of_the_file(run):
    outcome = run([order_row(client_order_ref=name) for name in ("C", "A", "B")], chunk_rows=2)
    assert outcome.accepted.column("client_order_ref").to_pylist() == ["C", "A", "B"]


def test_every_error_of_a_row_is_reported_by_row_and_in_the_order_of_columns(run):
    rows = [
        order_row(note="\u202e", amount="x"),
        None,
        order_row(client_order_ref="", currency="USD", email="", order_date="x"),
    ]
    assert [(one["import_row_number"], one["column"], one["code"]) for one in run(rows).rejections] == [
        (1, "amount", "R_AMOUNT_FORMAT"),
        (1, "note", "R_CHARS"),
        (2, None, "R_COLUMNS"),
        (3, "client_order_ref", "R_REQUIRED"),
        (3, "order_date", "R_DATE_FORMAT"),
        (3, "email", "R_REQUIRED"),
        (3, "currency", "R_CURRENCY"),
    ]


def test_rows_are_counted_once_for_a_code_they_have_twice(run):
    outcome = run([order_row(client_order_ref="", customer_name="")])
    assert outcome.summary.rejections == Counter({"R_REQUIRED": 1})
    assert outcome.summary.rows_rejected == 1


def test_details_say_limits_and_hints(run):
    outcome = run([order_row(note="長" * 501, order_date="46113")])
    assert [json.loads(one["detail"]) for one in outcome.rejections] == [{"hint": "excel_serial"}, {"limit": "500"}]


def test_an_empty_staged_file_gives_two_empty_files(run):
    outcome = run([])
    assert outcome.summary == Validated()
    assert outcome.accepted.num_rows == len(outcome.rejections) == 0


# Other rows and earlier files


@pytest.mark.parametrize("chunk_rows", [1, 2, 1000])
def test_input_053_an_equal_row_with_the_same_reference_repeats_the_first(run, chunk_rows):
    rows = [order_row(), order_row(client_order_ref="B"), order_row(amount="1,000"), order_row()]
    outcome = run(rows, chunk_rows=chunk_rows)
    assert outcome.accepted_rows == [1, 2]
    assert outcome.codes == {(3, "R_REF_DUP_IN_FILE"), (4, "R_REF_DUP_IN_FILE")}
    assert {one["detail"] for one in outcome.rejections} == {'{"first_row":"1"}'}


@pytest.mark.parametrize("chunk_rows", [1, 2, 1000])
def test_input_054_different_rows_with_the_same_reference_all_conflict(run, chunk_rows):
    rows = [order_row(), order_row(client_order_ref="B"), order_row(note="別"), order_row()]
    outcome = run(rows, chunk_rows=chunk_rows)
    assert outcome.accepted_rows == [2]
    assert outcome.codes == {(1, "R_REF_CONFLICT"), (3, "R_REF_CONFLICT"), (4, "R_REF_CONFLICT")}


def test_input_055_references_that_differ_by_case_only_conflict(run):
    outcome = run([order_row(client_order_ref="ord-1"), order_row(client_order_ref="ORD-1")])
    assert outcome.codes == {(1, "R_REF_CONFLICT"), (2, "R_REF_CONFLICT")}


def test_input_056_a_reference_of_an_earlier_file_is_refused_with_its_batch(run):
    outcome = run(order_rows(3), known={"ord-0002": "20260101-abc"})
    assert outcome.accepted_rows == [1, 3]
    assert [(one["code"], json.loads(one["detail"])) for one in outcome.rejections] == [
        ("R_REF_EXISTS", {"batch_id": "20260101-abc"})
    ]


def test_input_096_a_file_sent_again_in_another_form_is_refused_row_by_row(run):
    outcome = run(order_rows(4), known={f"ord-000{number}": "earlier" for number in range(1, 5)}, chunk_rows=3)
    assert outcome.summary.rejections == Counter({"R_REF_EXISTS": 4})
    assert outcome.summary.rows_accepted == 0


def test_rows_without_a_usable_reference_repeat_nothing(run):
    rows = [
        order_row(client_order_ref=""),
        order_row(client_order_ref=""),
        order_row(client_order_ref="注"),
        None,
        None,
    ]
    assert run(rows).codes == {
        (1, "R_REQUIRED"),
        (2, "R_REQUIRED"),
        (3, "R_REF_FORMAT"),
        (4, "R_COLUMNS"),
        (5, "R_COLUMNS"),
    }


def test_a_repeated_row_shows_its_other_errors_too(run):
    outcome = run([order_row(amount="0"), order_row(amount="0")])
    assert outcome.codes == {(1, "R_AMOUNT_RANGE"), (2, "R_AMOUNT_RANGE"), (2, "R_REF_DUP_IN_FILE")}


@given(st.lists(st.tuples(st.sampled_from("AaB"), st.sampled_from(["1", "2"])), max_size=8), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_duplicates_are_those_a_slow_count_finds(tmp_path_factory, orders, chunk_rows):
    from orders_pipeline.intake.duplicate_rows import find_duplicates

    rows = [order_row(client_order_ref=name, amount=amount) for name, amount in orders]
    staged = write_staged(tmp_path_factory.mktemp("staged") / "staged.parquet", rows)
    found = find_duplicates(staged, Judge(ORDERS, row_context()), chunk_rows)
    expected = []
    for number, order in enumerate(orders, start=1):
        group = [(at, other) for at, other in enumerate(orders, start=1) if other[0].lower() == order[0].lower()]
        conflict = len({other for _, other in group}) > 1
        if conflict or number != group[0][0]:
            expected.append((number, conflict, group[0][0]))
    assert list(zip(found.row.tolist(), found.conflict.tolist(), found.first.tolist(), strict=True)) == expected


# Pandera has the last word


def judged_all(rows):
    """Return rows judged, their verdicts apart."""
    numbers = pa.array(range(1, len(rows) + 1), pa.int32())
    judged, findings, _ = Judge(ORDERS, row_context()).judge(numbers, raw_cells(rows))
    return judged, findings


def test_pandera_finds_what_the_quick_verdicts_find():
    broken = [cells for cells in BROKEN_BY.values() if "client_order_ref" in cells or "amount" in cells]
    others = [cells for cells in BROKEN_BY.values() if cells not in broken]
    for rows in ([order_row(**cells)] for cells in [*broken, {"notify_channel": "sms"}, {"payment_method": "card_on_file"}]):
        assert_found_by_pandera(rows)
    assert_found_by_pandera([order_row(**cells, client_order_ref=f"ORD-{at}") for at, cells in enumerate(others)])


def assert_found_by_pandera(rows):
    judged, findings = judged_all(rows)
    with pytest.raises(RulesBroken) as raised:
        Judge(ORDERS, row_context()).confirm(judged)
    said = [(rule, number) for rule, numbers in raised.value.broken.items() for number in numbers]
    for one in findings.found:
        for position in one.positions:
            assert any(one.code in rule and rule.endswith(f"in {one.column}") and at == position + 1 for rule, at in said)


def test_pandera_finds_nothing_in_rows_that_keep_the_rules():
    judged, findings = judged_all([*order_rows(3), order_row(client_order_ref="B", **ITEM, order_date="2026-06-30")])
    assert not findings.found
    Judge(ORDERS, row_context()).confirm(judged)


@pytest.mark.parametrize(
    ("condition", "column", "cell", "code"),
    [
        (rules.Matches, "email", "geheim", "R_EMAIL"),
        (rules.OneOf, "payment_method", "geheim", "R_PAYMENT_METHOD"),
        (rules.Lacks, "note", "geheim\u202e", "R_CHARS"),
        (rules.AtMost, "note", "geheim" * 100, "R_TOO_LONG"),
        (rules.Filled, "customer_name", "", "R_REQUIRED"),
        (rules.NoCardNumber, "note", "geheim 4111111111111111", "R_FORBIDDEN_DATA"),
        (rules.Between, "amount", "1000001", "R_AMOUNT_OVER_LIMIT"),
        (rules.DaysBack, "order_date", "2020-01-01", "R_DATE_RANGE"),
    ],
)
def test_a_row_that_a_broken_rule_lets_through_is_stopped_by_pandera(run, monkeypatch, condition, column, cell, code):
    monkeypatch.setattr(condition, "__call__", lambda _, cells, __: pa.repeat(True, len(cells)))
    with pytest.raises(RulesBroken, match=f"E_VALIDATION: .*{code}.* in {column} .rows 2") as raised:
        run([order_row(), order_row(client_order_ref="B", **{column: cell}), order_row(client_order_ref="C")], chunk_rows=2)
    assert "geheim" not in str(raised.value)
    assert raised.value.__context__ is None


def test_a_row_that_a_mistake_in_putting_verdicts_together_lets_through_is_stopped_by_pandera(run, monkeypatch):
    monkeypatch.setattr(Findings, "clean", property(lambda findings: np.ones(findings.size, np.bool_)))
    with pytest.raises(RulesBroken, match="R_REQUIRED in phone"):
        run([order_row(), order_row(client_order_ref="B", notify_channel="sms")])


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda rows: replace(rows, text={**rows.text, "note": pa.nulls(2, pa.string())}), "not_nullable in note"),
        (lambda rows: replace(rows, values={**rows.values, "amount": pa.nulls(2, pa.int64())}), "not_nullable in amount"),
        (lambda rows: replace(rows, text=dict(reversed(rows.text.items()))), "column_ordered"),
        (lambda rows: replace(rows, text={**rows.text, "more": rows.text["note"]}), "column_in_schema"),
        (lambda rows: replace(rows, values={**rows.values, "amount": pa.array(["1", "2"])}), "in amount"),
        (lambda rows: replace(rows, number=pa.array([1, 1], pa.int32())), "field_uniqueness in import_row_number"),
        (lambda rows: replace(rows, text={**rows.text, "client_order_ref": pa.array(["A", "A"])}), "in client_order_ref"),
    ],
)
def test_pandera_also_looks_at_what_no_rule_says(change, broken):
    judged, _ = judged_all(order_rows(2))
    with pytest.raises(RulesBroken, match=broken), config_context(validation_enabled=False):
        Judge(ORDERS, row_context()).confirm(change(judged))


def test_pandera_sees_every_accepted_row_and_its_schemas_are_made_once(run, monkeypatch):
    seen = Counter()
    text, _ = schemas_of(ORDERS, row_context().today)
    validate_rows = pandera.DataFrameSchema.validate

    def counted(schema, rows, **how):
        seen["text" if schema is text else "values"] += len(rows)
        assert how["lazy"]
        return validate_rows(schema, rows, **how)

    monkeypatch.setattr(pandera.DataFrameSchema, "validate", counted)
    outcome = run([*order_rows(7), None, order_row(client_order_ref="B", amount="0")], chunk_rows=2)
    assert outcome.summary.rows_accepted == 7
    assert seen == {"text": 7, "values": 7}
