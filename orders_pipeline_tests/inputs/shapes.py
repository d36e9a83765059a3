"""Inputs 14 to 35: quotes, numbers of cells, headers, and rows that are none."""

from __future__ import annotations

from orders_pipeline_tests.inputs.case import Case, Finding
from orders_pipeline_tests.inputs.sheet import ORDER, Sheet, accepts, record, refused

NO_NUMBER = Finding("amount", "R_AMOUNT_FORMAT", "TWO")
BAD = {"amount": "TWO"}
SHAPE = Finding("", "R_COLUMNS")
HEADER = record(list(ORDER)) + "\r\n"
JAPANESE = ("注文番号", "受注日", "得意先コード", "得意先名", "メールアドレス", "請求金額", "支払方法", "備考")


def line(number: int, **cells: str) -> str:
    return record([*(ORDER | {"client_order_ref": f"A-{number}"} | cells).values()]) + "\r\n"


def with_cells(*records: str) -> str:
    """Return a file of these records between two orders that are right."""
    return HEADER + line(1) + "".join(records) + line(9)


def has_bad_quote(number: int, name: str, written: str) -> Case:
    """The second record's name is written like this; the record before it has two lines."""
    broken = line(2, customer_name="NAME").replace("NAME", written)
    return refused(number, name, with_cells(line(8, note="一\r\n二"), broken), "F_QUOTE", row="3", line="5")


def two_shapes(number: int, name: str, bad: str, *, last: bool = False) -> Case:
    """A record of another shape behind one of two lines, with good ones around it."""
    sheet = Sheet().take({"note": "一行目\r\n二行目"}).give_back_record(bad, SHAPE, line=4)
    return (sheet if last else sheet.take().reject(NO_NUMBER, cells=BAD)).case(number, name)


QUOTES = [
    Sheet()
    .take({"customer_name": "見本\r\n商店", "note": "一\n\n二\r三"}, line=2)
    .reject(NO_NUMBER, cells=BAD | {"note": "\r\n"}, line=7)
    .take({"note": "\n"}, quoted=True, line=9)
    .reject(NO_NUMBER, cells=BAD, line=11)
    .case(14, "line breaks in quotes"),
    has_bad_quote(15, "a quote that is never closed", '"見本商店'),
    refused(15, "a quote that is never closed in the header", HEADER.replace("email", '"email') + line(1), "F_QUOTE"),
    has_bad_quote(16, "text behind a closing quote", '"見本"商店'),
    has_bad_quote(16, "a quote escaped by a backslash", '"見本\\"商店"'),
    Sheet(names=("client_order_ref", "customer_code", "customer_name", "amount", "payment_method"))
    .take()
    .case(
        17,
        "a quote inside an unquoted cell",
        data=b"client_order_ref,customer_code,customer_name,amount,payment_method\r\n"
        + 'A-1,C-001,5" 管"材"\'\',1000,invoice\r\n'.encode(),
        accepted={
            1: {
                "client_order_ref": "A-1",
                "customer_code": "C-001",
                "customer_name": '5" 管"材"\'\'',
                "amount": 1000,
                "payment_method": "invoice",
                "notify_channel": "none",
            }
        },
    ),
    accepts(17, "doubled quotes inside a quoted cell", {"customer_name": '"見本",商店'}),
]

CELLS = [
    two_shapes(18, "a short row", "A-2,2026-06-15,C-001,見本商店"),
    two_shapes(18, "a row of one cell", "A-2", last=True),
    two_shapes(18, "a row without its last comma", line(2).strip().removesuffix(","), last=True),
    two_shapes(19, "a long row", line(2).strip() + "急ぎ,EXTRA"),
    two_shapes(19, "a row with one comma too many", line(2).strip() + ",", last=True),
    refused(20, "every row one cell longer", HEADER + line(1, note="一,X").replace('"', "") * 2, "F_COLUMNS", found="9"),
    two_shapes(22, "an unquoted amount with a comma", line(2).strip().replace(",1000,", ",1,000,")),
]

TRAILING_COMMA = Sheet().take({"note": "急ぎ"}).take()
TRAILING = [
    TRAILING_COMMA.case(
        21,
        "a trailing comma in every row",
        data=HEADER.encode()
        + (line(1, note="急ぎ,") + line(2) + "").replace('"', "").replace("invoice,\r", "invoice,,\r").encode(),
    ),
    TRAILING_COMMA.case(
        21,
        "a trailing comma in header and rows",
        data=TRAILING_COMMA.data.replace(b"\r\n", b",\r\n"),
    ),
]


def renamed(number: int, name: str, old: str, new: str, **detail: str) -> Case:
    return refused(number, name, (HEADER + line(1)).replace(old, new, 1), "F_HEADER_MISSING", **detail)


def titled(name: str, title: str, hint: str) -> Case:
    return refused(31, name, title + HEADER + line(1) + line(2), "F_HEADER_MISSING", hint=hint)


