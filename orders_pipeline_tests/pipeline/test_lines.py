"""Files of lines: from a shop's export to paid orders with their items, returned rows and their correction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orders_pipeline.batches import batches
from orders_pipeline.intake import steps
from orders_pipeline.orchestration import checks
from orders_pipeline_tests.support.installation import Installation, check_finished, open_installation, prepare, work_off

CLIENTS = """
[shopify]
lines = "grouped"
payments = "per_order"
notifications = "per_order"
[shopify.columns]
client_order_ref = { header = "Name", after = "#" }
order_date = { header = "Created at", until = " " }
customer_code = { default = "guest" }
customer_name = "Billing Name"
item_code = "Lineitem name"
quantity = "Lineitem quantity"
unit_price = "Lineitem price"
amount = "Total"
payment_method = { header = "Payment Method", values = { "Shopify Payments" = "invoice" } }
notify_channel = { default = "email" }

[eccube]
lines = "grouped"
encoding = "cp932"
[eccube.columns]
order_date = { header = "注文日時", until = " " }
customer_code = { header = "会員ID", default = "guest" }
customer_name = { join = ["お名前(姓)", "お名前(名)"] }
amount = { multiply = ["単価", "数量"], add = ["手数料"] }
payment_method = { header = "支払方法", values = { "請求書払い" = "invoice" } }

