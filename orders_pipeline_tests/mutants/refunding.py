"""Mutants of what gives money back."""

from orders_pipeline_tests.mutants.mutant import Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "orders_pipeline/settlement/refunds/ledger.py",
        ["database/test_refunds.py"],
        (
            '    transaction.rows("lock_notifications_of_refunds", refund_ids=refund_ids)\n',
            "",
            "who is being notified at this moment is not corrected",
            "test_a_customer_who_is_being_notified_while_the_order_is_refunded_gets_a_correction",
        ),
        (
            '    transaction.execute("note_who_was_notified", refund_ids=refund_ids)\n',
            "",
            "nobody is corrected",
        ),
        (
            '    transaction.execute("orders_follow_refunds", refund_ids=refund_ids)\n',
            "",
            "orders stay paid",
            "test_a_part_leaves_the_payment_standing_and_the_rest_ends_it",
        ),
        (
            '    transaction.execute("payments_follow_refunds", refund_ids=refund_ids)\n',
            "",
            "payments stay paid",
            "test_a_part_leaves_the_payment_standing_and_the_rest_ends_it",
        ),
        (
            "if claim.in_doubt and (claim.is_old or not gateway.capabilities.honours_keys):",
            "if claim.in_doubt and not gateway.capabilities.honours_keys:",
            "a refund is made twice when its key is forgotten",
            "test_y20_what_may_have_been_refunded_a_day_ago_is_not_sent_again",
        ),
        (
            "if claim.in_doubt and (claim.is_old or not gateway.capabilities.honours_keys):",
            "if claim.in_doubt and claim.is_old:",
            "a refund is made twice where keys are ignored",
            "test_without_keys_an_unclear_answer_waits_for_a_person_and_is_never_sent_again",
        ),
        (
            'if sent.kind == "not_sent" and not sent.refused and claim.in_doubt:',
            "if False:",
            "a refund that may have been made is said not to be",
            "test_an_unclear_answer_is_asked_again_under_the_same_key_until_it_is_clear",
        ),
        (
            '                row.status == "unknown",\n',
            "                False,\n",
            "doubt is forgotten",
            "test_without_keys_an_unclear_answer_waits_for_a_person_and_is_never_sent_again",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/refunds/ledger.py",
        ["database/test_restore_guard.py"],
        (
            "if claim.may_be_forgotten and not is_certain:",
            "if False:",
            "what a restored database has forgotten is refunded twice",
            "test_a_lost_refund_of_an_old_payment_is_not_made_again",
        ),
        (
            "payment.yen_refunded > beside(claim)",
            "payment.yen_refunded >= beside(claim)",
            "two refunds of one payment hold each other up",
            "test_two_refunds_of_one_payment_do_not_hold_each_other_up",
        ),
        (
            "payment.yen_refunded > beside(claim)",
            "False",
            "what the service refunded already is not seen",
            "test_a_lost_refund_of_an_old_payment_is_not_made_again",
        ),
        (
            '        return Outcome("not_sent", NOT_LOOKED_UP, retry_after_s=failure.retry_after_s, service_failed=True)\n',
            "        return None\n",
            "what cannot be looked up now is sent",
            "test_a_refund_whose_payment_cannot_be_looked_up_now_is_not_sent",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/refunds/plan.py",
        ["database/test_refunds.py"],
        (
            "        if any(worker.run_id is not None for worker in",
            "        if False and any(worker.run_id is not None for worker in",
            "refunded while it is being paid and notified",
            "test_a_batch_that_is_being_paid_is_not_refunded_at_the_same_time",
        ),
        (
            '        transaction.row("lock_batch", batch_id=plan.batch_id)\n        end_lost',
            "        end_lost",
            "two plans at once fail each other",
            "test_two_plans_at_once_give_nothing_back_twice",
        ),
    ),
    *mutants(
        "sql/queries/refunds.sql",
        ["database/test_refunds.py"],
        (
            "  AND NOT EXISTS (SELECT FROM refund_orders AS refund_share WHERE refund_share.order_id = orders.order_id AND refund_share.live)\n",
            "",
            "two plans fail each other",
            "test_two_plans_at_once_give_nothing_back_twice",
        ),
        (
            "AND status = 'paid' AND live\n",
            "AND live\n",
            "what is not paid any more is refunded",
            "test_no_more_is_written_down_than_was_shown_and_is_paid_still",
        ),
        (
            "WHERE refunds.refund_id = ANY(CAST(:refund_ids AS uuid[])) AND refunds.status = 'succeeded'\n  AND orders.order_id = refund_share.order_id",
            "WHERE refunds.refund_id = ANY(CAST(:refund_ids AS uuid[]))\n  AND orders.order_id = refund_share.order_id",
            "orders are refunded by a refund that was declined",
            "test_a_declined_refund_leaves_its_orders_paid_and_may_be_tried_under_another_key",
        ),
        (
            "      WHERE share.payment_id = payments.payment_id AND orders.status <> 'refunded')",
            "      WHERE share.payment_id = payments.payment_id AND orders.status = 'none')",
            "a part that is refunded ends the whole payment",
            "test_a_part_leaves_the_payment_standing_and_the_rest_ends_it",
        ),
        (
            "AND member.order_id = refund_orders.order_id AND result.status IN ('sending', 'unknown', 'sent')",
            "AND member.order_id = refund_orders.order_id AND result.status IN ('sending', 'sent')",
            "who may have been notified is not corrected",
            "test_who_may_have_been_notified_is_corrected",
        ),
        (
            "AND member.order_id = refund_orders.order_id AND result.status IN ('sending', 'unknown', 'sent')",
            "AND member.order_id = refund_orders.order_id AND result.status IN ('unknown', 'sent')",
            "who is being notified is not corrected",
            "test_a_customer_who_is_being_notified_while_the_order_is_refunded_gets_a_correction",
        ),
        (
            "    WHERE refund_id = ANY(CAST(:refund_ids AS uuid[])) AND live AND was_told AND correction_id IS NULL\n",
            "    WHERE refund_id = ANY(CAST(:refund_ids AS uuid[])) AND live AND correction_id IS NULL\n",
            "who was never notified is corrected",
            "test_who_was_not_notified_needs_no_correction_and_is_notified_of_the_refund_at_once",
        ),
        (
            "WHERE kind = 'correction' AND status = 'ready' AND attempts = 0 AND claimed_by IS NULL AND",
            "WHERE kind = 'correction' AND",
            "a correction that was sent takes later refunds along, which nobody is notified of",
            "test_refunds_recorded_one_after_the_other_are_one_correction_until_it_is_begun",
        ),
    ),
    *mutants(
        "sql/queries/refunds.sql",
        ["database/test_restore_guard.py"],
        (
            "  AND refund_id <> CAST(:refund_id AS uuid) AND status IN ('sending', 'unknown', 'succeeded')\n",
            "  AND refund_id <> CAST(:refund_id AS uuid) AND status IN ('sending', 'unknown')\n",
            "the other parts of a payment hold a refund up",
            "test_two_refunds_of_one_payment_do_not_hold_each_other_up",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/refunds/ledger.py",
        ["database/test_refunds.py"],
        (
            '        transaction.rows("lock_payments_of_refunds", refund_ids=list(item_ids))\n',
            "        pass\n",
            "two workers that refund parts of several payments wait for each other",
            "test_parts_of_several_payments_recorded_at_once_in_any_order_end_them",
        ),
        (
            '            transaction.execute("retire_declined_refunds", refund_ids=declined_ids)\n',
            "            pass\n",
            "what was declined once is never refunded",
            "test_a_declined_refund_leaves_its_orders_paid_and_may_be_tried_under_another_key",
        ),
    ),
    *mutants(
        "sql/queries/refunds.sql",
        ["database/test_refunds.py"],
        (
            "WHERE refunds.request_id = refund_requests.request_id AND settled_at IS NULL)",
            "WHERE refunds.request_id = refund_requests.request_id AND status = 'sending')",
            "a request is finished while a refund of it is in doubt",
            "test_a_request_is_finished_with_the_last_of_its_refunds_and_another_of_the_batch_by_itself",
        ),
        (
            "refund_id = ANY(CAST(:refund_ids AS uuid[]))))\nORDER BY request_id FOR UPDATE",
            "refund_id = ANY(CAST(:refund_ids AS uuid[]))))\nORDER BY request_id",
            "two workers that record the last refunds leave their request open",
            "test_of_two_workers_that_record_the_last_refunds_of_a_request_at_once_one_finishes_it",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/refunds/ledger.py",
        ["database/test_restore_guard.py"],
        (
            '    if not gateway.capabilities.can_look_up:\n        return Outcome("unknown", UNDECIDABLE)\n',
            "    if not gateway.capabilities.can_look_up:\n        return None\n",
            "where nothing can be looked up, it is sent all the same",
            "test_where_no_payment_can_be_looked_up_a_person_decides_on_a_refund_that_may_be_made",
        ),
    ),
]
