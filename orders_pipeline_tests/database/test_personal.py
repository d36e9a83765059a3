"""Personal values: sealed for their row, and nowhere in the database in a form that anybody can read."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pyarrow as pa
import pytest
from psycopg import sql

from orders_pipeline.batches.artifacts import ACCEPTED, artifact
from orders_pipeline.intake import file_import, steps
from orders_pipeline.intake.received_before import ReceivedBefore
from orders_pipeline.records.judgement import Rows, RulesBroken
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.records.rules import Matches
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher, DecryptionError
from orders_pipeline.settlement import batch_settlement
from orders_pipeline.system import errors
from orders_pipeline.system.composition import System
from orders_pipeline_tests.support.ledgers import CIPHER, Harness, order

PLANTED = {
    "customer_name": "埋込太郎商店",
    "customer_name_kana": "ウメコミタロウ",
    "email": "umekomi.planted@example.com",
    "phone": "09098765432",
    "postal_code": "9876543",
    "ship_to_address": "東京都埋込区九丁目八番",
    "payment_token": "tok_planted_98765432",
    "note": "埋込備考は内密に",
}
HEADER = ["client_order_ref", "customer_code", "amount", "payment_method", "notify_channel", *PLANTED]


def planted_file(folder: Path) -> Path:
    """Write a file whose first rows are good, and whose others are rejected for every kind of reason."""
    good = [f"ORD-{n}" for n in (1, 2)]
    rows = [[ref, f"C-{ref[-1]}", "100", "card_on_file", "email", *PLANTED.values()] for ref in good]
    rows += [
        ["ORD-3", "C-1", "埋込金額", "card_on_file", "email", *PLANTED.values()],
        ["ORD 4 埋込", "埋込得意先", "100", "埋込支払", "埋込通知", *PLANTED.values()],
        ["ORD-5", "C-1", "100", "invoice", "email", *(f"{value}\x7f" for value in PLANTED.values())],
        ["ORD-1", "C-1", "100", "card_on_file", "email", *PLANTED.values()],
        ["ORD-6", *PLANTED.values()],
    ]
    path = folder / "orders.csv"
    path.write_text("\r\n".join(",".join(row) for row in [HEADER, *rows]) + "\r\n", "utf-8")
    return path


def everything_stored(harness: Harness) -> dict[str, bytes]:
    """Return every column of every table as the bytes a reader of the database would see."""
    columns = harness.run(
        "SELECT table_name, column_name, data_type FROM information_schema.columns JOIN information_schema.tables"
        " USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    stored = {}
    with harness.connect() as connection:
        for column in columns:
            as_text = "encode({}, 'escape')" if column["data_type"] == "bytea" else "{}::text"
            query = sql.SQL("SELECT coalesce(string_agg(" + as_text + ", E'\\n'), '') AS all FROM {}").format(
                sql.Identifier(column["column_name"]), sql.Identifier(column["table_name"])
            )
            found = connection.execute(query).fetchone()
            stored[f"{column['table_name']}.{column['column_name']}"] = found["all"].encode()
    return stored


def readable_forms(value: str) -> set[bytes]:
    utf_8 = value.encode()
    escaped = "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in utf_8)
    forms = {utf_8, escaped.encode(), utf_8.hex().encode(), base64.b64encode(utf_8).rstrip(b"=")[:-2]}
    return forms | {json.dumps(value)[1:-1].encode(), value.encode("cp932").hex().encode()}


@pytest.fixture
def loaded(system: System, tmp_path: Path) -> str:
    """The id of a batch loaded from the planted file."""
    batch_id = file_import.import_file(system, planted_file(tmp_path), "acme", again=False)
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(system, batch_id)
    return batch_id


def assert_nothing_readable(harness: Harness) -> None:
    stored = everything_stored(harness)
    assert len(stored) > 80
    for place, content in stored.items():
        for value in [*PLANTED.values(), "埋込"]:
            assert not [form for form in readable_forms(value) if form in content], place


def test_the_search_finds_what_is_stored_in_clear(loaded, database):
    harness = Harness(database)
    harness.run("UPDATE batches SET csv_source = %s", PLANTED["email"])
    harness.run("UPDATE orders SET personal = %s", PLANTED["customer_name"].encode())
    stored = everything_stored(harness)
    assert readable_forms(PLANTED["email"]) & {stored["batches.csv_source"]}
    assert any(form in stored["orders.personal"] for form in readable_forms(PLANTED["customer_name"]))


def test_after_a_load_no_column_of_any_table_shows_a_personal_value(loaded, database):
    harness = Harness(database)
    assert harness.value("SELECT count(*) FROM orders") > 0
    assert harness.value("SELECT count(DISTINCT code) FROM rejections") > 3
    assert_nothing_readable(harness)


def test_rows_that_a_broken_rule_lets_through_are_not_loaded_and_not_shown(system, database, tmp_path, monkeypatch):
    path = tmp_path / "orders.csv"
    rows = [["ORD-1", "C-1", "100", "card_on_file", "email", *PLANTED.values()]] * 2
    rows[1] = ["ORD-2", *rows[0][1:7], "埋込.planted@example", *rows[0][8:]]
    path.write_text("\r\n".join(",".join(row) for row in [HEADER, *rows]) + "\r\n", "utf-8")
    batch_id = file_import.import_file(system, path, "acme", again=False)
    steps.stage_batch(system, batch_id)
    with monkeypatch.context() as broken:
        broken.setattr(Matches, "__call__", lambda _, cells, __: pa.repeat(True, len(cells)))
        with pytest.raises(RulesBroken) as raised:
            steps.validate_batch(system, batch_id)
        with pytest.raises(RulesBroken):  # nor when it is to be loaded, for which it is validated first
            steps.load_batch(system, batch_id)
    harness = Harness(database)
    assert harness.run("SELECT status, status_code FROM batches") == [{"status": "staged", "status_code": "E_VALIDATION"}]
    assert system.storage.head(artifact(batch_id, ACCEPTED)) is None
    said = errors.describe(raised.value, system.settings.model_copy(update={"env": "production"}), system.storage)
    assert said.startswith("E_VALIDATION: ")
    assert said.endswith("R_EMAIL in email (rows 2...)")
    assert harness.value("SELECT count(*) FROM orders") == 0
    steps.validate_batch(system, batch_id)
    steps.load_batch(system, batch_id)
    assert harness.value("SELECT status_code FROM batches") is None
    assert harness.value("SELECT code FROM rejections") == "R_EMAIL"
    assert harness.value("SELECT client_order_ref FROM orders") == "ORD-1"


def test_after_paying_and_telling_no_column_of_any_table_shows_a_personal_value(loaded, system, database):
    with batch_settlement.settling(system, loaded, None) as work:
        work.start_notifying()
        work.pay()
        work.finish_notifying()
    harness = Harness(database)
    assert harness.value("SELECT count(*) FROM notifications WHERE status = 'sent'") > 0
    assert_nothing_readable(harness)


def test_a_file_rejected_as_a_whole_shows_nothing_of_it(system, database, tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text(",".join(PLANTED.values()) + "\r\n" + ",".join(PLANTED.values()) + "\r\n", "utf-8")
    batch_id = file_import.import_file(system, path, "acme", again=False)
    with pytest.raises(FileRejected) as again:
        file_import.import_file(system, path, "acme", again=False)
    assert "planted" not in str(again.value)
    steps.stage_batch(system, batch_id)
    harness = Harness(database)
    assert harness.value("SELECT status FROM batches") == "rejected"
    assert_nothing_readable(harness)


def test_what_was_loaded_opens_again_for_its_own_row_only(loaded, system, database):
    first, second = Harness(database).run("SELECT import_row_number, personal FROM orders ORDER BY 1 LIMIT 2")
    opened = personal_data.decrypt(system.cipher, loaded, first["import_row_number"], first["personal"])
    assert opened["email"] == PLANTED["email"]
    assert opened["customer_name"] == PLANTED["customer_name"]
    for batch_id, number in [(loaded, second["import_row_number"]), ("another", first["import_row_number"])]:
        with pytest.raises(DecryptionError):
            personal_data.decrypt(system.cipher, batch_id, number, first["personal"])


def test_only_what_is_not_empty_is_sealed():
    rows = pa.record_batch({"import_row_number": [3, 9], "email": ["a@example.com", ""], "note": ["", ""]})
    first, second = personal_data.encrypter(CIPHER, "b")(rows).to_pylist()
    assert personal_data.decrypt(CIPHER, "b", 3, first) == {"email": "a@example.com"}
    assert personal_data.decrypt(CIPHER, "b", 9, second) == {}


def test_whatever_is_in_a_value_is_there_when_it_is_opened():
    values = ['"', "\\", '\\"},{"email":"', "二行\r\n目\t", "\x00\x1f\x7f", "{,", "\u2028😀", " "]
    cells = {"email": values, "note": [*values[1:], ""], "phone": [""] * len(values)}
    rows = pa.record_batch({"import_row_number": [*range(len(values))]} | cells)
    envelopes = personal_data.encrypter(CIPHER, "b")(rows).to_pylist()
    opened = [personal_data.decrypt(CIPHER, "b", at, sealed) for at, sealed in enumerate(envelopes)]
    assert [each["email"] for each in opened] == values
    assert [each.get("note", "") for each in opened] == [*values[1:], ""]
    assert not any("phone" in each for each in opened)


def test_equal_values_are_not_sealed_alike():
    rows = pa.record_batch({"import_row_number": [3], "email": ["a@example.com"]})
    seal = personal_data.encrypter(CIPHER, "b")
    assert seal(rows) != seal(rows)


def test_another_key_opens_nothing_and_says_nothing():
    rows = pa.record_batch({"import_row_number": [3], "email": ["planted@example.com"]})
    (sealed,) = personal_data.encrypter(CIPHER, "b")(rows).to_pylist()
    with pytest.raises(DecryptionError) as refused:
        personal_data.decrypt(Cipher({"test": b"x" * 32}, "test"), "b", 3, sealed)
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize(("skips", "differs"), [(False, False), (True, True)])
def test_an_order_that_cannot_be_opened_is_never_skipped_as_the_same(database, skips, differs):
    Harness(database).orders(order(notify_channel="none"))
    text = {name: pa.array([""]) for name in ORDERS.column_names}
    told = {"customer_code": "C-1", "payment_method": "invoice", "notify_channel": "none"}
    text |= {name: pa.array([cell]) for name, cell in told.items()}
    values = {column.name: pa.array([None], column.arrow_type) for column in ORDERS.typed_columns}
    rows = Rows(pa.array([1]), text, values | {"amount": pa.array([1000])}, pa.array([False]))
    before = ReceivedBefore(database, Cipher({"other": b"o" * 32}, "other"), "another", "acme", unopened_differ=skips)
    (columns,) = before.differing(rows, ["ord-0001"])
    assert bool(columns) == ("email" in columns) == differs
    assert "customer_name" not in columns
