"""The catalogue of orders and of their lines: every column, how it may be written, what it must obey and which code says so.

A new column is one entry in `_COLUMNS` (and one migration, when it is stored); a new rule is one line there and its
messages in `rejections.py`. What a column is, is said in `record_type.py`; what rules are made of, in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from orders_pipeline.records import normalise
from orders_pipeline.records.record_type import Column, RecordType
from orders_pipeline.records.rules import (
    PRINTABLE,
    AtMost,
    Between,
    CalendarDate,
    DaysBack,
    Matches,
    NoCardNumber,
    OneOf,
    Passed,
    RowRule,
    Rule,
    never_matches,
)

if TYPE_CHECKING:
    import pandas as pd

CAP_JPY = 1_000_000  # the Payment service takes no more in one transaction, and an order is paid in one
OLDEST_DAYS = 366
ITEM_COLUMNS = ("item_code", "quantity", "unit_price")

# what the template's example row says, beside a date and how the customer is notified
EXAMPLE: Mapping[str, str] = MappingProxyType(
    {
        "client_order_ref": "ORDER-0001",
        "customer_code": "C0001",
        "customer_name": "株式会社見本",
        "customer_name_kana": "カブシキガイシャミホン",
        "email": "orders@example.com",
        "postal_code": "100-0001",
        "ship_to_address": "東京都千代田区千代田1-1",
        "item_code": "SKU-1001",
        "quantity": "2",
        "unit_price": "1500",
        "amount": "3000",
        "currency": "JPY",
        "payment_method": "invoice",
    }
)
_EXAMPLE_KEYS = ("client_order_ref", "customer_code", "customer_name", "amount")

PAYMENT_METHODS = ("invoice", "card_on_file", "bank_transfer")
# what people write in place of the codes
_PAYMENT_WORDS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("請求書", "請求書払", "請求書払い", "掛払い", "掛け払い"), "invoice")
    | dict.fromkeys(("銀行振込", "銀行振込み", "銀行振り込み", "振込"), "bank_transfer")
    | dict.fromkeys(("カード", "クレジットカード", "登録カード", "登録済みカード"), "card_on_file")
)
_CHANNEL_WORDS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("メール", "電子メール", "eメール"), "email")
    | dict.fromkeys(("ショートメール", "ショートメッセージ"), "sms")
    | dict.fromkeys(("なし", "無し", "不要"), "none")
)

_MOST_DIGITS = 9  # of quantity and unit price: their product fits 64 bits
_EMAIL = (
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\-]{1,64}"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9\-]{0,61}[A-Za-z0-9]"
)
_DOTTED = r"[^0-9]*[0-9]{1,3}(?:[.,][0-9]{3})*\.[0-9]{3}(?:,[0-9]{1,2})?[^0-9]*"
_DOT = {"hint": "dot_thousands"}
_PART = r"[0-9]{1,2}"
_NO_CARD = Rule("R_FORBIDDEN_DATA", NoCardNumber())
_NO_CARD_AS_CODE = Rule("R_FORBIDDEN_DATA", NoCardNumber(in_codes=True))
_AMBIGUOUS_DATE = rf"{_PART}[-/.]{_PART}(?:[-/.][0-9]{{1,4}})?|{_PART}月{_PART}日|[0-9]{{6}}"


def _given_when(column: str, other: str, value: str) -> Callable[[pd.DataFrame], Passed]:
    """Return a check that `column` is filled in where `other` has `value`."""
    return lambda rows: ((rows[other] != value) | (rows[column] != "")).astype(bool)


def _can_be_called(rows: pd.DataFrame) -> Passed:
    """Pass phone numbers that nobody will send to, whatever they are."""
    return ((rows["notify_channel"] != "sms") | rows["phone"].str.fullmatch(f"(?:{normalise.JAPANESE_PHONE})?")).astype(bool)


def _given_with_the_others(rows: pd.DataFrame, *, column: str) -> Passed:
    any_given = rows["item_code"].ne("") | rows["quantity"].ne("") | rows["unit_price"].ne("")
    return (~any_given | rows[column].ne("")).astype(bool)


def _amount_is_product(rows: pd.DataFrame) -> Passed:
    product = rows["quantity"] * rows["unit_price"]
    return (product == rows["amount"]).fillna(True).astype(bool)


def _is_no_example(rows: pd.DataFrame) -> Passed:
    """Pass rows that are not the template's example, also where columns that it does not need were taken out."""
    alike = rows["client_order_ref"].eq(EXAMPLE["client_order_ref"])
    if alike.any():
        for name, cell in EXAMPLE.items():
            alike &= rows[name].eq(cell) if name in _EXAMPLE_KEYS else rows[name].isin(["", cell])
    return (~alike).astype(bool)


