"""Loading: every accepted row becomes one order, whatever stops it half-way and whoever loads the same at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orders_pipeline.batches import batches
from orders_pipeline.infrastructure.parquet_file import THREADS
from orders_pipeline.intake import loading
from orders_pipeline.intake.loading import Loaded
from orders_pipeline.records.order_lines import ACCEPTED_LINE
from orders_pipeline.records.rejections import REJECTIONS_SCHEMA
from orders_pipeline_tests.support.ledgers import Harness, wait_for_a_blocked_session

ACCEPTED_SCHEMA = pa.schema(
    [
        ("import_row_number", pa.int32()),
        ("client_order_ref", pa.string()),
        ("order_date", pa.date32()),
        ("customer_code", pa.string()),
        ("item_code", pa.string()),
        ("quantity", pa.int32()),
        ("unit_price", pa.int64()),
        ("amount", pa.int64()),
        ("payment_method", pa.string()),
        ("notify_channel", pa.string()),
        ("personal", pa.binary()),
    ]
)


ACCEPTED_OF_LINES = pa.schema([*ACCEPTED_SCHEMA, ("line_count", pa.int32()), ("amount_added", pa.int32())]).append(
    pa.field("lines", pa.list_(ACCEPTED_LINE))
)


def order_of_lines(number: int, lines: int = 3) -> dict[str, object]:
    """Return an accepted order of so many rows, of 100 yen each."""
    items = [{"import_row_number": number + at, "amount": 100} for at in range(lines)]
    return row(number, amount=100 * lines, line_count=lines, amount_added=0, lines=items)


def row(number: int, ref: str | None = None, **changes: object) -> dict[str, object]:
    return {
        "import_row_number": number,
        "client_order_ref": ref or f"ORD-{number:04}",
        "order_date": None,
        "customer_code": "C-1",
        "item_code": None,
        "quantity": None,
        "unit_price": None,
        "amount": 100,
        "payment_method": "invoice",
        "notify_channel": "email",
        "personal": b'\x00sealed\xff\\x,"\n',
    } | changes


def rejection(number: int | None, code: str = "R_AMOUNT", **detail: str) -> dict[str, object]:
    return {"import_row_number": number, "line": 5, "column": "amount", "code": code, "detail": json.dumps(detail)}


@dataclass
class Bay:
    """Where validated batches are loaded from."""

    harness: Harness
    folder: Path

    def batch(self, batch_id: str, rows: list[dict], rejections: list[dict] | None = None, blank: int = 0) -> str:
        """Have a validated batch with these rows."""
        rejections = rejections or []
        self.harness.batch(batch_id, status="validated")
        schema = ACCEPTED_OF_LINES if any("lines" in each for each in rows) else ACCEPTED_SCHEMA
        pq.write_table(pa.Table.from_pylist(rows, schema), self.folder / f"{batch_id}.accepted")
        accepted = sum(each.get("line_count", 1) for each in rows)
        pq.write_table(pa.Table.from_pylist(rejections, REJECTIONS_SCHEMA), self.folder / f"{batch_id}.rejections")
        rejected = len({each["import_row_number"] for each in rejections})
        self.harness.run(
            "UPDATE batches SET rows_total = %s, rows_accepted = %s, rows_continuing = %s, rows_rejected = %s,"
            " rows_blank = %s, amount_accepted = %s WHERE batch_id = %s",
            accepted + rejected + blank,
            accepted,
            accepted - len(rows),
            rejected,
            blank,
            sum(each["amount"] for each in rows),
            batch_id,
        )
        return batch_id

    def load(self, batch_id: str) -> Loaded:
        with self.harness.database.begin() as transaction:
            batch = batches.get(transaction, batch_id)
        files = (self.folder / f"{batch_id}.{kind}" for kind in ("accepted", "rejections", "staged"))
        return loading.load(self.harness.database, batch, *files)

    def adds_up(self, batch_id: str) -> bool:
        """Say whether the batch's own counts and yen are those of its orders and rejections."""
        with self.harness.database.begin() as transaction:
            batch = batches.get(transaction, batch_id)
            loaded = transaction.row("loaded_totals", batch_id=batch_id)
        rejected = self.harness.value(
            "SELECT count(DISTINCT import_row_number) FROM rejections WHERE batch_id = %s", batch_id
        )
        return (batch.rows_accepted, batch.rows_rejected, batch.amount_accepted, batch.rows_total) == (
            loaded.rows,
            rejected,
            loaded.amount,
            loaded.rows + rejected + batch.rows_blank,
        )


@pytest.fixture
def bay(harness: Harness, tmp_path: Path) -> Bay:
    return Bay(harness, tmp_path)


@pytest.fixture
def _small_chunks(monkeypatch):
    monkeypatch.setattr(loading, "CHUNK_ROWS", 10)


