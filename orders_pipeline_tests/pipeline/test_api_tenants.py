"""Every operation of the API's description, asked by everybody: another client's things are not there, for nobody.

Which operations there are is read from the description, so that a new one is asked for here as well.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from dataclasses import dataclass

import pytest
import requests

from orders_pipeline.clients import api_tokens
from orders_pipeline.clients.api_tokens import APPROVE, OPERATOR, PAGE, REFUND, SCOPES, USUAL_SCOPES
from orders_pipeline_tests.support.api import TIMEOUT_S, Client, Operation, client_of, csv_of, operations, problem
from orders_pipeline_tests.support.factories import order_row, order_rows
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.page import OWN, page_token

MARK = "canary9x7"
MISSING = {"batch_id": "20200101-000000000000", "refund_id": "00000000-0000-4000-8000-000000000000"}
OPERATIONS = operations()
SECURED = [each for each in OPERATIONS if each.scope]
OF_ONE = [each for each in SECURED if "_id}" in each.path]
OF_ALL = [each for each in SECURED if "_id}" not in each.path and each.scope in SCOPES]  # else they are not for clients
OTHER_PLACES = {"file": "original", "slug": "not-found"}
PASSING = ("date", "request-id", "ratelimit")  # what differs from one request to the next


@dataclass(frozen=True)
class Tenant:
    """A client with a batch of which something was rejected, paid, notified and refunded; a mark is in all of it."""

    client: Client
    client_code: str
    places: dict[str, str]


def tenant(installation: Installation, url: str) -> Tenant:
    client_code = f"{MARK}-{uuid.uuid4().hex[:8]}"
    client = client_of(installation.system, url, client_code, [*USUAL_SCOPES, APPROVE, REFUND])
    marked = {"customer_code": f"{MARK}-C", "customer_name": MARK, "email": f"{MARK}@example.com", "notify_channel": "email"}
    rows = [row | marked | {"client_order_ref": f"{MARK}-{at}"} for at, row in enumerate(order_rows(3))]
    bad = rows[0] | {"client_order_ref": f"{MARK}-bad", "amount": f"{MARK}x"}
    batch_id = client.post("batches", csv_of(*rows, bad), key=MARK, name=f"{MARK}.csv").json()["batch_id"]
    installation.work_off(batch_id)
    body = {"orders": [f"{MARK}-0"], "reason": MARK}
    plan = client.post(f"batches/{batch_id}/refunds", json.dumps(body).encode()).json()
    confirmed = json.dumps(body | {"confirm": plan["plan_digest"]}).encode()
    refund_id = client.post(f"batches/{batch_id}/refunds", confirmed, key=f"{MARK}-2").json()["refund_id"]
    return Tenant(client, client_code, {"batch_id": batch_id, "refund_id": refund_id} | OTHER_PLACES)


@pytest.fixture(scope="module")
def theirs(_module_installation: Installation, url: str) -> Tenant:
    return tenant(_module_installation, url)


@pytest.fixture
def other(installation: Installation, url: str) -> Client:
    """A program of a client that has nothing, but may do everything."""
    return client_of(installation.system, url, f"other-{uuid.uuid4().hex[:8]}", [*USUAL_SCOPES, APPROVE, REFUND])


def ask(
    url: str, operation: Operation, headers: dict[str, str], places: dict[str, str] | None = None, **query: str
) -> requests.Response:
    """Ask for an operation with what it takes to be understood."""
    body = order_row(client_order_ref=uuid.uuid4().hex)
    content = csv_of(body)
    own = {"Content-Type": "text/csv", "Idempotency-Key": uuid.uuid4().hex}
    if operation.path.endswith(("/refunds", "/refuse", "/cancel")):
        content, own["Content-Type"] = b'{"reason":"a test"}', "application/json"
    with requests.request(
        operation.method,
        url + operation.at(**(MISSING | OTHER_PLACES | (places or {}))),
        params=query,
        data=content if operation.method == "POST" else None,
        headers=own | {"Accept-Language": "en"} | headers,
        timeout=TIMEOUT_S,
        stream=True,
    ) as answer:
        answer._content = b"" if "event-stream" in answer.headers["Content-Type"] else answer.raw.read()
        return answer


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def as_bytes(answer: requests.Response) -> tuple[int, dict[str, str], bytes]:
    """Return an answer as it is but for its own id."""
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in PASSING}
    return answer.status_code, headers, answer.content.replace(answer.headers["Request-Id"].encode(), b"")


def cookie(installation: Installation, url: str, client_code: str | None) -> dict[str, str]:
    token = page_token(installation.system, client_code, [*USUAL_SCOPES, APPROVE, REFUND])
    answer = requests.post(f"{url}/sign-in", data={"token": token}, headers=OWN, allow_redirects=False, timeout=TIMEOUT_S)
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]} | OWN


@pytest.mark.parametrize("operation", OF_ONE, ids=str)
def test_anothers_and_what_is_missing_are_the_same_bytes(
    installation: Installation,
    url: str,
    theirs: Tenant,
    other: Client,
    operation: Operation,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        asking = [bearer(other.token), cookie(installation, url, f"other-{uuid.uuid4().hex[:8]}")]
        asking += [bearer(client_of(installation.system, url, "other", [each]).token) for each in SCOPES]
        found = [
            [ask(url, operation, headers, places, **query) for places in (theirs.places, {})]
            for headers in asking
            for query in ({}, {"client": theirs.client_code})
        ]
    assert [as_bytes(of_theirs) for of_theirs, _ in found] == [as_bytes(missing) for _, missing in found]
    for whole, *_ in (found[0], found[2]):
        problem(whole, 404, "not-found")
    for limited, *_ in found[4::2]:
        assert limited.status_code in (403, 404)
    seen = caplog.text + "".join(answer.text + str(answer.headers) for pair in found for answer in pair)
    assert MARK not in seen.replace(theirs.client_code, "")  # it is what the asking query itself named


@pytest.mark.parametrize("operation", OF_ALL, ids=str)
def test_what_is_asked_for_without_an_id_shows_nothing_of_another(
    installation: Installation, url: str, theirs: Tenant, other: Client, operation: Operation
) -> None:
    for headers in (bearer(other.token), cookie(installation, url, f"other-{uuid.uuid4().hex[:8]}")):
        answer = ask(url, operation, headers)
        assert answer.ok, answer.text
        assert MARK not in answer.text + str(answer.headers)
        problem(ask(url, operation, headers, client=theirs.client_code), 400, "malformed-request")


def test_no_filter_finds_anothers_batch(url: str, theirs: Tenant, other: Client) -> None:
    sha256 = theirs.client.get(f"batches/{theirs.places['batch_id']}").json()["sha256"]
    for query in ({"name": f"{MARK}.csv"}, {"sha256": sha256}, {"idempotency_key": MARK}, {"status": "completed"}):
        assert theirs.client.get("batches", **query).json()["items"] or "status" in query
        assert other.get("batches", **query).json() == {"items": [], "next": None}


@pytest.mark.parametrize("operation", SECURED, ids=str)
def test_nobody_that_is_known_gets_one_answer_and_who_may_not_do_it_another(
    installation: Installation, url: str, theirs: Tenant, operation: Operation
) -> None:
    system = installation.system
    refused = [{}, bearer(""), bearer(f"opk_aaaaaaaa_{'x' * 43}"), {"Authorization": "Basic eDp5"}, {"Cookie": "orders=x"}]
    for change in ("expires_at = now()", "revoked_at = now()"):
        client, signed_in = client_of(system, url, theirs.client_code), cookie(installation, url, theirs.client_code)
        installation.rows(f"UPDATE api_tokens SET {change} WHERE token_id = '{client.token[4:12]}' RETURNING 1")
        installation.rows(
            f"UPDATE api_tokens SET {change} WHERE token_id ="
            " (SELECT token_id FROM api_sessions ORDER BY created_at DESC LIMIT 1) RETURNING 1"
        )
        refused += [bearer(client.token), signed_in]
    ended = cookie(installation, url, theirs.client_code)
    requests.post(f"{url}/sign-out", headers=ended, timeout=TIMEOUT_S, allow_redirects=False)
    answers = [ask(url, operation, headers, theirs.places) for headers in (*refused, ended)]
    assert len({str(as_bytes(answer)) for answer in answers}) == 1
    problem(answers[0], 401, "unauthorized")
    assert answers[0].headers["WWW-Authenticate"] == "Bearer"

    others = [each for each in SCOPES if each != operation.scope]
    limited = client_of(system, url, theirs.client_code, others)
    wrong = [ask(url, operation, bearer(limited.token), places) for places in (theirs.places, {})]
    assert problem(wrong[0], 403, "missing-scope")["scope"] == operation.scope
    assert as_bytes(wrong[0]) == as_bytes(wrong[1])


@pytest.mark.parametrize("operation", OF_ONE + OF_ALL, ids=str)
def test_the_client_itself_and_operators_for_it_are_served(
    installation: Installation, url: str, theirs: Tenant, operation: Operation
) -> None:
    token = api_tokens.new(installation.system.database, None, "a test", (OPERATOR, PAGE), 30, "a test").text
    own = [bearer(theirs.client.token), cookie(installation, url, theirs.client_code)]
    operators = [bearer(token), cookie(installation, url, None)]
    is_of_one = operation in OF_ONE
    for headers in own + operators:
        query = {"client": theirs.client_code} if headers in operators and not is_of_one else {}
        answer = ask(url, operation, headers, theirs.places, **query)
        assert answer.ok or answer.json()["code"] in EXPECTED, answer.text
    for headers in operators:
        if is_of_one:
            missing = ask(url, operation, headers)
            problem(missing, 404, "not-found")
            assert as_bytes(missing) == as_bytes(ask(url, operation, bearer(theirs.client.token)))
        else:
            for query in ({}, {"client": ""}, {"client": "../x"}, {"client": "x" * 33}):
                problem(ask(url, operation, headers, **query), 400, "malformed-request")
    if operation.method == "POST":
        for foreign in ({}, {"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
            for headers in (own[1], operators[1]):
                problem(ask(url, operation, {"Cookie": headers["Cookie"]} | foreign, theirs.places), 403, "foreign-page")


# a batch that has ended is neither cancelled nor resumed, nor approved; what is sent here corrects no row of it
EXPECTED = ("not-cancellable", "not-resumable", "not-awaiting-approval", "F_BATCH_COLUMN")


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if not each.scope], ids=str)
def test_what_anybody_may_see_tells_nothing_of_anybody(url: str, theirs: Tenant, operation: Operation) -> None:
    answers = [ask(url, operation, headers) for headers in ({}, bearer(theirs.client.token), bearer("x"))]
    assert len({answer.content for answer in answers}) == 1
    assert not re.search(MARK, "".join(answer.text for answer in answers))
