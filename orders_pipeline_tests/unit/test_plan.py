"""The plan of payments: every order once, never above the cap, as few transactions as there can be."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders_pipeline.records.orders import CAP_JPY
from orders_pipeline.settlement.payments.plan import PayableOrder, PlannedPayment, _first_fit, pack, plan_payments
from orders_pipeline_tests.support.soak import first_of


def orders_of(*amounts: int, customer: str = "C-1", method: str = "invoice", card: str = "") -> list[PayableOrder]:
    return [PayableOrder(number, customer, method, amount, card) for number, amount in enumerate(amounts, start=1)]


def amounts_of(payments: list[PlannedPayment]) -> list[int]:
    return sorted(payment.amount for payment in payments)


def test_the_cap_is_one_million_yen():
    assert CAP_JPY == 1_000_000


def test_a_batch_without_orders_has_no_payments():
    assert plan_payments([]) == []


def test_orders_of_one_customer_share_a_payment():
    (payment,) = plan_payments(orders_of(300, 200, 100))
    assert (payment.customer_code, payment.payment_method, payment.amount) == ("C-1", "invoice", 600)
    assert {order.import_row_number for order in payment.orders} == {1, 2, 3}


def test_orders_that_reach_the_cap_exactly_share_a_payment():
    assert amounts_of(plan_payments(orders_of(999_999, 1))) == [1_000_000]


def test_one_yen_above_the_cap_is_two_payments():
    assert len(plan_payments(orders_of(999_999, 2))) == 2


def test_an_order_of_exactly_the_cap_is_paid_alone():
    assert amounts_of(plan_payments(orders_of(CAP_JPY, 1))) == [1, CAP_JPY]


@pytest.mark.parametrize("amount", [CAP_JPY + 1, 0, -1])
@pytest.mark.parametrize("grouping", ["aggregated", "per_order"])
def test_an_order_that_no_payment_can_hold_is_refused_by_its_number_only(amount, grouping):
    order = PayableOrder(7, "SECRET-CUSTOMER", "card_on_file", amount, "tok_secret_value")
    with pytest.raises(ValueError, match="order 7") as refused:
        plan_payments([order], grouping)
    assert "ecret" not in str(refused.value)


def test_customers_methods_and_cards_are_kept_apart():
    kinds = [("C-1", "invoice", ""), ("C-2", "invoice", ""), ("C-1", "bank_transfer", "")]
    kinds += [("C-1", "card_on_file", "card-a"), ("C-1", "card_on_file", "card-b")]
    orders = [PayableOrder(10 * at + n, *kind[:2], 100, kind[2]) for at, kind in enumerate(kinds) for n in (1, 2)]
    payments = plan_payments(orders)
    assert len(payments) == len(kinds)
    for payment in payments:
        assert len({(o.customer_code, o.payment_method, o.card) for o in payment.orders}) == 1
        assert len(payment.orders) == 2


def test_per_order_makes_a_payment_of_each_order():
    payments = plan_payments(orders_of(1, 2, 3), "per_order")
    assert [[order.import_row_number for order in payment.orders] for payment in payments] == [[1], [2], [3]]


def test_fewer_payments_are_found_where_first_fit_is_not_optimal():
    # 44 + 34 + 22 and 43 + 34 + 23 fill two payments to the yen; largest first puts 44 with 43
    orders = orders_of(440_000, 430_000, 340_000, 340_000, 230_000, 220_000)
    largest_first = sorted(orders, key=lambda order: -order.amount)
    assert len(_first_fit(largest_first, CAP_JPY)) == 3
    assert amounts_of(plan_payments(orders)) == [1_000_000, 1_000_000]


def test_ten_thousand_orders_of_one_customer_are_planned_quickly_and_nearly_fully():
    amounts = [1 + (number * 7_919) % 400_000 for number in range(10_000)]
    started = time.process_time()
    payments = plan_payments(orders_of(*amounts))
    assert time.process_time() - started < 10
    assert len(payments) <= -(-sum(amounts) // CAP_JPY) * 1.01 + 1


def test_the_plan_does_not_depend_on_the_order_of_the_rows():
    orders = orders_of(500_000, 400_000, 300_000, 300_000, 250_000, 250_000)
    assert {frozenset(p.orders) for p in plan_payments(orders)} == {
        frozenset(p.orders) for p in plan_payments(reversed(orders))
    }


def test_neither_orders_nor_payments_show_a_card():
    (payment,) = plan_payments(orders_of(100, method="card_on_file", card="tok_secret_value"))
    assert "tok_secret_value" not in repr(payment) + repr(payment.orders)


orders_at_random = st.lists(
    st.builds(
        lambda customer, method, amount, card: (customer, method, amount, card if method == "card_on_file" else ""),
        st.sampled_from(["C-1", "C-2"]),
        st.sampled_from(["invoice", "card_on_file"]),
        st.one_of(st.integers(1, CAP_JPY), st.sampled_from([1, 2, 499_999, 500_000, 500_001, 999_999, CAP_JPY])),
        st.sampled_from(["card-a", "card-b"]),
    ),
    max_size=30,
).map(lambda rows: [PayableOrder(number, *row) for number, row in enumerate(rows, start=1)])


@settings(max_examples=150, deadline=None)
@given(orders=orders_at_random, grouping=st.sampled_from(["aggregated", "per_order"]))
def test_every_order_is_paid_once_in_full_and_no_payment_is_above_the_cap(orders, grouping):
    payments = plan_payments(orders, grouping)
    planned = [order for payment in payments for order in payment.orders]
    assert sorted(order.import_row_number for order in planned) == [order.import_row_number for order in orders]
    assert sum(payment.amount for payment in payments) == sum(order.amount for order in orders)
    for payment in payments:
        assert payment.orders
        assert 0 < payment.amount == sum(order.amount for order in payment.orders) <= CAP_JPY
        assert {(o.customer_code, o.payment_method) for o in payment.orders} == {
            (payment.customer_code, payment.payment_method)
        }
        assert len({order.card for order in payment.orders}) == 1


def fewest_parts(amounts: list[int], cap: int) -> int:
    """Count the parts of a best packing by trying every one."""

    def place(at: int, rooms: tuple[int, ...]) -> int:
        if at == len(amounts):
            return len(rooms)
        amount = amounts[at]
        tries = [place(at + 1, (*rooms, cap - amount))]
        for index, room in enumerate(rooms):
            if room >= amount:
                tries.append(place(at + 1, (*rooms[:index], room - amount, *rooms[index + 1 :])))
        return min(tries)

    return place(0, ())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=7))
def test_small_groups_need_no_more_payments_than_the_best_of_all_packings(amounts):
    assert len(pack(orders_of(*amounts), cap=20)) == fewest_parts(amounts, 20)


def test_orders_of_nobody_are_paid_one_by_one():
    nobodys = [PayableOrder(number, "GUEST", "invoice", 100, is_nobodys=True) for number in (1, 2)]
    known = [PayableOrder(number, "GUEST", "invoice", 100) for number in (3, 4)]
    assert amounts_of(plan_payments([*nobodys, *known])) == [100, 100, 200]


@pytest.mark.parametrize("amount", first_of([300_001, 600_000, 50_000]))
def test_a_hundred_thousand_orders_of_one_customer_are_planned_in_seconds(amount):
    started = time.process_time()
    planned = plan_payments(orders_of(*[amount] * 100_000))
    assert time.process_time() - started < 5
    assert len(planned) == -(-100_000 // (CAP_JPY // amount))
