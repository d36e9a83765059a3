"""Synthetic order files, to try the system with: realistic, repeatable, and bad in known ways where asked.

Names come from Faker, e-mail addresses end in example domains, and no telephone number here can be dialled. Rows are made
one by one, so that a file may have any number of them; how a row is damaged is said in `damage.py`. Nothing but tests,
demonstrations and the `sample` and `template` commands needs this module.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from faker import Faker

from orders_pipeline.batches import batches
from orders_pipeline.records.orders import EXAMPLE, ORDERS
from orders_pipeline.samples.damage import CONFLICT, EXCEL, EXISTS, REPEAT, SHAPE, SPOILERS, Row, item

CODES = (*SPOILERS, EXISTS)  # what `reject` may name

_POOL_SIZE = 300
_DAYS = 300  # how old an order may be
_EMPTY: Row = dict.fromkeys(ORDERS.column_names, "") | {"currency": "JPY"}
_DOMAINS = ("example.com", "example.net", "example.org")
_NOTES = ("", "", "", "", "午前中配送希望", "ギフト包装希望", "領収書を同梱してください", "置き配可\n不在時は玄関前へ")
_ITEMS = ("SKU-1001", "SKU-1002", "SKU-2001", "SKU-3005", "SKU-4410")
_CHANNELS = ("email",) * 7 + ("sms",) * 2 + ("none",)
_METHODS = ("invoice",) * 5 + ("card_on_file",) * 3 + ("bank_transfer",) * 2


class RatesError(ValueError):
    """The shares that were asked for are more than all rows, or name a code that no row can be given."""


@dataclass
class SampleSummary:
    """What a sample file holds: all its rows, bad rows by the code they must get, and the yen of the good rows.

    `excel` counts the rows Excel spoilt, by trick; those of them that are bad are in `bad` as well.
    """

    rows: int
    bad: Counter[str] = field(default_factory=Counter)
    amount: int = 0
    excel: Counter[str] = field(default_factory=Counter)


def write_sample(
    target: Path,
    *,
    rows: int,
    seed: int = 1,
    bad: float = 0.01,
    reject: Mapping[str, float] = MappingProxyType({}),
    excel: float = 0.0,
    encoding: str = "utf-8",
    today: date | None = None,
    japanese_headers: bool = False,
    series: str = "S",
) -> SampleSummary:
    """Write an order file of `rows` rows, the share `bad` of them wrong in known ways, and return what it contains.

    `reject` adds shares by code, and `excel` the share that Excel spoilt; together more than 1 is a RatesError. References
    begin with `series`; rows of R_REF_EXISTS have those of the file of the seed before, which must have been taken. The same
    arguments give the same bytes. Rows are spread over about a sixth as many customers; `encoding` is any of Python's that
    holds Japanese; order dates lie in the ten months up to `today`, by default the day in Japan.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    damage = _damage(rows, bad, reject, excel)
    summary = SampleSummary(rows)
    with target.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(_header(japanese_headers))
        plan = _plan(chance, rows, damage)
        for kind, code, amount, cells in _sample_rows(chance, plan, rows, (series, seed), today or batches.today()):
            writer.writerow(cells)
            if kind in EXCEL:
                summary.excel[kind] += 1
            if code:
                summary.bad[code] += 1
            else:
                summary.amount += amount
    return summary


def write_template(target: Path) -> None:
    """Write a file for people to fill in: the header and one example row, in UTF-8 with the BOM spreadsheets want."""
    example = dict.fromkeys(ORDERS.column_names, "") | dict(EXAMPLE)
    example |= {"order_date": batches.today().isoformat(), "notify_channel": "email"}
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([_header(japanese=False), list(example.values())])
    target.write_bytes(text.getvalue().encode("utf-8-sig"))


def _damage(rows: int, bad: float, reject: Mapping[str, float], excel: float) -> Counter[str]:
    """Return how many rows get each code, and how many each of Excel's tricks."""
    if unknown := reject.keys() - set(CODES):
        raise RatesError(f"no row can be given {', '.join(sorted(unknown))}")
    rates = {**reject, **dict.fromkeys(EXCEL, excel / len(EXCEL))}
    if min(bad, *rates.values()) < 0 or not bad + sum(rates.values()) <= 1 + 1e-9:  # which is also so of NaN
        raise RatesError("the shares of bad rows come to more than all rows")
    by_turns = round(rows * bad)
    counts = _shared_out(rows, rates, rows - by_turns)
    counts[CONFLICT] -= counts[CONFLICT] % 2  # it takes two
    if counts[REPEAT] and counts.total() + by_turns == rows:
        counts[REPEAT] -= 1  # of a row that is good
    return counts + _by_turns(by_turns, all_rows=by_turns + counts.total() == rows)


def _shared_out(rows: int, rates: Mapping[str, float], limit: int) -> Counter[str]:
    """Return the rows of each rate, rounded together so that their sum is right too, and at most `limit`."""
    sums = itertools.accumulate(Fraction(str(rate)) for rate in rates.values())
    edges = [0, *(min(limit, math.floor(each * rows + Fraction(1, 2))) for each in sums)]
    return Counter({name: edge - before for name, (before, edge) in zip(rates, itertools.pairwise(edges), strict=True)})


