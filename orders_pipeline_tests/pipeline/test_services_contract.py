"""The contract of both services as a description for machines: the sandbox does what it says, whatever it is asked.

That it names the same calls, limits and problems as the sandbox is compared here too; single answers belong in
`test_sandbox*.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from orders_pipeline.sandbox import SandboxServer, app, contract
from orders_pipeline_tests.support.described import assert_as_described
from orders_pipeline_tests.support.generated_pages import DOCS
from orders_pipeline_tests.support.sandbox_calls import post
from orders_pipeline_tests.support.soak import first_of

DOCUMENT: dict[str, Any] = yaml.safe_load((DOCS / "services.openapi.yaml").read_text("utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]
TOKEN = "a-token-of-the-test"
REQUESTS = {"PaymentRequest": contract.PaymentRequest, "RefundRequest": contract.RefundRequest}
REQUESTS |= {"NotificationRequest": contract.NotificationRequest}


def test_it_has_the_calls_that_the_sandbox_has() -> None:
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert described == {(method, path) for method, path, _ in app._API}


def test_it_names_every_problem() -> None:
    listed = re.search(r"\((.*)\)", SCHEMAS["Problem"]["properties"]["type"]["pattern"])
    assert listed is not None
    assert listed[1].split("|") == list(contract.PROBLEMS)


def bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a member may be at least and at most, wherever its schema says so."""
    names = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
    found = {name: schema[name] for name in names if name in schema}
    for part in schema.get("anyOf", ()):
        found |= bounds(part)
    return found


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_have_the_members_and_limits_that_the_sandbox_reads(name: str) -> None:
    ours, theirs = SCHEMAS[name], REQUESTS[name].model_json_schema()
    assert ours["required"] == theirs["required"]
    assert set(ours["properties"]) == set(theirs["properties"])
    for member, schema in ours["properties"].items():
        limits = bounds(schema)
        if (name, member) == ("PaymentRequest", "amount"):
            assert limits.pop("maximum") == contract.AMOUNT_LIMIT_JPY  # which has a problem of its own
        assert limits == bounds(theirs["properties"][member]), member


def test_what_is_said_of_many_notifications_is_what_the_sandbox_takes() -> None:
    call = DOCUMENT["paths"]["/v1/notifications/batches"]["post"]
    items = call["requestBody"]["content"]["application/json"]["schema"]["properties"]["items"]
    assert (items["minItems"], items["maxItems"]) == (1, contract.BULK_LIMIT)


@pytest.mark.parametrize(
    ("path", "request_name"), [("payments", "PaymentRequest"), ("notifications", "NotificationRequest")]
)
def test_its_examples_are_taken(sandbox: SandboxServer, path: str, request_name: str) -> None:
    example = DOCUMENT["paths"][f"/v1/{path}"]["post"]["requestBody"]["content"]["application/json"]["example"]
    answered = post(sandbox, f"/v1/{path}", example, key=request_name)
    assert answered.status_code == (201 if path == "payments" else 202), answered.text


@pytest.mark.parametrize(("phases", "examples"), first_of([("fuzzing", 2), ("examples,coverage,fuzzing,stateful", 200)]))
def test_whatever_the_sandbox_is_asked_it_answers_as_described(tmp_path: Path, phases: str, examples: int) -> None:
    with SandboxServer(token=TOKEN, bulk=True) as server:
        server.change(rate_per_s=100_000)
        assert_as_described(tmp_path, DOCUMENT, server.url, TOKEN, phases, examples)
