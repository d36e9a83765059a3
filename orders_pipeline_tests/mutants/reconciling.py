"""Mutants of whether our ledger is whole and agrees with the service's."""

from orders_pipeline_tests.mutants.mutant import Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "sql/queries/reconciliation.sql",
        ["database/test_reconciliation_list.py"],
        (
            "  AND greatest(theirs.created_at, ours.sent_at) < CAST(:started_at AS timestamptz) - make_interval(secs => :young_s)\n  AND (CAST(:batch_id AS text) IS NULL OR ours.batch_id = :batch_id)\nORDER",
            "  AND (CAST(:batch_id AS text) IS NULL OR ours.batch_id = :batch_id)\nORDER",
            "a payment is settled while its answer is under way",
            "test_an_unknown_payment_is_not_healed_by_what_is_not_exactly_it",
        ),
        (
            " AND theirs.amount = ours.amount\n",
            "\n",
            "another amount settles a payment",
            "test_an_unknown_payment_is_not_healed_by_what_is_not_exactly_it",
        ),
        (
            "theirs.by_reference AND theirs.amount",
            "theirs.amount",
            "a charge under our key in other words settles a payment",
            "test_an_unknown_payment_is_not_healed_by_what_is_not_exactly_it",
        ),
        (
            "  AND NOT EXISTS (SELECT FROM listed_payments AS other WHERE other.payment_id = theirs.payment_id\n                  AND other.service_payment_id <> theirs.service_payment_id)\n",
            "",
            "a payment that was charged twice is settled as if it were not",
            "test_an_unknown_payment_with_two_charges_is_not_healed",
        ),
        (
            "AND payments.status IN ('unknown', 'planned') AND payments.claimed_by IS NULL\nRETURNING",
            "AND payments.status IN ('unknown', 'planned')\nRETURNING",
            "a payment is taken from who claims it at this moment",
            "test_an_unknown_payment_that_a_worker_claims_at_this_moment_is_not_healed",
        ),
    ),
    *mutants(
        "sql/queries/reconciliation.sql",
        ["database/test_reconciliation.py"],
        (
            "theirs.status <> 'failed' AND (theirs.amount <> ours.amount OR",
            "theirs.status <> 'failed' AND (false OR",
            "another amount at the service is not seen",
            "test_c_amount_differs_another_amount_at_the_service",
        ),
        (
            "    FROM ranked WHERE nth > 1 OR known_id IS NOT NULL\n",
            "    FROM ranked WHERE known_id IS NOT NULL\n",
            "what was charged twice is not seen",
            "test_p2_c_charged_twice_an_order_whose_first_payment_was_not_declined_after_all",
        ),
        (
            "        ('succeeded', 'succeeded'), ('refunded', 'refunded'),",
            "        ('succeeded', 'succeeded'), ('succeeded', 'refunded'), ('refunded', 'refunded'),",
            "what was given back at the service is not seen",
            "test_y24_c_state_differs_a_refund_at_the_service_is_found_and_does_not_overwrite_ours",
        ),
        (
            "      AND (their_refunded < refunded OR their_refunded > refunded + in_doubt)\n",
            "      AND their_refunded < refunded\n",
            "yen given back at the service are not seen",
            "test_yen_given_back_only_at_the_service_are_found_and_are_not_ours_to_say",
        ),
        (
            "      AND (their_refunded < refunded OR their_refunded > refunded + in_doubt)\n",
            "      AND their_refunded > refunded + in_doubt\n",
            "yen that only we gave back are not seen",
            "test_yen_given_back_only_in_our_ledger_are_found",
        ),
        (
            "    FROM ranked WHERE nth > 1 OR known_id IS NOT NULL\n",
            "    FROM ranked WHERE nth > 1\n",
            "a charge beside the one that we know is not seen where that is not listed",
            "test_p2_c_charged_twice_a_charge_beside_the_one_we_know_which_is_not_listed_any_more",
        ),
        (
            "CASE WHEN nth > 1 THEN first_id ELSE known_id END",
            "known_id",
            "nobody is told beside which charge another was made",
            "test_p2_c_charged_twice_an_order_whose_first_payment_was_not_declined_after_all",
        ),
        (
            "  AND ((compared_from >= :covered_from AND compared_to < :covered_to) OR finding_id = ANY(CAST(:judged AS bigint[])))\n",
            "",
            "a finding is gone because nobody looks at its days any more",
            "test_no_finding_makes_the_days_that_are_listed_more",
        ),
        (
            "  AND ((compared_from >= :covered_from AND compared_to < :covered_to) OR finding_id",
            "  AND (compared_from >= :covered_from OR finding_id",
            "a finding is gone because only days before it are looked at",
            "test_an_old_finding_that_cannot_be_looked_up_now_stays_open",
        ),
        (
            "  AND NOT EXISTS (SELECT FROM refunds WHERE refunds.batch_id = batch.batch_id AND status IN ('sending', 'unknown'))\n",
            "",
            "a batch is closed while nobody knows what was given back",
            "test_a_batch_gets_no_closing_record_while_nobody_knows_whether_some_of_it_was_given_back",
        ),
        (
            "FROM payment_differences WHERE NOT is_young\n",
            "FROM payment_differences\n",
            "what is under way is a finding, and stops paying",
        ),
        (
            "WHERE closed_at IS NULL AND accepted_at IS NOT NULL AND NOT difference.is_young AND finding.code",
            "WHERE false AND finding.code",
            "what a person answered for hides what it becomes",
            "test_what_was_accepted_and_is_another_difference_now_is_open_again",
        ),
        (
            "  AND NOT EXISTS (SELECT FROM payment_differences WHERE payment_differences.batch_id = batch.batch_id AND is_young)\n",
            "",
            "a batch is closed while a difference is too young to say anything",
            "test_a_batch_gets_no_closing_record_while_a_difference_is_too_young_to_say_anything",
        ),
        (
            "DELETE FROM listed_payments WHERE payment_id IS NULL AND lost_payment_id IS NULL AND batch_id IS NULL",
            "DELETE FROM listed_payments WHERE false",
            "payments of other callers hold everybody up",
            "test_payments_of_other_callers_are_counted_and_hold_nobody_up",
        ),
    ),
    *mutants(
        "orders_pipeline/reconciliation.py",
        ["database/test_reconciliation_list.py"],
        (
            "    young_s = 0.0 if is_stopped else YOUNG_S\n",
            "    young_s = 0.0\n",
            "what is under way is a finding, and stops paying",
        ),
        (
            '        transaction.execute("orders_follow_payments", payment_ids=payment_ids)\n',
            "",
            "orders of a healed payment stay unknown",
            "test_an_unknown_payment_is_healed_by_what_the_service_says_and_orders_and_notifications_follow",
        ),
        (
            "        notifications.make_ready(transaction, payment_ids)\n",
            "",
            "customers of a healed payment are not told",
            "test_an_unknown_payment_is_healed_by_what_the_service_says_and_orders_and_notifications_follow",
        ),
        (
            "        if retry_orders:\n",
            "        if False:\n",
            "declined orders of a healed payment are not tried alone",
            "test_an_unknown_payment_that_failed_there_is_declined_and_its_orders_are_planned_alone",
        ),
        (
            "references=[ours.payment_id_of(item.reference) or _our_id(item.reference) for item in items],\n        are_ours",
            "references=[None for item in items],\n        are_ours",
            "no charge is known by its reference",
        ),
    ),
    *mutants(
        "orders_pipeline/reconciliation.py",
        ["database/test_reconciliation.py"],
        (
            "        judged.append(finding.finding_id)\n",
            "",
            "an old finding is open for ever",
            "test_a_finding_older_than_the_days_looked_at_is_still_compared_and_not_closed_by_looking_away",
        ),
        (
            "            if failure.may_pass:\n                break\n            continue\n",
            "            continue\n",
            "a service that is away is asked for every old finding",
            "test_old_findings_are_looked_up_until_one_does_not_come",
        ),
        (
            "            if failure.may_pass:\n                break\n            continue\n",
            "            break\n",
            "an old finding that the service does not answer for hides the others",
            "test_old_findings_are_looked_up_until_one_does_not_come",
        ),
        (
            "            _insert_page(session, ours, page)\n            _insert_unreadable(session, ours, page)\n",
            "            _insert_page(session, ours, page)\n",
            "what cannot be read any more counts as not there",
            "test_old_findings_are_looked_up_until_one_does_not_come",
        ),
    ),
    *mutants(
        "orders_pipeline/reconciliation.py",
        ["database/test_continuity.py"],
        (
            "        created_from = min(created_from or doubted.since, doubted.since)\n",
            "        created_from = created_from or doubted.since\n",
            "paying goes on though what may be missing was not compared",
            "test_a_comparison_that_lets_paying_go_on_is_of_all_that_may_be_missing",
        ),
        (
            "        created_to = max(created_to or doubted.until, doubted.until)\n",
            "        created_to = created_to or doubted.until\n",
            "paying goes on though what may be missing was not compared",
            "test_a_comparison_that_lets_paying_go_on_is_of_all_that_may_be_missing",
        ),
        (
            "                system.continuity.note_unread(failure)\n",
            "                pass\n",
            "nobody may answer for a list that never comes",
            "test_a_comparison_finds_a_database_whole_that_was_started_anew",
        ),
        (
            "        if doubted is not None and not young:  # from",
            "        if False:  # from",
            "paying stays stopped although all was compared",
        ),
    ),
    *mutants(
        "orders_pipeline/continuity.py",
        ["database/test_continuity.py", "database/test_installation.py"],
        (
            "        if self.is_behind():\n            return False\n",
            "",
            "a database that is older than the storage pays again",
        ),
        (
            "        return state.is_same or self._is_whole_at_service(state)\n",
            "        return True\n",
            "a database that was put back pays again what the service has",
        ),
        (
            "if not others and highest <= (state.generation, state.mark):",
            "if not others:",
            "a database that is older than the storage pays again",
        ),
    ),
    *mutants(
        "orders_pipeline/continuity.py",
        ["database/test_continuity.py"],
        (
            "        if kept.at <= state.asked_at - FRESH:\n            return False\n",
            "",
            "nobody takes the place of a database that is gone",
            "test_a_new_database_takes_the_place_of_one_that_is_gone",
        ),
        (
            '                transaction.execute("stop_paying", stopped_by="service")\n',
            "                pass\n",
            "charges that our ledger does not know stop nothing",
            "test_a_refund_that_our_ledger_does_not_know_stops_paying_until_it_is_a_finding",
        ),
        (
            "                if state.mark and not any(",
            "                if False and not any(",
            "a database at work does not say so, and another takes its place",
            "test_a_database_that_is_at_work_says_so_in_the_storage",
        ),
    ),
    *mutants(
        "sql/migrations/V43__charges_of_a_lost_database.sql",
        ["faults/test_restored_database.py"],
        (
            "FOR again_no IN SELECT each FROM generate_series(0, own_no + 4) AS each ORDER BY each <> own_no, each LOOP",
            "FOR again_no IN SELECT own_no LOOP",
            "what was cancelled and came again before a restore is paid again",
            "test_d14_what_was_cancelled_and_came_again_before_the_restore_is_paid_once",
        ),
        (
            "            FOR try IN 0..4 LOOP",
            "            FOR try IN 0..0 LOOP",
            "orders that were paid alone before a restore are paid again",
            "test_d14_orders_that_were_paid_alone_after_a_declined_payment_are_not_paid_again",
        ),
    ),
    *mutants(
        "sql/migrations/V43__charges_of_a_lost_database.sql",
        ["database/test_installation.py"],
        (
            "    FOR try IN 0..2147483646 LOOP\n        next_id := stable_id(concat_ws('|', 'payment', identity, row_numbers, try));\n        EXIT WHEN NOT EXISTS (SELECT FROM payments WHERE payment_id = next_id);",
            "    FOR try IN 0..2147483646 LOOP\n        next_id := stable_id(concat_ws('|', 'payment', identity, row_numbers, try));\n        EXIT;",
            "what was declined is never planned again",
            "test_another_try_other_rows_other_bytes_and_another_installation_have_other_ids",
        ),
    ),
    *mutants(
        "sql/queries/payments.sql",
        ["faults/test_restored_database.py"],
        (
            "      AND (coalesce(sent_at, '-infinity') < unlisted_since\n           OR sent_at IS NULL AND EXISTS (",
            "      AND (coalesce(sent_at, '-infinity') < unlisted_since\n           OR false AND EXISTS (",
            "what a person answered for is paid again after a restore",
            "test_d14_what_somebody_answered_for_is_looked_up_before_it_is_sent",
        ),
        (
            "      AND (coalesce(sent_at, '-infinity') < unlisted_since\n           OR sent_at IS NULL AND EXISTS (",
            "      AND (sent_at IS NULL AND EXISTS (",
            "what no list tells of is paid again after a restore",
            "test_d14_without_a_list_what_is_planned_is_looked_up_first",
        ),
    ),
]