def test_accepted_rows_become_orders_with_where_they_came_from(bay):
    full = row(7, "A/1", item_code='I,"1', quantity=2, unit_price=50, order_date=None)
    batch_id = bay.batch("b1", [row(3), full])
    assert bay.load(batch_id) == Loaded(2, 0)
    first, second = bay.harness.run("SELECT * FROM orders ORDER BY import_row_number")
    assert (second["item_code"], second["quantity"], second["unit_price"]) == ('I,"1', 2, 50)
    assert (first["item_code"], first["order_date"]) == (None, None)
    assert {(each["batch_id"], each["csv_source"], each["client_code"], each["status"]) for each in (first, second)} == {
        ("b1", "orders.csv", "acme", "pending")
    }
    assert bytes(first["personal"]) == row(3)["personal"]
    assert bay.harness.value("SELECT status FROM batches") == "loaded"
    assert bay.adds_up(batch_id)


def test_a_file_name_with_anything_in_it_is_kept_as_it_is(bay):
    batch_id = bay.batch("b1", [row(1)])
    name = "注文 \"7月\", 'a'\\n\t\n.csv"
    bay.harness.run("UPDATE batches SET csv_source = %s", name)
    bay.load(batch_id)
    assert bay.harness.value("SELECT csv_source FROM orders") == name


def test_rejections_are_kept_with_their_place_and_detail(bay):
    whole_file = rejection(None, "W_UNKNOWN_COLUMN", count="2") | {"line": None, "column": None}
    without_detail = rejection(5) | {"detail": None}
    bay.load(bay.batch("b1", [], [rejection(4, limit='1,000"000'), without_detail, whole_file]))
    rows = bay.harness.run("SELECT import_row_number, line, column_name, code, detail FROM rejections ORDER BY rejection_id")
    assert [tuple(each.values()) for each in rows] == [
        (4, 5, "amount", "R_AMOUNT", {"limit": '1,000"000'}),
        (5, 5, "amount", "R_AMOUNT", {}),
        (None, None, None, "W_UNKNOWN_COLUMN", {"count": "2"}),
    ]


def test_a_batch_without_accepted_rows_is_loaded_too(bay):
    batch_id = bay.batch("b1", [], [rejection(1), rejection(2)], blank=1)
    assert bay.load(batch_id) == Loaded(0, 0)
    assert bay.adds_up(batch_id)


@pytest.mark.usefixtures("_small_chunks")
def test_a_load_that_is_run_again_loads_nothing_twice(bay):
    batch_id = bay.batch("b1", [row(n) for n in range(1, 26)], [rejection(26)])
    assert bay.load(batch_id) == Loaded(25, 0)
    assert bay.load(batch_id) == Loaded(0, 0)
    assert bay.harness.value("SELECT count(*) FROM rejections") == 1
    assert bay.adds_up(batch_id)


class Crash(BaseException):
    """The process is gone."""


