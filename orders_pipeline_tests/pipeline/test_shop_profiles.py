"""The profiles that are shipped for shop systems, each with a file in its system's shape, from its bytes to paid orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import orders_pipeline
from orders_pipeline.batches import batches
from orders_pipeline.clients.profiles import read_clients
from orders_pipeline.reports import preview
from orders_pipeline_tests.support import shop_files
from orders_pipeline_tests.support.installation import Installation, open_installation

EXAMPLES = Path(orders_pipeline.__file__).parent / "docs" / "clients.examples.toml"


@pytest.fixture(scope="module")
def shops(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with open_installation(server_url, template, tmp_path_factory.mktemp("shops"), clients_file=EXAMPLES) as opened:
        yield opened


# by hand: the yen of each order, and its items with how many of each
SHOPS = [
    (
        "shopify",
        shop_files.shopify,
        "orders_export_1.csv",
        2,
        {"1001": 3800, "1003": 1320},
        {"1001": "T-1 x1, T-2 x2", "1003": "C-1 x1"},
    ),
    (
        "eccube",
        shop_files.eccube,
        "order.csv",
        1,
        {"5001": 2830, "5002": 1650},
        {"5001": "A-1 x2, - x1, - x1", "5002": "A-2 x1"},
    ),
    (
        "rakuten",
        shop_files.rakuten,
        "rakuten.csv",
        1,
        {"123456-20261120-0000000001": 4480, "123456-20261120-0000000002": 980},
        {"123456-20261120-0000000001": "tea-01 x2, bag-01 x1", "123456-20261120-0000000002": "tea-02 x1"},
    ),
    (
        "amazon",
        shop_files.amazon,
        "amazon.txt",
        0,
        {"503-1111111-0000001": 1200 + 350 + 900 + 120, "503-1111111-0000002": 800 + 410, "503-1111111-0000003": 800},
        {"503-1111111-0000001": "S-1 x2, S-2 x1", "503-1111111-0000002": "S-3 x1", "503-1111111-0000003": "S-3 x1"},
    ),
    (
        "base",
        shop_files.base,
        "base.csv",
        1,
        {"A1B2C3D4E5F6": 2700, "B1B2C3D4E5F6": 500},
        {"A1B2C3D4E5F6": "101 x2, 102 x1", "B1B2C3D4E5F6": "103 x1"},
    ),
    (
        "yahoo",
        shop_files.yahoo,
        "yahoo.csv",
        1,
        {"shop-10000001": 3600, "shop-10000002": 1200},
        {"shop-10000001": "tea x2, bag x1", "shop-10000002": "tea x1"},
    ),
    (
        "nextengine",
        shop_files.next_engine,
        "ne.csv",
        0,
        {"NE-1": 5300, "NE-2": 1200},
        {"NE-1": "tea x4, bag x1", "NE-2": "tea x1"},
    ),
    (
        "woocommerce",
        shop_files.woocommerce,
        "wc.csv",
        1,
        {"2001": 2400, "2002": 1000},
        {"2001": "tea x2, bag x1", "2002": "tea x1"},
    ),
]


@pytest.mark.parametrize(("client", "made", "name", "skipped", "yen", "items"), SHOPS, ids=[case[0] for case in SHOPS])
def test_an_export_is_taken_as_it_is(
    shops: Installation,
    tmp_path: Path,
    client: str,
    made: Callable[[str], bytes],
    name: str,
    skipped: int,
    yen: dict[str, int],
    items: dict[str, str],
) -> None:
    path = tmp_path / name
    path.write_bytes(made(f"{batches.today():%Y-%m-%d}"))
    found = shops.take(path, client)
    assert (found["status"], found["rejections"], found["rows"]["skipped"]) == ("completed", {}, skipped)
    orders = shops.rows("SELECT client_order_ref, amount, status FROM orders WHERE batch_id = %s", found["batch_id"])
    assert sorted(orders) == [(reference, amount, "paid") for reference, amount in sorted(yen.items())]
    lines = shops.rows(
        "SELECT client_order_ref, string_agg(concat(coalesce(line.item_code, '-'), ' x', coalesce(line.quantity::text, '-')"
        "), ', ' ORDER BY line.import_row_number) FROM orders JOIN order_lines AS line ON line.batch_id = orders.batch_id"
        " AND order_row = orders.import_row_number WHERE orders.batch_id = %s GROUP BY client_order_ref",
        found["batch_id"],
    )
    assert dict(lines) == items


def test_the_postage_of_each_line_is_in_the_order_and_beside_its_lines(shops: Installation, tmp_path: Path) -> None:
    path = tmp_path / "postage.txt"
    path.write_bytes(shop_files.amazon(f"{batches.today():%Y-%m-%d}").replace(b"503-1111111-", b"503-2222222-"))
    found = shops.take(path, "amazon")
    assert (found["amount_jpy"]["paid"], found["payments"]["succeeded"]) == (2570 + 1210 + 800, 3)
    orders = shops.rows(
        "SELECT sum(line.amount), amount_added, orders.amount FROM orders JOIN order_lines AS line ON line.batch_id ="
        " orders.batch_id AND order_row = orders.import_row_number WHERE orders.batch_id = %s"
        " GROUP BY orders.import_row_number, amount_added, orders.amount ORDER BY orders.import_row_number",
        found["batch_id"],
    )
    assert orders == [(2100, 470, 2570), (800, 410, 1210), (800, 0, 800)]


SKIPPED, REJECTED = "skipped", "rejected"
# by hand: what becomes of an order that differs in these cells from one that is taken
STATES = [
    (
        "shopify",
        ("utf-8", "Name", "#1003", ",", ""),
        [
            ({}, 1320),
            ({"Financial Status": "pending"}, 1320),
            ({"Financial Status": "authorized", "Refunded Amount": "0.00"}, 1320),
            ({"Cancelled at": "2026-11-28 09:00:00 +0900"}, SKIPPED),
            ({"Cancelled at": "2026-11-28 09:00:00 +0900", "Refunded Amount": "1320"}, SKIPPED),
            ({"Financial Status": "voided"}, SKIPPED),
            ({"Financial Status": "refunded", "Refunded Amount": "1320"}, SKIPPED),
            ({"Total": "0"}, SKIPPED),
            ({"Total": "0.00"}, SKIPPED),
            ({"Financial Status": "partially_refunded", "Refunded Amount": "320"}, REJECTED),
            ({"Refunded Amount": "320"}, REJECTED),
            ({"Financial Status": "partially_paid"}, REJECTED),
            ({"Financial Status": "expired"}, REJECTED),
        ],
    ),
    (
        "eccube",
        ("cp932", "注文番号", "5002", ",", ""),
        [
            *[({"対応状況(名称)": state}, 1650) for state in ("新規受付", "入金済み", "対応中", "発送済み")],
            *[({"対応状況(名称)": state}, SKIPPED) for state in ("注文取消し", "返品", "決済処理中", "購入処理中")],
            ({"支払合計": "0.00"}, SKIPPED),
            ({"対応状況(名称)": "キャンセル"}, REJECTED),
            ({"支払方法(名称)": "クレジットカード"}, 1650),
        ],
    ),
    (
        "rakuten",
        ("cp932", "注文番号", "123456-20261120-0000000002", ",", ""),
        [
            *[({"ステータス": state}, 980) for state in ("100", "200", "300", "500", "600", "700")],
            *[({"ステータス": state}, REJECTED) for state in ("400", "800", "850")],
            ({"ステータス": "900"}, SKIPPED),
            ({"請求金額": "0"}, SKIPPED),
        ],
    ),
    (
        "amazon",
        (
            "cp932",
            "order-id",
            "503-1111111-0000002",
            "\t",
            "item-promotion-discount,ship-promotion-discount,gift-wrap-price",
        ),
        [
            ({"item-promotion-discount": "0.00"}, 1210),
            ({"shipping-price": ""}, 800),
            ({"item-promotion-discount": "100"}, REJECTED),
            ({"ship-promotion-discount": "-410"}, REJECTED),
            ({"gift-wrap-price": "300"}, REJECTED),
        ],
    ),
    (
        "base",
        ("cp932", "注文ID", "B1B2C3D4E5F6", ",", ""),
        [
            *[({"発送状況": state}, 500) for state in ("未対応", "対応済み", "配送中", "発送済み")],
            *[({"発送状況": state}, SKIPPED) for state in ("キャンセル", "入金待ち")],
            ({"合計金額": "0"}, SKIPPED),
            ({"発送状況": "一部キャンセル"}, REJECTED),
        ],
    ),
    (
        "yahoo",
        ("cp932", "OrderId", "shop-10000002", ",", ""),
        [
            *[({"OrderStatus": state}, 1200) for state in "125"],
            *[({"OrderStatus": state}, REJECTED) for state in "039"],
            ({"OrderStatus": "4"}, SKIPPED),
            ({"TotalPrice": "0"}, SKIPPED),
        ],
    ),
    ("nextengine", ("cp932", "店舗伝票番号", "NE-2", ",", ""), [({}, 1200), ({"合計金額": "0"}, SKIPPED)]),
    (
        "woocommerce",
        ("utf-8", "order_number", "2002", ",", ""),
        [
            *[({"status": state}, 1000) for state in ("processing", "completed", "on-hold")],
            *[({"status": state}, SKIPPED) for state in ("cancelled", "refunded", "failed", "pending")],
            ({"order_total": "0.00"}, SKIPPED),
            ({"refunded_total": "0.00"}, 1000),
            ({"refunded_total": "500.00"}, REJECTED),
            ({"status": "wc-cancelled"}, REJECTED),
        ],
    ),
]


@pytest.mark.parametrize(("client", "like", "states"), STATES, ids=[case[0] for case in STATES])
def test_no_order_is_charged_that_is_cancelled_refunded_or_free(
    shops: Installation,
    tmp_path: Path,
    client: str,
    like: tuple[str, str, str, str, str],
    states: list[tuple[dict[str, str], int | str]],
) -> None:
    _, made, name, *_ = next(case for case in SHOPS if case[0] == client)
    codec, header, reference, delimiter, more = like
    changes = [change for change, _ in states]
    path = tmp_path / name
    export = made(f"{batches.today():%Y-%m-%d}")
    path.write_bytes(shop_files.orders_like(export, codec, header, reference, changes, delimiter=delimiter, more=more))
    found = preview.preview(shops.system, path, client, again=False)
    became = [what for _, what in states]
    assert found["amount_jpy"]["accepted"] == sum(what for what in became if isinstance(what, int))
    codes = {each["row"]: each["code"] for each in found["errors"] if each["row"] is not None}
    assert codes == {row: "R_TO_DECIDE" for row, what in enumerate(became, 1) if what == REJECTED}
    assert found["rows"]["skipped"] == became.count(SKIPPED)


def test_what_a_person_decides_on_is_paid_once_the_amount_that_is_due_is_said(shops: Installation, tmp_path: Path) -> None:
    export = shop_files.shopify(f"{batches.today():%Y-%m-%d}")
    refunded = {"Financial Status": "partially_refunded", "Refunded Amount": "320"}
    path = tmp_path / "export.csv"
    path.write_bytes(shop_files.orders_like(export, "utf-8", "Name", "#1003", [refunded]).replace(b"#A-1", b"#D-1"))
    found = shops.take(path, "shopify")
    assert (found["status"], found["rejections"]) == ("rejected", {"R_TO_DECIDE": 1})
    returned = shops.report(found["batch_id"], "rejected") or b""
    path.write_bytes(returned)
    assert shops.take(path, "shopify")["rejections"] == {"R_TO_DECIDE": 1}
    mended = returned.replace(b"partially_refunded", b"paid").replace(b'"320"', b'""').replace(b'"1320"', b'"1000"')
    path.write_bytes(mended)
    corrected = shops.take(path, "shopify")
    assert (corrected["amount_jpy"]["paid"], corrected["corrections"]["rows_open"]) == (1000, 0)


def test_an_order_of_which_one_item_is_cancelled_is_not_charged_for_it(shops: Installation, tmp_path: Path) -> None:
    export = shop_files.base(f"{batches.today():%Y-%m-%d}")
    path = tmp_path / "base.csv"
    rows = shop_files.orders_like(export, "cp932", "注文ID", "B1B2C3D4E5F6", [{}, {"発送状況": "キャンセル"}, {}])
    path.write_bytes(rows.replace(b"A-2", b"A-1"))
    found = preview.preview(shops.system, path, "base", again=False)
    assert (found["amount_jpy"]["accepted"], found["rejections"]) == (500, {"R_ORDER_INCOMPLETE": 1})


def test_every_example_is_tried() -> None:
    assert [case[0] for case in STATES] == [case[0] for case in SHOPS]
    assert [case[0] for case in SHOPS] == list(read_clients(EXAMPLES).profiles)
    assert [columns.count(",") + 1 for columns in (shop_files.ECCUBE, shop_files.BASE)] == [71, 35]
