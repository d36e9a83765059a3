"""Inputs 48 to 62: order references, and text that must come through as it is."""

from __future__ import annotations

from orders_pipeline_tests.inputs.case import BEFORE, Case, Finding
from orders_pipeline_tests.inputs.sheet import Sheet, accepts, gives_back, refused

REF = "client_order_ref"
TEXT_COLUMNS = ("customer_name", "customer_name_kana", "ship_to_address", "note")
FORMULAS = {
    "equals and a command": "=cmd|' /C calc'!A0",
    "plus": "+81-3-1234-5678",
    "minus": "-1",
    "at": "@SUM(A1:A9)",
    "a tab and equals": "\t=1+1",
    "a carriage return and equals": "\r=1+1",
    "a space and equals": " =1+1",
    "a no-break space and equals": "\u00a0=1+1",
    "a full-width equals": "＝1+1",
    "a newline and equals": "\n=1+1",
}


def reference(number: int, written: str, becomes: str | None = None) -> Case:
    return accepts(number, f"reference {written}", {REF: written}, {REF: becomes or written})


def no_reference(number: int, name: str, written: str, code: str) -> Case:
    return gives_back(number, f"reference {name}", {REF: written}, code)


def text(number: int, name: str, written: str, becomes: str | None = None) -> Case:
    """A text in each text column at once."""
    cells = dict.fromkeys(TEXT_COLUMNS, written)
    return accepts(number, name, cells, dict.fromkeys(TEXT_COLUMNS, becomes or written))


def no_text(number: int, name: str, written: str) -> Case:
    return gives_back(number, name, {"customer_name": f"山田{written}太郎"}, "R_CHARS")


def lone_surrogate_in_utf_16() -> bytes:
    data = Sheet(codec="utf-16-le", bom=True).take({"customer_name": "見本商店"}).data
    return data.replace("店".encode("utf-16-le"), b"\x00\xd8")


def two_orders(first: dict[str, str], second: dict[str, str], *codes: str) -> Sheet:
    """Write two orders, one in between them, and give the codes of those that go back, the last for the second."""
    sheet = Sheet()
    detail = {"first_row": "1"}
    if len(codes) > 1:
        sheet.reject(Finding(REF, codes[0], first[REF], detail), cells=first)
    else:
        sheet.take(first)
    sheet.take({"note": "一行目\r\n二行目"})
    return sheet.reject(Finding(REF, codes[-1], second[REF], detail), cells=second, line=5)


REFERENCES = [
    *(reference(48, written) for written in ("000123",)),
    *(reference(49, written) for written in ("1E5", "NA", "null", "TRUE", "nan", "None")),
    accepts(50, "reference with outer spaces", {REF: " \u3000A-77 "}, {REF: "A-77"}),
    accepts(50, "reference in full-width letters", {REF: "ＡＢ－７７"}, {REF: "AB-77"}),
    gives_back(51, "no reference", {REF: ""}, "R_REQUIRED"),
    gives_back(51, "a reference of spaces", {REF: " \u3000 "}, "R_REQUIRED"),
    no_reference(52, "with a Cyrillic letter", "\u0410-77", "R_REF_FORMAT"),
    no_reference(52, "with a zero-width space", "A\u200b-77", "R_REF_FORMAT"),
    no_reference(52, "with an emoji", "A-\U0001f600", "R_REF_FORMAT"),
    no_reference(52, "with a space inside", "A 77", "R_REF_FORMAT"),
    no_reference(52, "of SQL", "'; DROP TABLE orders; --", "R_REF_FORMAT"),
    gives_back(52, "reference of 65 characters", {REF: "A" * 65}, "R_TOO_LONG"),
    accepts(52, "reference of 64 characters and every sign", {REF: "A-1_b./" + "0" * 57}),
]

