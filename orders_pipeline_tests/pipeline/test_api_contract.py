"""The API held against its description by programs that know nothing else: one that guesses, one that sends orders.

What is wrong with single requests belongs in `test_api.py` and `test_api_hostile.py`.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from orders_pipeline.clients.api_tokens import CONTROL, READ, READ_REJECTED, REFUND, WRITE
from orders_pipeline.web import limits
from orders_pipeline.web.problems import KINDS
from orders_pipeline_tests.support.api import DOCUMENT, Client, client_of, csv_of, served
from orders_pipeline_tests.support.described import assert_as_described
from orders_pipeline_tests.support.factories import order_row, order_rows
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.soak import first_of

SCOPES = [READ, WRITE, CONTROL, READ_REJECTED, REFUND]
CHECKS = "unsupported_method ensure_resource_availability"  # what this description says beyond that of the services
ORDERS, CUSTOMERS, BAD = 10_000, 50, 7
NOT_ASKED = ("followBatch", "showReady")  # a stream; and there is no daemon here


@dataclass(frozen=True)
class Program:
    """A client's program whose author has read the description, and nothing else."""

    url: str
    token: str

    def ask(self, operation_id: str, body: object = None, **parameters: object) -> requests.Response:
        """Do an operation; where each parameter goes is in the description, and so must the answer's status be."""
        method, path, operation = next(
            (method, path, item[method] | {"parameters": [*item.get("parameters", ()), *item[method].get("parameters", ())]})
            for path, item in DOCUMENT["paths"].items()
            for method in ("get", "post")
            if item.get(method, {}).get("operationId") == operation_id
        )
        given: dict[str, dict[str, str]] = {"path": {}, "query": {}, "header": {}}
        for parameter in map(resolved, operation["parameters"]):
            if parameter["name"] in parameters:
                given[parameter["in"]][parameter["name"]] = str(parameters[parameter["name"]])
            assert not parameter.get("required") or parameter["name"] in parameters, parameter
        answer = requests.request(
            method,
            self.url + path.format(**given["path"]),
            params=given["query"],
            json=body,
            headers=given["header"] | {"Authorization": f"Bearer {self.token}"},
            timeout=60,
        )
        assert str(answer.status_code) in operation["responses"], answer.text
        return answer

    def follow(self, operation_id: str, answer: requests.Response, link: str, **more: object) -> requests.Response:
        """Do what the description links to an answer of an operation."""
        found = next(
            item[method] for item in DOCUMENT["paths"].values() for method in item if is_named(item[method], operation_id)
        )
        target = resolved(found["responses"][str(answer.status_code)]["links"][link])
        places = {name: answer.json()[where.partition("#/")[2]] for name, where in target["parameters"].items()}
        return self.ask(target["operationId"], **places, **more)

    def pages(self, operation_id: str, **parameters: object) -> Iterator[dict[str, Any]]:
        """Yield the items of all pages of a list."""
        place: dict[str, object] = {}
        while True:
            page = self.ask(operation_id, **parameters, **place).json()
            yield from page["items"]
            if page["next"] is None:
                return
            place = {"cursor": page["next"]}


def is_named(operation: Any, operation_id: str) -> bool:
    return isinstance(operation, dict) and operation.get("operationId") == operation_id


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    found: Any = DOCUMENT
    for name in part.get("$ref", "").removeprefix("#/").split("/") if "$ref" in part else ():
        found = found[name]
    return found if "$ref" in part else part