[own]
lines = "grouped"
columns.amount = { header = "小計", each = "line" }
[daily]
lines = "grouped"
same_orders = "skip"
columns.amount = { header = "小計", each = "line" }
[skipping]
lines = "grouped"
columns.amount = { header = "小計", each = "line" }
skip = [{ header = "商品コード", values = ["取消"] }]
[strict]
lines = "grouped"
bad_rows = "refuse_file"
columns.amount = { header = "小計", each = "line" }
"""
SHOPIFY = """\
Name,Email,Currency,Total,Created at,Lineitem quantity,Lineitem name,Lineitem price,Billing Name,Notes,Payment Method,Id
#2001,taro@example.com,JPY,3800,{day} 10:00:01 +0900,1,紅茶,1000,見本 太郎,,Shopify Payments,7001
#2001,taro@example.com,,,{day} 10:00:01 +0900,2,緑茶,1000,,,,
#2002,hana@example.com,JPY,1320,{day} 11:00:01 +0900,1,珈琲,1200,見本 花子,,Shopify Payments,7002
"""
ECCUBE = """\
注文番号,注文日時,会員ID,お名前(姓),お名前(名),メールアドレス,TEL,商品コード,商品名,単価,数量,手数料,支払合計,支払方法
5001,{day} 10:00:00,,見本,太郎,t@example.com,0312345678,A-1,ほうじ茶,1000,2,330,2830,請求書払い
5001,{day} 10:00:00,,見本,太郎,t@example.com,0312345678,,送料,500,1,330,2830,請求書払い
5002,{day} 11:00:00,12,見本,花子,h@example.com,0312345679,A-2,煎茶,1500,1,,1500,請求書払い
"""
HEADER = "注文番号,受注日,得意先コード,得意先名,商品コード,数量,単価,小計,支払方法"


def own(*rows: str) -> str:
    """Return a file of lines, each given as a reference and what is of the item."""
    common = f",{batches.today():%Y-%m-%d},C01,見本商店,"
    return "\r\n".join([HEADER, *(row.replace(":", common) + ",invoice" for row in rows), ""])


@pytest.fixture(scope="module")
def shops(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("lines")
    (folder / "clients.toml").write_text(CLIENTS, "utf-8")
    with open_installation(server_url, template, folder, clients_file=folder / "clients.toml") as opened:
        yield opened


@pytest.fixture
def take(shops: Installation, tmp_path: Path):
    def take(client: str, text: str | bytes, name: str = "orders.csv") -> dict[str, Any]:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return shops.take(path, client)

    return take


def orders_of(shops: Installation, batch_id: str) -> list[tuple[Any, ...]]:
    return shops.rows(
        "SELECT o.import_row_number, o.client_order_ref, o.amount, o.status, l.import_row_number, l.item_code, l.quantity,"
        " l.unit_price, l.amount FROM orders AS o JOIN order_lines AS l"
        " ON l.batch_id = o.batch_id AND l.order_row = o.import_row_number"
        " WHERE o.batch_id = %s ORDER BY o.import_row_number, l.import_row_number",
        batch_id,
    )


@pytest.mark.parametrize(
    ("client", "text", "codec", "expected"),
    [
        (
            "shopify",
            SHOPIFY,
            "utf-8",
            [
                (1, "2001", 3800, "paid", 1, "紅茶", 1, 1000, None),
                (1, "2001", 3800, "paid", 2, "緑茶", 2, 1000, None),
                (3, "2002", 1320, "paid", 3, "珈琲", 1, 1200, None),
            ],
        ),
        (
            "eccube",
            ECCUBE,
            "cp932",
            [
                (1, "5001", 2830, "paid", 1, "A-1", 2, 1000, 2000),
                (1, "5001", 2830, "paid", 2, None, 1, 500, 500),
                (3, "5002", 1500, "paid", 3, "A-2", 1, 1500, 1500),
            ],
        ),
        (
            "own",
            own("O-3001:A-1,2,1000,2000", "O-3001:A-2,1,500,500", "O-3002:A-1,1,1000,1000"),
            "utf-8",
            [
                (1, "O-3001", 2500, "paid", 1, "A-1", 2, 1000, 2000),
                (1, "O-3001", 2500, "paid", 2, "A-2", 1, 500, 500),
                (3, "O-3002", 1000, "paid", 3, "A-1", 1, 1000, 1000),
            ],
        ),
    ],
)
def test_orders_of_several_rows_are_paid_with_the_sum_of_their_lines(shops, take, client, text, codec, expected):
    found = take(client, text.format(day=f"{batches.today():%Y-%m-%d}").encode(codec))
    assert found["rows"] == {"total": 3, "accepted": 3, "rejected": 0, "blank": 0, "skipped": 0}
    assert (found["orders"]["paid"], found["amount_jpy"]["paid"]) == (
        2,
        sum({ref: yen for _, ref, yen, *_ in expected}.values()),
    )
    assert orders_of(shops, found["batch_id"]) == expected
    check_finished(shops, found["batch_id"], "completed")
    with shops.system.database.begin() as transaction:
        assert all(result.passed for result in checks.order_checks(transaction, found["batch_id"]))


def test_orders_that_came_before_with_the_same_lines_are_skipped_and_others_say_what_differs(take):
    first = ["D-1:A-1,2,100,200", "D-1:A-2,1,50,50", "D-2:A-1,1,100,100", "D-3:A-1,1,100,100", "D-4:,,,100"]
    assert take("daily", own(*first))["status"] == "completed"
    second = [*first, "D-5:A-1,1,100,100"]
    second[1] = "D-1:A-9,1,50,50"  # another item for the same yen
    second[3:4] = ["D-3:A-1,1,60,60", "D-3:A-1,1,40,40"]
    found = take("daily", own(*second), "2.csv")
    assert found["rows"] == {"total": 7, "accepted": 1, "rejected": 4, "blank": 0, "skipped": 2}
    assert (found["rejections"], found["warnings"]) == ({"R_REF_EXISTS_DIFFERS": 4}, ["W_SAME_ORDERS"])
    assert take("daily", own(*first, "D-5:A-1,1,100,100"), "3.csv")["status"] == "completed"


def test_a_rejected_order_is_returned_with_all_of_its_rows_and_taken_with_all_of_them(shops, take):
    first = take("own", own("R-1:A-1,2,100,200", "R-2:A-1,1,100,100", "R-1:A-2,x,100,100"))
    assert first["rows"] == {"total": 3, "accepted": 1, "rejected": 2, "blank": 0, "skipped": 0}
    assert first["rejections"] == {"R_QUANTITY": 1, "R_ORDER_INCOMPLETE": 1}
    returned = (shops.report(first["batch_id"], "rejected") or b"").decode("utf-8-sig")
    assert [record.split(",")[-3] for record in returned.splitlines()[1:]] == ["1", "3"]

    mended = returned.replace(",x,", ",1,")
    header, whole, part = mended.splitlines()
    without = take("own", "\r\n".join([header, part, ""]), "part.csv")
    assert (without["rejections"], without["rows"]["accepted"]) == ({"R_ORDER_INCOMPLETE": 1}, 0)

    second = take("own", "\r\n".join([header, part, whole, ""]), "whole.csv")
    assert (second["status"], second["corrections"]["rows_open"]) == ("completed", 0)
    assert orders_of(shops, second["batch_id"]) == [
        (1, "R-1", 300, "paid", 1, "A-2", 1, 100, 100),
        (1, "R-1", 300, "paid", 2, "A-1", 2, 100, 200),
    ]
    again = take("own", mended, "again.csv")
    assert (again["rejections"], again["corrections"]["rows_open"]) == ({"R_REF_EXISTS": 2}, 0)


def rejected_by(shops: Installation, batch_id: str) -> str:
    return (shops.report(batch_id, "rejected") or b"").decode("utf-8-sig")


def test_rows_of_an_order_that_come_again_elsewhere_are_charged_once_and_only_without_them(shops, take):
    rows = ["U-1:A-1,2,100,200", "U-1:A-2,1,100,100"]
    returned = rejected_by(shops, take("own", own(*rows, "U-2:A-1,1,100,100", *rows))["batch_id"])
    again = take("own", returned, "again.csv")  # in which they stand next to each other
    assert again["rejections"] == {"R_ORDER_INCOMPLETE": 2, "R_REF_DUP_IN_FILE": 2}
    header, *lines = rejected_by(shops, again["batch_id"]).splitlines()
    assert take("own", "\r\n".join([header, *lines, ""]), "third.csv")["rejections"] == again["rejections"]
    mended = take("own", "\r\n".join([header, *lines[:2], ""]), "mended.csv")
    assert (mended["amount_jpy"]["paid"], mended["corrections"]["rows_open"]) == (300, 0)


def test_a_part_of_an_order_is_not_taken_because_it_is_sent_once_more(shops, take):
    first = take("own", own("V-1:A-1,2,100,200", "V-1:A-2,x,100,100", "V-1:A-3,1,100,100"))
    returned = rejected_by(shops, first["batch_id"])
    header, *lines = returned.replace(",x,", ",1,").splitlines()
    part = take("own", "\r\n".join([header, *lines[:2], ""]), "part.csv")
    for name in ("again.csv", "once_more.csv"):
        part = take("own", rejected_by(shops, part["batch_id"]), name)
        assert part["rejections"] == {"R_ORDER_INCOMPLETE": 2}
    whole = take("own", "\r\n".join([header, *lines, ""]), "whole.csv")
    assert (whole["amount_jpy"]["paid"], whole["corrections"]["rows_open"]) == (400, 0)


def test_rows_that_were_corrected_apart_are_still_taken_together(shops, take):
    returned = rejected_by(shops, take("own", own("W-1:A-1,2,100,200", "W-1:A-2,x,100,100"))["batch_id"])
    header, good, bad = returned.splitlines()
    changed = bad.replace("W-1", "W-2").replace(",x,", ",1,")
    second = take("own", "\r\n".join([header, good, changed, ""]), "changed.csv")
    assert second["rejections"] == {"R_REF_CHANGED": 1, "R_ORDER_INCOMPLETE": 1}
    header, good, changed = rejected_by(shops, second["batch_id"]).splitlines()
    alone = take("own", "\r\n".join([header, good, ""]), "alone.csv")
    assert alone["rejections"] == {"R_ORDER_INCOMPLETE": 1}
    mended = take("own", "\r\n".join([header, good, changed.replace("W-2", "W-1"), ""]), "mended.csv")
    assert (mended["amount_jpy"]["paid"], mended["corrections"]["rows_open"]) == (300, 0)


def test_the_rest_of_an_order_that_was_skipped_elsewhere_is_not_taken_because_it_is_sent_again(shops, take):
    first = take("skipping", own("X-1:取消,1,100,100", "X-2:A-1,1,100,100", "X-1:A-3,1,100,100"))
    assert (first["rows"]["skipped"], first["rejections"]) == (1, {"R_ORDER_INCOMPLETE": 1})
    again = take("skipping", rejected_by(shops, first["batch_id"]), "again.csv")
    assert (again["rows"]["accepted"], again["rejections"]) == (0, {"R_ORDER_INCOMPLETE": 1})


def test_a_row_of_an_order_that_was_corrected_under_another_reference_is_no_second_order(shops, take):
    first = take("own", own("S 1:A-1,2,100,200", "S 1:A-2,1,100,100"))
    assert first["rejections"] == {"R_REF_FORMAT": 2}
    returned = (shops.report(first["batch_id"], "rejected") or b"").decode("utf-8-sig")
    assert take("own", returned.replace("S 1", "S-1"), "second.csv")["status"] == "completed"
    header, _, last = returned.replace("S 1", "S-2").splitlines()
    third = take("own", "\r\n".join([header, last, ""]), "third.csv")
    assert third["rejections"] == {"R_CORRECTED_BEFORE": 1}


@pytest.mark.parametrize("client", ["own", "strict"])
def test_an_order_that_another_batch_loads_first_is_rejected_with_all_of_its_rows(shops, tmp_path, client):
    path, other = tmp_path / "mine.csv", tmp_path / "other.csv"
    path.write_text(own("T-1:A-1,2,100,200", "T-2:A-1,1,100,100", "T-1:A-2,1,100,100"), "utf-8")
    other.write_text(own("T-1:A-9,1,900,900"), "utf-8")
    mine = shops.receive(path, client)
    for step in (steps.stage_batch, steps.validate_batch):
        step(shops.system, mine)
    prepare(shops.system, shops.receive(other, client))
    work_off(shops.system, mine)
    summary = shops.summary(mine)
    if client == "strict":
        assert (summary["status"], summary["status_code"], summary["rows"]["rejected"]) == (
            "rejected",
            "F_TOO_MANY_ERRORS",
            3,
        )
        return
    assert summary["rows"] == {"total": 3, "accepted": 1, "rejected": 2, "blank": 0, "skipped": 0}
    assert summary["rejections"] == {"R_REF_EXISTS_DIFFERS": 2}
    assert (summary["amount_jpy"]["paid"], summary["corrections"]["rows_open"]) == (100, 2)
    with shops.system.database.begin() as transaction:
        assert all(result.passed for result in checks.order_checks(transaction, mine))
