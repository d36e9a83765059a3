"""Profiles: what a client's settings make of its files, from the bytes to the orders and the reports."""

from __future__ import annotations

import csv
import gzip
import io
import json
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import psycopg
import pytest

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import ORIGINAL, artifact
from orders_pipeline.infrastructure.database_url import libpq_url
from orders_pipeline.infrastructure.storage import Storage, StoredObject
from orders_pipeline.intake import file_import, steps
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.orchestration import checks
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.reports import finishing, preview, report_files, summaries
from orders_pipeline.security import personal_data
from orders_pipeline.settlement.notifications.plan import plan_notifications
from orders_pipeline.settlement.payments import settle
from orders_pipeline.system.composition import System
from orders_pipeline_tests.support.databases import kept_connection
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.order_file import OrderFile

pytestmark = pytest.mark.usefixtures("hasty_landing")

CLIENTS = """
[shop]
encoding = "cp932"
sequence = "orders_{series}_{number}.csv"
[shop.columns]
client_order_ref = "受注番号"
order_date = { header = "受注日時", until = " " }
customer_code = "会員ID"
customer_name = { join = ["注文者 姓", "注文者 名"] }
customer_name_kana = { join = ["注文者 姓カナ", "注文者 名カナ"] }
email = "注文者メールアドレス"
phone = "注文者電話番号"
postal_code = "郵便番号"
ship_to_address = { join = ["都道府県", "市区町村", "番地・建物名"] }
amount = "お支払い合計"
payment_method = { header = "支払方法", values = { "銀行振込" = "bank_transfer", "請求書払い" = "invoice" } }
notify_channel = { header = "連絡方法", values = { "メール" = "email", "不要" = "none" }, default = "email" }
note = ["備考", "ショップ備考"]

[strict]
bad_rows = "refuse_file"
[two]
refuse_above_rows = 2
[percent]
refuse_above_percent = 20
[short]
max_rows = 3
[small]
max_bytes = 100
[euc]
encoding = "euc_jp"
[repeats]
same_bytes = "take"
[counted]
sequence = "o-{number}.csv"

[kana]
sequence = "ガ-{number}.csv"
[narrow]
ignore = ["item_code", "email", "phone", "note"]
[picky]
skip = [{ header = "対応状況", values = ["注文取消し", "ｷｬﾝｾﾙ"] }, { header = "区分", values = ["サンプル"] }]
[framed]
header_line = "find"
header_rows = 2
comment = "#"
footer_lines = 1
columns.client_order_ref = { header = "伝票", after = "#" }
columns.order_date = { header = "日時", format = "%Y%m%d%H%M%S" }
columns.phone = { header = "電話", occurrence = 2 }
[plain]
[daily]
same_orders = "skip"
[strict_daily]
same_orders = "skip"
bad_rows = "refuse_file"
[guests]
payments = "aggregated"
columns.customer_code = { header = "会員ID", values = { "0" = "GUEST" }, default = "GUEST" }
[words]
columns.customer_code = { header = "会員ID", values = { "" = "GUEST", "非会員" = "GUEST" } }
"""

EXPORT = """\
"受注番号","受注日時","会員ID","注文者 姓","注文者 名","注文者 姓カナ","注文者 名カナ","注文者メールアドレス",\
"注文者電話番号","郵便番号","都道府県","市区町村","番地・建物名","商品コード一覧","商品合計","送料","お支払い合計","支払方法","連絡方法","ショップ備考"
"SHOP-000123","{day} 10:21:33","M0001","髙橋","花子","タカハシ","ハナコ","hanako@example.com","03-1234-5678",\
"100-0001","東京都","千代田区","千代田1-1","A;B","11,000","550","￥11,550","請求書払い","メール","午前中"
"SHOP-000124","{day} 23:59:01","M0002","山田","太郎","ヤマダ","タロウ","taro@example.com","090-1234-5678",\
"530-0001","大阪府","大阪市北区","","C","980","0","980","銀行振込","",""
"SHOP-000125","{day} 23:59:59","M0003","鈴木","一","スズキ","ハジメ","hajime@example.com","",\
"","","","","D","2000","0","2000","代金引換","不要",""
"""