HEADERS = [
    refused(
        23,
        "the same header twice",
        (HEADER + line(1)).replace("invoice", "invoice").replace("note", "email"),
        "F_HEADER_DUPLICATE",
        columns="email",
    ),
    refused(
        23,
        "a header and its Japanese name",
        (HEADER + line(1)).replace("note", "メールアドレス"),
        "F_HEADER_DUPLICATE",
        columns="email",
    ),
    renamed(
        24, "two required headers missing", "customer_code,customer_name", "a,b", columns="customer_code, customer_name"
    ),
    renamed(24, "a required header missing", ",amount,", ",,", columns="amount"),
    refused(25, "no header", line(1) + line(2), "F_HEADER_MISSING", hint="no_header"),
    Sheet(names=tuple(reversed(ORDER))).take().reject(NO_NUMBER, cells=BAD).take().case(26, "a reordered header"),
    Sheet(
        header="Client_Order_Ref, ORDER_DATE ,ｃｕｓｔｏｍｅｒ＿ｃｏｄｅ,\u200bcustomer_name,"
        "\u3000email,AMOUNT\u200b,Payment_Method,note "
    )
    .take()
    .reject(NO_NUMBER, cells=BAD)
    .case(27, "case, spaces, full width, zero width"),
    Sheet(header=",".join(JAPANESE)).take().reject(NO_NUMBER, cells=BAD).case(27, "Japanese headers"),
    Sheet(header=",".join(JAPANESE).replace("請求金額", "金額").replace("注文番号", "店舗伝票番号"), codec="cp932")
    .take()
    .reject(NO_NUMBER, cells=BAD)
    .case(27, "other Japanese headers in CP932"),
    renamed(28, "a renamed header", "client_order_ref", "order_ref", columns="client_order_ref", nearest="order_ref"),
    renamed(28, "a renamed Japanese header", "payment_method", "お支払方法", columns="payment_method", nearest="お支払方法"),
    Sheet(names=(*ORDER, "favourite_colour"))
    .take({"favourite_colour": "浅葱色"})
    .reject(NO_NUMBER, cells=BAD | {"favourite_colour": "萌黄色"})
    .case(29, "an unknown column", warnings=("W_UNKNOWN_COLUMN",), personal=("浅葱色", "萌黄色")),
    refused(
        30, "the header again", with_cells(line(2, note="一\r\n二"), HEADER, line(3)), "F_HEADER_REPEATED", row="3", line="5"
    ),
    refused(
        30,
        "two files joined, of other columns",
        HEADER + line(1) + ",".join(JAPANESE) + ",送り状\r\n" + line(2),
        "F_HEADER_REPEATED",
        row="2",
        line="3",
    ),
    titled("a title line", "受注一覧\r\n", "title_lines"),
    titled("title lines and a blank one", "受注一覧,,\r\n2026年6月,,\r\n\r\n", "title_lines"),
    Sheet().take().case(31, "sep=", data=b"sep=,\r\n" + Sheet().take().data, warnings=("W_SEP_LINE",)),
    titled("a comment", "# exported 2026-06-15\r\n", "title_lines"),
]


def missing(*columns: str) -> list[Finding]:
    return [Finding(column, "R_REQUIRED") for column in columns]


COMMAS = "," * (len(ORDER) - 1)
BLANKS = [
    Sheet()
    .take({"note": "一\r\n二"})
    .take()
    .give_back_record(
        "合計,,,,,2000,,",
        Finding("", "R_TOTAL_ROW"),
        line=5,
    )
    .case(32, "a total row at the end"),
    Sheet()
    .take()
    .give_back_record(",,,合計,,1000,,", Finding("", "R_TOTAL_ROW"), cells={"customer_name": "合計"})
    .case(32, "a total row without a reference"),
    Sheet()
    .take()
    .take()
    .give_back_record(
        "合計,,,,,2001,,",
        Finding("client_order_ref", "R_REF_FORMAT", "合計"),
        *missing("customer_code", "customer_name", "payment_method"),
    )
    .case(32, "a last row of another amount than the sum"),
    Sheet().take().reject(NO_NUMBER, cells=BAD).skip().skip().skip().case(33, "blank rows at the end"),
    Sheet().take().reject(NO_NUMBER, cells=BAD).skip().skip(COMMAS).case(33, "commas at the end"),
    Sheet().skip(COMMAS).take().skip(COMMAS).skip(COMMAS).reject(NO_NUMBER, cells=BAD).case(34, "rows of commas"),
    Sheet().take().skip(",").skip('"",""').reject(NO_NUMBER, cells=BAD, line=5).case(34, "a few commas or quotes"),
    Sheet()
    .skip()
    .take({"note": "一\n二"}, line=3)
    .skip()
    .reject(NO_NUMBER, cells=BAD, line=6)
    .skip()
    .skip()
    .take(line=9)
    .reject(NO_NUMBER, cells=BAD, line=10)
    .case(35, "blank rows in the middle"),
    Sheet().take().case(35, "blank lines before the header", data=b"\r\n\r\n" + Sheet().take().data),
]

CASES = (*QUOTES, *CELLS, *TRAILING, *HEADERS, *BLANKS)
