"""The correction loop: rejected.csv goes to the client, comes back corrected, and loads what was missing and no more."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import psycopg
import pytest

from orders_pipeline.batches import batches
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline_tests.support.commands import Cli
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, check_finished
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.soak import first_of

NAME = "髙橋①商店"


def first_file(codec: str, path: Path) -> Path:
    made = OrderFile(codec)
    made.add(order_row(client_order_ref="A-1", customer_name=NAME))
    made.add(order_row(client_order_ref="A-2", customer_name=NAME, amount="TWO"), codes="R_AMOUNT_FORMAT")
    made.add(
        order_row(client_order_ref="A-3", customer_name=NAME, note="改行\nあり", amount="THREE"), codes="R_AMOUNT_FORMAT"
    )
    made.add(order_row(client_order_ref="A-4", customer_name=NAME), codes="R_COLUMNS", extra=("EXTRA",))
    return made.write(path)


def corrected(installation: Installation, batch_id: str, path: Path, codec: str, **corrections: str) -> Path:
    """Write a batch's rejected.csv with words replaced, as a person in an editor would."""
    text = (installation.report(batch_id, "rejected") or b"").decode(codec)
    for wrong, right in corrections.items():
        assert wrong in text
        text = text.replace(wrong, right)
    path.write_bytes(text.encode(codec))
    return path


@pytest.mark.parametrize("codec", first_of(["cp932", "utf-8", "utf-8-sig", "utf-16"]))
def test_corrected_rows_load_once_and_belong_to_the_group_of_the_first_file(
    installation: Installation, codec: str, tmp_path: Path
) -> None:
    client = f"loop-{codec}"
    first = installation.take(first_file(codec, tmp_path / "first.csv"), client)
    assert first["rows"] == {"total": 4, "accepted": 1, "rejected": 3, "blank": 0, "skipped": 0}
    assert first["corrections"] == {"batches": 1, "rows_open": 3, "open_in": [first["batch_id"]]}

    second = installation.take(
        corrected(installation, first["batch_id"], tmp_path / "second.csv", codec, TWO="2000", EXTRA=""), client
    )
    assert second["rows"]["total"] == 3
    assert second["bulk_import_group"] == first["batch_id"] != second["batch_id"]
    assert second["rejections"] == {"R_AMOUNT_FORMAT": 1, "R_COLUMNS": 1}
    assert second["corrections"] == {"batches": 2, "rows_open": 2, "open_in": [second["batch_id"]]}
    assert installation.summary(first["batch_id"])["corrections"] == second["corrections"]

    text = (installation.report(second["batch_id"], "rejected") or b"").decode(codec)
    assert text.count("_batch") == 1
    assert first["batch_id"] not in text
    surplus = f",,{second['batch_id']}"
    assert surplus in text
    head, _, tail = text.rpartition(surplus)
    path = tmp_path / "third.csv"
    path.write_bytes((head + surplus[1:] + tail).replace("THREE", "3000").encode(codec))
    third = installation.take(path, client)
    assert third["status"] == "completed"
    assert third["bulk_import_group"] == first["batch_id"]
    assert third["corrects"] == second["batch_id"]
    assert third["corrections"] == {"batches": 3, "rows_open": 0, "open_in": []}

    loaded = installation.rows(
        "SELECT client_order_ref, amount, bulk_import_group FROM orders WHERE client_code = %s ORDER BY 1", client
    )
    assert loaded == [(f"A-{n}", amount, first["batch_id"]) for n, amount in enumerate((1000, 2000, 3000, 1000), start=1)]
    for summary, status in ((first, "completed_with_errors"), (second, "completed_with_errors"), (third, "completed")):
        check_finished(installation, summary["batch_id"], status)