@dataclass(frozen=True)
class Counter:
    """Where files are handed in and looked at."""

    system: System
    folder: Path

    def file(self, content: bytes | str, name: str = "orders.csv") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def take(self, path: Path, client: str) -> dict[str, Any]:
        """Import a file as far as its orders and reports, and return the batch's summary."""
        batch_id = file_import.import_file(self.system, path, client, again=False)
        for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
            step(self.system, batch_id)
        with self.system.database.begin() as transaction:
            assert all(check.passed for check in checks.order_checks(transaction, batch_id))
        finishing.finish_batch(self.system.storage, self.system.database, batch_id)
        return summaries.summarise(self.system, batch_id)

    def land(self, client: str, files: dict[str, str]) -> list[dict[str, Any]]:
        """Put files into the landing, wait until they are batches, stage and validate these and return their summaries."""
        folder = Path(self.system.settings.landing_location) / client
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content, "utf-8")
        batch_ids = [
            batch_id for _ in range(2) for batch_id in arrivals.register_arrivals(self.system.database, self.system.landing)
        ]
        for batch_id in batch_ids:
            for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
                step(self.system, batch_id)
        return [summaries.summarise(self.system, batch_id) for batch_id in batch_ids]

    def errors(self, batch_id: str) -> list[dict[str, str]]:
        with report_files.report(self.system.storage, self.system.database, batch_id, "errors") as path:
            assert path is not None
            return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"))))

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with kept_connection(self.system.database.url) as connection:
            return connection.execute(statement.encode(), parameters).fetchall()


@pytest.fixture
def counter(open_test_system: Callable[..., AbstractContextManager[System]], tmp_path: Path) -> Iterator[Counter]:
    clients = tmp_path / "clients.toml"
    clients.write_text(CLIENTS, "utf-8")
    with open_test_system(clients_file=clients) as system:
        yield Counter(system, tmp_path)


def orders(count: int, *, bad: int = 0) -> str:
    """Return a file of so many orders, the last ones bad."""
    made = OrderFile("utf-8")
    for number in range(1, count + 1):
        amount = "x" if number > count - bad else "1000"
        made.add(order_row(client_order_ref=f"A-{number}", amount=amount))
    return made.text


def test_what_stands_around_the_orders_is_left_out_and_a_correction_has_none_of_it(counter: Counter) -> None:
    day = f"{batches.today():%Y%m%d}101500"
    header = "伝票,日時,得意先コード,得意先名,電話,電話,金額,支払方法"
    rows = [
        f"#{number},{day},C-1,見本,0312345678,09012345678,{yen},invoice" for number, yen in ((1001, "1000"), (1002, "x"))
    ]
    titles = ["# 受注一覧", '"期間', "", header, "order,date,code,name,tel,tel,yen,by"]
    text = "\r\n".join([*titles, *rows, "", "# 終わり", "以上 2件", ""])
    summary = counter.take(counter.file(text.encode("cp932")), "framed")
    assert summary["rows"] == {"total": 2, "accepted": 1, "rejected": 1, "blank": 0, "skipped": 0}
    (line,) = {each["line"] for each in counter.errors(summary["batch_id"]) if each["code"] == "R_AMOUNT_FORMAT"}
    assert line == "7"
    with report_files.report(counter.system.storage, counter.system.database, summary["batch_id"], "rejected") as path:
        assert path is not None
        correction = path.read_bytes().replace(b",x,invoice", b",2000,invoice")
    again = counter.take(counter.file(correction, "correction.csv"), "framed")
    assert (again["status"], again["rows"]["accepted"], again["corrects"]) == ("paused", 1, summary["batch_id"])
    loaded = counter.rows("SELECT client_order_ref, order_date, amount FROM orders ORDER BY client_order_ref")
    assert loaded == [("1001", batches.today(), 1000), ("1002", batches.today(), 2000)]
    (sealed,) = counter.rows("SELECT personal FROM orders WHERE client_order_ref = '1001'")[0]
    assert personal_data.decrypt(counter.system.cipher, summary["batch_id"], 1, sealed)["phone"] == "09012345678"


def test_columns_that_are_ignored_are_as_if_the_file_had_none(counter: Counter) -> None:
    summary = counter.take(counter.file(orders(3)), "narrow")
    assert summary["rows"]["accepted"] == 3
    assert counter.rows("SELECT DISTINCT item_code, notify_channel FROM orders") == [(None, "none")]
    (warned,) = [each for each in counter.errors(summary["batch_id"]) if each["code"] == "W_UNKNOWN_COLUMN"]
    assert "email" in warned["message"]


