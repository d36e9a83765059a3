"""What a client's program may ask for, in any order, against a model of what must come of it.

Runs are in this process and end before the next request comes, but for those that a cancellation comes in the middle of.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule, run_state_machine_as_test

from orders_pipeline.batches import batches
from orders_pipeline.clients.api_tokens import REFUND, USUAL_SCOPES
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.support.api import Client, client_of, csv_of, served
from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, open_installation, prepare, work_off
from orders_pipeline_tests.support.soak import first_of

YEN, CONCURRENCY = 1_000, 2
LATENCY_MS = 60


@dataclass
class Sent:
    """A batch as it must be."""

    batch_id: str
    good: int
    bad: int
    state: str = "received"  # or loaded, stopped, ended, cancelling, cancelled
    asked: set[str] = field(default_factory=set)  # refunds, by key
    charged_at_most: int | None = None  # payments, once it was cancelled


class Program(RuleBasedStateMachine):
    """A client's program, its server and the runs that it asks for."""

    installation: Installation
    url: str
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        code = f"acme-{uuid.uuid4().hex[:8]}"
        self.client: Client = client_of(self.installation.system, self.url, code, [*USUAL_SCOPES, REFUND])
        self.known: list[Sent] = []

    @rule(target=sent, good=st.integers(0, 6), bad=st.integers(0, 2))
    def submit(self, good: int, bad: int) -> Any:
        rows = [self._row(str(YEN)) for _ in range(good)] + [self._row("x") for _ in range(bad)]
        if not rows:
            return multiple()
        body, key = csv_of(*rows), uuid.uuid4().hex
        answers = [self.client.post("batches", body, key=key) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        (batch_id,) = {answer.json()["batch_id"] for answer in answers}
        assert self.client.post("batches", body).json()["batch_id"] == batch_id  # the same bytes
        self.known.append(Sent(batch_id, good, bad))
        return self.known[-1]

    @rule(batch=sent)
    def load(self, batch: Sent) -> None:
        if batch.state == "received":
            prepare(self.installation.system, batch.batch_id)
            batch.state = "loaded"

    @rule(batch=sent)
    def run(self, batch: Sent) -> None:
        self._run(batch)
        if batch.state in ("received", "loaded"):
            batch.state = "ended"
        elif batch.state == "cancelling":
            batch.state = "cancelled"

    @rule(batch=sent)
    def cancel_while_it_is_paid(self, batch: Sent) -> None:
        if batch.state not in ("received", "loaded") or not batch.good:
            return
        self.installation.sandbox.change(latency_ms=LATENCY_MS)
        with ThreadPoolExecutor() as pool:
            running = pool.submit(self._run, batch)
            wait_for(lambda: self._charged(batch) > 0 or running.done(), "a payment")
            self.cancel(batch)
            running.result()
        if batch.state == "cancelling":  # unless the run has ended it
            batch.state = self._seen(batch)["status"]
            assert batch.state in ("cancelling", "cancelled")
        self.installation.sandbox.change(latency_ms=0)

    @rule(batch=sent)
    def cancel(self, batch: Sent) -> None:
        answer = self._command(batch, "cancel")
        if answer.status_code == 202:
            if batch.charged_at_most is None:
                batch.charged_at_most = self._charged(batch) + CONCURRENCY  # what is in flight
                batch.state = "cancelling" if answer.json()["status"] == "cancelling" else "cancelled"
        else:
            assert answer.json()["code"] == "not-cancellable"
            assert self._seen(batch)["finished"]
            batch.state = "ended"

    @rule(batch=sent)
    def stop(self, batch: Sent) -> None:
        with self.installation.system.database.begin() as transaction:
            if batches.stop(transaction, batch.batch_id, "somebody"):
                assert batch.state in ("received", "loaded", "stopped")
                batch.state = "stopped"

    @rule(batch=sent)
    def resume(self, batch: Sent) -> None:
        answer = self._command(batch, "resume")
        if batch.state in ("ended", "cancelling", "cancelled"):
            assert (answer.status_code, answer.json()["code"]) == (409, "not-resumable")
            return
        assert answer.status_code == 202, answer.text
        assert answer.json()["status"] in ("received", "loaded")
        batch.state = str(answer.json()["status"])

    @rule(target=sent, batch=sent)
    def correct(self, batch: Sent) -> Any:
        file = self.client.get(f"batches/{batch.batch_id}/files/rejected.csv")
        if file.status_code != 200:
            assert file.status_code == 404
            return multiple()
        if not batch.bad:
            return multiple()
        answer = self.client.post(f"batches/{batch.batch_id}/corrections", file.content.replace(b",x,", b",1000,"))
        if answer.status_code != 202:
            assert answer.json()["code"] == "F_DUPLICATE_FILE", answer.text
            return multiple()
        self.known.append(Sent(answer.json()["batch_id"], batch.bad, 0))
        return self.known[-1]

    @rule(batch=sent, confirms=st.integers(0, 2))
    def refund(self, batch: Sent, confirms: int) -> None:
        path, body = f"batches/{batch.batch_id}/refunds", {"reason": "a test"}
        plan = self.client.post(path, json.dumps(body).encode()).json()
        refundable = plan["plan"]["amount_jpy"]["refundable"]
        assert refundable <= self._theirs(batch)["payments"]["amount_jpy"]
        for _ in range(confirms):
            key = uuid.uuid4().hex
            confirmed = json.dumps(body | {"confirm": plan["plan_digest"]}).encode()
            answers = [self.client.post(path, confirmed, key=key) for _ in range(2)]
            if answers[0].status_code == 202:
                assert refundable
                assert len({answer.json()["refund_id"] for answer in answers}) == 1
                batch.asked.add(answers[0].json()["refund_id"])
                refundable = 0  # by any other request
            else:
                assert {answer.json()["code"] for answer in answers} <= {"nothing-to-refund", "plan-changed"}
                assert not refundable

    @rule(batch=sent)
    def carry_out_refunds(self, batch: Sent) -> None:
        refunding.resume(self.installation.system, batch.batch_id)
        for refund_id in batch.asked:
            assert self.client.get(f"refunds/{refund_id}").json()["finished"]

    def teardown(self) -> None:
        """End everything, and look at all once more."""
        for batch in self.known:
            if batch.state == "stopped":
                self.resume(batch)
            self.run(batch)
            self.carry_out_refunds(batch)
            self.check(batch)
            assert self._seen(batch)["finished"]

    def check_invariants(self, *arguments: Any, **named: Any) -> None:
        """Look at all batches after every step."""
        super().check_invariants(*arguments, **named)
        for batch in self.known:
            self.check(batch)

    def check(self, batch: Sent) -> None:
        """Hold a batch as it is shown against the model and the service's own ledger."""
        seen, theirs = self._seen(batch), self._theirs(batch)
        assert seen["status"].startswith("completed" if batch.state == "ended" else batch.state) or (
            batch.state == "ended" and not seen["rows"]["accepted"]
        ), (seen, batch)
        rows, orders, yen = seen["rows"], seen["orders"], seen["amount_jpy"]
        if rows["total"] is not None and rows["accepted"] is not None:
            assert (
                rows["total"]
                == rows["accepted"] + rows["rejected"] + rows["blank"] + rows["skipped"]
                == batch.good + batch.bad
            )
            assert rows["accepted"] <= batch.good
            assert sum(orders.values()) in (0, rows["accepted"])
            settled = sum(yen[state] for state in ("paid", "declined", "unknown", "refunded", "cancelled"))
            assert settled == yen["accepted"] if seen["finished"] else settled <= yen["accepted"]
        if batch.state in ("ended", "cancelled"):
            assert orders["pending"] == orders["paying"] == orders["unknown"] == 0
            assert theirs["payments"]["amount_jpy"] == yen["paid"] + yen["refunded"]
            assert theirs["payments"]["refunded_jpy"] == yen["refunded"]
        assert theirs["orders"]["paid_more_than_once"] == 0
        assert theirs["payments"]["refunded_jpy"] <= theirs["payments"]["amount_jpy"] <= batch.good * YEN
        if batch.charged_at_most is not None:
            assert self._charged(batch) <= batch.charged_at_most

    def _row(self, amount: str) -> dict[str, str]:
        own = uuid.uuid4().hex
        return order_row(client_order_ref=own, customer_code=own[:20], amount=amount, notify_channel="none")

    def _run(self, batch: Sent) -> None:
        """Do what a run does: nothing with a batch that a person has stopped."""
        if batch.state in ("received", "loaded"):
            work_off(self.installation.system, batch.batch_id)
        else:
            cancelling.finish(self.installation.system, batch.batch_id)

    def _command(self, batch: Sent, command: str) -> Any:
        return self.client.post(f"batches/{batch.batch_id}/{command}", b"", key=None)

    def _seen(self, batch: Sent) -> Any:
        return self.client.get(f"batches/{batch.batch_id}").json()

    def _theirs(self, batch: Sent) -> Any:
        return self.installation.sandbox.ledger(batch.batch_id)

    def _charged(self, batch: Sent) -> int:
        return int(self._theirs(batch)["payments"]["count"])


@pytest.fixture(scope="module")
def installation(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that has few payments in flight at once."""
    home = tmp_path_factory.mktemp("installation")
    with open_installation(server_url, template, home, payment_concurrency=CONCURRENCY) as opened:
        yield opened


@pytest.mark.parametrize(("examples", "steps"), first_of([(3, 12), (100, 30)]))
def test_whatever_is_asked_for_in_whatever_order_rows_add_up_and_nothing_is_paid_or_refunded_that_must_not_be(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, examples: int, steps: int
) -> None:
    monkeypatch.setattr("orders_pipeline.web.limits.WINDOW_S", 0)  # nobody is told that it asks too often
    with served(installation.system) as url:
        machine = type("Machine", (Program,), {"installation": installation, "url": url})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