def _by_turns(left: int, *, all_rows: bool) -> Counter[str]:
    """Spread bad rows over the codes a file alone can get; with no good row there is none to repeat."""
    counts: Counter[str] = Counter()
    codes = itertools.cycle(SPOILERS)
    while left:
        code = next(codes)
        take = 2 if code == CONFLICT else 1
        if take <= left and not (code == REPEAT and all_rows):
            counts[code] += take
            left -= take
    return counts


def _plan(chance: random.Random, rows: int, damage: Counter[str]) -> Iterator[str]:
    """Yield for each row what is done to it, or nothing; each as often as `damage` says, and spread over the file."""
    names = tuple(damage)
    edges = tuple(itertools.accumulate(damage.values()))
    total = left = damage.total()
    # steps of about a golden section, which come to every place once
    step = next((each for each in range(round(total * 0.618), total) if math.gcd(each, total) == 1), 1)
    place = chance.randrange(total) if total else 0
    first_is_good = damage[REPEAT] > 0
    for rows_left in range(rows, 0, -1):
        if (first_is_good and rows_left == rows) or chance.random() * rows_left >= left:
            yield ""
            continue
        yield names[bisect_right(edges, place)]
        place = (place + step) % total
        left -= 1


def _sample_rows(
    chance: random.Random, plan: Iterator[str], rows: int, named: tuple[str, int], today: date
) -> Iterator[tuple[str, str, int, list[str]]]:
    """Yield for each row what was done to it, the code it gets, the yen it had before, and its cells."""
    series, seed = named
    customers = max(1, rows // 6)
    days = [(today - timedelta(days=days)).isoformat() for days in range(_DAYS)]
    last_good: Row = {}
    shared_reference = ""
    for number, kind in enumerate(plan, start=1):
        row = _order(chance, _customer(seed, 1 + int(chance.random() * customers)), f"{series}{seed}-{number:08d}", days)
        amount = int(row["amount"])
        code = kind
        if kind in EXCEL:
            code, spoil = EXCEL[kind]
            row = spoil(row, today)
        elif kind == REPEAT:
            row = last_good
        elif kind == CONFLICT:
            shared_reference, row["client_order_ref"] = (
                ("", shared_reference) if shared_reference else (row["client_order_ref"], row["client_order_ref"])
            )
        elif kind == EXISTS:
            row["client_order_ref"] = f"{series}{seed - 1}-{number:08d}"
        elif kind:
            row = SPOILERS[kind](row, today)
        if not code:
            last_good = row
        yield kind, code, amount, [*row.values(), *(["余分"] if kind == SHAPE else [])]


def _order(chance: random.Random, customer: Row, reference: str, days: list[str]) -> Row:
    row = _EMPTY | customer
    row["client_order_ref"] = reference
    row["order_date"] = days[int(chance.random() * _DAYS)]
    row["note"] = _NOTES[int(chance.random() * len(_NOTES))]
    if chance.random() < 0.5:
        unit_price = 10 * (50 + int(chance.random() * 1951))
        row.update(item(_ITEMS[int(chance.random() * len(_ITEMS))], 1 + int(chance.random() * 10), unit_price))
    else:
        row["amount"] = str(_amount(chance))
    return row


def _amount(chance: random.Random) -> int:
    """Return 500 to 200,000 yen, mostly small; one in a hundred is up to the limit."""
    if chance.random() < 0.01:
        return chance.randint(200_000, 1_000_000)
    return 10 * round(50 * math.pow(400, chance.random()))


_LETTERS = str.maketrans("0123456789", "ghijklmnop")  # digits among others may be a card's number


@lru_cache(maxsize=20_000)
def _customer(seed: int, number: int) -> Row:
    """Return the cells of a customer, the same for the same number, without those before it."""
    digits = int.from_bytes(hashlib.blake2b(f"{seed} {number}".encode(), digest_size=32).digest())
    token, digits = f"{digits & (1 << 96) - 1:024x}".translate(_LETTERS), digits >> 96
    drawn = []
    for choices in (len(_people()), len(_METHODS), len(_CHANNELS), len(_DOMAINS), 1000, 10_000):
        digits, draw = divmod(digits, choices)
        drawn.append(draw)
    name, kana, postal_code, address = _people()[drawn[0]]
    method = _METHODS[drawn[1]]
    return {
        "customer_code": f"C{number:06d}",
        "customer_name": name,
        "customer_name_kana": kana,
        "email": f"customer{number}@{_DOMAINS[drawn[3]]}",
        "phone": f"090-0{drawn[4]:03d}-{drawn[5]:04d}",  # no subscriber's begins with 0
        "postal_code": postal_code,
        "ship_to_address": address,
        "payment_method": method,
        "payment_token": f"tok_{token}" if method == "card_on_file" else "",
        "notify_channel": _CHANNELS[drawn[2]],
    }


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