def test_rows_that_are_no_orders_are_skipped_and_counted(counter: Counter) -> None:
    header = "注文番号,対応状況,得意先コード,得意先名,金額,支払方法,区分"
    states = ["新規受付", "注文取消し", " キャンセル ", "", "新規受付", "注文取消しの希望"]
    kinds = ["", "", "", "", "サンプル", ""]
    each = enumerate(zip(states, kinds, strict=True), 1)
    rows = [f"C-{number},{state},C1,見本,1000,invoice,{kind}" for number, (state, kind) in each]
    text = "\r\n".join([header, *rows, "too,few", ",,,,,,", ""])
    summary = counter.take(counter.file(text.encode("cp932")), "picky")
    assert summary["rows"] == {"total": 8, "accepted": 3, "rejected": 1, "blank": 1, "skipped": 3}
    assert summary["amount_jpy"]["accepted"] == 3000
    assert counter.rows("SELECT import_row_number FROM orders ORDER BY 1") == [(1,), (4,), (6,)]
    (warned,) = [each for each in counter.errors(summary["batch_id"]) if each["code"] == "W_ROWS_SKIPPED"]
    assert ": 3" in warned["message"]
    tried = preview.preview(counter.system, counter.file(text.replace("C-", "D-").encode("cp932")), "picky", again=False)
    assert tried["rows"] == summary["rows"]
    without, alone = text.replace("対応状況", "状況"), f"{header}\r\n{rows[1]}\r\n"
    for content, code in ((without, "F_HEADER_MISSING"), (alone, "F_NO_ROWS")):
        summary = counter.take(counter.file(content.encode("cp932")), "picky")
        assert (summary["status"], summary["status_code"]) == ("rejected", code)


def test_a_compressed_file_is_archived_as_it_came_and_its_rejected_rows_are_those_inside(counter: Counter) -> None:
    sent = gzip.compress(orders(3, bad=1).encode("utf-16"))
    summary = counter.take(counter.file(sent, "orders.csv.gz"), "plain")
    assert (summary["rows"]["accepted"], summary["rows"]["rejected"], summary["encoding"]) == (2, 1, "utf-16-le")
    with counter.system.storage.local(artifact(summary["batch_id"], ORIGINAL)) as original:
        assert original.read_bytes() == sent
    with report_files.report(counter.system.storage, counter.system.database, summary["batch_id"], "rejected") as path:
        assert path is not None
        mended = path.read_bytes().decode("utf-16").replace(",x,", ",700,")
    again = counter.take(counter.file(gzip.compress(mended.encode("utf-16")), "mended.tsv.gz"), "plain")
    assert (again["rows"]["accepted"], again["corrections"]["rows_open"]) == (1, 0)
    refused = counter.take(counter.file(b"PK\x03\x04", "orders.zip"), "plain")
    assert (refused["status"], refused["status_code"]) == ("rejected", "F_ARCHIVE")


def test_orders_that_are_the_same_as_the_day_before_are_skipped_and_changed_ones_rejected(counter: Counter) -> None:
    first = counter.take(counter.file(references("A-1", "A-2", "A-3"), "1.csv"), "daily")
    assert first["rows"] == {"total": 3, "accepted": 3, "rejected": 0, "blank": 0, "skipped": 0}
    same = counter.file(references("A-1", "A-2", "A-3") + "\n", "2.csv")
    assert counter.take(same, "daily")["status"] == "completed"
    second = references("a-1", "A-2", "A-3", "A-4").replace("A-3,", "A-3 ,")
    path = counter.file(second.replace("1000", "9000", 1), "3.csv")
    path.with_name("3.manifest.json").write_text('{"row_count": 4, "amount_total": 12000}')
    dry = preview.preview(counter.system, path, "daily", again=False)
    summary = counter.take(path, "daily")
    assert summary["rows"] == dry["rows"] == {"total": 4, "accepted": 1, "rejected": 1, "blank": 0, "skipped": 2}
    assert summary["rejections"] == dry["rejections"] == {"R_REF_EXISTS_DIFFERS": 1}
    assert (summary["warnings"], dry["status"]) == (["W_SAME_ORDERS"], "completed_with_errors")


@pytest.mark.parametrize("client", ["daily", "strict_daily"])
def test_an_order_that_another_file_brought_meanwhile_is_skipped_as_well(counter: Counter, client: str) -> None:
    first, second = (
        file_import.import_file(counter.system, counter.file(references(*refs), f"{refs[-1]}.csv"), client, again=False)
        for refs in (["X-1", "X-2"], ["X-2", "X-3"])
    )
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        for batch_id in (first, second):
            step(counter.system, batch_id)
    summary = summaries.summarise(counter.system, second)
    assert summary["rows"] == {"total": 2, "accepted": 1, "rejected": 0, "blank": 0, "skipped": 1}
    assert counter.rows("SELECT client_order_ref FROM orders WHERE batch_id = %s", second) == [("X-3",)]


