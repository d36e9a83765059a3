"""Card numbers are found however they are written, and few other numbers with them."""

from __future__ import annotations

import random
from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders_pipeline.records.card_numbers import find_card_numbers, has_card_number
from orders_pipeline.records.rules import NoCardNumber
from orders_pipeline_tests.support.factories import accepted, refused

CARDS = {"4111111111111111": (4, 4, 4, 4), "5105105105105100": (4, 4, 4, 4), "378282246310005": (4, 6, 5)}
CARDS |= {"30569309025904": (4, 6, 4), "3530111333300000": (4, 4, 4, 4), "6011000990139424": (4, 4, 4, 4)}


def grouped(card: str, separators: list[str]) -> str:
    written, at = "", 0
    for size, separator in zip(CARDS[card], [*separators, ""], strict=False):
        written += card[at : at + size] + separator
        at += size
    return written


def made(kind: str) -> list[str]:
    """Return a thousand texts of a kind, with so many digits at random in place of each number in brackets."""
    chance = random.Random(7)
    first, *parts = kind.split("{")
    digits = [part.partition("}") for part in parts]
    return [
        first + "".join("".join(chance.choices("0123456789", k=int(count))) + rest for count, _, rest in digits)
        for _ in range(1_000)
    ]


WRITTEN = [
    "4111111111111111 123",
    "5105105105105100 12/27 123",
    "No.5 4111111111111111",
    "注文12 4111-1111-1111-1111",
    "tel 090 4111111111111111",
    "exp 12-4111111111111111",
    "4111.1111.1111.1111",
    "4111  1111  1111  1111",
    "4111     1111     1111     1111",
    "4111-----1111-----1111-----1111",
    "4111・・・・1111・・・・1111・・・・1111",
    "4111\u200b\u200b\u200b\u200b1111\u200b\u200b\u200b\u200b1111\u200b\u200b\u200b\u200b1111",
    "4111 - 1111 - 1111 - 1111",
    "4111/1111/1111/1111",
    "4111_1111_1111_1111",
    "4111\u22121111\u22121111\u22121111",
    "4111\n1111\n1111\n1111",
    "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    "411111 1111111111",
    "4111 1111 1111 1111123",
    "124111 1111 1111 1111",
    "99411111111111111199",
    "2026/04/01 4111-1111-1111-1111 12/27",
    "４１１１\u3000１１１１\u3000１１１１\u3000１１１１",
    "٤١١١١١١١١١١١١١١١",
    "𝟜𝟙𝟙𝟙 𝟙𝟙𝟙𝟙 𝟙𝟙𝟙𝟙 𝟙𝟙𝟙𝟙",
    "⁴¹¹¹-1111-1111-1111",
    "4111ー1111ー1111ー1111",
    "4111ｰ1111ｰ1111ｰ1111",
    "4111一1111一1111一1111",
    "④①①①-1111-1111-1111",
    "カード4111111111111111です",
    "3782-822463-10005 09/27",
    "4111x1111x1111x1111",
    "カード4111の1111の1111の1111の",
    "<b>4111</b><b>1111</b><b>1111</b><b>1111</b>",
    "3782<br>\n822463<br>\n10005",
    "3782と822463と10005",
    "4a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
    "4111-11111111 1111",
    "41x11x11x11x11x11x11x11",
    "411111111111-1111",
    "6759649826438453",
    "6304 0000 0000 0000",
    "39000000000005",
]
CODES = [
    "4111111111111111",
    "X-4111111111111111",
    "4111-1111-1111-1111",
    "3782_822463_10005",
    "6759649826438453",
    "39000000000005",
    "4111____1111____1111____1111",
    "3900-0000-0000-05",
]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_card_number_is_found_however_it_is_written(written):
    assert any(find_card_numbers(written))


def test_a_row_with_a_card_number_goes_back():
    refused("note", WRITTEN, "R_FORBIDDEN_DATA")


@pytest.mark.parametrize("column", ["client_order_ref", "customer_code", "item_code"])
def test_a_row_with_a_card_number_for_a_code_goes_back(column):
    others = {"quantity": "1", "unit_price": "1000"} if column == "item_code" else {}
    refused(column, CODES, "R_FORBIDDEN_DATA", **others)


