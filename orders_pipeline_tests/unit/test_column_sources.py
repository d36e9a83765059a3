"""Column sources: a client's own headers and words, put into the catalogue's."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from orders_pipeline.clients.column_sources import ColumnSource
from orders_pipeline.clients.profiles import ClientsError, Profile, read_clients
from orders_pipeline.intake.csv_file import stage
from orders_pipeline.intake.file_validation import context_of
from orders_pipeline.records.judgement import Judge
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline_tests.support.csv_staging import LIMITS
from orders_pipeline_tests.support.factories import order_row, raw_cells


def translated(given: object, *cells: str) -> list[str]:
    return ColumnSource.model_validate(given).translate(pa.array(cells, pa.string())).to_pylist()


def profile(**columns: object) -> Profile:
    return Profile.model_validate({"columns": columns})


def test_a_name_or_a_list_of_names_is_a_header():
    assert ColumnSource.model_validate("受注番号").headers == ("受注番号",)
    assert ColumnSource.model_validate(["受注番号", "注文No"]).headers == ("受注番号", "注文No")
    assert ColumnSource.model_validate({"header": "受注番号"}).names == ("受注番号",)


@pytest.mark.parametrize("given", [{}, {"header": "a", "join": ["b", "c"]}, {"join": ["a"]}, {"surprise": 1}, 5])
def test_a_source_that_says_nothing_or_two_things_is_refused(given):
    with pytest.raises(ValidationError):
        ColumnSource.model_validate(given)


def test_words_are_compared_in_normal_form_and_unknown_ones_stay():
    values = {"銀行振込": "bank_transfer", "カード": "card_on_file"}
    assert translated({"values": values}, "銀行振込", " ｶｰﾄﾞ　", "代引", "") == ["bank_transfer", "card_on_file", "代引", ""]


def test_a_cell_ends_before_a_text():
    assert translated({"until": " "}, " 2026/04/01 10:00:00", "2026/04/01", "") == ["2026/04/01", "2026/04/01", ""]


def test_a_cell_begins_behind_a_text():
    assert translated({"after": "#"}, " #1001", "1002", "", "a#b#c") == ["1001", "1002", "", "b#c"]
    assert translated({"after": "(.", "until": ")"}, "x(.y) z", "(y)") == ["y", "(y"]


@pytest.mark.parametrize(
    ("date_format", "sent", "day"),
    [
        ("%Y%m%d%H%M%S", "20261120210621", "2026-11-20"),
        ("%Y%m%d%H%M%S", " 20261120210621 ", "2026-11-20"),
        ("%Y年%m月%d日", "2026年4月1日", "2026-04-01"),
        ("%d/%m/%y", "01/4/26", "2026-04-01"),
        ("%Y%m%d", "2026111", "2026111"),  # the first or the eleventh month?
        ("%Y%m%d%H%M%S", "2026112021062", "2026112021062"),
        ("%Y%m%d", "20261120x", "20261120x"),
        ("%Y%m%d", "20261320", "20261320"),
        ("%Y%m%d", "", ""),
    ],
)
def test_a_date_is_read_as_the_client_writes_it_or_left_as_it_is(date_format, sent, day):
    assert translated({"header": "注文日時", "format": date_format}, sent) == [day]


@pytest.mark.parametrize("date_format", ["%H:%M", "%Y-%m", "no format", "%Y%m%d%Q", "%"])
def test_a_format_says_which_day_it_is(date_format):
    with pytest.raises(ValidationError):
        profile(order_date={"header": "日時", "format": date_format})


def test_a_format_is_for_dates_and_an_occurrence_of_one_header():
    for columns in (
        {"amount": {"header": "金額", "format": "%Y%m%d"}},
        {"phone": {"header": ["電話番号", "TEL"], "occurrence": 2}},
        {"phone": {"occurrence": 2}},
        {"phone": {"header": "電話番号", "occurrence": 0}},
        {"phone": {"header": "電話番号", "occurrence": 2}, "note": {"header": "電話番号", "occurrence": 2}},
    ):
        with pytest.raises(ValidationError):
            profile(**columns)


def test_of_a_header_that_comes_twice_the_one_that_is_meant_is_taken(tmp_path):
    chosen = profile(phone={"header": "電話番号", "occurrence": 2}, note={"header": "電話番号", "occurrence": 1})
    found = staged(tmp_path, "注文番号,電話番号,得意先名,電話番号\nA-1,03,山田,06\n", chosen)
    assert (found["phone"], found["note"]) == ((3,), (1,))
    with pytest.raises(FileRejected, match="same name") as refused:
        staged(tmp_path, "注文番号,電話番号,得意先名,電話番号\nA-1,03,山田,06\n", profile())
    assert refused.value.code == "F_HEADER_DUPLICATE"


def test_columns_that_are_ignored_are_not_there(tmp_path):
    chosen = Profile.model_validate({"ignore": ["phone", "item_code"]})
    assert "phone" not in staged(tmp_path, "注文番号,電話番号,得意先名,電話番号\nA-1,03,山田,06\n", chosen)
    for wrong in (
        {"ignore": ["surprise"]},
        {"ignore": ["customer_name"]},
        {"ignore": ["phone"], "columns": {"phone": "TEL"}},
    ):
        with pytest.raises(ValidationError, match="ignore"):
            Profile.model_validate(wrong)
    assert Profile.model_validate({"ignore": ["payment_method"], "columns": {"payment_method": {"default": "invoice"}}})


def test_a_default_stands_for_what_is_empty():
    assert translated({"default": "invoice"}, "", "  ", "card_on_file") == ["invoice", "invoice", "card_on_file"]


@pytest.mark.parametrize(
    ("given", "cell", "is_nobodys"),
    [
        ({"header": "会員ID", "default": "X9"}, "", True),
        ({"header": "会員ID", "default": "X9"}, "x9", True),  # typed by hand
        ({"header": "会員ID", "default": "X9"}, " Ｃ１ ", False),
        ({"header": "会員ID", "values": {"非会員": "X9", "": "X9"}}, "非会員", True),
        ({"header": "会員ID", "values": {"非会員": "X9", "": "X9"}}, "", True),
        ({"header": "会員ID", "values": {"非会員": "X9", "": "X9"}}, "X9", True),
        ({"header": "会員ID", "values": {"非会員": "X9", "": "X9"}}, "C1", False),
        ({"header": "会員ID", "until": "-"}, "C1-3", True),  # who says that what is cut off is nothing of the person's?
        ({"header": "会員ID", "until": "-"}, "C1", False),
        ({"header": "会員ID", "after": "-"}, "C1-3", True),
        ({"header": "会員ID", "after": "-"}, "C1", False),
        ({"join": ["法人番号", "会員番号"]}, "1", True),  # each numbers its own
        ("会員ID", "C1", False),
        *(
            ("会員ID", cell, True)
            for cell in (
                "-",
                "---",
                "0",
                "0000",
                "＿",
                "Guest",
                "n-a",
                "NULL",
                "xxx",
                "-1",
                "9999",
                "undefined",
                "NON-MEMBER",
                "guest_user",
                "not-set",
                "unregistered",
                "no_login",
                "TRUE",
                "hikaiin",
            )
        ),
        *(("会員ID", cell, False) for cell in ("C-0", "100", "guest1", "NA1", "X1", "-12", "99", "1999", "NO-1")),
    ],
)
def test_a_payer_that_no_cell_of_the_row_names_is_nobody(given, cell, is_nobodys):
    context = context_of(profile(customer_code=given), "utf-8")
    rows, findings, _ = Judge(ORDERS, context).judge(pa.array([1], pa.int32()), raw_cells([order_row(customer_code=cell)]))
    assert findings.found == []
    assert rows.is_nobodys.to_pylist() == [is_nobodys]


def test_a_column_that_is_placed_has_no_other_name_and_takes_its_headers_from_the_others():
    names = profile(amount="請求金額", note="金額").header_names()
    assert names["請求金額"] == "amount"
    assert names["金額"] == "note"
    assert "amount" not in names
    assert names["customer_code"] == "customer_code"


def test_a_column_with_a_default_need_not_be_in_the_file():
    assert "payment_method" not in profile(payment_method={"default": "invoice"}).required_columns()
    assert "payment_method" in profile(payment_method={"values": {"請求": "invoice"}}).required_columns()


@pytest.mark.parametrize(
    "columns",
    [
        {"surprise": "受注番号"},
        {"note": "受注番号", "amount": " 受注番号"},
        {"note": ["備考", "備考"]},
        {"note": ["email", "メールアドレス"]},
    ],
)
def test_columns_that_cannot_be_told_apart_are_refused(columns, tmp_path):
    with pytest.raises(ValidationError):
        profile(**columns)
    path = tmp_path / "clients.toml"
    path.write_text('[acme.columns]\nsurprise = "planted"\n', "utf-8")
    with pytest.raises(ClientsError, match=r"ORDERS_CLIENTS_FILE: acme.columns: there is no column surprise") as refused:
        read_clients(path)
    assert "planted" not in str(refused.value)


def staged(tmp_path, text: str, chosen: Profile) -> dict[str, tuple[int, ...]]:
    source = tmp_path / "orders.csv"
    source.write_text(text, "utf-8")
    return dict(
        stage(
            source,
            tmp_path / "staged.parquet",
            header_names=chosen.header_names(),
            required=("client_order_ref", "customer_name"),
            joined=chosen.joined_headers(),
            limits=LIMITS,
        ).columns
    )


def test_joined_columns_stand_in_the_order_of_the_profile_wherever_they_are(tmp_path):
    chosen = profile(customer_name={"join": ["姓", "名"]})
    assert staged(tmp_path, "名,注文番号,姓\n太郎,A-1,山田\n", chosen)["customer_name"] == (2, 0)


@pytest.mark.parametrize("cell", ["#N/A", "#FORMAT!  (太郎)"])
@pytest.mark.parametrize("line", ["A-1,{},山田\n", "A-1,山田,{}\n"])
def test_a_joined_cell_is_none_where_a_part_is_none(tmp_path, cell, line):
    staged(tmp_path, "注文番号,姓,名\n" + line.format(cell), profile(customer_name={"join": ["姓", "名"]}))
    assert pq.read_table(tmp_path / "staged.parquet").column("customer_name").to_pylist() == [cell]


def test_a_joined_column_is_missing_when_one_part_is(tmp_path):
    chosen = profile(customer_name={"join": ["姓", "名"]})
    with pytest.raises(FileRejected) as refused:
        staged(tmp_path, "注文番号,姓\nA-1,山田\n", chosen)
    assert (refused.value.code, refused.value.detail["columns"]) == ("F_HEADER_MISSING", "customer_name")
    with pytest.raises(FileRejected) as refused:
        staged(tmp_path, "注文番号,姓,名,姓\nA-1,山田,太郎,鈴木\n", chosen)
    assert refused.value.code == "F_HEADER_DUPLICATE"
