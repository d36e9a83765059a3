"""The schema's rules of who may ask for what, and be told of it: profiles, keys, tokens, sessions, requests and webhooks."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from orders_pipeline_tests.support.ledgers import order
from orders_pipeline_tests.support.schema_rules import NOBODYS, breaks, refused_by


@breaks("known_profiles_pkey", "known_keys_pkey")
def test_a_profile_and_a_key_are_known_once(harness):
    for name, insert in (
        ("known_profiles_pkey", "INSERT INTO known_profiles VALUES ('acme', '{}')"),
        ("known_keys_pkey", "INSERT INTO known_keys VALUES ('k1', 'print', false)"),
    ):
        harness.run(insert)
        with refused_by(name):
            harness.run(insert)


@breaks("api_tokens_pkey", "api_tokens_secret_hashed", "api_tokens_scopes_known", "api_tokens_expire_in_time")
def test_a_token_is_hashed_expires_and_may_do_only_what_there_is(harness):
    insert = (
        "INSERT INTO api_tokens (token_id, client_code, name, scopes, secret_sha256, created_by, expires_at)"
        " VALUES ('t', 'acme', 'x', CAST(%s AS text[]), sha256(%s), 'me', now() + make_interval(days => %s))"
    )
    harness.run(insert, ["page"], b"", 400)
    with refused_by("api_tokens_pkey"):
        harness.run(insert, ["page"], b"", 400)
    for scopes, days, name in (
        (["batches:all"], 1, "api_tokens_scopes_known"),
        ([], 1, "api_tokens_scopes_known"),
        (["page"], 402, "api_tokens_expire_in_time"),
    ):
        with refused_by(name):
            harness.run(insert.replace("'t'", "'u'"), scopes, b"", days)
    with refused_by("api_tokens_secret_hashed"):
        harness.run("UPDATE api_tokens SET secret_sha256 = 'plain'")


@breaks("api_tokens_of_a_client_or_an_operator")
def test_a_token_is_of_a_client_or_an_operator(harness):
    insert = (
        "INSERT INTO api_tokens (token_id, client_code, name, scopes, secret_sha256, created_by, expires_at)"
        " VALUES (%s, %s, 'x', CAST(%s AS text[]), sha256(''), 'me', now())"
    )
    harness.run(insert, "t", None, ["operator", "page"])
    for client_code, scopes in ((None, ["page"]), ("acme", ["operator"])):
        with refused_by("api_tokens_of_a_client_or_an_operator"):
            harness.run(insert, "u", client_code, scopes)


@breaks(
    "api_sessions_pkey",
    "api_sessions_secret_hashed",
    "api_sessions_token_id_fkey",
    "api_sessions_scopes_some",
    "api_sessions_of_a_client_or_an_operator",
)
def test_a_session_is_hashed_and_of_somebody_who_may_do_something(harness):
    insert = (
        "INSERT INTO api_sessions (session_sha256, token_id, client_code, actor, scopes)"
        " VALUES (%s, %s, %s, 'somebody', CAST(%s AS text[]))"
    )
    harness.run(insert, b"0" * 32, None, "acme", ["page"])
    for session_sha256, token_id, client_code, scopes, name in (
        (b"0" * 32, None, "acme", ["page"], "api_sessions_pkey"),
        (b"plain", None, "acme", ["page"], "api_sessions_secret_hashed"),
        (b"1" * 32, "none", "acme", ["page"], "api_sessions_token_id_fkey"),
        (b"1" * 32, None, "acme", [], "api_sessions_scopes_some"),
        (b"1" * 32, None, None, ["page"], "api_sessions_of_a_client_or_an_operator"),
        (b"1" * 32, None, "acme", ["operator"], "api_sessions_of_a_client_or_an_operator"),
    ):
        with refused_by(name):
            harness.run(insert, session_sha256, token_id, client_code, scopes)


@breaks("api_requests_pkey", "api_requests_batch_id_fkey")
def test_a_request_made_one_batch(harness):
    harness.batch("b")
    insert = "INSERT INTO api_requests (client_code, key_sha256, fingerprint, batch_id) VALUES ('acme', sha256(''), '', %s)"
    harness.run(insert, "b")
    with refused_by("api_requests_pkey"):
        harness.run(insert, "b")
    with refused_by("api_requests_batch_id_fkey"):
        harness.run(insert.replace("acme", "shop"), "nowhere")


@breaks(
    "refund_requests_pkey",
    "refund_requests_batch_id_fkey",
    "refund_requests_requested_by_given",
    "refunds_request_id_fkey",
    "api_requests_request_id_fkey",
)
def test_a_request_for_refunds_is_somebodys_about_a_batch(harness):
    harness.batch("b")
    insert = "INSERT INTO refund_requests (request_id, batch_id, requested_by) VALUES (%s, %s, %s)"
    harness.run(insert, NOBODYS, "b", "operator")
    for name, *values in (
        ("refund_requests_pkey", NOBODYS, "b", "operator"),
        ("refund_requests_batch_id_fkey", str(uuid.uuid4()), "nowhere", "operator"),
        ("refund_requests_requested_by_given", str(uuid.uuid4()), "b", ""),
    ):
        with refused_by(name):
            harness.run(insert, *values)
    with refused_by("api_requests_request_id_fkey"):
        harness.run(
            "INSERT INTO api_requests (client_code, key_sha256, fingerprint, batch_id, request_id)"
            " VALUES ('acme', sha256(''), '', 'b', gen_random_uuid())"
        )
    (order_id,) = harness.orders(order(1), batch_id="b")
    harness.batch_id = "b"
    payment = harness.payment([order_id], 1000, status="succeeded", service_payment_id="p", settled_at=datetime.now(UTC))
    with refused_by("refunds_request_id_fkey"), harness.connect() as connection:
        connection.execute(
            "INSERT INTO refunds (refund_id, payment_id, batch_id, amount, requested_by, reason, request_id)"
            " VALUES (%(id)s, %(payment)s, 'b', 1000, 'operator', 'returned', gen_random_uuid())",
            {"id": NOBODYS, "payment": payment},
        )


@breaks(
    "webhook_deliveries_pkey",
    "webhook_deliveries_batch_id_fkey",
    "webhook_deliveries_request_id_fkey",
    "webhook_deliveries_status_known",
    "webhook_deliveries_settled_has_time",
    "webhook_deliveries_settled_is_unleased",
    "webhooks_off_pkey",
    "webhooks_follow_batches",
    "webhooks_follow_refunds",
)
def test_a_webhook_is_about_something_and_settled_or_not(harness):
    harness.batch("b")
    values = {"delivery_id": NOBODYS, "client_code": "acme", "type": "batch.completed", "batch_id": "b", "status_then": "x"}

    def insert(**changes: object) -> None:
        row = values | changes
        harness.run(
            f"INSERT INTO webhook_deliveries ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})", *row.values()
        )

    insert()
    own, now = str(uuid.uuid4()), datetime.now(UTC)
    for name, changes in (
        ("webhook_deliveries_pkey", {}),
        ("webhook_deliveries_batch_id_fkey", {"delivery_id": own, "batch_id": "nowhere"}),
        ("webhook_deliveries_request_id_fkey", {"delivery_id": own, "request_id": NOBODYS}),
        ("webhook_deliveries_status_known", {"delivery_id": own, "status": "lost", "settled_at": now}),
        ("webhook_deliveries_settled_has_time", {"delivery_id": own, "status": "delivered"}),
        (
            "webhook_deliveries_settled_is_unleased",
            {"delivery_id": own, "status": "failed", "settled_at": now, "leased_until": now},
        ),
    ):
        with refused_by(name):
            insert(**changes)
    off = "INSERT INTO webhooks_off (client_code, webhook_url) VALUES ('acme', 'https://example.com')"
    harness.run(off)
    with refused_by("webhooks_off_pkey"):
        harness.run(off)
    for name in ("webhooks_follow_batches", "webhooks_follow_refunds"):  # what they plan: test_webhooks.py
        assert harness.value("SELECT count(*) FROM pg_trigger WHERE tgname = %s", name) == 1