def test_a_program_written_against_the_description_alone_sends_10000_orders_and_reads_their_result(
    installation: Installation,
) -> None:
    with served(installation.system) as url:
        program = Program(url, client_of(installation.system, url, f"acme-{uuid.uuid4().hex[:8]}", SCOPES).token)
        limit = program.ask("showProfile").json()
        assert limit["max_rows"] >= ORDERS
        columns = [column["name"] for column in limit["columns"] if column["required"]]
        orders = [
            {
                "client_order_ref": f"O-{at}",
                "customer_code": f"C-{at % CUSTOMERS}",
                "customer_name": "見本",
                "amount": 100 + at,
            }
            | {"payment_method": "invoice", "notify_channel": "none"}
            for at in range(ORDERS)
        ]
        assert set(columns) <= set(orders[0])
        for at in range(BAD):
            orders[at * 1_000]["amount"] = "many"
        checked = program.ask("checkFile", {"orders": orders}).json()
        sent = program.ask("submitBatch", {"orders": orders}, **{"Idempotency-Key": "one", "row_count": ORDERS})
        seen = program.follow("submitBatch", sent, "follow")
        assert (seen.json(), seen.headers["ETag"]) == (sent.json(), sent.headers["ETag"])
        batch_id = sent.json()["batch_id"]
        installation.work_off(batch_id)
        seen = program.follow("submitBatch", sent, "follow", **{"If-None-Match": seen.headers["ETag"]})
        batch = seen.json()
        assert (batch["finished"], batch["rows"]) == (True, checked["rows"])
        assert batch["rows"] == {"total": ORDERS, "accepted": ORDERS - BAD, "rejected": BAD, "blank": 0, "skipped": 0}
        again = program.follow("submitBatch", sent, "follow", **{"If-None-Match": seen.headers["ETag"]})
        assert again.status_code == 304

        paid = [*program.pages("listOrders", batch_id=batch_id, limit=100)]
        amounts = {each["client_order_ref"]: each["amount"] for each in orders if each["amount"] != "many"}
        assert {each["client_order_ref"]: each["amount"] for each in paid} == amounts
        assert {each["status"] for each in paid} == {"paid"}
        charged = [*program.pages("listPayments", batch_id=batch_id)]
        assert sum(each["amount"] for each in charged) == sum(amounts.values()) == batch["amount_jpy"]["paid"]
        assert installation.sandbox.ledger(batch_id)["payments"]["amount_jpy"] == sum(amounts.values())
        rejected = [*program.pages("listRejections", batch_id=batch_id, limit=2)]
        assert [each["row"] for each in rejected] == [at * 1_000 + 1 for at in range(BAD)]
        result = program.ask("downloadFile", batch_id=batch_id, file="result.json").json()
        assert result["orders"] == batch["orders"]


def with_real_ids(installation: Installation, client: Client) -> dict[str, Any]:
    """Return the description for who knows the id of a batch and of a refund."""
    batch_id = client.post("batches", csv_of(*order_rows(5), order_row(amount="x"))).json()["batch_id"]
    installation.work_off(batch_id)
    plan = client.post(f"batches/{batch_id}/refunds", b'{"reason":"a test"}').json()
    confirmed = json.dumps({"reason": "a test", "confirm": plan["plan_digest"]}).encode()
    refund_id = client.post(f"batches/{batch_id}/refunds", confirmed).json()["refund_id"]
    document = copy.deepcopy(DOCUMENT)
    document["components"]["parameters"]["BatchId"]["schema"] = {"enum": [batch_id, "20200101-000000000000"]}
    document["paths"]["/v1/refunds/{refund_id}"]["parameters"][0]["schema"] = {"enum": [refund_id, str(uuid.uuid4())]}
    document["paths"]["/problems/{slug}"]["get"]["parameters"][0]["schema"] = {"enum": [*KINDS, "none"]}
    return document


@pytest.mark.parametrize(("phases", "examples"), first_of([("fuzzing,stateful", 3), ("coverage,fuzzing,stateful", 100)]))
def test_whatever_is_asked_is_answered_as_the_description_says(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, phases: str, examples: int
) -> None:
    monkeypatch.setattr(limits, "WINDOW_S", 0)  # nobody is told that it asks too often
    with served(installation.system) as url:
        client = client_of(installation.system, url, f"acme-{uuid.uuid4().hex[:8]}", SCOPES)
        document, skipped = with_real_ids(installation, client), [f"--exclude-operation-id={each}" for each in NOT_ASKED]
        assert_as_described(tmp_path, document, url, client.token, phases, examples, *skipped, checks=CHECKS)
