"""The batch API over HTTP: a file is sent, its batch is followed and read, and what is not one's own is not there."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import dagster as dg
import openpyxl
import pytest
import requests

from orders_pipeline.clients.api_tokens import READ, READ_REJECTED
from orders_pipeline.orchestration.assets import intake
from orders_pipeline.orchestration.partitions import batch_partitions
from orders_pipeline_tests.support.api import Client, client_of, csv_of, described, json_of, ndjson_of, problem
from orders_pipeline_tests.support.factories import order_row, order_rows
from orders_pipeline_tests.support.installation import Installation

PERSONAL = "見本商店"


def sent(client: Client, body: bytes, **query: str) -> str:
    answer = client.post("batches", body, **query)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["batch_id"])


def bad_and_good() -> list[dict[str, str]]:
    rows = order_rows(5, notify_channel="email")
    return [
        *rows,
        order_row(client_order_ref="BAD-1", amount="1x"),
        order_row(client_order_ref="BAD-2", email="none", notify_channel="email"),
    ]


def test_a_file_is_sent_followed_to_its_end_and_read(installation: Installation, acme: Client) -> None:
    body = csv_of(*bad_and_good())
    answer = acme.post("batches", body, name="注文-001.csv", row_count="7")
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1"), answer.text
    batch = answer.json()
    batch_id, own = batch["batch_id"], answer.headers["Location"]
    assert own == f"/v1/batches/{batch_id}" == batch["links"]["self"]
    assert (batch["name"], batch["via"], batch["status"], batch["finished"]) == ("注文-001.csv", "api", "received", False)
    assert (batch["sha256"], batch["bytes"]) == (hashlib.sha256(body).hexdigest(), len(body))
    assert batch["progress"]["phase"] == "check"
    seen = acme.get(own)
    assert (seen.json(), seen.headers["ETag"], seen.headers["Retry-After"]) == (batch, answer.headers["ETag"], "2")
    same = acme.get(own, headers={"If-None-Match": seen.headers["ETag"]})
    assert (same.status_code, same.content) == (304, b"")

    installation.work_off(batch_id)
    changed = acme.get(own, headers={"If-None-Match": seen.headers["ETag"]})
    assert changed.status_code == 200
    assert "Retry-After" not in changed.headers
    batch = changed.json()
    assert (batch["status"], batch["finished"], batch["progress"]["phase"]) == ("completed_with_errors", True, "finished")
    assert batch["rows"] == {"total": 7, "accepted": 5, "rejected": 2, "blank": 0, "skipped": 0}
    assert batch["orders"]["paid"] == 5
    assert batch["amount_jpy"]["paid"] == batch["amount_jpy"]["accepted"] == 5000
    assert batch["rejections"] == {"R_AMOUNT_FORMAT": 1, "R_EMAIL": 1}
    assert batch["corrections"] == {"rows_open": 2, "batches": 1}
    assert {phase["state"] for phase in batch["progress"]["phases"]} == {"done"}
    assert set(batch["links"]["files"]) == {"original", "rejected.csv", "errors.csv", "result.json"}
    for name, link in batch["links"]["files"].items():
        file = acme.get(link)
        assert (file.status_code, file.headers["Content-Disposition"][:11]) == (200, "attachment;")
        assert file.content == body if name == "original" else file.content
        assert str(installation.home) not in file.text
    rejected = acme.get(batch["links"]["files"]["rejected.csv"]).content
    assert sent(acme, rejected) != batch_id
    assert acme.get(own).json()["corrections"]["batches"] == 1  # of the correction nothing is staged yet

    orders = acme.get(batch["links"]["orders"]).json()
    assert [order["row"] for order in orders["items"]] == [1, 2, 3, 4, 5]
    assert {order["status"] for order in orders["items"]} == {"paid"}
    payments = acme.get(batch["links"]["payments"]).json()["items"]
    assert {order["payment_id"] for order in orders["items"]} == {payment["payment_id"] for payment in payments}
    notices = acme.get(batch["links"]["notifications"]).json()["items"]
    assert [notice["status"] for notice in notices] == ["sent"]
    shown = {"Batch": batch, "Order": orders["items"][0], "Payment": payments[0], "Notification": notices[0]}
    shown |= {"BatchInList": acme.get("batches").json()["items"][0], "Profile": acme.get("profile").json()}
    assert {name: set(each) for name, each in shown.items()} == {name: described(name) for name in shown}
    texts = [json.dumps(each, ensure_ascii=False) for each in (batch, orders, payments, notices)]
    assert not [text for text in texts if PERSONAL in text or "example.com" in text]
    audited = installation.rows(
        "SELECT DISTINCT actor FROM audit_events WHERE batch_id = %s AND entity IN ('batches', 'rejected.csv', 'original')"
        " AND action IN ('insert', 'download')",
        batch_id,
    )
    client_code = acme.get("profile").json()["client_code"]
    assert [actor.startswith(f"{client_code}/") for (actor,) in audited] == [True]


def test_what_is_wrong_is_listed_a_page_at_a_time_and_values_only_to_who_may_read_them(
    installation: Installation, acme: Client, url: str
) -> None:
    batch_id = sent(acme, csv_of(*bad_and_good()))
    installation.work_off(batch_id)
    path = f"batches/{batch_id}/rejections"
    whole = acme.get(path).json()
    assert [(each["row"], each["column"], each["code"]) for each in whole["items"]] == [
        (6, "amount", "R_AMOUNT_FORMAT"),
        (7, "email", "R_EMAIL"),
    ]
    assert whole["next"] is None
    assert "value" not in whole["items"][0]
    first = acme.get(path, limit="1").json()
    second = acme.get(path, limit="1", cursor=first["next"]).json()
    assert (first["items"] + second["items"], second["next"]) == (whole["items"], None)
    assert [each["row"] for each in acme.get(path, code="R_EMAIL").json()["items"]] == [7]
    assert acme.get(path, column="nothing").json() == {"items": [], "next": None}
    before = installation.rows("SELECT count(*) FROM audit_events WHERE category = 'phi_access' AND action = 'read'")
    values = acme.get(path, values="true").json()["items"]
    assert [each["value"] for each in values] == ["1x", "none"]
    assert set(values[0]) == described("Rejection")
    after = installation.rows("SELECT count(*) FROM audit_events WHERE category = 'phi_access' AND action = 'read'")
    assert after[0][0] == before[0][0] + 1
    client_code = acme.get("profile").json()["client_code"]
    reader = client_of(installation.system, url, client_code, [READ])
    assert problem(reader.get(path, values="true"), 403, "missing-scope")["scope"] == READ_REJECTED
    problem(acme.get(path, limit="1", code="R_EMAIL", cursor=first["next"]), 404, "not-found")  # a cursor is of its filter
    problem(
        client_of(installation.system, url, "shop").get(f"batches/{batch_id}/orders", cursor=first["next"]), 404, "not-found"
    )


def test_rejected_rows_are_there_to_be_corrected_before_anything_is_paid_and_renewed_at_the_end(
    installation: Installation, impatient: None, acme: Client
) -> None:
    batch_id = sent(acme, csv_of(*bad_and_good()))
    own = f"batches/{batch_id}"
    problem(acme.get(f"{own}/files/rejected.csv"), 404, "no-such-file")
    installation.instance.add_dynamic_partitions(str(batch_partitions.name), [batch_id])
    loaded = dg.materialize(
        [intake.staged_orders, intake.validated_orders, intake.orders],
        instance=installation.instance,
        partition_key=batch_id,
        resources={"system": installation.system},
    )
    assert loaded.success
    assert acme.get(own).json()["status"] == "loaded"
    rejected, errors = (acme.get(f"{own}/files/{name}") for name in ("rejected.csv", "errors.csv"))
    assert (rejected.status_code, errors.status_code) == (200, 200)
    assert rejected.text.count(batch_id) == 2
    assert "R_EMAIL" in errors.text
    assert [each["row"] for each in acme.get(f"{own}/rejections").json()["items"]] == [6, 7]

    installation.sandbox.change(faults={"unavailable": 1, "retry_after": "0"})
    assert (installation.run(batch_id) or "").startswith("E_PAYMENT_UNAVAILABLE")
    batch = acme.get(own).json()
    assert (batch["status"], batch["waiting_for"]["service"]) == ("paused", "payment")
    assert set(batch["links"]["files"]) == {"original", "rejected.csv", "errors.csv"}
    assert acme.get(batch["links"]["files"]["rejected.csv"]).content == rejected.content

    installation.sandbox.change(faults="decline_order=1")
    assert installation.run(batch_id) is None
    assert acme.get(own).json()["orders"]["declined"] == 5
    assert "P_DECLINED" not in errors.text
    assert acme.get(f"{own}/files/errors.csv").text.count("P_DECLINED") == 5
    assert acme.get(f"{own}/files/rejected.csv").content == rejected.content


def test_a_corrected_file_becomes_a_batch_below_the_one_that_it_corrects(installation: Installation, acme: Client) -> None:
    batch_id, other = sent(acme, csv_of(*bad_and_good())), sent(acme, csv_of(order_row(client_order_ref="O-1", amount="x")))
    for each in (batch_id, other):
        installation.work_off(each)
    path = f"batches/{batch_id}/corrections"
    corrected = acme.get(f"batches/{batch_id}/files/rejected.csv").content.replace(b"1x", b"700")
    checked = acme.post(path, corrected, key=None, dry_run="true")
    assert (checked.status_code, checked.json()["rows"]["accepted"], checked.json()["errors_total"]) == (200, 1, 1)
    theirs = acme.get(f"batches/{other}/files/rejected.csv").content
    for body in (theirs, csv_of(order_row(client_order_ref="N-1")), b"", b"\0"):
        problem(acme.post(path, body), 422, "not-a-correction")
        problem(acme.post(path, body, key=None, dry_run="true"), 422, "not-a-correction")
    problem(acme.post(path, corrected, key=None), 400, "idempotency-key-missing")
    assert len(acme.get("batches").json()["items"]) == 2

    answers = [acme.post(path, corrected, key="fix", name="fixed.csv") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert "Idempotent-Replayed" in answers[1].headers
    (new,) = {answer.json()["batch_id"] for answer in answers}
    assert {(answer.json()["corrects"], answer.json()["import_group"]) for answer in answers} == {(batch_id, batch_id)}
    problem(acme.post("batches", corrected, key="fix", name="fixed.csv"), 422, "idempotency-key-reused")
    installation.work_off(new)
    batch = acme.get(f"batches/{new}").json()
    assert (batch["corrects"], batch["import_group"], batch["orders"]["paid"]) == (batch_id, batch_id, 1)
    assert acme.get(f"batches/{batch_id}").json()["corrections"] == {"rows_open": 1, "batches": 2}


def test_orders_payments_and_batches_are_read_a_page_at_a_time(installation: Installation, acme: Client) -> None:
    first = sent(acme, csv_of(*[row | {"customer_code": f"C-{n}"} for n, row in enumerate(order_rows(5))]), name="a.csv")
    installation.work_off(first)
    second = sent(acme, csv_of(order_row(client_order_ref="B-1")), name="b.csv")
    for path, key in (("orders", "row"), ("payments", "payment_id")):
        whole = [each[key] for each in acme.get(f"batches/{first}/{path}").json()["items"]]
        page = acme.get(f"batches/{first}/{path}", limit="3").json()
        rest = acme.get(f"batches/{first}/{path}", limit="3", cursor=page["next"]).json()
        assert [each[key] for each in (*page["items"], *rest["items"])] == whole
        assert (len(whole), rest["next"]) == (5, None)
        assert acme.get(f"batches/{first}/{path}", status="nothing").json()["items"] == []
    page = acme.get("batches", limit="1").json()
    assert [each["batch_id"] for each in page["items"]] == [second]
    assert [each["batch_id"] for each in acme.get("batches", limit="1", cursor=page["next"]).json()["items"]] == [first]
    for query in ({"name": "a.csv"}, {"status": "completed"}, {"sha256": page["items"][0]["sha256"]}):
        found = [each["batch_id"] for each in acme.get("batches", **query).json()["items"]]
        assert found == [second if "sha256" in query else first]
    moment = page["items"][0]["received_at"]
    assert acme.get("batches", to="2020-01-01T00:00:00Z").json()["items"] == []
    assert len(acme.get("batches", **{"from": moment}).json()["items"]) >= 1


def test_the_same_request_makes_one_batch_and_answers_with_it_as_it_is_now(installation: Installation, acme: Client) -> None:
    body, key = csv_of(order_row()), "a key"
    first = acme.post("batches", body, key=key)
    assert "Idempotent-Replayed" not in first.headers
    batch_id = first.json()["batch_id"]
    installation.work_off(batch_id)
    again = acme.post("batches", body, key=f'"{key}"')
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert (again.json()["batch_id"], again.json()["status"]) == (batch_id, "completed")
    problem(acme.post("batches", body + b"\r\n", key=key), 422, "idempotency-key-reused")
    problem(acme.post("batches", body, key=key, name="other.csv"), 422, "idempotency-key-reused")
    duplicate = acme.post("batches", body)
    assert problem(duplicate, 409, "duplicate-file")["batch_id"] == batch_id
    assert duplicate.headers["Location"] == f"/v1/batches/{batch_id}"
    assert [each["batch_id"] for each in acme.get("batches", idempotency_key=key).json()["items"]] == [batch_id]
    assert acme.get("batches", idempotency_key="another").json()["items"] == []
    repeated = acme.post("batches", body, again="true")
    assert repeated.status_code == 202
    assert repeated.json()["batch_id"] != batch_id
    problem(acme.post("batches", body, key=None), 400, "idempotency-key-missing")
    problem(acme.post("batches", body, key="x" * 256), 400, "idempotency-key-missing")


def test_many_requests_at_once_with_one_key_make_one_batch(installation: Installation, acme: Client) -> None:
    body, answers = csv_of(*order_rows(50)), []

    def send() -> None:
        while True:
            answer = acme.post("batches", body, key="one")
            if answer.status_code not in (409, 503) or answer.json()["type"] == "/problems/duplicate-file":
                answers.append(answer)
                return
            time.sleep(0.5)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers]
    assert len({answer.json()["batch_id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert len(acme.get("batches").json()["items"]) == 1


def test_a_key_that_another_process_is_writing_is_in_progress(installation: Installation, acme: Client) -> None:
    other = csv_of(order_row(client_order_ref="OTHER"))
    first = sent(acme, other)
    client_code = acme.get("profile").json()["client_code"]
    with installation.system.database.begin() as transaction:
        own = {"client_code": client_code, "key_sha256": hashlib.sha256(b"held").digest()}
        transaction.execute("insert_api_request", fingerprint=b"x", batch_id=first, request_id=None, **own)
        answer = acme.post("batches", csv_of(order_row()), key="held")
    assert problem(answer, 409, "request-in-progress")["retryable"]
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("media_type", "make"),
    [("application/json", json_of), ("application/x-ndjson", ndjson_of)],
    ids=["json", "ndjson"],
)
def test_orders_in_json_are_taken_like_those_of_a_file(
    installation: Installation, acme: Client, media_type: str, make: Callable[..., bytes]
) -> None:
    rows = [row | {"amount": 1000, "note": None, "unheard_of": "x"} for row in order_rows(3, customer_code="0007")]
    rows.append(order_row(client_order_ref="BAD", amount="many"))
    body = make(*rows)
    answer = acme.post("batches", body, media_type=media_type)
    assert answer.status_code == 202, answer.text
    batch_id = answer.json()["batch_id"]
    installation.work_off(batch_id)
    batch = acme.get(f"batches/{batch_id}").json()
    assert (batch["rows"]["accepted"], batch["rejections"], batch["encoding"]) == (3, {"R_AMOUNT_FORMAT": 1}, "json")
    assert batch["warnings"] == ["W_UNKNOWN_COLUMN"]
    orders = acme.get(f"batches/{batch_id}/orders").json()["items"]
    assert [(each["row"], each["customer_code"]) for each in orders] == [(1, "0007"), (2, "0007"), (3, "0007")]
    assert acme.get(f"batches/{batch_id}/files/original").content == body
    rejected = acme.get(f"batches/{batch_id}/files/rejected.csv").content
    corrected = sent(acme, rejected.replace(b"many", b"700"), name="fixed.csv")
    installation.work_off(corrected)
    assert acme.get(f"batches/{corrected}").json()["corrects"] == batch_id
    assert acme.get(f"batches/{batch_id}").json()["corrections"] == {"rows_open": 0, "batches": 2}


def test_a_workbook_is_taken(installation: Installation, acme: Client) -> None:
    media_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    rows, workbook, content = order_rows(2), openpyxl.Workbook(), io.BytesIO()
    for cells in ([*rows[0]], *([*row.values()] for row in rows)):
        workbook.active.append(cells)
    workbook.save(content)
    answer = acme.post("batches", content.getvalue(), media_type=media_type)
    assert (answer.status_code, answer.json()["name"]) == (202, "orders.xlsx")
    installation.work_off(answer.json()["batch_id"])
    assert acme.get(f"batches/{answer.json()['batch_id']}").json()["orders"]["paid"] == 2


GOOD = '{"client_order_ref":"A-1"}'


@pytest.mark.parametrize(
    ("body", "row"),
    [
        ("", None),
        ("[]", None),
        ("{}", None),
        ('{"orders":{}}', None),
        ('{"orders":[],"more":1}', None),
        ("[1]", 1),
        (f"[{GOOD},[]]", 2),
        (f'[{GOOD},{{"a":[1]}}]', 2),
        ('[{"a":{"b":1}}]', 1),
        ('[{"amount":1.5}]', 1),
        ('[{"amount":1e3}]', 1),
        ('[{"amount":01}]', 1),
        ('[{"amount":true}]', 1),
        ('[{"amount":NaN}]', 1),
        ('[{"amount":1,"amount":2}]', 1),
        ('[{"a":"\\ud800"}]', 1),
        ('[{"a":"x"}] x', None),
        ('[{"a":"x"}', None),
        ('[{"a":"x",}]', 1),
        ("[" * 100_000, 1),
        ('[{"a":' + '{"a":' * 100_000, 1),
    ],
)
def test_json_that_is_no_list_of_flat_orders_is_a_problem_at_the_door(acme: Client, body: str, row: int | None) -> None:
    found = problem(acme.post("batches", body.encode(), media_type="application/json"), 400, "malformed-json")
    (error,) = found["errors"]
    if row is not None:
        assert (error["row"], error["pointer"]) == (row, f"#/orders/{row - 1}")
    assert acme.get("batches").json()["items"] == []


def test_too_much_is_a_problem_at_the_door(installation: Installation, acme: Client, url: str) -> None:
    many = json_of(*[{"client_order_ref": f"A-{number}"} for number in range(10_001)])
    assert problem(acme.post("batches", many, media_type="application/json"), 413, "too-many-rows")["limit"] == 10_000
    most = acme.get("profile").json()["max_bytes"]
    place = urlsplit(url)
    for framing in (f"Content-Length: {most + 1}\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"):
        with socket.create_connection((place.hostname, place.port)) as connection:
            head = "POST /v1/batches?name=a.csv HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\n"
            connection.sendall(f"{head}Authorization: Bearer {acme.token}\r\n{framing}".encode())
            if "chunked" in framing:
                piece = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
                for _ in range(most // (1 << 20) + 1):
                    connection.sendall(piece)
            connection.settimeout(30)
            answer = ""
            while not answer.endswith("}"):
                answer += connection.recv(65536).decode()
        assert answer.startswith("HTTP/1.1 413 "), answer
        assert '"/problems/too-large"' in answer
        assert f'"limit": {most}' in answer


@pytest.mark.parametrize(
    ("status", "slug", "headers", "query"),
    [
        (400, "digest-mismatch", {"Content-Digest": "sha-256=:AAAA:"}, {}),
        (400, "malformed-request", {}, {"name": "a" * 256 + ".csv"}),
        (400, "malformed-request", {}, {"name": ".hidden.csv"}),
        (400, "malformed-request", {}, {"row_count": "many"}),
        (400, "malformed-request", {}, {"again": "yes"}),
        (400, "malformed-request", {}, {"client_code": "shop"}),
        (415, "unsupported-media-type", {"Content-Type": "application/json"}, {"name": "a.csv"}),
        (415, "unsupported-media-type", {"Content-Type": "application/octet-stream"}, {}),
    ],
)
def test_what_a_request_says_wrongly_is_a_problem(
    acme: Client, status: int, slug: str, headers: dict[str, str], query: dict[str, str]
) -> None:
    answer = acme.post("batches", csv_of(order_row()), headers=headers, **query)
    problem(answer, status, slug)
    assert ("Accept-Post" in answer.headers) == (status == 415)
    assert acme.get("batches").json()["items"] == []


def test_a_digest_that_is_right_and_a_media_type_that_says_nothing_are_taken(acme: Client) -> None:
    body = csv_of(order_row())
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    headers = {"Content-Digest": f"sha-256=:{digest}:", "Content-Type": "application/vnd.ms-excel"}
    assert acme.post("batches", body, headers=headers, name="テ\u3099.csv").json()["name"] == "デ.csv"


def test_a_file_is_checked_and_nothing_is_kept(installation: Installation, acme: Client) -> None:
    found = acme.post("checks", csv_of(*bad_and_good()), key=None).json()
    assert (found["dry_run"], found["rows"]["accepted"], found["rows"]["rejected"]) == (True, 5, 2)
    assert (found["payments"]["planned"], found["errors_total"]) == (1, 2)
    assert [(each["row"], each["code"]) for each in found["errors"]] == [(6, "R_AMOUNT_FORMAT"), (7, "R_EMAIL")]
    assert PERSONAL not in json.dumps(found, ensure_ascii=False)
    assert set(found) == described("Check") - {"error"}
    assert acme.get("batches").json()["items"] == []
    batch_id = sent(acme, csv_of(*bad_and_good()))
    assert problem(acme.post("checks", csv_of(*bad_and_good()), key=None), 409, "duplicate-file")["batch_id"] == batch_id


def test_what_there_is_to_look_up(installation: Installation, acme: Client, url: str) -> None:
    profile = acme.get("profile").json()
    assert (profile["max_rows"], profile["max_bytes"]) == (10_000, 20 << 20)
    columns = {each["name"]: each for each in profile["columns"]}
    assert columns["amount"]["required"]
    assert "金額" in columns["amount"]["headers"]
    codes = {each["code"]: each for each in acme.get("codes").json()["items"]}
    assert set(codes["R_EMAIL"]) == {"code", "en", "ja"}
    assert set(acme.get("codes", lang="ja").json()["items"][0]) == {"code", "ja"}
    assert acme.get("template.csv").content.startswith(b"\xef\xbb\xbfclient_order_ref,")
    assert requests.get(f"{url}/healthz", timeout=10).text == "ok\n"
    ready = requests.get(f"{url}/readyz", timeout=10)
    assert (ready.status_code, ready.json()["checks"]) == (503, {"database": True, "storage": True, "daemon": False})
    problem(acme.get("nothing"), 404, "not-found")


def test_problems_are_in_the_language_that_is_asked_for(acme: Client) -> None:
    japanese = "見つかりません。"
    for asked, title in (("en-GB,ja;q=0.5", "There is nothing here."), ("ja", japanese), ("fr", japanese)):
        answer = acme.get("batches/20200101-000000000000", headers={"Accept-Language": asked})
        assert answer.json()["title"] == title


def test_what_monitoring_asks_is_answered_in_english_unless_it_wants_japanese(url: str) -> None:
    for asked, language in ((None, "en"), ("*", "en"), ("ja", "ja"), ("ja;q=0.1,fr", "ja")):
        for answer in (
            requests.get(f"{url}/metrics", headers={"Accept-Language": asked}, timeout=10),
            requests.post(f"{url}/healthz", headers={"Accept-Language": asked}, timeout=10),
            requests.post(f"{url}/readyz", headers={"Accept-Language": asked}, timeout=10),
        ):
            assert (answer.status_code // 100, answer.headers["Content-Language"]) == (4, language)
    assert requests.get(f"{url}/v1/batches", timeout=10).headers["Content-Language"] == "ja"


def test_requests_are_logged_by_their_route_and_errors_by_a_reference(
    installation: Installation, acme: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "planted", "/home/planted")

    with caplog.at_level(logging.INFO, logger="orders_pipeline.web"):
        acme.get("batches", name="planted.csv")
        acme.get("planted")
        monkeypatch.setattr("orders_pipeline.web.reference.limits_of", fail)
        answer = acme.get("profile")
    found = problem(answer, 500, "internal")
    assert found["retryable"]
    assert "planted" not in answer.text
    assert "planted" not in caplog.text
    assert acme.token not in caplog.text
    assert "GET /v1/batches 200" in caplog.text
    assert "GET /v1/profile 500 " in caplog.text
    assert answer.headers["Request-Id"] in caplog.text


def test_who_asks_too_often_is_told_when_to_come_back(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert acme.get("profile").headers["RateLimit-Policy"] == '"reads";q=1200;w=60'
    for _ in range(60):
        answer = acme.post("checks", b"", key=None)
        assert answer.status_code != 429
    answer = acme.post("checks", b"", key=None)
    problem(answer, 429, "rate-limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert acme.get("profile").status_code == 200