@pytest.mark.parametrize("codec", first_of(["cp932", "utf-8-sig"]))
def test_a_spreadsheet_may_write_every_cell_its_own_way(installation: Installation, codec: str, tmp_path: Path) -> None:
    """Other quoting, other dates, numbers without grouping, columns moved, blank rows at the end."""
    today = batches.today()
    client, day, shown = f"sheet-{codec}", f"{today:%Y-%m-%d}", f"{today.year}/{today.month}/{today.day}"
    made = OrderFile(codec)
    made.add(order_row(client_order_ref="E-1", customer_name=NAME, amount="1,000", order_date=day, note="a\r\nb"))
    made.add(order_row(client_order_ref="E-2", customer_name=NAME, amount="x", order_date=day, note='1"'), codes="-")
    made.add(order_row(client_order_ref="E-3", customer_name="", amount="2,000", order_date=day), codes="-")
    first = installation.take(made.write(tmp_path / "first.csv"), client)
    assert first["corrections"]["rows_open"] == 2

    rejected = io.StringIO((installation.report(first["batch_id"], "rejected") or b"").decode(codec), newline="")
    rows = list(csv.DictReader(rejected))
    for row in rows:
        row |= {"order_date": shown, "amount": row["amount"].replace(",", "").replace("x", "3000")}
        row["customer_name"] = row["customer_name"] or NAME
    path = tmp_path / "saved.csv"
    with path.open("w", encoding=codec, newline="") as file:
        writer = csv.DictWriter(file, sorted(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        file.write("," * len(rows[0]) + "\r\n")
    second = installation.take(path, client)
    assert (second["status"], second["corrects"]) == ("completed", first["batch_id"])
    assert second["rows"] == {"total": 3, "accepted": 2, "rejected": 0, "blank": 1, "skipped": 0}
    assert second["corrections"] == {"batches": 2, "rows_open": 0, "open_in": []}
    assert installation.rows("SELECT amount FROM orders WHERE client_code = %s ORDER BY client_order_ref", client) == [
        (1000,),
        (3000,),
        (2000,),
    ]


def test_characters_whose_codes_do_not_round_trip_come_back_as_the_bytes_that_were_sent(
    installation: Installation, tmp_path: Path
) -> None:
    """CP932 has several codes for one character; decoding and encoding again would change the client's bytes."""
    twice = b"\x87\x90\xed\x40\xfa\x4a\xee\xef\x81\xca"
    assert twice.decode("cp932").encode("cp932") != twice
    made = OrderFile("cp932")
    made.add(order_row(client_order_ref="F-1", customer_name="NAME", amount="x"), codes="R_AMOUNT_FORMAT")
    content = made.text.encode("cp932").replace(b"NAME", twice)
    path = tmp_path / "orders.csv"
    path.write_bytes(content)
    first = installation.take(path, "codes")
    given_back = installation.report(first["batch_id"], "rejected") or b""
    assert given_back == made.rejected_csv(first["batch_id"]).replace(b"NAME", twice)
    path.write_bytes(given_back.replace(b",x,", b",10,"))
    second = installation.take(path, "codes")
    assert (second["status"], second["corrections"]["rows_open"]) == ("completed", 0)


def test_a_row_that_is_left_out_of_a_correction_stays_open_and_those_sent_twice_are_paid_once(
    installation: Installation, cli: Cli, tmp_path: Path
) -> None:
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="G-1", amount="1600000"), codes="R_AMOUNT_OVER_LIMIT")
    made.add(order_row(client_order_ref="G-2", amount="x"), codes="R_AMOUNT_FORMAT")
    first = installation.take(made.write(tmp_path / "first.csv"), "left-out")
    header, over, _ = (installation.report(first["batch_id"], "rejected") or b"").splitlines()
    path = tmp_path / "second.csv"
    path.write_bytes(b"\n".join([header, over.replace(b"1600000", b"800000"), b""]))
    second = installation.take(path, "left-out")
    assert second["rows"]["accepted"] == 1
    assert second["corrections"] == {"batches": 2, "rows_open": 1, "open_in": [first["batch_id"]]}
    again = cli("rejected", first["batch_id"])
    assert "1 of these 2 rows still wait for a correction" in " ".join(again.stderr.split())
    path.write_bytes(again.stdout.encode().replace(b"1600000", b"800000").replace(b",x,", b",10,"))
    third = installation.take(path, "left-out")
    assert (third["rows"]["accepted"], third["rejections"]) == (1, {"R_REF_EXISTS": 1})
    assert "0 of these 2 rows" in " ".join(cli("rejected", first["batch_id"]).stderr.split())


def test_a_row_that_was_added_to_a_correction_comes_back_whole(installation: Installation, tmp_path: Path) -> None:
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="I-1", amount="WRONG"), codes="R_AMOUNT_FORMAT")
    first = installation.take(made.write(tmp_path / "first.csv"), "added")
    path = tmp_path / "second.csv"
    path.write_bytes((installation.report(first["batch_id"], "rejected") or b"") + b"I-2,2026-01-01,C-9,x\r\n")
    second = installation.take(path, "added")
    lines = (installation.report(second["batch_id"], "rejected") or b"").decode().splitlines()
    assert lines[1].endswith(f",{second['batch_id']},1,2,R_AMOUNT_FORMAT")
    assert first["batch_id"] not in lines[1]
    assert lines[2] == f"I-2,2026-01-01,C-9,x,{second['batch_id']},2,3,R_COLUMNS"


def test_a_correction_that_comes_twice_leaves_nothing_open(installation: Installation, tmp_path: Path) -> None:
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="H-1", amount="WRONG"), codes="R_AMOUNT_FORMAT")
    made.add(order_row(client_order_ref="H-2"))
    made.add(order_row(client_order_ref="H-2"), codes="R_REF_DUP_IN_FILE")
    first = installation.take(made.write(tmp_path / "first.csv"), "twice")
    assert first["corrections"]["rows_open"] == 1
    corrected(installation, first["batch_id"], tmp_path / "second.csv", "utf-8", WRONG="10")
    assert installation.take(tmp_path / "second.csv", "twice")["corrections"]["rows_open"] == 0
    (tmp_path / "third.csv").write_bytes((tmp_path / "second.csv").read_bytes() + b"\r\n")
    third = installation.take(tmp_path / "third.csv", "twice")
    assert third["rejections"]["R_REF_EXISTS"] == 2
    assert third["corrections"]["rows_open"] == 0


