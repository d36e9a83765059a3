"""A file is tried: what is read of it is shown, and the table that comes of it is a profile that reads it."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path

import openpyxl
import pytest

import orders_pipeline
from orders_pipeline.batches import batches
from orders_pipeline.clients.profiles import Profile, read_clients
from orders_pipeline.intake.csv_file import Limits
from orders_pipeline.intake.file_staging import stage_file
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.samples.header_guesses import GUESSES
from orders_pipeline.samples.profile_trial import try_profile
from orders_pipeline_tests.support import shop_files

SHOPIFY = (
    "Name,Email,Created at,Total,Billing Name,Payment Method\n"
    "#1001,a@example.com,2026-11-20 10:00:01 +0900,3800,見本 太郎,Shopify Payments\n"
)
ECCUBE = (
    "注文番号,注文日時,会員ID,お名前(姓),お名前(名),お名前(姓)カナ,TEL,支払合計,支払方法\n"
    "1,2026/11/20 10:00,7,見本,太郎,ミホン,03,100,銀行振込\n"
)
AMAZON = (
    "order-id\tpurchase-date\tbuyer-name\tbuyer-email\titem-price\n"
    "503-1\t2026-11-20T10:00:00+09:00\t見本\ta@example.com\t1200\n"
)
SAP = "# VA05\n#\n№,受注番号,受注日時,顧客コード,顧客名,受注金額,支払方法\n1,45,20261120101500,K1,見本,1000,invoice\n# end\n"
TITLES = "注文明細\n期間,11月\n\n注文番号;得意先コード;得意先名;金額;支払方法\nA-1;C1;見本;1000;invoice\n"
TWICE = (
    "注文番号,得意先コード,得意先名,電話番号,金額,支払方法,電話番号\n"
    "受注No,顧客コード,氏名,TEL,合計,決済方法,TEL\nA-1,C1,見本,03,1000,invoice,06\n"
)
PLAIN = "client_order_ref,customer_code,customer_name,amount,payment_method"


def tried(tmp_path, content, name="orders.csv", profile=None):
    path = tmp_path / name
    path.write_bytes(content.encode("cp932") if isinstance(content, str) else content)
    return try_profile(path, Limits(), profile or Profile()), path


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("A-1,C1,見本,2,500,1000,invoice,受付\nA-2,C1,見本,1,500,500,invoice,受付", {}),
        ("A-1,C1,見本,2,500,1000,invoice,受付\nA-1,C1,見本,1,500,500,invoice,受付", {"lines": "grouped"}),
        ("A-1,C1,見本,2,500,1650,invoice,受付\nA-1,,,1,500,,,", {"lines": "grouped"}),
        ("A-1,C1,見本,2,500,1100,invoice,受付", {"ignore": ["quantity", "unit_price"]}),
        ("A-1,C1,見本,,,1,invoice,受付\nA-1,C1,見本,,,1,invoice,受付", {"ignore": ["quantity", "unit_price"]}),
        (
            "A-1,C1,見本,,,1,invoice,受付\nA-2,C1,見本,,,1,invoice,注文取消し",
            {"ignore": ["quantity", "unit_price"], "skip": [{"header": "対応状況", "values": ["注文取消し"]}]},
        ),
        ("A-1,C1,見本,,,1,invoice,受付\nA-2,,見本,,,1,invoice,受付", {"ignore": ["quantity", "unit_price"]}),
    ],
)
def test_rows_say_whether_orders_have_several_which_are_none_and_what_is_not_to_be_taken(tmp_path, rows, says):
    header = "注文番号,会員ID,得意先名,数量,単価,金額,支払方法,対応状況"
    if not says:
        header, rows = header.replace("数量", "商品コード,数量"), rows.replace(",見本,", ",見本,T-1,")
    found, path = tried(tmp_path, f"{header}\n{rows}\n")
    table = tomllib.loads(found["profile"])["client"]
    assert {name: value for name, value in table.items() if name != "columns"} == says
    columns = table["columns"]
    assert (columns["customer_code"] == {"header": "会員ID", "default": "guest"}) == ("A-2,," in rows)
    assert (columns.get("amount") == {"header": "金額", "each": "line"}) == (",500,500," in rows and bool(says))
    assert found["rows"]
    stage_file(Limits(), Profile.model_validate(table), path, path.name, tmp_path)


SHARED = (
    "注文番号,受注日,得意先コード,得意先名,金額,支払方法\nA-1,{day},C1,見本,1000,invoice\n"
    "A-2,{day},C2,手本,300,invoice\nA-2,{other},{code},{name},500,invoice\n"
)


@pytest.mark.parametrize(
    ("code", "name", "profile", "lines", "yen"),
    [
        ("C3", "別人", {}, None, 1000),
        ("C2", "手本", {"lines": "one_per_order"}, None, 1000),
        ("C2", "手本", {}, "grouped", 1800),
        ("", "", {}, "grouped", 1800),
    ],
)
def test_orders_that_share_a_reference_are_not_lines_of_one_nor_is_a_setting_guessed_that_the_profile_names(
    tmp_path, code, name, profile, lines, yen
):
    text = SHARED.format(day=batches.today(), other=batches.today() if code != "C3" else "", code=code, name=name)
    found, _ = tried(tmp_path, text, profile=Profile.model_validate(profile))
    assert tomllib.loads(found["profile"] or "[client]")["client"].get("lines") == lines
    assert found["outcome"]["amount_jpy"] == {"accepted": yen}
    assert found["outcome"]["rejections"] == ({} if lines else {"R_REF_CONFLICT": 2})


@pytest.mark.parametrize(
    ("header", "lines", "odd", "each", "yen", "code"),
    [
        ("品名,支払合計", ("a,2000", "b,2000"), "b,9999", {}, 8_000, "R_REF_CONFLICT"),  # the order's total, and a slip
        ("品名,支払合計", ("a,2000", "b,"), "b,9999", {}, 8_000, "R_REF_CONFLICT"),
        ("品名,支払合計", ("a,2000", "b,2000"), "b,0", {}, 8_000, "R_AMOUNT_RANGE"),
        ("品名,金額", ("a,1000", "b,500"), "b,1000", {"each": "line"}, 8_000, ""),  # lines, some of which are equal
        (
            "商品コード,数量,単価,金額",
            ("a,2,500,1000", "b,1,1000,1000"),
            "b,1,1000,999",
            {"each": "line"},
            8_000,
            "R_AMOUNT_MISMATCH",
        ),
        ("商品コード,数量,単価,金額", ("a,2,500,1000", "b,1,1000,1000"), "b,3,500,1500", {"each": "line"}, 10_500, ""),
    ],
)
def test_one_odd_cell_decides_neither_that_an_amount_is_of_the_order_nor_that_it_is_of_the_line(
    tmp_path, header, lines, odd, each, yen, code
):
    rows = [f"A-{order},C1,見本,invoice,{line}" for order in range(5) for line in lines]
    rows[1] = f"A-0,C1,見本,invoice,{odd}"
    text = "\n".join([f"注文番号,会員ID,得意先名,支払方法,{header}", *rows, ""])
    found, _ = tried(tmp_path, text)
    table = tomllib.loads(found["profile"])["client"]
    name = header.rpartition(",")[2]
    assert table.get("columns", {}).get("amount", name) == ({"header": name} | each if each else name)
    assert "skip" not in table
    assert found["outcome"]["amount_jpy"] == {"accepted": yen}
    assert found["outcome"]["rejections"] == (dict.fromkeys([code, "R_ORDER_INCOMPLETE"], 1) if code else {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SAP, {"comment": "", "columns": {"customer_code": {"default": "guest"}, "order_date": "受注日時"}}),
        (TITLES, {"delimiter": ",", "header_line": 1}),
        (TWICE, {"header_rows": 1, "columns": {"phone": {"header": "電話番号", "occurrence": 2}}}),
        (AMAZON + '503-2\t2026-11-20T10:00\t見"本\tb@example.com\t100\n', {"quoting": "double", "notify_channel": "none"}),
        (ECCUBE, {"skip": [], "columns": {"customer_name": "お名前(姓)"}}),
    ],
)
def test_what_a_profile_names_is_not_guessed_whatever_the_file_is(tmp_path, text, said):
    guessed = tried(tmp_path, text)[0]["guessed"]
    found, _ = tried(tmp_path, text, profile=Profile.model_validate(said))
    named = {*said, *said.get("columns", ())} - {"columns"}
    assert named & set(guessed)
    assert not named & set(found["guessed"])


def test_an_encoding_that_the_profile_names_is_that_of_texts_and_not_of_workbooks(tmp_path):
    with pytest.raises(FileRejected) as refused:
        tried(tmp_path, TITLES, profile=Profile(encoding="utf-8"))
    assert refused.value.code == "F_ENCODING"
    book, content = openpyxl.Workbook(), io.BytesIO()
    book.active.append(PLAIN.split(","))
    book.active.append(["A-1", "C1", "見本", 1, "invoice"])
    book.save(content)
    found, _ = tried(tmp_path, content.getvalue(), "orders.xlsx", profile=Profile(encoding="cp932"))
    assert (found["guessed"], found["profile"]) == ([], "")


def test_a_text_in_which_quotation_marks_are_characters_is_seen_as_unquoted(tmp_path):
    rows = '\n503-1\t2026-11-20T10:00\t"見本\ta@example.com\t1200\n503-2\t2026-11-20T10:00\t見"本\tb@example.com\t100\n'
    found, _ = tried(tmp_path, AMAZON.partition("\n")[0] + rows)
    assert tomllib.loads(found["profile"])["client"]["quoting"] == "none"


@pytest.mark.parametrize(
    ("text", "lacks", "says"),
    [
        (SHOPIFY, ["customer_code"], {"client_order_ref": {"header": "Name", "after": "#"}, "amount": "Total"}),
        (ECCUBE, [], {"customer_name": {"join": ["お名前(姓)", "お名前(名)"]}, "customer_code": "会員ID"}),
        (AMAZON, ["customer_code", "payment_method"], {"order_date": {"header": "purchase-date", "until": "T"}}),
        (SAP, [], {"order_date": {"header": "受注日時", "format": "%Y%m%d%H%M%S"}}),
        (TITLES, [], {}),
        (TWICE, [], {"phone": {"header": "電話番号", "occurrence": 1}}),
    ],
)
def test_the_table_that_comes_of_a_file_reads_it_once_what_is_needed_is_said(tmp_path, text, lacks, says):
    found, path = tried(tmp_path, text)
    assert found["missing"] == lacks
    table = tomllib.loads(found["profile"])["client"]
    assert says.items() <= table.get("columns", {}).items()
    for column in lacks:
        assert f"# {column} = " in found["profile"]
        table.setdefault("columns", {})[column] = {"default": "guest" if column == "customer_code" else "invoice"}
    profile = Profile.model_validate(table)
    staged = stage_file(Limits(), profile, path, path.name, tmp_path)
    assert staged.rows_total == 1
    assert {*profile.required_columns()} <= {*staged.columns}
    if not lacks:
        assert len(found["rows"]) == 1
        assert "error" not in found
        assert found["rows"][0].get("order_date", "2026-11-20").replace("/", "-") == "2026-11-20"


def test_nothing_would_be_charged_of_a_file_with_more_bad_rows_than_its_client_allows(tmp_path):
    text = f"{PLAIN}\nA-1,C1,見本,1000,invoice\nA-2,C2,見本,abc,invoice\n"
    charged, refused = (tried(tmp_path, text, profile=Profile(bad_rows=what))[0] for what in ("give_back", "refuse_file"))
    assert (charged["outcome"]["amount_jpy"], "error" in charged) == ({"accepted": 1000}, False)
    assert refused["error"]["code"] == "F_TOO_MANY_ERRORS"
    assert (refused["outcome"]["orders"], refused["outcome"]["amount_jpy"]) == ({"accepted": 0}, {"accepted": 0})
    assert refused["outcome"]["rows"] == {"total": 2, "accepted": 0, "rejected": 2, "blank": 0, "skipped": 0}
    assert refused["outcome"]["rejections"] == {"R_AMOUNT_FORMAT": 1}


def test_of_a_file_that_needs_no_profile_nothing_is_guessed(tmp_path):
    found, _ = tried(
        tmp_path, "client_order_ref,customer_code,customer_name,amount,payment_method,x\nA-1,C1,見本,1,invoice,y\n"
    )
    assert (found["guessed"], found["missing"], found["not_used"]) == ([], [], ["x"])
    assert found["rows"] == [dict(zip(PLAIN.split(","), ["A-1", "C1", "見本", "1", "invoice"], strict=True))]
    assert found["profile"] == ""


def test_a_text_that_can_be_read_in_two_ways_says_so(tmp_path):
    text = f"{PLAIN}\nA-1,C1,Renée Dupont,1,invoice\n"
    found, _ = tried(tmp_path, text.encode("cp1252"))
    assert "encoding" in found["guessed"]
    assert "CP932" in found["profile"].upper()
    assert "CP1252" in found["profile"].upper()


def test_with_a_profile_only_what_it_lacks_is_guessed(tmp_path):
    profile = Profile.model_validate(
        {"columns": {"client_order_ref": {"header": "Name", "after": "#"}, "customer_code": {"default": "guest"}}}
    )
    found, _ = tried(tmp_path, SHOPIFY, profile=profile)
    assert "client_order_ref" not in found["guessed"]
    assert found["missing"] == []
    assert found["rows"][0]["client_order_ref"] == "1001"
    assert found["rows"][0]["customer_code"] == "guest"


def test_a_workbook_is_tried_as_well(tmp_path):
    book, content = openpyxl.Workbook(), io.BytesIO()
    for row in (
        ["注文明細"],
        [],
        ["受注番号", "顧客コード", "氏名", "合計", "支払方法"],
        ["A-1", "C1", "見本", 1000, "invoice"],
    ):
        book.active.append(row)
    book.save(content)
    found, _ = tried(tmp_path, content.getvalue(), "orders.xlsx")
    assert (found["encoding"], found["header_line"], found["missing"]) == ("workbook", 3, [])
    assert found["rows"][0]["amount"] == "1000"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "F_EMPTY"),
        (b"%PDF-1.7", "F_NOT_CSV"),
        (b"\x00\x01", "F_CONTROL_CHARS"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xa0\x81", "F_CONTROL_CHARS"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, code):
    with pytest.raises(FileRejected) as refused:
        tried(tmp_path, content)
    assert refused.value.code == code


UNREADABLE = (
    "注文番号,会員ID,得意先名,金額,支払方法,対応状況\nA-1,C1,見本,1000,invoice,受付\n"
    "A-2,C1,見\x07本,1000,invoice,取\x07消キャンセル\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "utf-16"])
@pytest.mark.parametrize("said", [False, True])
def test_a_row_with_control_characters_is_rejected_and_the_file_is_tried_as_it_would_be_imported(tmp_path, encoding, said):
    text = UNREADABLE + "A-3,C1,見本,1000,invoice,受付\n"
    found, _ = tried(tmp_path, text.encode(encoding), profile=Profile(encoding=encoding) if said else None)
    assert (found.get("error"), found["missing"]) == (None, [])
    assert found["outcome"]["rejections"] == {"R_CHARS": 1}
    assert found["outcome"]["amount_jpy"] == {"accepted": 2000}
    assert "skip" not in found["guessed"]


def test_control_characters_refuse_a_file_in_which_a_record_may_be_more_than_a_line_as_they_do_in_an_import(tmp_path):
    with pytest.raises(FileRejected) as refused:
        tried(tmp_path, f'{UNREADABLE}A-3,C1,"見\n本",1000,invoice,受付\n')
    assert (refused.value.code, refused.value.detail["line"]) == ("F_CONTROL_CHARS", "3")


def test_of_a_cell_that_is_too_long_it_is_said_that_it_is(tmp_path):
    found, _ = tried(tmp_path, f'{PLAIN}\nA-1,C1,"{"x" * 140_000}",1,invoice\n')
    assert (found["error"]["code"], found["missing"]) == ("F_FIELD_TOO_LONG", [])


def test_what_is_no_order_file_lacks_everything(tmp_path):
    found, _ = tried(tmp_path, b"a,b\r\n1,2\r\n")
    assert (found["error"]["code"], found["rows"]) == ("F_HEADER_MISSING", [])
    assert found["missing"] == list(Profile().required_columns())
    assert tomllib.loads(found["profile"]) == {"client": {"columns": {}}}


def test_names_of_files_and_headers_are_no_toml_of_their_own(tmp_path):
    header = 'Name,"Total\n[x]","a"" = 1 # ",Billing Name,Payment Method'
    found, _ = tried(tmp_path, f"{header}\n#1,2,3,x,y\n", "a]\n[b.csv")
    assert set(tomllib.loads(found["profile"])) == {"client"}


def test_what_is_guessed_are_columns_and_written_as_headers_are_compared():
    assert set(GUESSES) <= set(ORDERS.column_names)
    assert all(name == name.casefold().strip() for names in GUESSES.values() for name in names)
    assert read_clients(None).profile("any") == Profile()


@pytest.mark.parametrize(
    ("profile", "channel"), [({}, "email"), ({"notify_channel": "sms"}, None), ({"columns": {"notify_channel": "CH"}}, None)]
)
def test_who_gives_addresses_and_no_channel_is_asked_whether_customers_are_to_be_notified(tmp_path, profile, channel):
    text = f"{PLAIN},email,CH\nA-1,C1,見本,1,invoice,a@example.com,none\n"
    found, _ = tried(tmp_path, text, profile=Profile.model_validate(profile))
    given = tomllib.loads(found["profile"]).get("client", {}) if found["profile"] else {}
    assert given.get("notify_channel") == channel


def test_how_money_is_taken_is_not_guessed(tmp_path):
    rows = "A-1,C1,見本,1,銀行振込\nA-2,C1,見本,1,Shop Pay\nA-3,C1,見本,1,invoice\nA-4,C1,見本,1,クレジットカード\n"
    found, _ = tried(tmp_path, f"{PLAIN.replace('payment_method', '支払い方法')}\n{rows}")
    columns = tomllib.loads(found["profile"])["client"]["columns"]
    assert columns["payment_method"] == "支払い方法"
    assert '# payment_method needs values = { "Shop Pay" = "..." }' in found["profile"]
    assert "振込" not in found["profile"]
    assert 'with values = { "クレジットカード" = "..." } what it is instead' in found["profile"]
    refused, _ = tried(tmp_path, "受注番号,氏名,金額,支払い方法\nA-1,見本,1,Shop Pay\nA-2,見本,1,クレジットカード\n")
    assert "error" in refused
    assert '"Shop Pay" = "..."' in refused["profile"]
    assert "クレジットカード is card_on_file" in refused["profile"]


def test_what_is_cancelled_or_free_is_guessed_to_be_skipped_and_what_may_be_due_in_part_to_be_rejected(tmp_path):
    rows = [
        ("A-1", "1000", "paid", "", "0"),
        ("A-2", "1000", "paid", "2026-11-28", "0"),
        ("A-3", "1000", "partially_refunded", "", "300"),
        ("A-4", "1000", "voided", "", "0"),
        ("A-5", "0", "paid", "", "0"),
    ]
    text = f"{PLAIN},Financial Status,Cancelled at,Refunded Amount\n"
    text += "".join(f"{ref},C1,見本,{yen},invoice,{','.join(rest)}\n" for ref, yen, *rest in rows)
    found, _ = tried(tmp_path, text)
    table = tomllib.loads(found["profile"])["client"]
    assert table["skip"] == [
        {"header": "amount", "values": ["0"]},
        {"header": "Financial Status", "values": ["voided"]},
        {"header": "Cancelled at", "except": []},
    ]
    assert table["reject"] == [
        {"header": "Financial Status", "values": ["partially_refunded"]},
        {"header": "Refunded Amount", "except": ["0"]},
    ]
    assert found["outcome"]["amount_jpy"] == {"accepted": 1000}


EXAMPLES = read_clients(Path(orders_pipeline.__file__).parent / "docs" / "clients.examples.toml")
OWN = (
    "受注一覧表,,,,,\n出力日:2026/11/30,,,,,\n\n伝票No,受注日,取引先CD,取引先名,税込金額,支払区分\n"
    'D-001,R8.11.20,T001,株式会社あ,"12,000",請求書\nD-002,2026年11月20日,T002,株式会社い,"8,000円",振込\n'
)


def test_common_japanese_headers_are_guessed_and_the_file_comes_to_its_sum(tmp_path):
    found, _ = tried(tmp_path, f'{OWN}合計,,,,"20,000",\n')
    assert (found["header_line"], found["missing"], found.get("error")) == (4, [], None)
    columns = tomllib.loads(found["profile"])["client"]["columns"]
    assert columns == {
        "client_order_ref": "伝票No",
        "customer_code": "取引先CD",
        "customer_name": "取引先名",
        "amount": "税込金額",
        "payment_method": "支払区分",
    }
    assert found["outcome"]["amount_jpy"] == {"accepted": 20_000}
    assert found["outcome"]["rows"] == {"total": 3, "accepted": 2, "rejected": 1, "blank": 0, "skipped": 0}
    assert found["outcome"]["rejections"] == {"R_TOTAL_ROW": 1}


def test_the_words_for_customers_items_and_remarks_of_other_systems_are_guessed(tmp_path):
    header = "伝票番号,受注年月日,お客様コード,お客様名,お客様名カナ,品番,数量,単価,金額,支払方法,摘要"
    found, _ = tried(tmp_path, f"{header}\nA-1,{batches.today()},C1,見本,ミホン,T-1,2,500,1000,invoice,急ぎ\n")
    assert found["not_used"] == []
    assert {"order_date", "customer_code", "customer_name", "customer_name_kana", "item_code", "note"} <= {*found["guessed"]}
    assert found["outcome"]["amount_jpy"] == {"accepted": 1000}


def test_a_header_of_unknown_names_is_not_said_to_look_like_an_order(tmp_path):
    found, _ = tried(tmp_path, "品名,担当,部門,倉庫,区分\nA,B,C,D,E\n")
    assert (found["error"]["code"], found["error"]["detail"].get("hint")) == ("F_HEADER_MISSING", None)
    found, _ = tried(tmp_path, "A-1,C1,見本,1000,invoice\nA-2,C1,見本,1000,invoice\n")
    assert found["error"]["detail"]["hint"] == "no_header"


def test_with_a_clients_profile_too_words_are_named_that_it_does_not_know_and_cards_that_have_no_token(tmp_path):
    path = tmp_path / "order.csv"
    made = shop_files.eccube(f"{batches.today():%Y-%m-%d}")
    profile = EXAMPLES.profile("eccube")
    changes = [{"支払方法(名称)": word} for word in ("銀行振込", "郵便振替", "カード")]
    path.write_bytes(shop_files.orders_like(made, "cp932", "注文番号", "5002", changes))
    found = try_profile(path, Limits(), profile, "eccube", in_file=True)
    assert '# payment_method needs values = { "郵便振替" = "..." }' in found["profile"]
    assert "# payment_method: カード is card_on_file, which needs a payment_token" in found["profile"]
    assert found["profile"].splitlines()[:3] == ["# for files like order.csv", "", "# under [eccube.columns]:"]
    assert tomllib.loads(found["profile"]) == {}
    assert found["outcome"]["rejections"] == {"R_PAYMENT_METHOD": 1, "R_REQUIRED": 1}
    assert found["outcome"]["amount_jpy"] == {"accepted": 1650}


@pytest.mark.parametrize("columns", ["", '\n[shop.columns]\nphone = "電話番号"\n'])
def test_what_is_to_be_added_to_a_client_can_be_put_where_it_says(tmp_path, columns):
    clients = tmp_path / "clients.toml"
    clients.write_text(f'[shop]\nname = "見本"\n{columns}', "utf-8")
    text = SHARED.format(day=f"{batches.today():%Y%m%d}120000", other="", code="", name="").replace("得意先コード", "会員ID")
    path = tmp_path / "orders.csv"
    path.write_text(text, "utf-8")
    found = try_profile(path, Limits(), read_clients(clients).profile("shop"), "shop", in_file=True)
    place = "# under [shop.columns]:" if columns else "[shop.columns]"
    settings, there, its_columns = found["profile"].partition(place + "\n")
    assert settings.splitlines()[1] == "# under [shop], above its other tables:"
    clients.write_text(f'[shop]\nname = "見本"\n{settings}{columns}{"" if columns else there}{its_columns}', "utf-8")
    again = try_profile(path, Limits(), read_clients(clients).profile("shop"), "shop", in_file=True)
    assert (again["profile"], again["outcome"]) == ("", found["outcome"])
    assert again["outcome"]["amount_jpy"] == {"accepted": 1800}


@pytest.mark.parametrize(
    ("client", "made", "name", "skipped"),
    [
        ("shopify", shop_files.shopify, "shopify.csv", "Financial Status = refunded: 2 (#3, #4)"),
        ("yahoo", shop_files.yahoo, "yahoo.csv", "OrderStatus = 4: 1 (#4)"),
        ("amazon", shop_files.amazon, "amazon.txt", ""),
    ],
)
def test_nothing_is_to_be_added_to_a_profile_that_fits(tmp_path, client, made, name, skipped):
    path = tmp_path / name
    path.write_bytes(made(f"{batches.today():%Y-%m-%d}"))
    found = try_profile(path, Limits(), EXAMPLES.profile(client), client)
    assert (found["skipped"], found["outcome"]["rejections"]) == (skipped, {})
    chosen = [each.header for each in (*EXAMPLES.profile(client).skip, *EXAMPLES.profile(client).reject)]
    assert set(chosen) & set(found["not_used"]) == set()
    if client != "shopify":
        assert found["profile"] == ""


def test_what_is_beside_the_lines_and_not_in_the_amount_is_named(tmp_path):
    header, row = AMAZON.splitlines()
    found, _ = tried(tmp_path, f"{header}\tshipping-price\tshipping-tax\n{row}\t350\t31\n{row[:5]}\t\t\t\t500\t\t\n")
    assert "# amount is the sum of the lines, without shipping-price: are these to be in add" in found["profile"]


SHOWN = ["paid", "cancelled"]


@pytest.mark.parametrize(
    ("choice", "states", "unmet"),
    [
        ({"skip": {"values": ["canceled"]}}, SHOWN, [("skip", "canceled", SHOWN)]),
        ({"skip": {"values": ["Cancelled"]}}, SHOWN, [("skip", "Cancelled", SHOWN)]),
        ({"skip": {"values": [" cancelled", "void"]}}, SHOWN, [("skip", "void", SHOWN)]),
        ({"reject": {"values": ["payed", "paid"]}}, SHOWN, [("reject", "payed", SHOWN)]),
        ({"reject": {"except": ["payed", "paid"]}}, SHOWN, []),
        ({"skip": {"values": ["canceled"]}}, [*SHOWN, '"' + "x" * 200_000], []),  # which is refused
        ({"skip": {"values": ["0.00", "0"]}}, ["0", "1"], []),
        ({"skip": {"values": ["canceled"]}}, [*SHOWN, *"abcd"], [("skip", "canceled", ["cancelled"])]),
        ({"skip": {"values": ["x"]}}, [*SHOWN, "a status that is a remark"], [("skip", "x", [])]),
        ({"skip": {"values": ["last"]}}, [*["paid"] * 3_000, "last"], []),
        ({"skip": {"values": ["x"], "occurrence": 2}}, SHOWN, None),
        ({"skip": {"except": []}}, SHOWN, []),
    ],
)
def test_each_word_of_skip_and_reject_that_no_row_has_is_named_with_what_the_column_has(tmp_path, choice, states, unmet):
    rows = "".join(f"A-{at},C1,見本,1000,invoice,{state}\n" for at, state in enumerate(states))
    profile = {"header_line": 3} | {setting: [{"header": "state"} | words] for setting, words in choice.items()}
    found, _ = tried(tmp_path, f"state\n\n{PLAIN},state\n{rows}", profile=Profile.model_validate(profile))
    if unmet is None:
        assert (found["error"]["code"], found["unmet"]) == ("F_HEADER_MISSING", [])
    else:
        named = [{"setting": name, "header": "state", "word": word, "instead": instead} for name, word, instead in unmet]
        assert found["unmet"] == named


def test_a_word_is_not_missed_behind_a_row_whose_quotation_mark_is_escaped(tmp_path):
    states = ["paid", '"5\\""', "paid", "canceled"]
    rows = "".join(f"A-{at},C1,見本,1000,invoice,{state}\n" for at, state in enumerate(states))
    profile = Profile.model_validate({"quoting": "double", "skip": [{"header": "state", "values": ["canceled", "void"]}]})
    found, _ = tried(tmp_path, f"{PLAIN},state\n{rows}", profile=profile)
    assert (found["outcome"]["rejections"], found["outcome"]["rows"]["skipped"]) == ({"R_QUOTE": 1}, 1)
    assert found["unmet"] == []  # what is behind it cannot be read in the usual way, so nothing is said


def test_the_words_of_workbooks_are_looked_for_whatever_the_profile_says_of_texts(tmp_path):
    book, content = openpyxl.Workbook(), io.BytesIO()
    for row in (
        [*PLAIN.split(","), "state"],
        ["A-1", "C1", "見本", 1, "invoice", "sent, paid"],
        ["A-2", "C1", "見本", 1, "invoice"],
    ):
        book.active.append(row)
    book.save(content)
    chosen = [{"header": "state", "values": ["sent, paid", "sent"]}]
    profile = Profile.model_validate({"skip": chosen, "quoting": "none", "delimiter": ";", "encoding": "cp932"})
    found, _ = tried(tmp_path, content.getvalue(), "orders.xlsx", profile=profile)
    assert [(each["word"], each["instead"]) for each in found["unmet"]] == [("sent", ["sent, paid"])]


@pytest.mark.parametrize(
    ("setting", "header", "near"), [("skip", "stats", "status"), ("reject", "stats", "status"), ("skip", "xyz", None)]
)
def test_of_a_header_that_skip_or_reject_misspells_the_setting_is_named_and_the_nearest(tmp_path, setting, header, near):
    profile = Profile.model_validate({setting: [{"header": header, "values": ["cancelled"]}]})
    error = tried(tmp_path, f"{PLAIN},status\nA-1,C1,見本,1,invoice,paid\n", profile=profile)[0]["error"]
    assert (error["code"], error["detail"].get("nearest")) == ("F_HEADER_MISSING", near)
    assert error["settings"].startswith(f"`{setting}` names {header};")
    error = tried(tmp_path, "a,status\n1,paid\n", profile=profile)[0]["error"]
    assert error["settings"].startswith("`columns`")