def test_a_real_shops_export_maps_without_code(counter: Counter) -> None:
    day = batches.today()
    export = EXPORT.format(day=f"{day:%Y/%m/%d}").replace("\n", "\r\n").encode("cp932")
    summary = counter.take(counter.file(export, "orders_20260401_1.csv"), "shop")
    assert summary["rows"] == {"total": 3, "accepted": 2, "rejected": 1, "blank": 0, "skipped": 0}
    assert summary["rejections"] == {"R_PAYMENT_METHOD": 1}
    assert counter.rows(
        "SELECT client_order_ref, order_date, customer_code, amount, payment_method, notify_channel"
        " FROM orders ORDER BY import_row_number"
    ) == [
        ("SHOP-000123", day, "M0001", 11_550, "invoice", "email"),
        ("SHOP-000124", day, "M0002", 980, "bank_transfer", "email"),
    ]
    (sealed,) = counter.rows("SELECT personal FROM orders WHERE import_row_number = 1")[0]
    assert personal_data.decrypt(counter.system.cipher, summary["batch_id"], 1, sealed) == {
        "customer_name": "髙橋 花子",
        "customer_name_kana": "タカハシ ハナコ",
        "email": "hanako@example.com",
        "phone": "0312345678",
        "postal_code": "100-0001",
        "ship_to_address": "東京都 千代田区 千代田1-1",
        "note": "午前中",
    }
    warning, error = counter.errors(summary["batch_id"])
    assert warning["code"] == "W_UNKNOWN_COLUMN"
    assert (error["column"], error["header"], error["value"]) == ("payment_method", "支払方法", "代金引換")


def test_the_rejected_rows_of_an_export_come_back_in_its_own_form_and_load_once_corrected(counter: Counter) -> None:
    export = EXPORT.format(day=f"{batches.today():%Y/%m/%d}").replace("\n", "\r\n").encode("cp932")
    first = counter.take(counter.file(export), "shop")
    with report_files.report(counter.system.storage, counter.system.database, first["batch_id"], "rejected") as path:
        assert path is not None
        given_back = path.read_bytes()
    assert given_back.splitlines()[0] == export.splitlines()[0] + b",_batch,_row,_line,_codes"
    assert given_back.splitlines()[-1].startswith(export.splitlines()[-1])
    second = counter.take(counter.file(given_back.replace("代金引換".encode("cp932"), "銀行振込".encode("cp932"))), "shop")
    assert (second["corrects"], second["rows"]["accepted"]) == (first["batch_id"], 1)


@pytest.mark.parametrize(
    ("client", "rows", "bad", "taken"),
    [
        ("strict", 5, 0, True),
        ("strict", 5, 1, False),
        ("two", 5, 2, True),
        ("two", 5, 3, False),
        ("percent", 10, 2, True),
        ("percent", 10, 3, False),
        ("plain", 5, 4, True),
    ],
)
def test_a_profile_says_how_many_bad_rows_give_the_whole_file_back(
    counter: Counter, client: str, rows: int, bad: int, taken: bool
) -> None:
    summary = counter.take(counter.file(orders(rows, bad=bad)), client)
    loaded = counter.rows("SELECT count(*) FROM orders")[0][0]
    assert len(counter.errors(summary["batch_id"])) == bad + (not taken)
    if taken:
        assert (summary["rows"]["accepted"], loaded) == (rows - bad, rows - bad)
        assert ("rejected" in summary["artifacts"]) == bool(bad)
        return
    assert (summary["status"], summary["status_code"]) == ("rejected", "F_TOO_MANY_ERRORS")
    assert (summary["rows"]["accepted"], summary["rows"]["rejected"], loaded) == (0, rows, 0)
    assert "rejected" not in summary["artifacts"]
    assert summary["corrections"]["rows_open"] == 0
    again = counter.take(counter.file(orders(rows)), client)
    assert (again["rows"]["accepted"], again["rows"]["rejected"]) == (rows, 0)


