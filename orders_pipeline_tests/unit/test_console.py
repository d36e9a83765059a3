"""What a terminal is shown while a batch is worked on."""

import io
from datetime import datetime

import pytest
from rich.console import Console

from orders_pipeline.cli import console, progress_bars
from orders_pipeline_tests.support.commands import wait_for

ORDERS = dict.fromkeys(("pending", "paying", "paid", "declined", "unknown", "refunded", "cancelled"), 0)


def summary(status, loaded=0, told=0):
    return {
        "status": status,
        "rows": {"total": 20, "accepted": 18 if loaded else None},
        "orders_to_load": 18 if loaded else None,
        "orders": ORDERS | {"paid": loaded},
        "notifications": {"planned": told, "sent": told, "failed": 0},
    }


@pytest.mark.parametrize(
    ("read", "shown"),
    [
        (summary("received"), ["reading the file"]),
        (summary("staged"), ["checking rows"]),
        (summary("validated"), ["loading rows"]),
        (summary("paying", loaded=18), ["rows loaded", "orders paid"]),
        (summary("paying", loaded=18, told=3), ["rows loaded", "orders paid", "customers notified"]),
    ],
)
def test_the_bars_say_which_step_is_under_way_and_show_none_that_has_not_begun(read, shown):
    screen = io.StringIO()
    with progress_bars.progress(Console(file=screen, force_terminal=True, width=100), lambda: read):
        wait_for(lambda: all(word in screen.getvalue() for word in shown), "what is under way to be shown")
    last = screen.getvalue().rsplit("\x1b[2K", len(shown))[1:]
    words = ("reading the file", "checking rows", "loading rows", "rows loaded", "orders paid", "customers notified")
    assert [word for word in words if any(word in line for line in last)] == shown


def test_nothing_is_shown_without_a_terminal():
    screen = io.StringIO()
    with progress_bars.progress(Console(file=screen), lambda: summary("received")):
        pass
    assert screen.getvalue() == ""


def batch(status, **changes):
    """A batch's summary with nothing in it but what is changed."""
    counts = dict.fromkeys(
        ("planned", "succeeded", "sent", "failed", "declined", "unknown", "refunded", "cancelled", "open"), 0
    )
    return (
        {
            "batch_id": "B",
            "status": status,
            "status_code": None,
            "approval": None,
            "cancelled": {"by": "me", "at": "2026-03-01T10:42:06+09:00", "why": "wrong"} if status == "cancelled" else None,
            "paying_rests": None,
            "next_try": None,
            "csv_source": "orders.csv",
            "client_code": "acme",
            "encoding": "utf-8",
            "rows": dict.fromkeys(("total", "accepted", "rejected", "blank", "skipped"), 20),
            "rejections": {},
            "warnings": [],
            "corrections": {"batches": 1, "rows_open": 0, "open_in": []},
            "orders": ORDERS,
            "amount_jpy": {"accepted": 0, "paid": 0} | counts,
            "payments": counts,
            "notifications": counts,
            "refunds": counts | {"corrections": counts},
            "at_work": True,
            "queued": False,
            "seconds": {"total": 1.0},
            "artifacts": {"errors": "", "result": ""},
        }
        | {name: [] for name in ("services_left_alone", "refused", "unknown_payments", "open_refunds")}
        | changes
    )


def shown(summary):
    screen = io.StringIO()
    console.show_summary(Console(file=screen, width=200, highlight=False, soft_wrap=True), summary)
    return {line.strip().partition("  ")[0]: line for line in screen.getvalue().splitlines()}


def refusal(service):
    return [{"service": service, "count": 3, "code": "card-expired", "since": "then", "next_try": "soon"}]


def test_only_what_can_be_given_up_is_said_to_be():
    said = {name: shown(batch("paused", refused=refusal(name)))["refused"] for name in ("payment", "refund")}
    assert said["payment"].endswith("give it up with: orders-pipeline cancel B --why TEXT")
    assert said["refund"].endswith("it ends when the service takes them: ask those who run it why it does not")
    assert "cancel" not in shown(batch("completed", refused=refusal("notification")))["refused"]  # its corrections


