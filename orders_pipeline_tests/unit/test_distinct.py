"""Cells that come again are judged as they would be one by one."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st

from orders_pipeline.records.distinct import Distinct
from orders_pipeline.records.judgement import Judge
from orders_pipeline.records.orders import ORDERS
from orders_pipeline_tests.support.factories import order_row, row_context

WORDS = (
    "",
    " ",
    "a",
    "Ａ",
    "あ",
    "'7",
    "1,000",
    "1.000",
    "2026-04-01",
    "令和8年4月1日",
    "#N/A",
    "090-1234-5678",
    "email",
    "x" * 700,
)


@given(st.lists(st.sampled_from(["a", "b", "あ", "", None]) | st.text(max_size=3), max_size=30), st.integers(0, 5))
def test_what_is_said_of_a_text_is_said_of_each_of_its_cells(cells, skipped):
    given_cells = pa.array(cells, pa.string())[skipped:]
    distinct = Distinct.of(given_cells)
    assert distinct.cells.equals(given_cells)
    assert distinct.map(pc.utf8_upper).cells.equals(pc.utf8_upper(given_cells))
    is_a = pc.fill_null(pc.equal(distinct.texts, "a"), fill_value=False).to_numpy(zero_copy_only=False)
    assert distinct.spread(is_a).tolist() == [cell == "a" for cell in given_cells.to_pylist()]


def test_a_text_that_comes_often_is_looked_at_once_and_others_are_left_as_they_are():
    assert Distinct.of(pa.array(["a", "b"] * 50)).texts.to_pylist() == ["a", "b"]
    alone = pa.array([str(number) for number in range(100)])
    assert Distinct.of(alone) == Distinct(alone, None)


row = st.fixed_dictionaries(dict.fromkeys(ORDERS.column_names, st.none() | st.sampled_from(WORDS)))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=4), order=st.lists(st.integers(0, 3), min_size=12, max_size=40))
def test_rows_that_come_often_get_what_each_gets_alone(rows, order):
    usual = [order_row(**{name: cell for name, cell in each.items() if cell is not None}) for each in rows]
    together = [usual[at % len(usual)] for at in order]
    judge = Judge(ORDERS, row_context())

    def judged(rows):
        raw = {name: pa.array([each[name] for each in rows], pa.string()) for name in ORDERS.column_names}
        judged_rows, findings, changed = judge.judge(pa.array(range(1, len(rows) + 1), pa.int32()), raw)
        found: list[set[tuple[str, str, str]]] = [set() for _ in rows]
        for one in findings.found:
            for at, detail in zip(one.positions.tolist(), one.details, strict=True):
                found[at].add((one.column, one.code, detail))
        cells = judged_rows.text | {f"{name} as a value": values for name, values in judged_rows.values.items()}
        return [*zip(*(each.to_pylist() for each in cells.values()), strict=True)], found, changed

    cells, found, changed = judged(together)
    alone = [judged([each]) for each in together]
    assert cells == [each[0][0] for each in alone]
    assert found == [each[1][0] for each in alone]
    assert changed == {name: int(np.sum([each[2][name] for each in alone])) for name in changed}