_COLUMNS = (
    Column(
        "client_order_ref",
        64,
        aliases=("注文番号", "店舗伝票番号"),
        required=True,
        text_rules=(_NO_CARD_AS_CODE, Rule("R_REF_FORMAT", Matches(r"[A-Za-z0-9\-_./]{1,64}"))),
    ),
    Column(
        "order_date",
        32,
        aliases=("受注日",),
        kind="date",
        text_rules=(
            Rule("R_DATE_AMBIGUOUS", never_matches(_AMBIGUOUS_DATE)),
            Rule("R_DATE_FORMAT", never_matches(r"[0-9]{5}"), {"hint": "excel_serial"}),
            Rule("R_DATE_FORMAT", CalendarDate()),
        ),
        typed_rules=(Rule("R_DATE_RANGE", DaysBack(OLDEST_DAYS)),),
    ),
    Column(
        "customer_code",
        32,
        aliases=("得意先コード",),
        required=True,
        text_rules=(_NO_CARD_AS_CODE, Rule("R_CUSTOMER_CODE", Matches(r"[A-Za-z0-9_\-]{1,32}"))),
    ),
    Column(
        "customer_name",
        100,
        aliases=("得意先名",),
        kind="text",
        required=True,
        personal=True,
        text_rules=(_NO_CARD,),
    ),
    Column(
        "customer_name_kana",
        100,
        aliases=("得意先名カナ",),
        kind="text",
        personal=True,
        text_rules=(_NO_CARD,),
    ),
    Column(
        "email",
        320,
        aliases=("メールアドレス",),
        personal=True,
        may_begin_quoted=True,
        text_rules=(_NO_CARD_AS_CODE, Rule("R_EMAIL", AtMost(254)), Rule("R_EMAIL", Matches(_EMAIL))),
    ),
    Column(
        "phone",
        100,
        aliases=("電話番号",),
        personal=True,
        normalise=normalise.phone,
        text_rules=(_NO_CARD_AS_CODE, Rule("R_CHARS", PRINTABLE)),
        warnings=(Rule("W_PHONE", Matches(normalise.JAPANESE_PHONE)),),
    ),
    Column(
        "postal_code", 16, aliases=("郵便番号",), personal=True, text_rules=(_NO_CARD_AS_CODE, Rule("R_CHARS", PRINTABLE))
    ),
    Column(
        "ship_to_address",
        300,
        aliases=("届け先住所",),
        kind="text",
        personal=True,
        text_rules=(_NO_CARD,),
    ),
    Column("item_code", 64, aliases=("商品コード",), text_rules=(_NO_CARD_AS_CODE, Rule("R_CHARS", PRINTABLE))),
    Column(
        "quantity",
        32,
        aliases=("数量",),
        kind="number",
        text_rules=(
            Rule("R_QUANTITY", never_matches(_DOTTED), _DOT),
            Rule("R_QUANTITY", Matches(rf"[0-9]{{1,{_MOST_DIGITS}}}")),
        ),
        typed_rules=(Rule("R_QUANTITY", Between(1)),),
        stored_type="int32",
    ),
    Column(
        "unit_price",
        32,
        aliases=("単価",),
        kind="number",
        text_rules=(
            Rule("R_UNIT_PRICE", never_matches(_DOTTED), _DOT),
            Rule("R_UNIT_PRICE", Matches(rf"[0-9]{{1,{_MOST_DIGITS}}}")),
        ),
        typed_rules=(Rule("R_UNIT_PRICE", Between(1)),),
    ),
    Column(
        "amount",
        32,
        aliases=("金額", "請求金額"),
        kind="number",
        required=True,
        text_rules=(
            Rule("R_AMOUNT_RANGE", never_matches(r"-[0-9]+")),
            Rule("R_AMOUNT_OVER_LIMIT", never_matches(rf"[0-9]{{{normalise.MOST_DIGITS + 1},}}")),
            Rule("R_AMOUNT_FORMAT", never_matches(_DOTTED), _DOT),
            Rule("R_AMOUNT_FORMAT", Matches(r"[0-9]+")),
        ),
        typed_rules=(
            Rule("R_AMOUNT_RANGE", Between(1)),
            Rule("R_AMOUNT_OVER_LIMIT", Between(0, CAP_JPY)),
        ),
    ),
    Column(
        "currency",
        8,
        aliases=("通貨",),
        stored=False,
        normalise=normalise.upper_code,
        text_rules=(Rule("R_CURRENCY", OneOf(("JPY",))),),
    ),
    Column(
        "payment_method",
        32,
        aliases=("支払方法",),
        required=True,
        normalise=partial(normalise.lower_code, words=_PAYMENT_WORDS),
        text_rules=(Rule("R_PAYMENT_METHOD", OneOf(PAYMENT_METHODS)),),
    ),
    Column(
        "payment_token",
        128,
        aliases=("決済トークン",),
        secret=True,
        may_begin_quoted=True,
        text_rules=(
            _NO_CARD,
            Rule("R_PAYMENT_TOKEN", Matches(r"[\x21-\x7e]{8,128}")),
        ),
    ),
    Column(
        "notify_channel",
        32,
        aliases=("通知方法",),
        normalise=partial(normalise.lower_code, words=_CHANNEL_WORDS),
        default=lambda context: context.default_notify_channel,
        text_rules=(Rule("R_NOTIFY_CHANNEL", OneOf(("email", "sms", "none"))),),
    ),
    Column(
        "note",
        500,
        aliases=("備考",),
        kind="text",
        personal=True,
        text_rules=(_NO_CARD,),
    ),
)