def interrupt(monkeypatch, chunk_no: int, error: BaseException) -> None:
    """Let the copy of one small chunk end in the middle of its rows."""
    write = loading.binary_copy

    def interrupted(chunks: Iterable[pa.RecordBatch], same: Mapping[str, str], *arguments):
        rows = list(chunks)
        if "csv_source" in same and rows[0].column("import_row_number")[0].as_py() == 10 * chunk_no - 9:
            start, data, _ = write(rows, same, *arguments)
            yield from (start, data[: len(data) // 2])
            raise error
        yield from write(rows, same, *arguments)

    monkeypatch.setattr(loading, "binary_copy", interrupted)


@pytest.mark.usefixtures("_small_chunks")
def test_a_load_that_crashed_among_the_lines_of_a_chunk_leaves_no_order_of_it(bay, monkeypatch):
    batch_id = bay.batch("b1", [order_of_lines(1 + 3 * n) for n in range(25)], [rejection(80)])
    write = loading.binary_copy

    def interrupted(chunks: Iterable[pa.RecordBatch], same: Mapping[str, str], *arguments):
        rows = list(chunks)
        if rows[0].schema.names[0] == "order_row" and rows[0].column(0)[0].as_py() == 31:
            start, data, _ = write(rows, same, *arguments)
            yield from (start, data[: len(data) // 2])
            raise Crash
        yield from write(rows, same, *arguments)

    with monkeypatch.context() as crashing:
        crashing.setattr(loading, "binary_copy", interrupted)
        with pytest.raises(Crash):
            bay.load(batch_id)
    lines = "(SELECT count(*) FROM order_lines WHERE order_row = orders.import_row_number)"
    lacking = f"SELECT count(*) FROM orders WHERE line_count <> {lines}"
    assert bay.harness.value("SELECT count(*) FROM orders WHERE import_row_number BETWEEN 31 AND 60") == 0
    assert bay.harness.value(lacking) == 0
    bay.load(batch_id)
    assert (bay.harness.value(lacking), bay.harness.value("SELECT count(*) FROM order_lines")) == (0, 75)
    assert bay.adds_up(batch_id)


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("crash_at", [1, 2, 3])
def test_c05_c06_a_load_that_crashed_in_a_chunk_goes_on_with_the_chunks_that_are_missing(bay, monkeypatch, crash_at):
    batch_id = bay.batch("b1", [row(n) for n in range(1, 26)], [rejection(26)])
    with monkeypatch.context() as crashing:
        interrupt(crashing, crash_at, Crash())
        with pytest.raises(Crash):
            bay.load(batch_id)
    chunks = bay.harness.run("SELECT (import_row_number + 9) / 10 AS no, count(*) AS rows FROM orders GROUP BY 1")
    assert crash_at not in {each["no"] for each in chunks}
    assert all(each["rows"] == (5 if each["no"] == 3 else 10) for each in chunks)
    assert bay.harness.value("SELECT status FROM batches") == "validated"
    assert bay.load(batch_id) == Loaded(25 - sum(each["rows"] for each in chunks), 0)
    assert bay.adds_up(batch_id)


@pytest.mark.usefixtures("_small_chunks")
def test_a_load_whose_rejections_could_not_be_kept_is_not_loaded_until_they_are(bay, monkeypatch):
    batch_id = bay.batch("b1", [row(n) for n in range(1, 26)], [rejection(26)])
    with monkeypatch.context() as crashing:
        crashing.setattr(loading, "_rejection_rows", lambda *_: (_ for _ in ()).throw(Crash))
        with pytest.raises(Crash):
            bay.load(batch_id)
    assert bay.harness.value("SELECT status FROM batches") == "validated"
    bay.load(batch_id)
    assert bay.harness.value("SELECT status FROM batches") == "loaded"
    assert bay.adds_up(batch_id)


@pytest.mark.usefixtures("_small_chunks")
def test_a_chunk_that_fails_keeps_the_chunks_behind_it_from_being_loaded(bay, monkeypatch):
    batch_id = bay.batch("b1", [row(n) for n in range(1, 201)])
    with monkeypatch.context() as failing:
        interrupt(failing, 1, Crash())
        with pytest.raises(Crash):
            bay.load(batch_id)
    assert bay.harness.value("SELECT count(*) FROM orders") <= 10 * THREADS
    assert bay.load(batch_id).taken == 0
    assert bay.adds_up(batch_id)


@pytest.mark.usefixtures("_small_chunks")
def test_chunks_that_are_written_at_the_same_time_make_the_same_table(bay, monkeypatch):
    rows = [row(n, customer_code=f"C-{n % 7}", amount=n) for n in range(1, 10 * THREADS + 1)]
    write, together = loading.binary_copy, threading.Barrier(THREADS)

    def written(chunks: Iterable[pa.RecordBatch], same: Mapping[str, str], *arguments):
        if "csv_source" in same:
            together.wait(10)  # broken unless every chunk of orders is being written
        yield from write(chunks, same, *arguments)

    monkeypatch.setattr(loading, "binary_copy", written)
    assert bay.load(bay.batch("b1", rows)) == Loaded(len(rows), 0)
    names = ", ".join(ACCEPTED_SCHEMA.names)
    assert bay.harness.run(f"SELECT {names} FROM orders ORDER BY import_row_number") == rows


def test_values_of_every_type_arrive_as_they_are(bay):
    least = row(1, quantity=1, unit_price=1, amount=1, item_code="", order_date=date(1999, 12, 31), personal=b"")
    most = row(
        2**31 - 1,
        quantity=1,
        unit_price=1_000_000,
        amount=1_000_000,
        item_code="商品😀" * 12,
        order_date=date(2099, 12, 31),
        personal=bytes(range(256)) * 100,
    )
    bay.load(bay.batch("b1", [least, most]))
    names = ", ".join(ACCEPTED_SCHEMA.names)
    assert bay.harness.run(f"SELECT {names} FROM orders ORDER BY import_row_number") == [least, most]


def test_a_number_that_its_column_cannot_hold_stops_the_load(bay):
    batch_id = bay.batch("b1", [row(1)])
    pq.write_table(pa.Table.from_pylist([row(1, amount=2**32 + 100)], ACCEPTED_SCHEMA), bay.folder / "b1.accepted")
    with pytest.raises(pa.ArrowInvalid):
        bay.load(batch_id)
    assert bay.harness.value("SELECT count(*) FROM orders") == 0


def test_a_reference_another_batch_loaded_first_is_rejected_and_rows_still_add_up(bay):
    first = bay.batch("b1", [row(1, "REF-A"), row(2, "REF-B")])
    second = bay.batch("b2", [row(1, "ref-b", amount=300), row(2, "REF-C", amount=40)], [rejection(3)], blank=2)
    assert bay.load(first) == Loaded(2, 0)
    assert bay.load(second) == Loaded(1, 1)
    given_back = bay.harness.run("SELECT * FROM rejections WHERE code = 'R_REF_EXISTS_DIFFERS'")
    assert [(each["batch_id"], each["import_row_number"], each["detail"]) for each in given_back] == [
        ("b2", 1, {"batch_id": "b1", "columns": "amount"})
    ]
    assert bay.harness.value("SELECT amount_accepted FROM batches WHERE batch_id = 'b2'") == 40
    assert bay.adds_up(first)
    assert bay.adds_up(second)
    assert bay.load(second) == Loaded(0, 0)
    assert bay.adds_up(second)


def test_the_same_reference_of_another_client_is_no_conflict(bay):
    first, second = bay.batch("b1", [row(1)]), bay.batch("b2", [row(1)])
    bay.harness.run("UPDATE batches SET client_code = 'other' WHERE batch_id = 'b2'")
    assert (bay.load(first), bay.load(second)) == (Loaded(1, 0), Loaded(1, 0))


def test_a_batch_whose_references_are_all_taken_ends_without_orders(bay):
    rows = [row(n) for n in range(1, 4)]
    bay.load(bay.batch("b1", rows))
    second = bay.batch("b2", rows)
    assert bay.load(second) == Loaded(0, 3)
    assert bay.adds_up(second)


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("backwards", [False, True])
def test_of_two_batches_that_race_for_the_same_references_each_is_loaded_once_and_both_add_up(bay, backwards):
    shared = [f"REF-{n:03}" for n in range(30)]
    orders = [shared, list(reversed(shared)) if backwards else shared]
    ids = [
        bay.batch(f"b{at}", [row(n, ref) for n, ref in enumerate([*refs, f"OWN-{at}"], start=1)])
        for at, refs in enumerate(orders, start=1)
    ]
    start = threading.Barrier(2)

    def load(batch_id: str) -> Loaded:
        start.wait(10)
        return bay.load(batch_id)

    with ThreadPoolExecutor(2) as pool:
        loaded = list(pool.map(load, ids))
    assert sum(each.orders for each in loaded) == bay.harness.value("SELECT count(*) FROM orders") == 32
    assert sum(each.taken for each in loaded) == 30
    assert bay.harness.value("SELECT count(*) FROM rejections WHERE code = 'R_REF_EXISTS'") == 30
    assert all(bay.adds_up(batch_id) for batch_id in ids)


def test_d05_a_load_that_loses_a_deadlock_with_another_batch_is_tried_again(bay, monkeypatch):
    batch_id = bay.batch("b1", [row(1, "REF-A"), row(2, "REF-B")])
    bay.harness.batch("b2")
    insert = (
        b"INSERT INTO orders (batch_id, import_row_number, csv_source, bulk_import_group, client_code, client_order_ref,"
        b" customer_code, amount, payment_method, notify_channel, personal)"
        b" VALUES ('b2', 1, 'x', 'b2', 'acme', 'REF-B', 'C-1', 1, 'invoice', 'none', '')"
    )
    write, begun, may_write, tries = loading.binary_copy, threading.Event(), threading.Event(), []

    def written_last(chunks: Iterable[pa.RecordBatch], same: Mapping[str, str], *arguments):
        if "csv_source" in same:  # the client's references are shared by now
            tries.append(same["batch_id"])
            begun.set()
            assert may_write.wait(20)
        yield from write(chunks, same, *arguments)

    monkeypatch.setattr(loading, "binary_copy", written_last)
    with bay.harness.connect() as other, ThreadPoolExecutor(2) as pool:
        other.execute("SET LOCAL deadlock_timeout = '1min'")  # the load waits last, and finds the deadlock
        other.execute(insert)
        loading_it = pool.submit(bay.load, batch_id)
        assert begun.wait(20)
        holding = pool.submit(other.execute, b"SELECT pg_advisory_xact_lock(hashtextextended('references of acme', 0))")
        wait_for_a_blocked_session(bay.harness)
        may_write.set()
        holding.result(20)  # comes through once the load has been ended
        other.rollback()
        assert loading_it.result(20) == Loaded(2, 0)
    assert tries == [batch_id, batch_id]
    assert bay.adds_up(batch_id)


def test_a_row_that_the_schema_refuses_stops_the_load_with_the_rules_name_only(bay):
    batch_id = bay.batch("b1", [row(1), row(2, "planted ref")])
    with pytest.raises(Exception, match="orders_client_order_ref_format") as refused:
        bay.load(batch_id)
    assert "planted" not in str(refused.value)
    assert bay.harness.value("SELECT count(*) FROM orders") == 0
