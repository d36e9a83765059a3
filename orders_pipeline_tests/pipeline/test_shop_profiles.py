"""The profiles that are shipped for shop systems, each with a file in its system's shape, from its bytes to paid orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import orders_pipeline
from orders_pipeline.batches import batches
from orders_pipeline.clients.profiles import read_clients
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


def test_every_example_is_tried() -> None:
    assert [case[0] for case in SHOPS] == list(read_clients(EXAMPLES).profiles)
    assert [columns.count(",") + 1 for columns in (shop_files.ECCUBE, shop_files.BASE)] == [71, 35]
