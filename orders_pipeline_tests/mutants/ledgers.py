"""Mutants of what payments, refunds and notifications have in common: claims, results, and what a lost worker leaves."""

from orders_pipeline_tests.mutants.mutant import PAYMENT_LEDGER, Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "orders_pipeline/settlement/ledger.py",
        PAYMENT_LEDGER,
        (
            ", outcome.retry_after_s or 0.0)",
            ", 0.0)",
            "a service that asks for a pause does not get it",
        ),
        (
            '            transaction.execute(f"renew_{self.name}", batch_id=self._worker.batch_id, look_ups_wait=self.look_ups_wait)\n',
            "",
            "what was tried eight times is never tried again",
        ),
        (
            "            self._released(transaction, [str(row.item_id) for row in released])\n",
            "            pass\n",
            "orders of a lost worker stay paying for ever",
        ),
        (
            "            keys_kept_s=self.keys_kept_s,\n",
            "            keys_kept_s=FOR_EVER_S,\n",
            "looked up while the lost worker's request may still be on its way",
        ),
        (
            "end_lost_workers(transaction, self._worker.batch_id, self._worker, only_by_lease=only_by_lease)",
            "end_lost_workers(transaction, self._worker.batch_id, self._worker)",
            "who waits gives up whose session broke for a moment",
        ),
        (
            "            self._recorded(transaction, [str(row.item_id) for row in recorded], declined)\n",
            "",
            "orders never follow, and customers are never notified",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/ledger.py",
        ["database/test_halted_batches.py"],
        (
            "            if not self._may_claim(transaction):\n                return []\n",
            "",
            "paid after a person has stopped or cancelled it",
        ),
        (
            "            if not self._may_go_on(transaction):\n                return None\n",
            "",
            "a stop waits for the next try",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/ledger.py",
        ["database/test_notification_ledger.py"],
        (
            "            self._release(transaction)\n",
            "",
            "what a lost worker was sending is never tried again",
            "test_a_worker_that_was_given_up_writes_nothing_and_its_claim_is_in_doubt_for_the_next",
        ),
        (
            "        self._worker.require()\n",
            "",
            "a worker that was given up claims",
            "test_a_worker_that_was_given_up_writes_nothing_and_its_claim_is_in_doubt_for_the_next",
        ),
    ),
    *mutants(
        "sql/queries/ledgers.sql",
        PAYMENT_LEDGER,
        (
            "    ORDER BY next_attempt_at LIMIT :limit - (SELECT count(*) FROM again)\n    FOR UPDATE SKIP LOCKED\n",
            "    ORDER BY next_attempt_at LIMIT :limit - (SELECT count(*) FROM again)\n    FOR UPDATE\n",
            "workers wait for each other",
        ),
        (
            "SET status = CASE due.was WHEN '{planned}' THEN 'sending' ELSE 'unknown' END,",
            "SET status = 'sending',",
            "a second try does not know of the first",
        ),
        (
            "AND next_attempt_at <= statement_timestamp() AND attempts < :max_attempts\n",
            "AND attempts < :max_attempts\n",
            "tried again at once, and looked up too early",
        ),
        (
            "\n  AND (claimed_by IS NOT DISTINCT FROM :worker_id\n"
            "       OR ({item}s.status = 'unknown' AND claimed_by IS NULL AND result.status = '{succeeded}'))\n",
            "\n",
            "who lost a claim writes over what its new owner found",
        ),
        (
            "\n       OR ({item}s.status = 'unknown' AND claimed_by IS NULL AND result.status = '{succeeded}'))",
            ")",
            "a charge that is known late is looked up instead of taken",
        ),
        (
            "SET status = 'unknown', claimed_by = NULL, outcome_code = 'worker-lost'",
            "SET status = '{planned}', claimed_by = NULL, outcome_code = 'worker-lost'",
            "what a lost worker sent counts as not sent",
        ),
        (
            "    ELSE greatest(sent_at, lease_until) + make_interval",
            "    ELSE sent_at + make_interval",
            "looked up while the lost worker could still send",
        ),
        (
            "                   attempts = attempts - CASE WHEN result.code = :called_off THEN 1 ELSE 0 END,\n",
            "",
            "what was never sent counts as a try",
        ),
        (
            "CASE WHEN status = '{planned}' OR NOT :look_ups_wait THEN now() ELSE next_attempt_at END",
            "now()",
            "a new drain looks up what may still be on its way",
        ),
    ),
    *mutants(
        "sql/queries/ledgers.sql",
        ["database/test_notification_ledger.py"],
        (
            "(workers.ended_at IS NOT NULL OR claimed_by = :caller_id)",
            "(workers.ended_at IS NULL OR claimed_by = :caller_id)",
            "claims are taken from who is at work",
            "test_a_live_workers_claims_are_not_taken_over",
        ),
        (
            "AND status IN ('{planned}', 'unknown') AND claimed_by IS NULL\n  AND (attempts > 0",
            "AND status = '{planned}' AND claimed_by IS NULL\n  AND (attempts > 0",
            "what is unknown after eight tries is so for ever",
            "test_n01_a_notification_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next",
        ),
        (
            "statement_timestamp() AND attempts < :max_attempts\n",
            "statement_timestamp()\n",
            "tried without end",
            "test_n01_a_notification_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next",
        ),
        (
            "       AND attempts < :max_attempts AND next_attempt_at < now() + interval '1 day'),\n",
            "       AND next_attempt_at < now() + interval '1 day'),\n",
            "a drain waits for what it never tries again",
            "test_n01_a_notification_is_tried_a_limited_number_of_times_in_one_drain_and_anew_in_the_next",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/ledger.py",
        ["database/test_refunds.py"],
        (
            "        if outcome.code in self.codes_for_a_person:\n            return FOR_EVER_S\n",
            "",
            "what waits for a person is tried again and again",
            "test_without_keys_an_unclear_answer_waits_for_a_person_and_is_never_sent_again",
        ),
    ),
]
