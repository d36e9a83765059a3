"""The correction loop: rejected.csv goes to the client, comes back corrected, and loads what was missing and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from orders_pipeline_tests.factories import order_row
from orders_pipeline_tests.house import House, check_finished
from orders_pipeline_tests.order_file import OrderFile

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


def corrected(house: House, batch_id: str, path: Path, codec: str, **corrections: str) -> Path:
    """Write a batch's rejected.csv with words replaced, as a person in an editor would."""
    text = (house.report(batch_id, "rejected") or b"").decode(codec)
    for wrong, right in corrections.items():
        assert wrong in text
        text = text.replace(wrong, right)
    path.write_bytes(text.encode(codec))
    return path


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "cp932", "utf-16"])
def test_corrected_rows_load_once_and_belong_to_the_group_of_the_first_file(
    house: House, codec: str, tmp_path: Path
) -> None:
    client = f"loop-{codec}"
    first = house.take(first_file(codec, tmp_path / "first.csv"), client)
    assert first["rows"] == {"total": 4, "accepted": 1, "rejected": 3, "blank": 0}

    second = house.take(corrected(house, first["batch_id"], tmp_path / "second.csv", codec, TWO="2000", EXTRA=""), client)
    assert second["rows"]["total"] == 3
    assert second["bulk_import_group"] == first["batch_id"] != second["batch_id"]
    assert second["rejections"] == {"R_AMOUNT_FORMAT": 1, "R_COLUMNS": 1}

    text = (house.report(second["batch_id"], "rejected") or b"").decode(codec)
    assert text.count("_batch") == 1
    assert first["batch_id"] not in text
    surplus = f",,{second['batch_id']}"
    assert surplus in text
    head, _, tail = text.rpartition(surplus)
    path = tmp_path / "third.csv"
    path.write_bytes((head + surplus[1:] + tail).replace("THREE", "3000").encode(codec))
    third = house.take(path, client)
    assert third["status"] == "completed"
    assert third["bulk_import_group"] == first["batch_id"]

    loaded = house.rows(
        "SELECT client_order_ref, amount, bulk_import_group FROM orders WHERE client_code = %s ORDER BY 1", client
    )
    assert loaded == [(f"A-{n}", amount, first["batch_id"]) for n, amount in enumerate((1000, 2000, 3000, 1000), start=1)]
    for summary, status in ((first, "completed_with_errors"), (second, "completed_with_errors"), (third, "completed")):
        check_finished(house, summary["batch_id"], status)


def test_rows_that_were_accepted_and_come_again_are_given_back(house: House, tmp_path: Path) -> None:
    made, again = OrderFile("utf-8"), OrderFile("utf-8")
    made.add(order_row(client_order_ref="B-1"))
    made.add(order_row(client_order_ref="B-2", amount="x"), codes="R_AMOUNT_FORMAT")
    first = house.take(made.write(tmp_path / "first.csv"), "whole-file")
    again.add(order_row(client_order_ref="b-1"), codes="R_REF_EXISTS")
    again.add(order_row(client_order_ref="B-2", amount="1"))
    second = house.take(again.write(tmp_path / "second.csv"), "whole-file")
    assert (second["rows"]["accepted"], second["rejections"]) == (1, {"R_REF_EXISTS": 1})
    assert first["batch_id"] in (house.report(second["batch_id"], "errors") or b"").decode("utf-8-sig")
    assert house.report(second["batch_id"], "rejected") == again.given_back(second["batch_id"])


@pytest.mark.parametrize("named", ["20260101-000000000000", "another client's"])
def test_a_correction_of_a_batch_that_is_not_the_clients_is_given_back(house: House, named: str, tmp_path: Path) -> None:
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="C-1"))
    if named.startswith("another"):
        named = house.take(made.write(tmp_path / "theirs.csv"), "they")["batch_id"]
    header, row, _ = made.text.split("\r\n")
    path = tmp_path / "orders.csv"
    path.write_text(f"{header},_batch\r\n{row},{named}\r\n", "utf-8")
    summary = house.take(path, f"we-{len(named)}-{named[-4:]}")
    assert (summary["status"], summary["status_code"]) == ("rejected", "F_BATCH_COLUMN")