def test_a_workbook_is_an_order_file_and_its_rejected_rows_open_in_a_spreadsheet(counter: Counter) -> None:
    workbook = openpyxl.Workbook()
    sheet = workbook.worksheets[0]
    good = order_row(client_order_ref="000123", order_date=batches.today(), amount=1000, phone="0312345678")
    for row in (list(good), list(good.values()), list((good | {"client_order_ref": "000124", "amount": 0}).values())):
        sheet.append(row)
    sheet.cell(2, 2).number_format = sheet.cell(3, 2).number_format = "yyyy/m/d"
    workbook.save(counter.folder / "orders.XLSX")
    summary = counter.take(counter.folder / "orders.XLSX", "euc")
    assert (summary["rows"]["accepted"], summary["rejections"]) == (1, {"R_AMOUNT_RANGE": 1})
    assert counter.rows("SELECT client_order_ref, order_date, amount FROM orders") == [("000123", batches.today(), 1000)]
    with report_files.report(counter.system.storage, counter.system.database, summary["batch_id"], "rejected") as path:
        assert path is not None
        rejected = path.read_bytes()
    assert rejected.startswith(b"\xef\xbb\xbf")
    text = rejected.decode("utf-8-sig")
    corrected = counter.file(text.replace(",0,", ",10,").encode("euc_jp"))
    assert counter.take(corrected, "euc")["corrections"] == {"batches": 2, "rows_open": 0, "open_in": []}


def test_a_workbook_that_is_none_is_rejected_with_a_hint(counter: Counter) -> None:
    summary = counter.take(counter.file(orders(1), "orders.xlsx"), "plain")
    assert (summary["status"], summary["status_code"]) == ("rejected", "F_NOT_CSV")
    assert "workbook named .xlsx" in counter.errors(summary["batch_id"])[0]["message"]


def test_limits_are_the_clients_own(counter: Counter) -> None:
    summary = counter.take(counter.file(orders(4)), "short")
    assert (summary["status_code"], summary["rejections"]) == ("F_TOO_MANY_ROWS", {"F_TOO_MANY_ROWS": 1})
    assert counter.take(counter.file(orders(3)), "short")["rows"]["accepted"] == 3
    with pytest.raises(FileRejected) as refused:
        counter.take(counter.file(orders(1)), "small")
    assert (refused.value.code, refused.value.detail) == ("F_TOO_LARGE", {"limit": "100"})


def test_an_encoding_that_was_agreed_on_is_the_only_one(counter: Counter) -> None:
    text = orders(1)
    assert counter.take(counter.file(text.encode("euc_jp")), "euc")["encoding"] == "euc_jp"
    assert counter.take(counter.file(text.encode("utf-8")), "euc")["status_code"] == "F_ENCODING"
    assert counter.take(counter.file(text.encode("euc_jp")), "plain")["status_code"] == "F_ENCODING"
    (sealed,) = counter.rows("SELECT personal FROM orders")[0]
    assert b"\xb8\xab" not in sealed
    batch_id = counter.rows("SELECT batch_id FROM orders")[0][0]
    assert personal_data.decrypt(counter.system.cipher, batch_id, 1, sealed)["customer_name"] == "見本商店"


def test_the_same_bytes_are_refused_by_the_earlier_batchs_id_unless_the_profile_takes_them(counter: Counter) -> None:
    first = counter.take(counter.file(orders(1)), "plain")
    with pytest.raises(FileRejected) as refused:
        counter.take(counter.file(orders(1)), "plain")
    assert (refused.value.code, refused.value.detail) == ("F_DUPLICATE_FILE", {"batch_id": first["batch_id"]})
    taken = [counter.take(counter.file(orders(1)), "repeats") for _ in range(3)]
    assert len({each["batch_id"] for each in taken}) == 3
    assert [each["rows"]["accepted"] for each in taken] == [1, 0, 0]
    assert taken[2]["rejections"] == {"R_REF_EXISTS": 1}


def test_a_missing_number_is_noticed_once_and_the_file_is_taken_all_the_same(counter: Counter) -> None:
    names = ["o-7.csv", "o-8.csv", "o-10.csv", "o-9.csv", "o-11.csv", "notes.csv"]
    taken = []
    for number, name in enumerate(names):
        made = OrderFile("utf-8")
        made.add(order_row(client_order_ref=f"S-{number}"))
        taken.append(counter.take(counter.file(made.text, name), "counted"))
    assert [each["rows"]["accepted"] for each in taken] == [1] * 6
    warned = [counter.errors(each["batch_id"]) for each in taken]
    assert [len(each) for each in warned] == [0, 0, 1, 0, 0, 0]
    assert warned[2][0]["code"] == "W_SEQUENCE_GAP"
    assert "expected 9" in warned[2][0]["message"]
    assert "found 10" in warned[2][0]["message"]