ORDERS = RecordType(
    name="orders",
    columns=_COLUMNS,
    identity="client_order_ref",
    text_row_rules=(
        RowRule("R_EXAMPLE_ROW", "client_order_ref", _is_no_example, ()),
        RowRule("R_REQUIRED", "email", _given_when("email", "notify_channel", "email"), ("email", "notify_channel")),
        RowRule("R_PHONE", "phone", _can_be_called, ("phone", "notify_channel")),
        RowRule("R_REQUIRED", "phone", _given_when("phone", "notify_channel", "sms"), ("phone", "notify_channel")),
        RowRule(
            "R_REQUIRED",
            "payment_token",
            _given_when("payment_token", "payment_method", "card_on_file"),
            ("payment_token", "payment_method"),
        ),
        *(
            RowRule(code, column, partial(_given_with_the_others, column=column), (column,))
            for code, column in zip(("R_ITEM_CODE", "R_QUANTITY", "R_UNIT_PRICE"), ITEM_COLUMNS, strict=True)
        ),
    ),
    amount="amount",
    payer="customer_code",
    typed_row_rules=(RowRule("R_AMOUNT_MISMATCH", "amount", _amount_is_product, ("amount", *ITEM_COLUMNS[1:])),),
)

MOST_LINE_YEN = 10**_MOST_DIGITS - 1  # discounts are lines below zero
_BY_NAME = ORDERS.by_name

ORDER_LINES = RecordType(
    name="order_lines",
    columns=(
        _BY_NAME["item_code"],
        _BY_NAME["quantity"],
        replace(
            _BY_NAME["unit_price"],
            text_rules=(
                Rule("R_UNIT_PRICE", never_matches(_DOTTED), _DOT),
                Rule("R_UNIT_PRICE", Matches(rf"-?[0-9]{{1,{_MOST_DIGITS}}}")),
            ),
            typed_rules=(),
        ),
        replace(
            _BY_NAME["amount"],
            required=False,
            text_rules=(
                Rule("R_AMOUNT_FORMAT", never_matches(_DOTTED), _DOT),
                Rule("R_AMOUNT_FORMAT", Matches(r"-?[0-9]+")),
            ),
            typed_rules=(Rule("R_AMOUNT_OVER_LIMIT", Between(-MOST_LINE_YEN, MOST_LINE_YEN)),),
            stored_type="int32",
        ),
    ),
    amount="amount",
    typed_row_rules=(RowRule("R_AMOUNT_MISMATCH", "amount", _amount_is_product, ("amount", *ITEM_COLUMNS[1:])),),
)
