"""Mutants of what is paid: the plan, the ledger of payments, the provider's answers, the loop, and refusals."""

from orders_pipeline_tests.mutants.mutant import PAYMENT_LEDGER, Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "orders_pipeline/settlement/payments/plan.py",
        ["unit/test_plan.py"],
        (
            "if not 0 < order.amount <= CAP_JPY:",
            "if not 0 < order.amount < CAP_JPY:",
            "an order of the limit is not paid",
        ),
        (
            "if not 0 < order.amount <= CAP_JPY:",
            "if not 0 < order.amount:",
            "a payment is above the limit",
        ),
        (
            "groups[order.customer_code, order.payment_method, order.card, alone]",
            'groups[order.customer_code, order.payment_method, "", alone]',
            "orders are paid with another card of the customer's",
        ),
        (
            "groups[order.customer_code, order.payment_method, order.card, alone]",
            'groups["", order.payment_method, order.card, alone]',
            "customers pay for each other",
        ),
        (
            "alone = order.import_row_number if order.is_nobodys else None",
            "alone = None",
            "two people who may be one share a payment",
        ),
        (
            'if grouping == "per_order" else pack(group)',
            "if False else pack(group)",
            "a profile is not followed",
        ),
        (
            "node = 2 * node if most[2 * node] >= order.amount",
            "node = 2 * node if most[2 * node] > order.amount",
            "orders that fill a payment exactly are paid apart",
        ),
        (
            "        most[node] -= order.amount\n",
            "        most[node] -= 1\n",
            "a payment is above the limit",
        ),
        (
            "if room[p] >= amount and room[p]",
            "if room[p] >= amount - 1 and room[p]",
            "a payment is a yen above the limit",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/payments/settle.py",
        PAYMENT_LEDGER,
        (
            "    if claim.is_old:\n        able = replace(able, honours_keys=False)\n",
            "",
            "charged again under a key that is forgotten",
        ),
        (
            '    if claim.in_doubt and not (able.can_look_up or able.honours_keys):\n        return Outcome("unknown", UNDECIDABLE)\n',
            "",
            "charged again where nothing says what became of the first try",
        ),
        (
            '        if found.kind != "absent":\n            return found\n        # without',
            '        if found.kind == "succeeded":\n            return found\n        # without',
            "charged again after a look-up that said nothing",
        ),
        (
            "if not able.honours_keys and claim.last_code != ABSENT_ONCE:",
            "if False:",
            "charged again as a look-up was behind the booking",
        ),
        (
            "sent = gateway.pay(claim.request) if may_send() else called_off(in_doubt=False)",
            "sent = gateway.pay(claim.request)",
            "charged by two workers",
        ),
        (
            'if sent.kind == "not_sent" and not sent.refused and claim.in_doubt and able.honours_keys:',
            "if False:",
            "an order is pending that may have been charged",
        ),
        (
            '        transaction.row("lock_batch", batch_id=batch_id)\n',
            "",
            "two planners plan an order twice, or fail each other",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/payments/settle.py",
        ["database/test_halted_batches.py"],
        (
            '    if claim.young_s > 0:\n        return Outcome("unknown", ABSENT_EARLY, retry_after_s=claim.young_s)\n',
            "",
            "cancelled while a request may still charge it",
        ),
        (
            'return Outcome("not_sent") if claim.last_code == ABSENT_ONCE else Outcome("unknown", ABSENT_ONCE)',
            'return Outcome("not_sent")',
            "cancelled as a look-up was behind the booking",
        ),
    ),
    *mutants(
        "sql/queries/payments.sql",
        PAYMENT_LEDGER,
        (
            "  AND NOT EXISTS (SELECT FROM payment_orders AS share WHERE share.order_id = orders.order_id AND share.live)\n",
            "",
            "orders are planned twice",
        ),
    ),
    *mutants(
        "orders_pipeline/services/problems.py",
        ["unit/test_rest.py"],
        (
            'Outcome("not_sent" if isinstance(failure, NotDelivered) else "unknown", failure.code',
            'Outcome("not_sent", failure.code',
            "a request without an answer counts as not sent",
        ),
        (
            '        return Outcome("unknown", problem, retry_after_s=answer.retry_after_s, service_failed=True)\n    if answer.status == 409',
            '        return Outcome("not_sent", problem, retry_after_s=answer.retry_after_s, service_failed=True)\n    if answer.status == 409',
            "a failure of the service counts as not sent",
        ),
        (
            '"unknown" if answer.status == 409 or problem == KEY_REUSED else "not_sent"',
            '"not_sent"',
            "what may have been charged under our key counts as not sent",
        ),
    ),
    *mutants(
        "orders_pipeline/services/problems.py",
        ["unit/test_rest_refund.py"],
        (
            'Outcome("not_sent" if isinstance(failure, NotDelivered) else "unknown", failure.code',
            'Outcome("not_sent" if isinstance(failure, NotDelivered) else "declined", failure.code',
            "a refund without an answer counts as declined",
        ),
    ),
    *mutants(
        "orders_pipeline/services/rest_payments.py",
        ["unit/test_rest.py"],
        (
            '        or body.get("amount") != request.amount\n        or body.get("currency")',
            '        or body.get("currency")',
            "an answer about another amount is believed",
        ),
        (
            '        body.get("reference") != request.reference\n        or ',
            "        ",
            "an answer to another request is believed",
        ),
        (
            '        or body.get("currency") != "JPY"\n',
            "",
            "an answer in another currency is believed",
        ),
        (
            "answer.status == 503 and answer.problem == UNAVAILABLE",
            "answer.status == 503",
            "a 503 from something on the way counts as not sent",
        ),
        (
            '("succeeded", "unknown", "declined").index(outcome.kind)',
            '("declined", "unknown", "succeeded").index(outcome.kind)',
            "charged again beside a charge",
        ),
        (
            'return Outcome("unknown", answer.problem, refused=True) if found.kind == "absent" else found',
            'return Outcome("not_sent", answer.problem, refused=True) if found.kind == "absent" else found',
            "an order that something else has paid is paid again",
        ),
        (
            '    "processing": "unknown",\n}\n# problems',
            '    "processing": "declined",\n}\n# problems',
            "what is processing counts as declined",
        ),
        (
            '        if not ours:\n            return self._fitting(Outcome("unknown", OTHER_REFERENCE))\n',
            '        if not ours:\n            return Outcome("absent")\n',
            "charged again after a look-up that was answered with another payment",
        ),
        (
            'return replace(_from_problem(answer, frozenset()), kind="unknown")',
            "return _from_problem(answer, frozenset())",
            "a look-up that is refused counts as not charged",
        ),
        (
            "body=_body(request), idempotency_key=request.payment_id",
            "body=_body(request), idempotency_key=request.reference",
            "the key is another one than the look-up's",
        ),
    ),
    *mutants(
        "orders_pipeline/services/rest_payments.py",
        ["unit/test_rest_refund.py"],
        (
            '        or body.get("amount") != request.amount\n        or not isinstance(service_refund_id, str)',
            "        or not isinstance(service_refund_id, str)",
            "a refund of another amount is believed",
        ),
        (
            '        body.get("payment_id") != request.service_payment_id\n        or ',
            "        ",
            "a refund of another payment is believed",
        ),
        (
            'REFUND_FINAL = FINAL | {"not-found"}',
            "REFUND_FINAL = FINAL",
            "a refund of no payment is tried for ever",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/drain.py",
        ["unit/test_drain.py"],
        (
            "            self._stop.set()\n            self._crew.take_back()\n        if results",
            "            self._stop.set()\n        if results",
            "what was claimed ahead is sent after a service said stop",
        ),
        (
            "retry_while_unavailable(lambda: self._ledger.record(results)):\n            self._crew.take_back()\n",
            "retry_while_unavailable(lambda: self._ledger.record(results)):\n            pass\n",
            "what was claimed ahead is sent to a service that is left alone",
        ),
        (
            "        self._crew.dismiss()\n        self._write_down(self._crew.done)\n",
            "        self._crew.dismiss()\n",
            "what was in flight when it broke off is in doubt",
        ),
        (
            "                raise each  # what",
            "                pass  # what",
            "a defect is not seen",
        ),
    ),
    *mutants(
        "orders_pipeline/infrastructure/database_errors.py",
        ["unit/test_retry_while_unavailable.py"],
        (
            "        except DatabaseUnavailable:\n            if time",
            "        except ZeroDivisionError:\n            if time",
            "a short absence of the database ends the work",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/drain.py",
        ["database/test_shared_calls.py"],
        (
            "while not (self._to_do and self._busy < self._limit):",
            "while not self._to_do:",
            "more is in flight than is allowed",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/refusals.py",
        ["database/test_refusals.py"],
        (
            "TRIES = 3\n",
            "TRIES = 2\n",
            "declined after two tries",
        ),
        (
            "            is_tried_enough = tried.last_code == outcome.code and history.waited_s >= doubt_s\n",
            "",
            "declined though an earlier try may have charged it",
        ),
        (
            '            outcome = replace(outcome, kind="unknown", retry_after_s=doubt_s)\n',
            "            pass\n",
            "an order is pending that may have been charged",
        ),
        (
            "return Verdict(replace(outcome, retry_after_s=FOR_EVER_S), is_settled=True)",
            "return Verdict(outcome, is_settled=True)",
            "what waits for a person is tried again and again",
        ),
        (
            "and outcome.asked_at is not None and not tried.in_doubt:",
            "and outcome.asked_at is not None:",
            "what a look-up finds speaks for a service that refuses everybody",
        ),
        (
            "age_s = 0.0 if outcome.asked_at in refusing_calls else now - outcome.asked_at",
            "age_s = 0.0",
            "what was sent before others were refused speaks for the service",
        ),
        (
            "min(max(float(history.for_s), FIRST_HOLD_S), LONGEST_HOLD_S)",
            "FIRST_HOLD_S",
            "a service that refuses for hours is tried every minute",
        ),
        (
            "    if history.refused_since >= SEVERAL:\n        return False\n",
            "",
            "a service that begins to refuse everything declines orders that were refused once before",
        ),
        (
            "are_few = history.refused_since <= max(history.settled_alike, 1)",
            "are_few = True",
            "a service that begins to refuse everything declines the last few of a batch",
        ),
        (
            "return bool(history.taken_before and (",
            "return bool((",
            "a service that refuses everything declines the only order of a batch",
        ),
        (
            "or history.items_alike >= MANY",
            "",
            "a service that refuses everything is sent all orders of one customer",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/payments/ledger.py",
        PAYMENT_LEDGER,
        (
            'request, row.attempts, row.status == "unknown",',
            "request, row.attempts, False,",
            "doubt is forgotten",
        ),
        (
            '            transaction.execute("retire_allocations", payment_ids=declined_ids)\n',
            "",
            "declined orders are never planned again",
        ),
        (
            "return max(delay_s, self.doubt_s) if self._can_look_up",
            "return delay_s if self._can_look_up",
            "looked up while the request may still be on its way",
        ),
        (
            "        return self._is_whole and not (standing.is_held or standing.is_other) and super()._may_go_on(transaction)\n",
            "        return super()._may_go_on(transaction)\n",
            "paid by a database that was put back, or with differences that could be charged twice",
        ),
        (
            "    def _released(self, transaction: Transaction, item_ids: Sequence[str]) -> None:\n"
            "        follow_payments(transaction, item_ids)\n",
            "",
            "orders of a lost worker's payments stay paying",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/payments/ledger.py",
        ["database/test_settlement.py"],
        (
            "        if standing.unlisted_since != self._unlisted_since:  # whoever",
            "        if False:  # whoever",
            "charged again where the database was replaced by an earlier one meanwhile",
            "test_what_a_database_sent_that_was_replaced_while_it_pays_is_looked_up",
        ),
        (
            "            self._doubt(transaction)\n            if self._honours_keys:\n",
            "            if self._honours_keys:\n",
            "cancelled as unpaid though another database has paid it",
            "test_what_another_database_may_have_paid_is_looked_up_before_a_batch_is_cancelled",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/payments/ledger.py",
        ["database/test_declined_orders.py"],
        (
            "if self._retry_declined_orders:",
            "if True:",
            "a profile is not followed",
        ),
        (
            "        self._on_settled(transaction, item_ids)\n",
            "",
            "customers are never notified",
        ),
    ),
    *mutants(
        "orders_pipeline/settlement/payments/ledger.py",
        ["database/test_halted_batches.py"],
        (
            '                transaction.execute("distrust_look_ups", batch_id=batch_id, look_up_wait_s=self.doubt_s, waiting=early)\n',
            "                pass\n",
            "cancelled while a request may still charge it, where keys are honoured",
        ),
    ),
    *mutants(
        "sql/queries/payments.sql",
        PAYMENT_LEDGER,
        (
            "CASE payments.status WHEN 'planned' THEN 'pending'",
            "CASE payments.status WHEN 'planned' THEN 'pending' WHEN 'unknown' THEN 'pending'",
            "an order is pending that may have been charged",
        ),
        (
            "claimed.created_at < clock_timestamp() - make_interval(secs => :keys_kept_s) AS is_old,",
            "false AS is_old,",
            "charged again under a key that is forgotten",
        ),
    ),
]