@pytest.mark.parametrize(
    ("manifest", "outcome"),
    [
        ({"row_count": 3, "amount_total": 3000}, None),
        ({"row_count": 4}, {"field": "row_count", "expected": "4", "found": "3"}),
        ({"amount_total": 2999}, {"field": "amount_total", "expected": "2999", "found": "3000"}),
        ({"sha256": "0" * 64}, {"field": "sha256"}),
    ],
)
def test_input_040_a_manifest_is_binding_when_it_is_there(
    counter: Counter, manifest: dict[str, object], outcome: dict[str, str] | None
) -> None:
    path = counter.file(orders(3))
    counter.file(json.dumps(manifest), "orders.manifest.json")
    if outcome is not None:
        said = preview.preview(counter.system, path, "plain", again=False)
        assert (said["status"], said["status_code"]) == ("rejected", "F_CONTROL_TOTAL")
    summary = counter.take(path, "plain")
    if outcome is None:
        assert summary["rows"]["accepted"] == 3
        return
    assert (summary["status"], summary["status_code"]) == ("rejected", "F_CONTROL_TOTAL")
    assert counter.rows("SELECT status_detail FROM batches") == [(outcome,)]
    assert counter.rows("SELECT count(*) FROM orders") == [(0,)]


@pytest.mark.parametrize(
    ("manifest", "outcome"),
    [
        ({"row_count": 3, "amount_total": 3000}, None),
        ({"row_count": 4}, {"field": "row_count", "expected": "4", "found": "3", "hint": "total_row"}),
        ({"amount_total": 6000}, {"field": "amount_total", "expected": "6000", "found": "3000", "hint": "total_row"}),
    ],
)
def test_a_manifest_counts_orders_and_a_total_row_is_none(
    counter: Counter, manifest: dict[str, object], outcome: dict[str, str] | None
) -> None:
    total = OrderFile("utf-8")
    total.add(dict.fromkeys(order_row(), "") | {"client_order_ref": "合計", "amount": "3000"})
    path = counter.file(orders(3) + total.text.partition("\r\n")[2])
    counter.file(json.dumps(manifest), "orders.manifest.json")
    said = preview.preview(counter.system, path, "plain", again=False)
    summary = counter.take(path, "plain")
    assert said["rejections"] == summary["rejections"]
    assert summary["rejections"]["R_TOTAL_ROW"] == 1
    if outcome is None:
        assert (said["status_code"], summary["rows"]["accepted"]) == (None, 3)
        return
    assert said["status_code"] == summary["status_code"] == "F_CONTROL_TOTAL"
    assert counter.rows("SELECT status_detail FROM batches") == [(outcome,)]


def test_a_landed_file_is_held_against_the_manifest_beside_it(counter: Counter) -> None:
    (good,) = counter.land("plain", {"good.csv": orders(2), "good.manifest.json": '{"row_count": 2, "amount_total": 2000}'})
    assert (good["status"], good["rows"]["accepted"]) == ("loaded", 2)
    (cut,) = counter.land(
        "plain", {"cut.csv": orders(3)[:-30], "cut.manifest.json": '{"row_count": 3, "amount_total": 3000}'}
    )
    assert (cut["status"], cut["status_code"]) == ("rejected", "F_CONTROL_TOTAL")
    (broken,) = counter.land("plain", {"broken.csv": orders(4), "broken.manifest.json": "{"})
    assert (broken["status"], broken["status_code"]) == ("rejected", "F_MANIFEST")
    assert broken["details"] == {"F_MANIFEST": {"hint": "not_json"}}


def references(*names: str) -> str:
    file = OrderFile("utf-8")
    for name in names:
        file.add(order_row(client_order_ref=name))
    return file.text


@pytest.mark.parametrize(("client", "refused"), [("strict", True), ("two", True), ("percent", True), ("plain", False)])
def test_a_file_with_more_bad_rows_than_allowed_is_refused_also_when_another_took_its_references_meanwhile(
    counter: Counter, client: str, refused: bool
) -> None:
    names = ["X-1", "X-2", "X-3"]
    first, second = (
        file_import.import_file(counter.system, counter.file(references(*refs), f"{refs[-1]}.csv"), client, again=False)
        for refs in (names, [*names, "Y-1"])
    )
    for batch_id in (first, second):
        steps.stage_batch(counter.system, batch_id)
        steps.validate_batch(counter.system, batch_id)
    for batch_id in (first, second):
        steps.load_batch(counter.system, batch_id)
        finishing.finish_batch(counter.system.storage, counter.system.database, batch_id)
    summary = summaries.summarise(counter.system, second)
    assert (summary["status_code"] == "F_TOO_MANY_ERRORS") is refused
    loaded = counter.rows("SELECT count(*) FROM orders WHERE batch_id = %s", second)
    assert loaded == [(0 if refused else 1,)]
    assert summary["rejections"]["R_REF_EXISTS"] == 3
    assert summary["rows"]["rejected"] == (4 if refused else 3)


