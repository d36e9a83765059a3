"""Made-up order files, to try the system with: realistic, repeatable, and bad in known ways where asked.

Names come from Faker, e-mail addresses end in example domains, and no telephone number here can be dialled. Nothing but
tests, demonstrations and the `sample` and `template` commands needs this module.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo

from faker import Faker

from orders_pipeline.records.orders import ORDERS

Row = dict[str, str]

_POOL_SIZE = 300
_AMOUNT = ORDERS.column_names.index("amount")
_DOMAINS = ("example.com", "example.net", "example.org")
_NOTES = ("", "", "", "", "午前中配送希望", "ギフト包装希望", "領収書を同梱してください", "置き配可\n不在時は玄関前へ")
_ITEMS = ("SKU-1001", "SKU-1002", "SKU-2001", "SKU-3005", "SKU-4410")
_REPEAT, _CONFLICT, _SHAPE = "R_REF_DUP_IN_FILE", "R_REF_CONFLICT", "R_COLUMNS"


@dataclass(frozen=True)
class SampleSummary:
    """What a sample file holds: all its rows, bad rows by the code they must get, and the yen of the good rows."""

    rows: int
    bad: Counter[str]
    amount: int

    @property
    def rows_bad(self) -> int:
        """Return how many rows must be given back."""
        return self.bad.total()


@dataclass(frozen=True)
class _Customer:
    code: str
    name: str
    kana: str
    email: str
    phone: str
    postal_code: str
    address: str
    channel: str
    method: str
    token: str


# Each makes a good row wrong in one way, so that it gets exactly the one code.
_SPOILERS: Mapping[str, Callable[[Row, date], Row]] = MappingProxyType(
    {
        "R_REQUIRED": lambda row, _: row | {"customer_name": ""},
        "R_AMOUNT_FORMAT": lambda row, _: row | {"amount": "10,00"},
        "R_AMOUNT_RANGE": lambda row, _: row | {"amount": "▲1000"},
        "R_AMOUNT_OVER_LIMIT": lambda row, _: row | {"amount": "1000001"},
        "R_EMAIL": lambda row, _: row | {"email": "orders.example.com"},
        "R_DATE_FORMAT": lambda row, today: row | {"order_date": f"{today.year}-02-30"},
        "R_DATE_RANGE": lambda row, today: row | {"order_date": (today + timedelta(days=40)).isoformat()},
        "R_PHONE": lambda row, _: row | {"phone": "90-0123"},
        "R_AMOUNT_MISMATCH": lambda row, _: row | _item("SKU-1001", 3, 100) | {"amount": "299"},
        "R_REF_DUP_IN_FILE": lambda row, _: row,
        "R_REF_CONFLICT": lambda row, _: row,
        "R_COLUMNS": lambda row, _: row,
        "R_REF_FORMAT": lambda row, _: row | {"client_order_ref": "注文 " + row["client_order_ref"]},
        "R_CUSTOMER_CODE": lambda row, _: row | {"customer_code": "得意先1"},
        "R_DATE_AMBIGUOUS": lambda row, today: row | {"order_date": f"04/01/{today.year}"},
        "R_TOO_LONG": lambda row, _: row | {"note": "長" * 501},
        "R_CHARS": lambda row, _: row | {"note": "改頁\f"},
        "R_ITEM_CODE": lambda row, _: row | _item("", 2, 500) | {"amount": "1000"},
        "R_QUANTITY": lambda row, _: row | _item("SKU-1001", 0, 500),
        "R_UNIT_PRICE": lambda row, _: row | {"item_code": "SKU-1001", "quantity": "1", "unit_price": "時価"},
        "R_CURRENCY": lambda row, _: row | {"currency": "USD"},
        "R_PAYMENT_METHOD": lambda row, _: row | {"payment_method": "cash"},
        "R_PAYMENT_TOKEN": lambda row, _: row | {"payment_token": "tok_1"},
        "R_NOTIFY_CHANNEL": lambda row, _: row | {"notify_channel": "fax"},
        "R_FORBIDDEN_DATA": lambda row, _: row | {"note": "カード 4111 1111 1111 1111"},
    }
)


def write_sample(
    target: Path,
    *,
    rows: int,
    seed: int = 1,
    bad: float = 0.01,
    encoding: str = "utf-8",
    today: date | None = None,
    japanese_headers: bool = False,
) -> SampleSummary:
    """Write an order file of `rows` rows, the share `bad` of them wrong in known ways, and say what it holds.

    The same arguments give the same bytes. Rows are spread over about a sixth as many customers; `encoding` is any of
    Python's that holds Japanese; order dates lie in the ten months up to `today`, by default the day in Japan.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    day = today or _today()
    plan = _plan(chance, rows, bad)
    customers = [_customer(chance, number) for number in range(1, max(1, rows // 6) + 1)]
    amount = 0
    with target.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(_header(japanese_headers))
        for code, cells in _sample_rows(chance, plan, customers, seed, day):
            writer.writerow(cells)
            amount += int(cells[_AMOUNT]) if code is None else 0
    return SampleSummary(rows, Counter(code for code in plan if code is not None), amount)


def write_template(target: Path, *, today: date | None = None) -> None:
    """Write a file for people to fill in: the header and one example row, in UTF-8 with the BOM spreadsheets want."""
    example = dict.fromkeys(ORDERS.column_names, "") | {
        "client_order_ref": "ORDER-0001",
        "order_date": (today or _today()).isoformat(),
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
        "notify_channel": "email",
    }
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([_header(japanese=False), list(example.values())])
    target.write_bytes(text.getvalue().encode("utf-8-sig"))


def _plan(chance: random.Random, rows: int, bad: float) -> list[str | None]:
    """Return for each row the code it must get, or None; the codes take turns."""
    plan: list[str | None] = [None] * rows
    places = sorted(chance.sample(range(rows), min(rows, round(rows * bad))), reverse=True)
    first_good = min(set(range(rows)) - set(places), default=rows)
    codes = itertools.cycle(_SPOILERS)
    while places:
        code = next(codes)
        if code == _CONFLICT and len(places) == 1:
            continue
        if code == _REPEAT and first_good > places[-1]:
            continue
        for _ in range(2 if code == _CONFLICT else 1):
            plan[places.pop()] = code
    return plan


def _sample_rows(
    chance: random.Random, plan: list[str | None], customers: list[_Customer], seed: int, today: date
) -> Iterator[tuple[str | None, list[str]]]:
    last_good: Row = {}
    shared_reference = ""
    for number, code in enumerate(plan, start=1):
        row = _order(chance, chance.choice(customers), f"S{seed}-{number:08d}", today)
        if code is None:
            last_good = row
        elif code == _REPEAT:
            row = last_good
        elif code == _CONFLICT:
            shared_reference, row["client_order_ref"] = (
                ("", shared_reference) if shared_reference else (row["client_order_ref"], row["client_order_ref"])
            )
        else:
            row = _SPOILERS[code](row, today)
        yield code, [*row.values(), *(["余分"] if code == _SHAPE else [])]


def _order(chance: random.Random, customer: _Customer, reference: str, today: date) -> Row:
    row = dict.fromkeys(ORDERS.column_names, "") | {
        "client_order_ref": reference,
        "order_date": (today - timedelta(days=chance.randrange(300))).isoformat(),
        "customer_code": customer.code,
        "customer_name": customer.name,
        "customer_name_kana": customer.kana,
        "email": customer.email,
        "phone": customer.phone,
        "postal_code": customer.postal_code,
        "ship_to_address": customer.address,
        "currency": "JPY",
        "payment_method": customer.method,
        "payment_token": customer.token,
        "notify_channel": customer.channel,
        "note": chance.choice(_NOTES),
    }
    if chance.random() < 0.5:
        return row | _item(chance.choice(_ITEMS), chance.randint(1, 10), 10 * chance.randint(50, 2_000))
    return row | {"amount": str(_amount(chance))}


def _amount(chance: random.Random) -> int:
    """Return 500 to 200,000 yen, mostly small; one in a hundred is up to the limit."""
    if chance.random() < 0.01:
        return chance.randint(200_000, 1_000_000)
    return 10 * round(50 * math.pow(400, chance.random()))


def _item(item_code: str, quantity: int, unit_price: int) -> Row:
    return {
        "item_code": item_code,
        "quantity": str(quantity),
        "unit_price": str(unit_price),
        "amount": str(quantity * unit_price or 1000),
    }


def _customer(chance: random.Random, number: int) -> _Customer:
    name, kana, postal_code, address = chance.choice(_people())
    method = chance.choices(("invoice", "card_on_file", "bank_transfer"), (5, 3, 2))[0]
    return _Customer(
        code=f"C{number:06d}",
        name=name,
        kana=kana,
        email=f"customer{number}@{chance.choice(_DOMAINS)}",
        phone=f"090-0{chance.randrange(1000):03d}-{chance.randrange(10_000):04d}",  # no subscriber's begins with 0
        postal_code=postal_code,
        address=address,
        channel=chance.choices(("email", "sms", "none"), (7, 2, 1))[0],
        method=method,
        token=f"tok_{chance.getrandbits(96):024x}" if method == "card_on_file" else "",
    )


@lru_cache(maxsize=1)
def _people() -> tuple[tuple[str, str, str, str], ...]:
    """Return a pool of name, kana, postal code and address, always the same, that CP932 can hold."""
    faker = Faker("ja_JP")
    faker.seed_instance(20_260_401)
    people: list[tuple[str, str, str, str]] = []
    while len(people) < _POOL_SIZE:
        name = faker.company() if len(people) % 4 == 0 else faker.name()
        person = (name, faker.kana_name(), faker.zipcode(), faker.address())
        if "".join(person).encode("cp932", "ignore").decode("cp932") == "".join(person):
            people.append(person)
    return tuple(people)


def _header(japanese: bool) -> list[str]:
    return [column.aliases[0] if japanese and column.aliases else column.name for column in ORDERS.columns]


def _today() -> date:
    return datetime.now(ZoneInfo("Asia/Tokyo")).date()
