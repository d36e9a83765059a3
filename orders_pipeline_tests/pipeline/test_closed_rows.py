"""A rejected row that a person decides not to charge is closed by a correction in which it is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orders_pipeline.intake import steps
from orders_pipeline.reports.preview import preview
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.support.installation import Installation, open_installation, prepare, work_off

CLIENTS = """
[shop]
skip = [{ header = "状態", values = ["取消"] }]
reject = [{ header = "状態", values = ["一部返金"] }]
[lines]
lines = "grouped"
columns.amount = { header = "金額", each = "line" }
skip = [{ header = "状態", values = ["取消"] }]
reject = [{ header = "状態", values = ["一部返金"] }]
[careful]
approval_above = 50
skip = [{ header = "状態", values = ["取消"] }]
reject = [{ header = "状態", values = ["一部返金"] }]
"""
HEADER = "注文番号,得意先コード,得意先名,商品コード,数量,単価,金額,支払方法,状態"


def orders(*rows: str) -> str:
    """Return a file, each row given as a reference and a status."""
    return "\n".join([HEADER, *(row.replace(":", ",C01,見本商店,A-1,1,100,100,invoice,") for row in rows), ""])


@pytest.fixture(scope="module")
def shops(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("closed")
    (folder / "clients.toml").write_text(CLIENTS, "utf-8")
    with open_installation(server_url, template, folder, clients_file=folder / "clients.toml") as opened:
        yield opened


class Desk:
    """Where a person mends what was rejected and sends it again."""

    def __init__(self, shops: Installation, folder: Path) -> None:
        self._shops, self._folder = shops, folder

    def path(self, text: str, name: str = "orders.csv") -> Path:
        path = self._folder / name
        path.write_text(text, "utf-8")
        return path

    def take(self, text: str, client: str = "shop", name: str = "orders.csv") -> dict[str, Any]:
        return self._shops.take(self.path(text, name), client)

    def rejected(self, batch_id: str) -> list[str]:
        return (self._shops.report(batch_id, "rejected") or b"").decode("utf-8-sig").splitlines()

    def codes(self, batch_id: str) -> dict[str, int]:
        rows = self._shops.rows("SELECT code, count(*) FROM rejections WHERE batch_id = %s GROUP BY code", batch_id)
        return dict(rows)

    def mended(self, batch_id: str, *statuses: str | None) -> str:
        """Return the rows of rejected.csv with other statuses, without those that are None."""
        header, *rows = self.rejected(batch_id)
        kept = [(row, status) for row, status in zip(rows, statuses, strict=True) if status is not None]
        return "\n".join([header, *(row.replace("一部返金", status, 1) for row, status in kept), ""])


@pytest.fixture
def desk(shops: Installation, tmp_path: Path) -> Desk:
    return Desk(shops, tmp_path)


def outcome(found: dict[str, Any]) -> tuple[object, ...]:
    rows = found["rows"]
    assert rows["total"] == sum(rows[each] for each in ("accepted", "rejected", "blank", "skipped"))
    return found["status"], rows["accepted"], rows["rejected"], rows["skipped"], found["corrections"]["rows_open"]


def test_a_row_that_is_skipped_in_a_correction_waits_no_more(shops: Installation, desk: Desk) -> None:
    first = desk.take(orders("M-1:", "M-2:一部返金", "M-3:一部返金", "M-4:一部返金"))
    assert outcome(first) == ("completed_with_errors", 1, 3, 0, 3)
    second = desk.take(desk.mended(first["batch_id"], "取消", "", None))
    assert outcome(second) == ("completed", 1, 0, 1, 1)
    assert (second["amount_jpy"]["paid"], second["notifications"]["planned"]) == (100, 0)
    assert shops.summary(first["batch_id"])["corrections"] == {"batches": 2, "rows_open": 1, "open_in": [first["batch_id"]]}
    text = desk.mended(first["batch_id"], None, None, "取消")
    tried = preview(shops.system, desk.path(text), "shop", again=False)
    assert (tried["status"], tried["rows"]["skipped"], tried["payments"]["planned"]) == ("completed", 1, 0)
    assert outcome(desk.take(text)) == ("completed", 0, 0, 1, 0)
    assert outcome(desk.take(text + "\n")) == ("completed", 0, 0, 1, 0)  # the same once more


def test_a_correction_of_a_correction_closes_the_row_where_it_came_first(shops: Installation, desk: Desk) -> None:
    first = desk.take(orders("N-1:一部返金", "N-2:一部返金"))
    assert outcome(first) == ("rejected", 0, 2, 0, 2)
    second = desk.take(desk.mended(first["batch_id"], "一部返金", "取消"))
    assert outcome(second) == ("completed_with_errors", 0, 1, 1, 1)
    assert outcome(desk.take(desk.mended(second["batch_id"], "取消"))) == ("completed", 0, 0, 1, 0)
    assert shops.rows("SELECT count(*) FROM orders WHERE client_order_ref LIKE 'N-%%'") == [(0,)]


def test_whichever_is_decided_first_of_charging_a_row_and_closing_it_stays(shops: Installation, desk: Desk) -> None:
    first = desk.take(orders("K-1:一部返金", "K-2:一部返金"))
    assert outcome(desk.take(desk.mended(first["batch_id"], "取消", ""))) == ("completed", 1, 0, 1, 0)
    other = desk.take(desk.mended(first["batch_id"], "", "取消"))
    assert desk.codes(other["batch_id"]) == {"R_CORRECTED_BEFORE": 1, "W_ROWS_NOT_CLOSED": 1, "W_ROWS_SKIPPED": 1}
    assert outcome(other) == ("completed_with_errors", 0, 1, 1, 0)
    assert shops.rows("SELECT client_order_ref, status FROM orders WHERE client_order_ref LIKE 'K-%%'") == [("K-2", "paid")]
    assert desk.take(orders("K-1:"))["amount_jpy"]["paid"] == 100  # who thinks better of it sends it as a new order


def test_a_row_that_is_both_skipped_and_mended_goes_on_to_wait(desk: Desk) -> None:
    first = desk.take(orders("B-1:一部返金"))
    header, row = desk.rejected(first["batch_id"])
    both = [row.replace("一部返金", status).replace("B-1", each) for status, each in (("取消", "B-1"), ("", "B-2"))]
    found = desk.take("\n".join([header, *both, ""]))
    assert desk.codes(found["batch_id"]) == {"R_CORRECTED_ROW": 1, "W_ROWS_NOT_CLOSED": 1, "W_ROWS_SKIPPED": 1}
    assert outcome(found) == ("completed_with_errors", 0, 1, 1, 1)
    twice = desk.take("\n".join([header, both[0], both[0], ""]))
    assert outcome(twice) == ("completed", 0, 0, 2, 0)


def test_a_skipped_row_that_names_none_that_waits_is_named(desk: Desk) -> None:
    first = desk.take(orders("Z-1:", "Z-2:一部返金"))
    found = desk.take(desk.mended(first["batch_id"], "取消").replace(f"{first['batch_id']},2,", f"{first['batch_id']},1,"))
    assert desk.codes(found["batch_id"]) == {"W_ROWS_NOT_CLOSED": 1, "W_ROWS_SKIPPED": 1}
    assert outcome(found) == ("completed", 0, 0, 1, 1)
    alone = desk.take(orders("Z-3:取消"))
    assert (alone["status"], alone["status_code"]) == ("rejected", "F_NO_ROWS")


def test_the_row_of_an_order_that_another_row_says_is_cancelled_is_decided_on_by_itself(desk: Desk) -> None:
    first = desk.take(orders("D-1:取消", "D-1:", "D-2:取消", "D-2:"))
    assert (outcome(first), first["rejections"]["R_REF_CONFLICT"]) == (("rejected", 0, 2, 2, 2), 2)
    header, one, other = desk.rejected(first["batch_id"])
    found = desk.take("\n".join([header, one.replace("invoice,", "invoice,取消"), other, ""]))
    assert (outcome(found), found["amount_jpy"]["paid"]) == (("completed", 1, 0, 1, 0), 100)


def test_an_order_of_several_rows_is_closed_as_a_whole_and_never_charged_in_part(shops: Installation, desk: Desk) -> None:
    first = desk.take(orders("L-1:一部返金", "L-1:返金なし", "L-2:"), "lines")
    assert outcome(first) == ("completed_with_errors", 1, 2, 0, 2)
    part = desk.take(desk.mended(first["batch_id"], "取消", ""), "lines")
    assert desk.codes(part["batch_id"]) == {"R_ORDER_INCOMPLETE": 1, "W_ROWS_NOT_CLOSED": 1, "W_ROWS_SKIPPED": 1}
    assert outcome(part) == ("completed_with_errors", 0, 1, 1, 2)
    whole = desk.mended(first["batch_id"], "取消", "").replace("返金なし", "取消")
    assert outcome(desk.take(whole, "lines")) == ("completed", 0, 0, 2, 0)
    assert shops.rows("SELECT count(*) FROM orders WHERE client_order_ref = 'L-1'") == [(0,)]


@pytest.mark.parametrize("is_first", ["closed", "charged"])
def test_of_two_corrections_at_once_the_second_one_is_told(shops: Installation, desk: Desk, is_first: str) -> None:
    first = desk.take(orders(f"{is_first}-1:一部返金"))
    closing = shops.receive(desk.path(desk.mended(first["batch_id"], "取消"), "closing.csv"), "shop")
    charging = shops.receive(desk.path(desk.mended(first["batch_id"], ""), "charging.csv"), "shop")
    for batch_id in (closing, charging):
        for step in (steps.stage_batch, steps.validate_batch):
            step(shops.system, batch_id)
    for batch_id in (closing, charging) if is_first == "closed" else (charging, closing):
        prepare(shops.system, batch_id)
        work_off(shops.system, batch_id)
    late = {"W_ROWS_NOT_CLOSED": 1} if is_first == "charged" else {}
    assert desk.codes(closing) == {"W_ROWS_SKIPPED": 1} | late
    assert desk.codes(charging) == ({"R_CORRECTED_BEFORE": 1} if is_first == "closed" else {})
    found = shops.summary(charging)
    assert (found["amount_jpy"]["paid"], found["corrections"]["rows_open"]) == (100 if is_first == "charged" else 0, 0)


def test_a_correction_that_was_cancelled_closes_nothing(shops: Installation, desk: Desk) -> None:
    first = desk.take(orders("C-1:一部返金", "C-2:一部返金"))
    second = shops.receive(desk.path(desk.mended(first["batch_id"], "取消", ""), "second.csv"), "shop")
    prepare(shops.system, second)
    with shops.system.database.begin() as transaction:
        cancelling.begin(transaction, second, cancelled_by="a person", why="a mistake")
    cancelling.finish(shops.system, second)
    assert shops.summary(second)["status"] == "cancelled"
    assert shops.summary(first["batch_id"])["corrections"]["rows_open"] == 2
    assert outcome(desk.take(desk.mended(first["batch_id"], "", "取消"))) == ("completed", 1, 0, 1, 0)


@pytest.mark.parametrize(("status", "code"), [("取消", "R_CORRECTED_BEFORE"), ("", "R_REF_EXISTS")])
def test_who_came_second_to_a_correction_that_is_cancelled_goes_on_to_wait(
    shops: Installation, desk: Desk, status: str, code: str
) -> None:
    first = desk.take(orders(f"X{code}-1:一部返金", f"X{code}-2:一部返金"), "careful")["batch_id"]
    one = shops.receive(desk.path(desk.mended(first, status, ""), "one.csv"), "careful")
    work_off(shops.system, one)  # it waits for somebody's approval
    second = desk.take(desk.mended(first, "", None), "careful", "two.csv")
    assert desk.codes(second["batch_id"]) == {code: 1}
    assert second["corrections"]["rows_open"] == 0
    with shops.system.database.begin() as transaction:
        cancelling.begin(transaction, one, cancelled_by="a person", why="refused")
    cancelling.finish(shops.system, one)
    assert shops.summary(first)["corrections"]["rows_open"] == 2
    text = "\n".join(desk.rejected(second["batch_id"])) + "\n"
    third = shops.receive(desk.path(text.replace("一部返金", ""), "three.csv"), "careful")
    work_off(shops.system, third)
    assert outcome(shops.summary(third)) == ("awaiting_approval", 1, 0, 0, 1)


def test_a_skipped_row_closes_no_order_but_its_own(shops: Installation, desk: Desk) -> None:
    first = desk.take(orders("S-1:一部返金", "S-2:一部返金"))["batch_id"]
    of_the_other = desk.mended(first, None, "取消").replace(f"{first},2,", f"{first},1,")
    found = desk.take(of_the_other)
    assert desk.codes(found["batch_id"]) == {"W_ROWS_NOT_CLOSED": 1, "W_ROWS_SKIPPED": 1}
    assert found["corrections"]["rows_open"] == 2
    assert outcome(desk.take(desk.mended(first, "", "取消"))) == ("completed", 1, 0, 1, 0)


def test_a_row_whose_reference_was_none_is_closed_whatever_it_says(desk: Desk) -> None:
    first = desk.take(orders("注文-1:一部返金"))["batch_id"]
    assert outcome(desk.take(desk.mended(first, "取消"))) == ("completed", 0, 0, 1, 0)


def test_a_row_whose_order_came_as_a_new_one_meanwhile_is_not_said_to_be_closed(desk: Desk) -> None:
    first = desk.take(orders("Y-1:一部返金", "Y-2:一部返金"))["batch_id"]
    assert desk.take(orders("Y-1:"))["amount_jpy"]["paid"] == 100
    found = desk.take(desk.mended(first, "取消", "取消"))
    assert desk.codes(found["batch_id"]) == {"W_ROWS_NOT_CLOSED": 1, "W_ROWS_SKIPPED": 1}
    assert found["corrections"]["rows_open"] == 1


def test_a_line_that_is_to_be_charged_is_not_closed_with_the_one_above(shops: Installation, desk: Desk) -> None:
    first = desk.take(orders("O-1:一部返金", "O-1:一部返金"), "lines")["batch_id"]
    found = desk.take(desk.mended(first, "取消", ""), "lines")
    assert desk.codes(found["batch_id"]) == {"W_ROWS_NOT_CLOSED": 1, "W_ROWS_SKIPPED": 1}
    assert found["corrections"]["rows_open"] == 2
    assert outcome(desk.take(desk.mended(first, "取消", "取消"), "lines")) == ("completed", 0, 0, 2, 0)


def test_an_order_is_closed_as_a_whole_over_two_files_too(desk: Desk) -> None:
    first = desk.take(orders("P-1:一部返金", "P-1:一部返金"), "lines")["batch_id"]
    part = desk.take(desk.mended(first, "取消", "返金なし"), "lines")["batch_id"]
    rest = "\n".join(desk.rejected(part)).replace("返金なし", "取消") + "\n"
    assert desk.codes(desk.take(rest, "lines")["batch_id"]) == {"W_ROWS_NOT_CLOSED": 1, "W_ROWS_SKIPPED": 1}
    assert outcome(desk.take(desk.mended(first, "取消", "取消"), "lines")) == ("completed", 0, 0, 2, 0)


def test_rows_that_name_no_row_are_not_said_to_name_one_twice(shops: Installation, desk: Desk) -> None:
    first = desk.take(orders("H-1:一部返金", "H-2:一部返金"))["batch_id"]
    text = desk.mended(first, "取消", "").replace(f"{first},1,", f"{first},,").replace(f"{first},2,", f"{first},,")
    found = desk.take(text)["batch_id"]
    details = shops.rows("SELECT detail FROM rejections WHERE batch_id = %s AND code = 'R_CORRECTED_ROW'", found)
    assert details == [({"hint": "no_such_row"},)]