def test_a_file_with_as_few_bad_rows_as_allowed_is_loaded_when_another_took_a_reference_meanwhile(counter: Counter) -> None:
    first, second = (
        file_import.import_file(counter.system, counter.file(references(*refs), f"{refs[-1]}.csv"), "two", again=False)
        for refs in (["X-1"], ["X-1", "Y-1"])
    )
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        for batch_id in (first, second):
            step(counter.system, batch_id)
    summary = summaries.summarise(counter.system, second)
    assert (summary["status"], summary["rows"]["accepted"], summary["rejections"]) == ("loaded", 1, {"R_REF_EXISTS": 1})


class Meanwhile:
    """A storage where something happens elsewhere while the first report is written."""

    def __init__(self, storage: Storage, happens: Callable[[], object]) -> None:
        self.storage, self.happens = storage, [happens]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    def put(self, key: str, source: Path | bytes) -> StoredObject:
        stored = self.storage.put(key, source)
        while self.happens:
            self.happens.pop()()
        return stored


def test_the_end_of_a_batch_is_decided_on_what_it_is_after_its_reports_and_these_say_the_same(counter: Counter) -> None:
    batch_id = counter.take(counter.file(references("A-1")), "plain")["batch_id"]

    def decline() -> None:
        with psycopg.connect(libpq_url(counter.system.database.url), autocommit=True) as connection:
            connection.execute("UPDATE orders SET status = 'declined'")

    storage = Meanwhile(counter.system.storage, decline)
    result = finishing.finish_batch(storage, counter.system.database, batch_id)  # type: ignore[arg-type]
    assert result["status"] == "completed_with_errors"
    assert [each["code"] for each in counter.errors(batch_id)] == ["P_DECLINED"]


def test_rows_whose_files_were_removed_once_they_were_loaded_are_validated_again_after_a_restore(counter: Counter) -> None:
    content = references("A-1", "A-2") + references("A-3").partition("\n")[2].replace("1000", "WRONG")
    batch_id = file_import.import_file(counter.system, counter.file(content), "plain", again=False)
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(counter.system, batch_id)
    before = counter.rows("SELECT import_row_number, code FROM rejections")
    assert len(before) == 1
    counter.rows("UPDATE batches SET status = 'validated' RETURNING 1")  # the database is as it was in the middle of loading
    counter.rows("DELETE FROM orders WHERE client_order_ref = 'A-2' RETURNING 1")
    steps.load_batch(counter.system, batch_id)
    assert counter.rows("SELECT client_order_ref FROM orders ORDER BY 1") == [("A-1",), ("A-2",)]
    assert counter.rows("SELECT import_row_number, code FROM rejections") == before
    assert counter.rows("SELECT status FROM batches") == [("loaded",)]


def test_a_file_refused_for_its_manifest_is_taken_with_the_right_one(counter: Counter) -> None:
    path = counter.file(orders(2))
    counter.file('{"row_count": 3}', "orders.manifest.json")
    assert counter.take(path, "plain")["status_code"] == "F_CONTROL_TOTAL"
    counter.file('{"row_count": 2}', "orders.csv.manifest.json")  # a file's own manifest comes first
    assert preview.preview(counter.system, path, "plain", again=False)["rows"]["accepted"] == 2
    assert counter.take(path, "plain")["rows"]["accepted"] == 2
    with pytest.raises(FileRejected, match="F_DUPLICATE_FILE"):
        counter.take(path, "plain")


def test_a_landed_file_is_taken_again_when_only_its_manifest_is_mended(counter: Counter) -> None:
    (refused,) = counter.land("plain", {"orders.csv": orders(2), "orders.manifest.json": '{"row_count": 3}'})
    assert refused["status_code"] == "F_CONTROL_TOTAL"
    (taken,) = counter.land("plain", {"orders.manifest.json": '{"row_count": 2}'})
    assert (taken["status"], taken["rows"]["accepted"]) == ("loaded", 2)
    assert counter.land("plain", {"orders.manifest.json": '{"row_count": 4}'}) == []


