"""Mutants of whether customers are notified, once and of the truth."""

from orders_pipeline_tests.mutants.mutant import Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "sql/queries/notifications.sql",
        ["database/test_notification_ledger.py"],
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: ready_notifications_of_batch",
            "('pending', 'paying'))\n\n-- name: ready_notifications_of_batch",
            "notified while it is not known what became of an order",
            "test_a_notification_becomes_ready_only_when_all_its_orders_are_final",
        ),
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: ready_notifications_of_batch",
            "('paying', 'unknown'))\n\n-- name: ready_notifications_of_batch",
            "notified of an order that is not paid yet",
            "test_a_payment_that_is_not_final_releases_nothing",
        ),
        (
            "WHERE batch_id = :batch_id AND status = 'waiting' AND NOT EXISTS",
            "WHERE batch_id = :batch_id AND NOT EXISTS",
            "notified again by every run",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
        (
            "ORDER BY notification_id FOR UPDATE",
            "ORDER BY notification_id",
            "each of two workers leaves the last word to the other",
            "test_the_later_of_two_overlapping_transactions_releases_the_notification",
        ),
    ),
    *mutants(
        "sql/queries/notifications.sql",
        ["database/test_settlement.py"],
        (
            "AND kind = 'result' AND status = 'unknown' AND claimed_by IS NULL\nRETURNING",
            "AND kind = 'result' AND status = 'none' AND claimed_by IS NULL\nRETURNING",
            "who may have been notified of a cancelled batch is never found out",
            "test_who_may_have_been_notified_is_found_out_before_a_batch_is_cancelled_and_nobody_is_notified_then",
        ),
        (
            "kind = 'result' AND status IN ('waiting', 'ready')",
            "kind = 'result' AND status = 'waiting'",
            "notified of what was cancelled",
            "test_who_may_have_been_notified_is_found_out_before_a_batch_is_cancelled_and_nobody_is_notified_then",
        ),
        (
            "kind = 'result' AND status IN ('waiting', 'ready')",
            "kind = 'result' AND status = 'ready'",
            "notified of what was cancelled",
            "test_a_cancelled_batch_covers_nothing_and_notifies_nobody",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications/notify.py",
        ["unit/test_notification_service.py"],
        (
            '            if found.kind != "absent":\n                return found\n        with',
            "        with",
            "notified twice although a look-up found it",
        ),
        (
            "return service.send(claim.request) if may_send() else called_off(in_doubt=False)",
            "return service.send(claim.request)",
            "notified by two workers",
        ),
        (
            "service.send_many(messages) if may_send() else [called_off(in_doubt=False)] * len(fresh)",
            "service.send_many(messages)",
            "many are notified by two workers",
        ),
        (
            "together([claim for claim in claims if not claim.in_doubt])",
            "together(claims)",
            "notified twice in one call for many",
        ),
        (
            "        return called_off(in_doubt=claim.in_doubt)\n",
            "        return called_off(in_doubt=False)\n",
            "doubt is forgotten at a stop",
        ),
        (
            "        with limiter.token(stop):\n            return service.send(claim.request)",
            "        if True:\n            return service.send(claim.request)",
            "more is sent in a second than the service takes",
            "test_a_first_try_is_one_call_on_one_token",
        ),
        (
            "            with limiter.token(stop):\n                found = service.look_up",
            "            if True:\n                found = service.look_up",
            "more is asked in a second than the service takes",
            "test_what_a_look_up_does_not_find_is_sent_each_call_on_a_token_of_its_own",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications/notify.py",
        ["database/test_settlement.py"],
        (
            'Outcome("not_sent") if found.kind == "absent" else found)',
            "found)",
            "a batch whose look-up finds nothing is never cancelled",
            "test_who_may_have_been_notified_is_found_out_before_a_batch_is_cancelled_and_nobody_is_notified_then",
        ),
        (
            "        with contextlib.suppress(Stopped), limiter.token(stop):\n            found = service.look_up(claim.request)\n",
            "",
            "who may have been notified of a cancelled batch is never found out",
            "test_who_may_have_been_notified_is_found_out_before_a_batch_is_cancelled_and_nobody_is_notified_then",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications/plan.py",
        ["database/test_notification_ledger.py"],
        (
            ' if profile.notifications == "per_order" or row.is_nobodys else None',
            ' if profile.notifications == "per_order" else None',
            "notified of somebody else's orders",
            "test_nobody_is_notified_of_orders_that_belong_to_another_address",
        ),
        (
            "groups[row.customer_code, row.notify_channel, address, alone].append(row)",
            'groups[row.customer_code, row.notify_channel, "", alone].append(row)',
            "notified of somebody else's orders",
            "test_nobody_is_notified_of_orders_that_belong_to_another_address",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications/ledger.py",
        ["database/test_notification_ledger.py"],
        (
            '        transaction.execute("ready_notifications_of_batch", batch_id=self._worker.batch_id)\n',
            "        pass\n",
            "what a crash left waiting waits for ever",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
        (
            'return Claim(message, row.attempts, row.status == "unknown")',
            "return Claim(message, row.attempts, False)",
            "notified again without a look-up",
            "test_what_came_of_a_claim_is_recorded",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications/ledger.py",
        ["database/test_refunds.py"],
        (
            'worker, "order-refund")',
            'worker, "order-result")',
            "a correction is written as if it were the first word",
            "test_a_customer_who_was_notified_is_corrected_once_in_a_digest",
        ),
    ),
    *mutants(
        "sql/queries/notifications.sql",
        ["database/test_notification_ledger.py"],
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: claim_doubtful",
            "('pending', 'paying'))\n\n-- name: claim_doubtful",
            "notified while it is not known what became of an order",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: claim_doubtful",
            "('pending', 'unknown'))\n\n-- name: claim_doubtful",
            "notified while an order is being paid",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: claim_doubtful",
            "('paying', 'unknown'))\n\n-- name: claim_doubtful",
            "notified of an order that is not paid yet",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
    ),
]
