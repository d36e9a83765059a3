"""Mutants of how a batch is settled, stopped and cancelled, and of the total row that is no order."""

from orders_pipeline_tests.mutants.mutant import Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "orders_pipeline/upkeep/cancelling.py",
        ["database/test_settlement.py"],
        (
            '            if batch.status != "cancelling" or not is_whole or batch.ledgers_differ:\n',
            '            if batch.status != "cancelling":\n',
            "cancelled though the service may have charges that we do not know",
        ),
        (
            '            if transaction.scalar("is_in_doubt", batch_id=batch_id):\n                return\n',
            "",
            "cancelled though some of it may have been charged",
        ),
        (
            '            transaction.execute("cancel_orders", batch_id=batch_id)\n',
            "",
            "the references of cancelled orders are never free",
        ),
        (
            '            transaction.execute("retire_cancelled", batch_id=batch_id)\n',
            "",
            "cancelled payments still cover their orders",
        ),
        (
            '            transaction.execute("cancel_notifications", batch_id=batch_id)\n',
            "",
            "customers are notified of what was cancelled",
        ),
        (
            "        while _others(database, worker):\n            wait()\n",
            "",
            "cancelled while another process is paying",
        ),
        (
            "        end_lost_workers(transaction, worker.batch_id, worker)\n",
            "",
            "a batch of a lost worker is never cancelled",
            "test_who_is_lost_is_not_waited_for_before_a_batch_is_cancelled",
        ),
        (
            "        if interrupts.requested.is_set():\n            raise KeyboardInterrupt\n",
            "",
            "a cancellation that waits goes on after Ctrl-C",
            "test_a_cancellation_that_waits_for_others_can_be_interrupted",
        ),
        (
            "        system.restore_guard.watch()\n",
            "",
            "cancelled though another database may have paid it",
            "test_what_another_database_may_have_paid_is_looked_up_before_a_batch_is_cancelled",
        ),
        (
            "declined_are_planned_singly=_plan_what_may_be_charged(system, batch_id)",
            "declined_are_planned_singly=False",
            "cancelled as unpaid though another database has paid it",
            "test_what_another_database_may_have_paid_is_looked_up_before_a_batch_is_cancelled",
        ),
        (
            "        _look_up(system, worker, declined_are_planned_singly=_plan_what_may_be_charged(system, batch_id))\n",
            "",
            "what is in doubt is never found out",
        ),
        (
            'return profile.declined_payments == "retry_orders"',
            "return False",
            "what another database paid alone is never found out",
            "test_orders_that_another_database_paid_alone_are_found_before_a_batch_is_cancelled",
        ),
    ),
    *mutants(
        "orders_pipeline/upkeep/cancelling.py",
        ["database/test_halted_batches.py"],
        (
            'if batch.finished_at is not None and batch.status != "cancelled":',
            "if False:",
            "a batch that has ended is said to be cancelled",
        ),
    ),
    *mutants(
        "orders_pipeline/upkeep/cancelling.py",
        ["pipeline/test_cancel_command.py"],
        (
            "        steps.give_up_loading(system.storage, system.database, batch_id)\n",
            "",
            "accepted rows of what is cancelled lie in the storage, and the rejected ones are not returned",
            "test_a_batch_that_nothing_was_sent_of_is_cancelled_and_its_file_may_come_again",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/batch_settlement.py",
        ["database/test_settlement.py"],
        (
            "    if batch.status not in SETTLED_FROM or not batch.is_approved:\n",
            "    if not batch.is_approved:\n",
            "a batch that was stopped or has ended is paid",
        ),
        (
            "        if is_halted:\n            yield None\n            return\n",
            "",
            "a batch is paid that a person stopped at this moment",
        ),
        (
            "        if not system.restore_guard.advance():\n            self._paid.set()\n            return\n",
            "",
            "a database that was put back pays again",
        ),
        (
            'retry_declined_orders=self._profile.declined_payments == "retry_orders"',
            "retry_declined_orders=True",
            "a profile is not followed",
        ),
        (
            "            look_again=system.restore_guard.advance,\n",
            "",
            "a database that was restarted pays nothing any more",
        ),
        (
            "more_to_come=lambda: not self._paid.is_set(),",
            "more_to_come=lambda: False,",
            "who is paid late is notified by the next run only",
        ),
    ),
    *mutants(
        "orders_pipeline/intake/total_rows.py",
        ["unit/test_total_rows.py"],
        (
            "yen is not None and yen in (self.group, self.all):",
            "yen is not None and self.all is not None:",
            "an order is taken for a total row",
        ),
        (
            "and yen in (self.group, self.all):",
            "and yen == self.all:",
            "a subtotal is loaded and paid",
        ),
        (
            "                self.group = None\n                yield number, which\n",
            "                yield number, which\n",
            "the second subtotal is loaded and paid",
        ),
        (
            "only[at] = _is_blank_or_word(rows.column(name)[at].as_py())",
            "only[at] = True",
            "an order is taken for a total row",
        ),
        (
            '_READABLE = "^-?[0-9]{1,12}$"',
            '_READABLE = "^[0-9]{1,12}$"',
            "a total row over a deduction is loaded and paid",
        ),
    ),
]
