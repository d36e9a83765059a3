"""Each asset check, made to fail by a ledger, audit or key that somebody broke by hand."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from pydantic import SecretStr

from orders_pipeline.batches import batches
from orders_pipeline.infrastructure.database import Transaction
from orders_pipeline.orchestration import checks
from orders_pipeline.orchestration.assets.encryption_keys import RotationConfig, encryption_keys
from orders_pipeline.orchestration.assets.reconciliation import ReconciliationConfig, reconciliation
from orders_pipeline.orchestration.assets.retention import retention
from orders_pipeline.security.encryption import new_key
from orders_pipeline.services.outcomes import Outcome
from orders_pipeline_tests.support.ledgers import Harness, order


class PutBack(Exception):
    """The end of a transaction of which nothing is to be left, rules that were switched off least of all."""


@pytest.fixture
def broken(harness: Harness) -> Iterator[Transaction]:
    """A transaction that is not committed, over a batch of four rows: two orders, one paid, a rejected and a blank one."""
    harness.batch()
    harness.orders(order(1, amount=1000, customer_code="C-1"), order(2, amount=500, customer_code="C-2"))
    harness.run(
        "UPDATE batches SET rows_total = 4, rows_accepted = 2, rows_rejected = 1, rows_blank = 1, amount_accepted = 1500"
    )
    for code in ("R_EMAIL", "R_PHONE"):
        harness.run("INSERT INTO rejections (batch_id, import_row_number, code) VALUES (%s, 3, %s)", harness.batch_id, code)
    harness.plan()
    with harness.working() as worker:
        ledger = harness.ledger(worker)
        ledger.record([(claim, Outcome("succeeded", None, "pay_1")) for claim in ledger.claim(1)])
    with pytest.raises(PutBack), harness.database.begin() as transaction:  # noqa: PT012
        yield transaction
        raise PutBack


def failed(results: list[dg.AssetCheckResult]) -> set[str]:
    return {result.check_name for result in results if not result.passed}


@pytest.mark.parametrize(
    ("breaking", "check"),
    [
        ("", None),
        ("DELETE FROM rejections", checks.ROWS_ADD_UP),
        ("UPDATE rejections SET import_row_number = 4 WHERE code = 'R_PHONE'", checks.ROWS_ADD_UP),
        (
            "INSERT INTO rejections (batch_id, import_row_number, code) SELECT batch_id, 2, 'R_EMAIL' FROM batches",
            checks.ROWS_ADD_UP,
        ),
        ("UPDATE batches SET rows_total = 5, rows_blank = 2; DELETE FROM rejections", checks.ROWS_ADD_UP),
        ("UPDATE orders SET amount = 501 WHERE import_row_number = 2", checks.YEN_ADD_UP),
    ],
)
def test_rows_and_yen_that_do_not_add_up_are_seen(broken, harness, breaking, check):
    broken.script(f"SET LOCAL session_replication_role = replica; {breaking}")
    assert failed(checks.order_checks(broken, harness.batch_id)) == ({check.name} if check else set())


@pytest.mark.parametrize(
    ("breaking", "passes"),
    [
        ("", True),
        ("DELETE FROM order_lines WHERE import_row_number = 2", False),
        (
            "INSERT INTO order_lines (batch_id, order_row, import_row_number, amount) SELECT batch_id, 1, 9, 0 FROM batches",
            False,
        ),
        ("UPDATE orders SET line_count = NULL, amount_added = NULL", False),
    ],
)
def test_rows_that_are_lines_and_lines_that_do_not_add_up_are_seen(broken, harness, breaking, passes):
    broken.script(
        "SET LOCAL session_replication_role = replica; UPDATE orders SET line_count = 1, amount_added = 0, item_code = NULL,"
        " quantity = NULL, unit_price = NULL; INSERT INTO order_lines (batch_id, order_row, import_row_number, amount)"
        f" SELECT batch_id, import_row_number, import_row_number, amount FROM orders; {breaking}"
    )
    assert failed(checks.order_checks(broken, harness.batch_id)) == (set() if passes else {checks.LINES_ADD_UP.name})


def test_a_file_rejected_as_a_whole_must_have_no_orders(broken, harness):
    broken.script("UPDATE batches SET rows_accepted = NULL, rows_rejected = NULL, amount_accepted = NULL")
    assert failed(checks.order_checks(broken, harness.batch_id)) == {each.name for each in checks.ORDER_CHECKS}


@pytest.mark.parametrize(
    ("breaking", "check"),
    [
        ("", None),
        (
            "ALTER TABLE payments DROP CONSTRAINT payments_amount_within_cap;"
            "UPDATE payments SET amount = 1000001 WHERE status = 'planned'",
            checks.WITHIN_CAP,
        ),
        (
            "DROP INDEX payment_orders_one_live_payment;"
            "INSERT INTO payment_orders (payment_id, order_id, amount)"
            " SELECT other.payment_id, payment_orders.order_id, amount FROM payment_orders"
            " JOIN (SELECT payment_id FROM payments WHERE status = 'planned') AS other"
            " ON other.payment_id <> payment_orders.payment_id",
            checks.PAID_ONCE,
        ),
        ("UPDATE orders SET status = 'paid' WHERE status <> 'paid'", checks.PAID_YEN_ADD_UP),
        ("UPDATE payments SET amount = 999 WHERE status = 'succeeded'", checks.PAID_YEN_ADD_UP),
    ],
)
def test_payments_that_cannot_be_right_are_seen(broken, harness, breaking, check):
    broken.script(f"SET LOCAL session_replication_role = replica; {breaking}")
    assert failed(checks.payment_checks(broken, harness.batch_id)) == ({check.name} if check else set())


def test_a_file_that_is_rejected_is_not_accepted(broken, harness):
    assert checks.file_accepted(batches.get(broken, harness.batch_id)).passed
    broken.script("UPDATE batches SET status = 'rejected', status_code = 'F_EMPTY'")
    result = checks.file_accepted(batches.get(broken, harness.batch_id))
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (result.description or "").startswith("F_EMPTY: ")
    assert checks.in_words([result]).startswith("FAILED: file_accepted (F_EMPTY: ")


def test_a_file_of_which_most_rows_are_rejected_is_a_warning(broken, harness):
    rows = "UPDATE batches SET rows_total = 4, rows_blank = 0, rows_accepted = {}, rows_rejected = {}"
    for accepted, rejected, is_good in ((2, 2, True), (1, 3, False), (4, 0, True)):
        broken.script(rows.format(accepted, rejected))
        result = checks.most_rows_accepted(batches.get(broken, harness.batch_id))
        assert (result.passed, result.severity) == (is_good, dg.AssetCheckSeverity.WARN)


def passed(made: dg.MaterializeResult) -> bool:
    (result,) = made.check_results
    return result.passed


def test_ledgers_that_differ_an_audit_that_is_altered_and_an_old_key_are_seen(open_test_system, database):
    harness = Harness(database)
    keys = SecretStr(f"{new_key()},test:{base64.b64encode(b'k' * 32).decode()}")
    with open_test_system(encryption_keys=keys) as system, dg.build_asset_context() as context:
        assert passed(reconciliation(ReconciliationConfig(), system=system))
        harness.batch()
        (order_id,) = harness.orders(order(1))
        harness.run("UPDATE orders SET personal = personal || '\\x00'::bytea")  # which cannot be opened now
        assert not passed(encryption_keys(context, RotationConfig(anew=True), system=system))
        harness.run("UPDATE orders SET personal = substring(personal FOR length(personal) - 1)")
        assert not passed(encryption_keys(context, RotationConfig(), system=system))  # which only looks
        assert passed(encryption_keys(context, RotationConfig(anew=True), system=system))
        assert passed(encryption_keys(context, RotationConfig(), system=system))
        times = dict.fromkeys(("created_at", "sent_at", "settled_at"), datetime.now(UTC) - timedelta(hours=3))
        harness.payment([order_id], 1000, status="succeeded", service_payment_id="pay_nobodys", **times)
        assert not passed(reconciliation(ReconciliationConfig(), system=system))
        assert passed(retention(context, system=system))  # which seals first
        harness.tamper("UPDATE audit_events SET actor = 'nobody'")
        assert not passed(retention(context, system=system))