def test_of_a_cancelled_batch_only_what_no_refund_is_planned_for_stays_paid():
    paid = {"orders": ORDERS | {"paid": 3}, "amount_jpy": batch("x")["amount_jpy"] | {"paid": 600}}
    refund = {"refund_id": "R", "status": "planned", "amount_jpy": 400, "code": None, "orders": ["A", "B"]}
    refund |= {"needs_a_person": False, "since": "then"}
    assert "1 order, 200 yen; refund it" in shown(batch("cancelled", open_refunds=[refund], **paid))["stays paid"]
    assert "stays paid" not in shown(batch("cancelled", open_refunds=[refund | {"orders": ["A", "B", "C"]}], **paid))


def test_the_yen_of_a_batch_add_up():
    yen = batch("x")["amount_jpy"] | {"accepted": 600, "paid": 400, "open": 200}
    assert "600 accepted: 400 paid, 200 open" in shown(batch("paying", amount_jpy=yen))["yen"]


def test_when_a_batch_was_halted_is_said_with_its_date_and_zone():
    said = datetime.fromisoformat("2026-03-01T10:42:06+09:00").astimezone().isoformat(" ")
    assert f"cancelled, at {said} by me" in shown(batch("cancelled"))["B"]


def test_errors_are_offered_where_there_are_any():
    assert "errors" not in shown(batch("completed"))
    assert "errors" in shown(batch("completed", warnings=["W_UNKNOWN_COLUMN"]))
    assert "errors" in shown(batch("completed_with_errors"))


@pytest.mark.parametrize(("rows", "is_said"), [(10, False), (18, True)])
def test_a_setting_of_the_profile_is_named_where_the_file_is_like_that_and_not_a_few_rows(rows, is_said):
    counts = {"total": 20, "accepted": 20 - rows, "rejected": rows, "blank": 0, "skipped": 0}
    said = shown(batch("completed_with_errors", rows=counts, rejections={"R_DATE_FORMAT": rows - 2}))
    assert any("`format` and `until` of order_date" in line for line in said) == is_said


def test_what_a_batch_waits_for_is_said_before_what_it_came_to():
    waits = batch("paused", status_code="E_PAYMENT_UNAVAILABLE", refused=refusal("payment"), at_work=False, details={})
    names = list(shown(waits | {"orders": ORDERS | {"paying": 2}}))
    assert names[:5] == ["B", "why", "refused", "not answered", "file"]


def test_of_many_codes_the_first_are_shown_and_the_others_counted():
    screen = io.StringIO()
    codes = {f"R_CODE_{number}": 30 - number for number in range(13)}
    console.show_counts(Console(file=screen, width=200, highlight=False), batch("completed_with_errors", rejections=codes))
    lines = [line.split() for line in screen.getvalue().splitlines() if " x " in line]
    assert [line[2] for line in lines[:-1]] == [f"R_CODE_{number}" for number in range(10)]
    assert lines[-1] == ["57", "x", "3", "other", "codes:", "errors.csv", "has", "them", "all"]


def test_a_dry_run_says_once_how_many_orders_grouped_rows_are():
    counts = {"total": 3, "accepted": 3, "rejected": 0, "blank": 0, "skipped": 0}
    preview = batch("completed", rows=counts, orders={"planned": 2}, errors=[])
    preview["notifications"] = {"planned": 0, "seconds": 0.0}
    screen = io.StringIO()
    console.show_preview(Console(file=screen, width=200, highlight=False), preview)
    lines = [line.split() for line in screen.getvalue().splitlines()]
    assert [line for line in lines if line[0] == "orders"] == [["orders", "2"]]
    assert ["notifications", "0"] in lines  # which take no time that anybody has to know of
