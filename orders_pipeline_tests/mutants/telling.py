"""Mutants of whether customers are told, once and the truth."""

from orders_pipeline_tests.mutants.mutant import Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "orders_pipeline/settlement/notifications.py",
        ["unit/test_notification_service.py"],
        (
            '            if found.kind != "absent":\n                return found\n        with',
            "        with",
            "told twice although a look-up found it",
        ),
        (
            "return service.send(claim.message) if may_send() else called_off(in_doubt=False)",
            "return service.send(claim.message)",
            "told by two workers",
        ),
        (
            "service.send_many(messages) if may_send() else [called_off(in_doubt=False)] * len(fresh)",
            "service.send_many(messages)",
            "many are told by two workers",
        ),
        (
            "together([claim for claim in claims if not claim.in_doubt])",
            "together(claims)",
            "told twice in one call for many",
        ),
        (
            "        return called_off(in_doubt=claim.in_doubt)\n",
            "        return called_off(in_doubt=False)\n",
            "doubt is forgotten at a stop",
        ),
    ),
    *mutants(
        "sql/queries/notifications.sql",
        ["database/test_notification_ledger.py"],
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: ready_notifications_of_batch",
            "('pending', 'paying'))\n\n-- name: ready_notifications_of_batch",
            "told while it is not known what became of an order",
            "test_a_notification_becomes_ready_only_when_all_its_orders_are_final",
        ),
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: ready_notifications_of_batch",
            "('paying', 'unknown'))\n\n-- name: ready_notifications_of_batch",
            "told of an order that is not paid yet",
            "test_a_payment_that_is_not_final_releases_nothing",
        ),
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: release_",
            "('pending', 'paying'))\n\n-- name: release_",
            "told while it is not known what became of an order",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: release_",
            "('pending', 'unknown'))\n\n-- name: release_",
            "told while an order is being paid",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
        (
            "('pending', 'paying', 'unknown'))\n\n-- name: release_",
            "('paying', 'unknown'))\n\n-- name: release_",
            "told of an order that is not paid yet",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
        (
            "WHERE batch_id = :batch_id AND status = 'waiting' AND NOT EXISTS",
            "WHERE batch_id = :batch_id AND NOT EXISTS",
            "told again by every run",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
        (
            "ORDER BY notification_id FOR UPDATE",
            "ORDER BY notification_id",
            "each of two workers leaves the last word to the other",
            "test_the_later_of_two_overlapping_transactions_releases_the_notification",
        ),
        (
            "AND status IN ('sending', 'unknown') AND workers",
            "AND status = 'sending' AND workers",
            "what was lost at its second try is never tried again",
            "test_a_worker_that_was_given_up_writes_nothing_and_its_claim_is_in_doubt_for_the_next",
        ),
        (
            "  AND (workers.ended_at IS NOT NULL OR (claimed_by = :caller_id AND",
            "  AND (workers.ended_at IS NULL OR (claimed_by = :caller_id AND",
            "claims are taken from who is at work",
            "test_a_live_workers_claims_are_not_taken_over",
        ),
        (
            "UPDATE notifications SET status = 'unknown', claimed_by = NULL, outcome_code = 'worker-lost'",
            "UPDATE notifications SET status = 'ready', claimed_by = NULL, outcome_code = 'worker-lost'",
            "told again by who takes over",
            "test_a_worker_that_was_given_up_writes_nothing_and_its_claim_is_in_doubt_for_the_next",
        ),
        (
            "AND status IN ('ready', 'unknown') AND claimed_by IS NULL\n  AND (attempts > 0",
            "AND status = 'ready' AND claimed_by IS NULL\n  AND (attempts > 0",
            "what is unknown after eight tries is so for ever",
            "test_n01_a_notification_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next",
        ),
        (
            "CASE due.was WHEN 'ready' THEN 'sending' ELSE 'unknown' END,\n",
            "'sending',\n",
            "a second try does not know of the first",
            "test_what_came_of_a_claim_is_recorded",
        ),
        (
            "AND claimed_by IS NULL AND attempts > 0 AND attempts < :max_attempts\n          AND status IN ('ready', 'unknown') AND next_attempt_at <= statement_timestamp()",
            "AND claimed_by IS NULL AND attempts > 0 AND attempts < :max_attempts\n          AND status IN ('ready', 'unknown')",
            "a service that asks for a pause does not get it",
            "test_the_services_pause_is_kept",
        ),
        (
            "AND claimed_by IS NULL AND attempts > 0 AND attempts < :max_attempts\n",
            "AND claimed_by IS NULL AND attempts > 0\n",
            "tried without end",
            "test_n01_a_notification_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next",
        ),
        (
            "AND notifications.claimed_by = :worker_id\n",
            "\n",
            "a worker that was given up says what came of it",
            "test_a_worker_that_was_given_up_writes_nothing_and_its_claim_is_in_doubt_for_the_next",
        ),
        (
            "       AND claimed_by IS NULL AND attempts < :max_attempts),\n",
            "       AND claimed_by IS NULL),\n",
            "a drain waits for what it never tries again",
            "test_n01_a_notification_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next",
        ),
    ),
    *mutants(
        "sql/queries/notifications.sql",
        ["database/test_settlement.py"],
        (
            "AND kind = 'result' AND status = 'unknown' AND claimed_by IS NULL\nRETURNING",
            "AND kind = 'result' AND status = 'none' AND claimed_by IS NULL\nRETURNING",
            "who may have been told of a cancelled batch is never found out",
            "test_who_may_have_been_told_is_found_out_before_a_batch_is_cancelled_and_nobody_is_told_then",
        ),
        (
            "kind = 'result' AND status IN ('waiting', 'ready')",
            "kind = 'result' AND status = 'waiting'",
            "told of what was cancelled",
            "test_who_may_have_been_told_is_found_out_before_a_batch_is_cancelled_and_nobody_is_told_then",
        ),
        (
            "kind = 'result' AND status IN ('waiting', 'ready')",
            "kind = 'result' AND status = 'ready'",
            "told of what was cancelled",
            "test_a_cancelled_batch_covers_nothing_and_tells_nobody",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications.py",
        ["database/test_notification_ledger.py"],
        (
            ' if profile.notifications == "per_order" or row.is_nobodys else None',
            ' if profile.notifications == "per_order" else None',
            "told of somebody else's orders",
            "test_nobody_is_told_of_orders_that_belong_to_another_address",
        ),
        (
            "groups[row.customer_code, row.notify_channel, address, alone].append(row)",
            'groups[row.customer_code, row.notify_channel, "", alone].append(row)',
            "told of somebody else's orders",
            "test_nobody_is_told_of_orders_that_belong_to_another_address",
        ),
        (
            '        transaction.execute("release_notifications_of_lost_workers", batch_id=batch_id, **ours)\n',
            "",
            "what a lost worker was sending is never tried again",
            "test_a_worker_that_was_given_up_writes_nothing_and_its_claim_is_in_doubt_for_the_next",
        ),
        (
            '            transaction.execute("ready_notifications_of_batch", batch_id=batch_id)\n',
            "",
            "what a crash left waiting waits for ever",
            "test_what_a_crash_left_waiting_is_released_at_the_next_begin_once_its_orders_are_final",
        ),
        (
            '            transaction.execute("renew_notification_attempts", batch_id=batch_id, kinds=self._kinds)\n',
            "",
            "what was tried eight times is never tried again",
            "test_n01_a_notification_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next",
        ),
        (
            "        self._worker.require()\n",
            "",
            "a worker that was given up claims",
            "test_a_worker_that_was_given_up_writes_nothing_and_its_claim_is_in_doubt_for_the_next",
        ),
        (
            'return NotificationClaim(message, row.attempts, row.status == "unknown")',
            "return NotificationClaim(message, row.attempts, False)",
            "told again without a look-up",
            "test_what_came_of_a_claim_is_recorded",
        ),
        (
            "    return max(backoff_s, outcome.retry_after_s or 0.0)\n",
            "    return backoff_s\n",
            "a service that asks for a pause does not get it",
            "test_the_services_pause_is_kept",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications.py",
        ["database/test_settlement.py"],
        (
            'Outcome("not_sent") if found.kind == "absent" else found)',
            "found)",
            "a batch whose look-up finds nothing is never cancelled",
            "test_who_may_have_been_told_is_found_out_before_a_batch_is_cancelled_and_nobody_is_told_then",
        ),
        (
            "        with contextlib.suppress(Stopped), limiter.token(stop):\n            found = service.look_up(claim.message)\n",
            "",
            "who may have been told of a cancelled batch is never found out",
            "test_who_may_have_been_told_is_found_out_before_a_batch_is_cancelled_and_nobody_is_told_then",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications.py",
        ["database/test_halted_batches.py"],
        (
            '            if "result" in self._kinds and self._worker.is_halted(transaction):\n                return []\n',
            "",
            "told after a person has stopped or cancelled it",
            "test_nothing_is_claimed_of_a_batch_that_was_halted_and_what_was_claimed_is_not_sent",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications.py",
        ["database/test_refunds.py"],
        (
            "template_id=CORRECTION_TEMPLATE if row.kind ==",
            "template_id=CORRECTION_TEMPLATE if False and row.kind ==",
            "a correction is written as if it were the first word",
            "test_a_customer_who_was_told_is_corrected_once_in_a_digest",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/notifications.py",
        ["unit/test_notification_service.py"],
        (
            "        with limiter.token(stop):\n            return service.send(claim.message)",
            "        if True:\n            return service.send(claim.message)",
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
]
