"""The schema's rules of processing: workers, locks, the landing, rates, breakers and refusals, and the installation."""

from __future__ import annotations

import pytest
from psycopg import errors

from orders_pipeline_tests.support.schema_rules import breaks, refused_by


@breaks("service_breakers_pkey", "service_breakers_open_has_probe")
def test_a_service_has_one_breaker_and_an_open_one_its_next_probe(harness):
    harness.run("INSERT INTO service_breakers (service) VALUES ('payment')")
    with refused_by("service_breakers_pkey"):
        harness.run("INSERT INTO service_breakers (service) VALUES ('payment')")
    with refused_by("service_breakers_open_has_probe"):
        harness.run("UPDATE service_breakers SET opened_at = now()")


@breaks("refusals_pkey", "refusals_batch_id_fkey", "acceptances_pkey", "acceptances_batch_id_fkey")
def test_an_item_is_counted_once_among_the_refused_and_a_kind_once_among_what_was_taken_of_a_batch(harness):
    harness.batch("b")
    refuse = (
        "INSERT INTO refusals (item_id, batch_id, service, kind, customer_code, code)"
        " VALUES ('6a1f7a3e-0000-4000-8000-000000000001', %s, 'payment', 'payment', 'C-1', 'malformed')"
    )
    take = "INSERT INTO acceptances VALUES ('payment', %s, now())"
    for insert, name in (refuse, "refusals"), (take, "acceptances"):
        with refused_by(f"{name}_batch_id_fkey"):
            harness.run(insert, "nowhere")
        harness.run(insert, "b")
        with refused_by(f"{name}_pkey"):
            harness.run(insert, "b")


@breaks("rate_tokens_pkey")
def test_a_token_exists_once(harness):
    harness.run("INSERT INTO rate_tokens VALUES ('s', 1, now())")
    with refused_by("rate_tokens_pkey"):
        harness.run("INSERT INTO rate_tokens VALUES ('s', 1, now())")


@breaks("landing_position_pkey")
def test_there_is_one_position_in_the_landing(harness):
    harness.run("INSERT INTO landing_position (after_key) VALUES ('a')")
    with refused_by("landing_position_pkey"):
        harness.run("INSERT INTO landing_position (after_key) VALUES ('b')")


@breaks("landing_files_pkey", "landing_files_batch_id_fkey")
def test_the_landing_ledger_holds_a_version_once_and_batches_that_exist(harness):
    insert = "INSERT INTO landing_files (key, version, size, batch_id) VALUES ('k', 'v', 1, %s)"
    with refused_by("landing_files_batch_id_fkey"):
        harness.run(insert, "nowhere")
    harness.run(insert, None)
    with refused_by("landing_files_pkey"):
        harness.run(insert, None)


@breaks("batch_locks_pkey", "landing_left_alone_pkey")
@pytest.mark.parametrize(
    ("insert", "name"),
    [
        ("INSERT INTO batch_locks (batch_id, lock_no) VALUES ('b', 1)", "batch_locks_pkey"),
        ("INSERT INTO landing_left_alone (key) VALUES ('acme/notes.txt')", "landing_left_alone_pkey"),
    ],
)
def test_a_batch_has_one_lock_and_a_file_is_left_alone_once(harness, insert, name):
    harness.run(insert)
    with refused_by(name):
        harness.run(insert)


@breaks("workers_batch_id_fkey", "workers_pkey")
def test_a_worker_works_on_a_batch_that_exists_under_a_number_never_used_again(harness):
    insert = "INSERT INTO workers (batch_id, lease_until) VALUES (%s, now()) RETURNING worker_id"
    with refused_by("workers_batch_id_fkey"):
        harness.run(insert, "nowhere")
    harness.batch("b")
    first = harness.value(insert, "b")
    harness.run("DELETE FROM workers")
    assert harness.value(insert, "b") > first
    with pytest.raises(errors.GeneratedAlways):
        harness.run("INSERT INTO workers (worker_id, batch_id, lease_until) VALUES (1, 'b', now())")
    with refused_by("workers_pkey"):
        harness.run(
            "INSERT INTO workers (worker_id, batch_id, lease_until) OVERRIDING SYSTEM VALUE"
            " SELECT worker_id, batch_id, lease_until FROM workers"
        )


@breaks("service_shares_pkey", "service_shares_worker_id_fkey", "service_shares_held_positive")
def test_a_worker_that_exists_has_one_share_of_the_calls(harness):
    insert = "INSERT INTO service_shares (worker_id, service, wanted, held) VALUES (%s, 'payment', 1, %s)"
    harness.batch("b")
    worker_id = harness.value("INSERT INTO workers (batch_id, lease_until) VALUES ('b', now()) RETURNING worker_id")
    with refused_by("service_shares_held_positive"):
        harness.run(insert, worker_id, -1)
    harness.run(insert, worker_id, 1)
    with refused_by("service_shares_pkey"):
        harness.run(insert, worker_id, 1)
    with refused_by("service_shares_worker_id_fkey"):
        harness.run(insert, worker_id + 1, 1)


@breaks("installation_pkey", "installation_one")
def test_a_database_is_of_one_installation(harness):
    for name, one in (("installation_pkey", True), ("installation_one", False)):
        with refused_by(name):
            harness.run("INSERT INTO installation (one) VALUES (%s)", one)


@breaks("installation_stopped_by_known", "installation_stopped_by_something", "installation_unread_for_a_reason")
def test_what_stopped_paying_is_known(harness):
    with refused_by("installation_stopped_by_known"):
        harness.run("UPDATE installation SET stopped_at = now(), stopped_by = 'somebody'")
    with refused_by("installation_stopped_by_something"):
        harness.run("UPDATE installation SET stopped_at = now()")
    with refused_by("installation_unread_for_a_reason"):
        harness.run("UPDATE installation SET unread_since = now()")


@breaks("installation_is_written")
def test_an_installation_is_written_by_the_transaction_that_says_so(harness):
    harness.run("UPDATE installation SET written_by = '1'")
    assert harness.value("SELECT CAST(xmin AS text) = CAST(CAST(written_by AS xid) AS text) FROM installation")