def test_a_row_is_counted_once_however_often_its_correction_was_rejected(installation: Installation, tmp_path: Path) -> None:
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="K-1", amount="WRONG", note="N"), codes="R_AMOUNT_FORMAT")
    made.add(order_row(client_order_ref="K-2", amount="OTHER"), codes="R_AMOUNT_FORMAT")
    first = installation.take(made.write(tmp_path / "first.csv"), "tried")
    tries = [
        installation.take(corrected(installation, first["batch_id"], tmp_path / f"{word}.csv", "utf-8", WRONG=word), "tried")
        for word in ("BAD", "WORSE")
    ]
    newest = tries[-1]["batch_id"]
    assert tries[-1]["corrections"] == {"batches": 3, "rows_open": 2, "open_in": [newest]}
    good = corrected(installation, first["batch_id"], tmp_path / "good.csv", "utf-8", WRONG="10")
    assert installation.take(good, "tried")["corrections"]["rows_open"] == 1
    last = corrected(installation, tries[0]["batch_id"], tmp_path / "last.csv", "utf-8", OTHER="20")
    assert installation.take(last, "tried")["corrections"] == {"batches": 5, "rows_open": 0, "open_in": []}


def test_a_correction_that_was_cancelled_leaves_open_what_was_not_paid(installation: Installation, tmp_path: Path) -> None:
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="L-1", amount="WRONG"), codes="R_AMOUNT_FORMAT")
    made.add(order_row(client_order_ref="L-2", amount="OTHER"), codes="R_AMOUNT_FORMAT")
    first = installation.take(made.write(tmp_path / "first.csv"), "halfway")
    good = corrected(installation, first["batch_id"], tmp_path / "good.csv", "utf-8", WRONG="10", OTHER="20")
    second = installation.take(good, "halfway")
    assert second["corrections"]["rows_open"] == 0
    with psycopg.connect(libpq_url(installation.system.database.url)) as connection:
        connection.execute("SET session_replication_role = replica")
        for table, more in (("batches", ""), ("orders", "AND client_order_ref = 'L-2'")):
            change = f"UPDATE {table} SET status = 'cancelled' WHERE batch_id = %s {more}"
            connection.execute(change.encode(), [second["batch_id"]])
    open_now = installation.summary(first["batch_id"])["corrections"]
    assert open_now == {"batches": 1, "rows_open": 1, "open_in": [first["batch_id"]]}


def test_a_total_row_waits_for_no_correction(installation: Installation, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="M-1"))
    total = made.text + ",".join(
        "合計" if name == "customer_name" else "1000" if name == "amount" else "" for name in order_row()
    )
    path.write_bytes((total + "\r\n").encode())
    first = installation.take(path, "totals")
    assert (first["rejections"], first["corrections"]["rows_open"]) == ({"R_TOTAL_ROW": 1}, 0)
    path.write_bytes(installation.report(first["batch_id"], "rejected") or b"")
    assert installation.take(path, "totals")["corrections"]["rows_open"] == 0


def test_rows_that_were_accepted_and_come_again_are_rejected(installation: Installation, tmp_path: Path) -> None:
    made, again = OrderFile("utf-8"), OrderFile("utf-8")
    made.add(order_row(client_order_ref="B-1"))
    made.add(order_row(client_order_ref="B-2", amount="x"), codes="R_AMOUNT_FORMAT")
    first = installation.take(made.write(tmp_path / "first.csv"), "whole-file")
    again.add(order_row(client_order_ref="b-1"), codes="R_REF_EXISTS")
    again.add(order_row(client_order_ref="B-2", amount="1"))
    second = installation.take(again.write(tmp_path / "second.csv"), "whole-file")
    assert (second["rows"]["accepted"], second["rejections"]) == (1, {"R_REF_EXISTS": 1})
    assert first["batch_id"] in (installation.report(second["batch_id"], "errors") or b"").decode("utf-8-sig")
    assert installation.report(second["batch_id"], "rejected") == again.rejected_csv(second["batch_id"])


@pytest.mark.parametrize("named", ["20260101-000000000000", "another client's"])
def test_a_correction_of_a_batch_that_is_not_the_clients_is_rejected(
    installation: Installation, named: str, tmp_path: Path
) -> None:
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="C-1"))
    if named.startswith("another"):
        named = installation.take(made.write(tmp_path / "theirs.csv"), "they")["batch_id"]
    header, row, _ = made.text.split("\r\n")
    path = tmp_path / "orders.csv"
    path.write_text(f"{header},_batch\r\n{row},{named}\r\n", "utf-8")
    summary = installation.take(path, f"we-{len(named)}-{named[-4:]}")
    assert (summary["status"], summary["status_code"]) == ("rejected", "F_BATCH_COLUMN")