def test_two_files_that_would_share_a_manifest_are_refused_until_each_has_its_own(counter: Counter) -> None:
    shared = {"orders.csv": orders(2), "orders.txt": orders(3), "orders.manifest.json": '{"row_count": 2}'}
    refused = counter.land("plain", shared)
    assert [each["status_code"] for each in refused] == ["F_MANIFEST_SHARED"] * 2
    with pytest.raises(FileRejected, match="F_MANIFEST_SHARED"):
        counter.take(Path(counter.system.settings.landing_location) / "plain/orders.csv", "plain")
    own = {f"orders.{end}.manifest.json": json.dumps({"row_count": count}) for end, count in (("csv", 2), ("txt", 3))}
    taken = counter.land("plain", own)
    assert sorted(each["rows"]["total"] for each in taken) == [2, 3]
    assert {each["status"] for each in taken} == {"loaded"}


def test_a_name_is_kept_composed_and_its_number_and_manifest_are_found(counter: Counter) -> None:
    apart = unicodedata.normalize("NFD", "ガ-7.csv")
    assert apart != "ガ-7.csv"
    landed = {apart: orders(2), "ガ-7.manifest.json": '{"row_count": 2}'}
    (taken,) = counter.land("kana", landed)
    assert (taken["csv_source"], taken["status"]) == ("ガ-7.csv", "loaded")
    path = counter.file(orders(3), unicodedata.normalize("NFD", "ガ-9.csv"))
    assert counter.take(path, "kana")["csv_source"] == "ガ-9.csv"
    found = counter.rows("SELECT sequence_number, manifest IS NOT NULL FROM batches ORDER BY sequence_number")
    assert found == [(7, True), (9, False)]


def test_a_landed_file_with_the_same_bytes_is_another_batch_where_the_profile_takes_it(counter: Counter) -> None:
    first, second = counter.land("repeats", {"one.csv": orders(2), "two.csv": orders(2)})
    assert (first["rows"]["accepted"], second["rows"]["accepted"]) == (2, 0)
    assert second["rejections"] == {"R_REF_EXISTS": 2}
    first, second = counter.land("plain", {"one.csv": orders(2), "two.csv": orders(2)})
    assert (second["status_code"], second["duplicate_of"]) == ("F_DUPLICATE_FILE", first["batch_id"])


def test_a_manifest_that_cannot_be_read_refuses_the_file_before_it_is_a_batch(counter: Counter) -> None:
    path = counter.file(orders(1))
    counter.file('{"row_count": "many"}', "orders.manifest.json")
    with pytest.raises(FileRejected) as refused:
        counter.take(path, "plain")
    assert (refused.value.code, refused.value.detail) == ("F_MANIFEST", {"field": "row_count"})
    assert counter.rows("SELECT count(*) FROM batches") == [(0,)]


GUESTS = """\
client_order_ref,会員ID,customer_name,email,amount,payment_method,notify_channel
G-1,,見本 太郎,t@example.com,3000,invoice,email
G-2, ,見本 花子,t@example.com,4000,invoice,email
G-3,{third},見本 次郎,j@example.com,5000,invoice,email
G-4,M1,見本 三郎,k@example.com,600,invoice,email
G-5,M1,見本 三郎,k@example.com,700,invoice,email
"""


@pytest.mark.parametrize(("client", "third"), [("guests", "0"), ("guests", "ＧＵＥＳＴ"), ("words", "非会員")])
def test_whoever_has_the_profiles_own_customer_code_pays_and_is_notified_singly(counter, client, third):
    path = counter.file(GUESTS.format(third=third))
    planned = preview.preview(counter.system, path, client, again=False)
    batch_id = counter.take(path, client)["batch_id"]
    profile = counter.system.clients.profile("plain")  # what the profile said when the file came is what counts
    settle.plan_batch(counter.system.database, counter.system.cipher, batch_id, profile)
    plan_notifications(counter.system.database, counter.system.cipher, batch_id, profile)
    paid = counter.rows("SELECT customer_code, amount FROM payments ORDER BY amount")
    assert paid == [("M1", 1300), ("GUEST", 3000), ("GUEST", 4000), ("GUEST", 5000)]
    told = counter.rows("SELECT customer_code, count(*) FROM notifications GROUP BY 1 ORDER BY 1")
    assert told == [("GUEST", 3), ("M1", 1)]
    assert (planned["payments"]["planned"], planned["notifications"]["planned"]) == (4, 4)
