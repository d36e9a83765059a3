"""What goes wrong with rows of real files, made on purpose: each rejection code in one way, and what Excel does to cells.

Values in, values out: a row, the day it is made on, another row. Which rows are damaged, and how many, is decided in
`synthetic.py`. Excel's tricks that an order survives have no code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from types import MappingProxyType

from orders_pipeline.records.rules import NOT_AS_SHOWN, UNCOMPUTED

Row = dict[str, str]
Spoiler = Callable[[Row, date], Row]

REPEAT, CONFLICT, SHAPE, EXISTS = "R_REF_DUP_IN_FILE", "R_REF_CONFLICT", "R_COLUMNS", "R_REF_EXISTS"
_DAY_ZERO_OF_EXCEL = date(1899, 12, 30)
_FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")

# Each makes a good row wrong in one way, so that it gets exactly the one code.
SPOILERS: Mapping[str, Spoiler] = MappingProxyType(
    {
        "R_REQUIRED": lambda row, _: row | {"customer_name": ""},
        "R_AMOUNT_FORMAT": lambda row, _: row | {"amount": "10,00"},
        "R_AMOUNT_RANGE": lambda row, _: row | {"amount": "▲1000"},
        "R_AMOUNT_OVER_LIMIT": lambda row, _: row | {"amount": "1000001"},
        "R_EMAIL": lambda row, _: row | {"email": "orders.example.com"},
        "R_DATE_FORMAT": lambda row, today: row | {"order_date": f"{today.year}-02-30"},
        "R_DATE_RANGE": lambda row, today: row | {"order_date": (today + timedelta(days=40)).isoformat()},
        "R_PHONE": lambda row, _: row | {"phone": "90-0123", "notify_channel": "sms"},
        "R_AMOUNT_MISMATCH": lambda row, _: row | item("SKU-1001", 3, 100) | {"amount": "299"},
        REPEAT: lambda row, _: row,
        CONFLICT: lambda row, _: row,
        SHAPE: lambda row, _: row,
        "R_REF_FORMAT": lambda row, _: row | {"client_order_ref": "注文 " + row["client_order_ref"]},
        "R_CUSTOMER_CODE": lambda row, _: row | {"customer_code": "得意先1"},
        "R_DATE_AMBIGUOUS": lambda row, today: row | {"order_date": f"04/01/{today.year}"},
        "R_TOO_LONG": lambda row, _: row | {"note": "長" * 501},
        "R_CHARS": lambda row, _: row | {"note": "改頁\f"},
        "R_ITEM_CODE": lambda row, _: row | item("", 2, 500) | {"amount": "1000"},
        "R_QUANTITY": lambda row, _: row | item("SKU-1001", 0, 500),
        "R_UNIT_PRICE": lambda row, _: row | {"item_code": "SKU-1001", "quantity": "1", "unit_price": "時価"},
        "R_CURRENCY": lambda row, _: row | {"currency": "USD"},
        "R_PAYMENT_METHOD": lambda row, _: row | {"payment_method": "cash"},
        "R_PAYMENT_TOKEN": lambda row, _: row | {"payment_token": "tok_1"},
        "R_NOTIFY_CHANNEL": lambda row, _: row | {"notify_channel": "fax"},
        "R_FORBIDDEN_DATA": lambda row, _: row | {"note": "カード 4111 1111 1111 1111"},
        "R_CELL_ERROR": lambda row, _: row | {"customer_code": "#N/A"},
        "R_CELL_FORMULA": lambda row, _: row | {"amount": UNCOMPUTED},
        "R_CELL_FORMAT": lambda row, _: row | {"amount": f"{NOT_AS_SHOWN} 1,000 (-1000)"},
    }
)

# What Excel makes of a good row, by name, and the code the row then gets, if any.
EXCEL: Mapping[str, tuple[str, Spoiler]] = MappingProxyType(
    {
        "date_with_slashes": ("", lambda row, _: row | {"order_date": _slashes(_day(row))}),
        "date_as_serial": (
            "R_DATE_FORMAT",
            lambda row, _: row | {"order_date": str((_day(row) - _DAY_ZERO_OF_EXCEL).days)},
        ),
        "leading_zero_lost": (
            "R_PHONE",
            lambda row, _: row | {"phone": row["phone"].replace("-", "").lstrip("0"), "notify_channel": "sms"},
        ),
        "full_width_digits": ("", lambda row, _: row | {"amount": row["amount"].translate(_FULL_WIDTH)}),
        "thousands_separator": ("", lambda row, _: row | {"amount": f"{int(row['amount']):,}"}),
        "scientific_notation": ("R_AMOUNT_FORMAT", lambda row, _: row | {"amount": f"{int(row['amount']):.2E}"}),
    }
)


def item(item_code: str, quantity: int, unit_price: int) -> Row:
    """Return the cells of an ordered item, the amount among them (1000 where the product is nothing)."""
    return {
        "item_code": item_code,
        "quantity": str(quantity),
        "unit_price": str(unit_price),
        "amount": str(quantity * unit_price or 1000),
    }


def _day(row: Row) -> date:
    return date.fromisoformat(row["order_date"])


def _slashes(day: date) -> str:
    return f"{day.year}/{day.month}/{day.day}"