TWICE = [
    two_orders({REF: "B-1"}, {REF: "B-1"}, "R_REF_DUP_IN_FILE").case(53, "the same order twice"),
    two_orders({REF: "B-1"}, {REF: " Ｂ-1", "amount": "１０００"}, "R_REF_DUP_IN_FILE").case(
        53, "the same in other writing"
    ),
    two_orders({REF: "B-1"}, {REF: "B-1", "amount": "2000"}, "R_REF_CONFLICT", "R_REF_CONFLICT").case(54, "rows differ"),
    two_orders({REF: "B-1"}, {REF: "B-1", "note": "急ぎ"}, "R_REF_CONFLICT", "R_REF_CONFLICT").case(54, "notes differ"),
    two_orders({REF: "B-1"}, {REF: "b-1"}, "R_REF_CONFLICT", "R_REF_CONFLICT").case(55, "references differ by case"),
    Sheet()
    .reject(Finding(REF, "R_REF_EXISTS", "a-1", {"batch_id": BEFORE}), cells={REF: "a-1"})
    .take()
    .case(56, "a reference of an earlier file", before=(Sheet().take({REF: "A-1"}).data,)),
    Sheet()
    .reject(
        Finding(REF, "R_REF_EXISTS_DIFFERS", "a-1", {"batch_id": BEFORE, "columns": "amount"}),
        cells={REF: "a-1", "amount": "2000"},
    )
    .take()
    .case(56, "a reference of an earlier file with another amount", before=(Sheet().take({REF: "A-1"}).data,)),
]

TEXTS = [
    *(accepts(57, f"the name {name}", {"customer_name": name}) for name in ("None", "NA", "Null", "nan", "0", "FALSE")),
    text(58, "signs that NFKC would change", "㈱①髙～"),
    text(58, "half-width kana", "ﾔﾏﾀﾞ ﾀﾛｳ"),
    text(58, "decomposed kana", "\u30ab\u3099ラス", "\u30acラス"),
    accepts(58, "vendor characters in CP932", {"customer_name": "㈱髙橋①～"}, codec="cp932"),
    text(59, "an emoji of several characters", "\U0001f469\u200d\U0001f467見本"),
    text(59, "a kanji outside the basic plane", "\U00020bb7野家"),
    accepts(59, "100 kanji of four bytes", {"customer_name": "\U00020bb7" * 100}),
    gives_back(59, "101 kanji of four bytes", {"customer_name": "\U00020bb7" * 101}, "R_TOO_LONG", detail={"limit": "100"}),
    no_text(61, "a right-to-left override", "\u202e"),
    no_text(61, "a right-to-left isolate", "\u2067"),
    no_text(61, "a right-to-left mark", "\u200f"),
    no_text(61, "a private-use character", "\ue000"),
    no_text(61, "a private-use character of plane 15", "\U000f0000"),
    gives_back(61, "a gaiji in CP932", {"customer_name": "山\ue000田"}, "R_CHARS", codec="cp932"),
]

NO_UTF_8 = [
    refused(
        60,
        "CESU-8",
        Sheet().take().data.replace("店".encode(), "\ud842\udfb7".encode("utf-8", "surrogatepass")),
        "F_ENCODING",
        row="1",
        line="2",
    ),
    refused(
        60,
        "a lone surrogate in UTF-8",
        Sheet().take().data.replace("店".encode(), "\ud842".encode("utf-8", "surrogatepass")),
        "F_ENCODING",
        row="1",
        line="2",
    ),
    refused(60, "a lone surrogate in UTF-16", lone_surrogate_in_utf_16, "F_ENCODING", row="1", line="2"),
]

IN_TEXT = [text(62, f"a formula with {name}", written) for name, written in FORMULAS.items()]


def shown_formulas() -> Case:
    """A row for each formula, in a column that is shown."""
    sheet = Sheet()
    for written in FORMULAS.values():
        sheet.reject(Finding("payment_method", "R_PAYMENT_METHOD", "'" + written), cells={"payment_method": written})
        sheet.take()
    return sheet.case(62, "formulas that are shown")


CASES = (*REFERENCES, *TWICE, *TEXTS, *NO_UTF_8, *IN_TEXT, shown_formulas())