def test_a_row_with_a_card_number_for_a_postal_code_or_in_an_address_goes_back():
    refused("postal_code", ["4111111111111111"], "R_FORBIDDEN_DATA")
    refused("email", ["4111111111111111@example.com", "t.4111-1111-1111-1111@example.com"], "R_FORBIDDEN_DATA")


@given(
    st.sampled_from(sorted(CARDS)),
    st.lists(st.sampled_from([" ", "-", ".", "/", "  ", " - ", "\u2010", "\u2015", "\u3000", "_"]), min_size=3, max_size=3),
    st.sampled_from(["", "12 ", "No.3-", "x", "注文 8 "]),
    st.sampled_from(["", " 123", "-12/27", "円", "\n5"]),
)
def test_whatever_separates_and_surrounds_it(card, separators, before, behind):
    assert any(find_card_numbers(before + grouped(card, separators) + behind))


@given(
    st.sampled_from(sorted(CARDS)),
    st.sampled_from(["", "-", "x", "cm", "カード", "A-9", "一", "----", "abcd"]),
    st.integers(1, 6),
)
def test_whatever_is_found_is_looked_at_in_the_quick_way_too(card, between, size):
    """Or Pandera alone finds it, and nothing of the file is loaded."""
    text = between.join(card[at : at + size] for at in range(0, len(card), size))
    for in_codes in (False, True):
        is_kept = NoCardNumber(in_codes=in_codes)(pa.array([text]), date.min)[0].as_py()
        assert is_kept != has_card_number(text, is_code=in_codes)


@given(st.text(st.sampled_from("0123456789 -./０①カ"), max_size=60))
def test_what_is_found_are_the_digits_of_a_card(text):
    for places in find_card_numbers(text):
        assert list(places) == sorted(places)
        assert 14 <= len(places) <= 19


@pytest.mark.parametrize(
    ("kind", "percent"),
    [
        ("{3}-{4}-{4} 2026/04/01", 1),
        ("2026-04-01 090-{4}-{4}", 1),
        ("090-{4}-{4} / 080-{4}-{4}", 1),
        ("{6}-20260401-{10}", 1),
        ("{3}-{7}-{7}", 2),
        ("〒{3}-{4} 090-{4}-{4}", 1),
        ("注文{8} 090-{4}-{4}", 1),
        ("{4}-{4}-{4}", 1),
        ("T{13} 49{11} 12", 1),
        ("{2},000, {2},000, {2},000, {2},000", 1),
        ("{4}番{4}号{4}室{4}", 0),
        ("4/12 10:00-12:00 03-{4}-{4}", 1),
        ("{1}丁目{2}番{2}号 090-{4}-{4}", 1),
        ("{2}個{2}個{2}個{2}個 {8}", 1),
        ("{4}赤、{4}青、{4}白、{4}黒", 0),
        ("{8} 20260401", 5),
        ("{16}", 6),
    ],
)
def test_few_other_numbers_are_taken_for_one(kind, percent):
    assert sum(any(find_card_numbers(text)) for text in made(kind)) <= 10 * percent


@pytest.mark.parametrize(
    ("kind", "percent"),
    [
        ("{3}-{7}-{7}", 0),
        ("{6}-20260401-{10}", 0),
        ("20260401{6}", 0),  # a day and a time ...
        ("20260401{8}", 0),
        ("20260401{10}", 0),
        ("260401{10}", 0),
        ("49{11}", 0),
        ("1{13}", 0),
        ("0{10}", 0),
        ("{10}", 0),
        ("{12}", 0),
        ("8{15}", 0),
        ("{19}", 1),
        ("{16}", 4),
    ],
)
def test_codes_of_usual_forms_are_taken_for_none_and_few_others(kind, percent):
    texts = made(kind)
    assert sum(has_card_number(text, is_code=True) for text in texts) <= 10 * percent


def test_numbers_of_daily_life_pass():
    notes = ["tel 090-1234-5678 2026/04/01", "注文 20261120-0001 JAN 4912345678904", "100-0001 東京都千代田区1-1-1"]
    assert accepted("note", notes) == notes
