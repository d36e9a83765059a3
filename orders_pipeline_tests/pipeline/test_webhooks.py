"""Webhooks from a batch to a client's server: signed, tried again, and led nowhere that is nobody's to call."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from standardwebhooks import Webhook

from orders_pipeline.audit.recording import sign_in
from orders_pipeline.cli import main
from orders_pipeline.clients.profiles import Clients, Profile, read_clients
from orders_pipeline.sandbox.certificates import Authority
from orders_pipeline.services import http_connections
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.settlement.refunds.plan import read_plan
from orders_pipeline.system.composition import System, following_files
from orders_pipeline.upkeep.webhooks import overview, sending
from orders_pipeline.upkeep.webhooks.sending import NO_ANSWER, NOT_REACHED, REFUSED, Outcome, Sender, deliver
from orders_pipeline_tests.support.api import described
from orders_pipeline_tests.support.commands import COMMAND, free_port, wait_for
from orders_pipeline_tests.support.factories import order_rows
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.receiver import Receiver, crawling, endless, receiving, status
from orders_pipeline_tests.support.tls_server import https_service

DOCUMENT = yaml.safe_load((resources.files("orders_pipeline.web") / "openapi.yaml").read_text("utf-8"))
SECRET, OLD = (f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in (7, 8))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def client() -> str:
    return f"shop-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def system(installation: Installation, receiver: Receiver, client: str, tmp_path: Path) -> Iterator[System]:
    """The installation's system as the operator has set it: a client with a webhook to the receiver."""
    yield configured(installation, tmp_path, client, receiver.url)
    installation.rows("DELETE FROM webhook_deliveries")
    installation.rows("DELETE FROM webhooks_off")


def configured(installation: Installation, folder: Path, client: str, url: str, *, more: str = "") -> System:
    path = folder / "clients.toml"
    path.write_text(f'[{client}]\nwebhook_url = "{url}"\nwebhook_secret = "{SECRET}"\n{more}')
    settings = installation.system.settings.model_copy(update={"clients_file": path, "webhook_private_addresses": True})
    system = replace(installation.system, settings=settings, clients=read_clients(path))
    sign_in(system.database, system.clients, system.cipher)
    return following_files(system)


def environment(installation: Installation, system: System, **more: str) -> dict[str, str]:
    own = {"ORDERS_CLIENTS_FILE": str(system.settings.clients_file), "ORDERS_WEBHOOK_PRIVATE_ADDRESSES": "true"}
    return installation.environment(**own, **more)


def paid(installation: Installation, client: str, folder: Path) -> str:
    """Have a file of the client paid, and return its batch."""
    made = OrderFile("utf-8")
    for row in order_rows(2):
        made.add(row)
    batch_id = installation.receive(made.write(folder / "orders.csv"), client)
    installation.work_off(batch_id)
    return batch_id


def put(installation: Installation, client: str, number: int = 1) -> list[str]:
    """Plan deliveries about a batch that is somewhere, and return their ids."""
    batch_id = f"20260101-{uuid.uuid4().hex[:12]}"
    installation.rows(
        "INSERT INTO batches (batch_id, client_code, csv_source, bulk_import_group, status, finished_at, rows_total,"
        " rows_accepted, rows_rejected, rows_blank, amount_accepted)"
        " VALUES (%s, %s, 'x.csv', %s, 'rejected', now(), 0, 0, 0, 0, 0)",
        *(batch_id, client, batch_id),
    )
    rows = installation.rows(
        "INSERT INTO webhook_deliveries (client_code, type, batch_id, status_then)"
        " SELECT %s, 'batch.rejected', %s, 'rejected' FROM generate_series(1, %s) RETURNING delivery_id",
        *(client, batch_id, number),
    )
    return [str(delivery_id) for (delivery_id,) in rows]


def states(installation: Installation, client: str) -> list[tuple[str, int, str | None]]:
    return installation.rows(
        "SELECT status, attempts, outcome_code FROM webhook_deliveries WHERE client_code = %s ORDER BY created_at, status",
        client,
    )


def due_now(installation: Installation) -> None:
    installation.rows("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'planned'")


def test_a_client_is_told_of_its_batch_and_refund_by_messages_that_it_can_verify(
    installation: Installation, system: System, receiver: Receiver, client: str, tmp_path: Path
) -> None:
    batch_id = paid(installation, client, tmp_path)
    Sender(system).run_once()
    plan = read_plan(system.database, batch_id)
    refunding.carry_out(system, plan, requested_by="operator", reason="returned")
    Sender(system).run_once()
    Sender(system).run_once()
    said = [Webhook(SECRET).verify(body, headers) for headers, body in receiver.got]
    ((refund_id,),) = installation.rows("SELECT request_id FROM refund_requests WHERE batch_id = %s", batch_id)
    assert {(each["type"], each["data"]["status"]) for each in said[:2]} == {
        ("batch.checked", "loaded"),
        ("batch.completed", "completed"),
    }
    assert said[2]["data"] == {"batch_id": batch_id, "refund_id": str(refund_id), "status": "completed"}
    assert len(said) == 3
    assert set(said[0]) == {"type", "timestamp", "data"} == described("Event")
    assert set(DOCUMENT["webhooks"]) >= {each["type"] for each in said}
    assert set(said[0]["data"]) == {"batch_id", "status"}
    assert {headers["content-type"] for headers, _ in receiver.got} == {"application/json"}
    assert [state for state, _, _ in states(installation, client)] == ["delivered"] * 3
    assert sorted(receiver.ids) == sorted(
        each["delivery_id"] for each in overview.listed(system.database, client_code=client)
    )


def test_while_a_secret_is_replaced_both_verify(
    installation: Installation, system: System, receiver: Receiver, client: str, tmp_path: Path
) -> None:
    system = configured(installation, tmp_path, client, receiver.url, more=f'webhook_previous_secret = "{OLD}"\n')
    put(installation, client)
    Sender(system).run_once()
    ((headers, body),) = receiver.got
    for secret in (SECRET, OLD):
        Webhook(secret).verify(body, headers)


def test_what_fails_is_sent_again_under_the_same_id_until_it_is_given_up(
    installation: Installation, system: System, receiver: Receiver, client: str
) -> None:
    (delivery_id,) = put(installation, client)
    receiver.answers = [500, status(301, Location="/elsewhere"), status(429, Retry_After="60"), 404] + [503] * 6
    for attempt in range(1, 11):
        Sender(system).run_once()
        ((state, attempts, _),) = states(installation, client)
        assert (state, attempts) == ("failed" if attempt == 10 else "planned", attempt)
        due_now(installation)
    Sender(system).run_once()
    assert receiver.ids == [delivery_id] * 10
    assert len({body for _, body in receiver.got}) == 1
    (trouble,) = [each for each in _troubles(system) if each["client_code"] == client]
    assert (trouble["failed"], trouble["code"]) == (1, "http-503")


def _troubles(system: System) -> list[dict[str, Any]]:
    with system.database.begin() as transaction:
        return overview.troubles(transaction)


def test_the_next_try_is_as_far_away_as_the_schedule_says(
    installation: Installation, system: System, receiver: Receiver, client: str
) -> None:
    put(installation, client)
    receiver.answers = [500, 500]
    for least, most in ((5, 6), (300, 360)):
        Sender(system).run_once()
        ((wait_s,),) = installation.rows(
            "SELECT extract(epoch FROM next_attempt_at - now()) FROM webhook_deliveries WHERE client_code = %s", client
        )
        assert least - 1 <= wait_s <= most
        due_now(installation)


def test_a_server_that_wants_no_more_is_asked_no_more_until_an_operator_says_so(
    installation: Installation,
    system: System,
    receiver: Receiver,
    client: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment(installation, system).items():
        monkeypatch.setenv(name, value)
    first, second, third = put(installation, client, 3)
    receiver.answers = [410, 410]
    Sender(system).run_once()
    assert len(receiver.got) <= 2
    assert {(state, code) for state, _, code in states(installation, client)} == {("failed", "gone")}
    paid(installation, client, tmp_path)
    assert len(states(installation, client)) == 3  # nothing more is planned
    shown = CliRunner().invoke(main, ["status"])
    assert f"webhooks of {client}: its server wants no more since" in shown.output
    before = len(receiver.got)
    retried = CliRunner().invoke(main, ["webhooks", "retry", "--client", client, "--json"])
    assert retried.exit_code == 0, retried.output
    assert sorted(each["delivery_id"] for each in json.loads(retried.stdout)["webhooks"]) == sorted([first, second, third])
    assert len(receiver.got) == before + 3
    assert _troubles(system) == []


def test_an_operator_lists_what_was_sent_and_sends_again_what_was_not(
    installation: Installation, system: System, receiver: Receiver, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(installation, system).items():
        monkeypatch.setenv(name, value)
    (delivered,) = put(installation, client)
    Sender(system).run_once()
    (open_,) = put(installation, client)
    receiver.answers = [500]
    Sender(system).run_once()
    listed = CliRunner().invoke(main, ["webhooks", "list", "--client", client])
    assert (listed.exit_code, delivered in listed.output, f"{open_}  {client}  batch.rejected" in listed.output) == (
        0,
        True,
        True,
    )
    only_open = json.loads(CliRunner().invoke(main, ["webhooks", "list", "--client", client, "--open", "--json"]).stdout)
    assert [(each["delivery_id"], each["code"]) for each in only_open["webhooks"]] == [(open_, "http-500")]
    receiver.answers = [500]
    assert CliRunner().invoke(main, ["webhooks", "retry", open_]).exit_code == 1
    assert CliRunner().invoke(main, ["webhooks", "retry", open_]).exit_code == 0
    assert CliRunner().invoke(main, ["webhooks", "retry", delivered, "--json"]).stdout.startswith('{"webhooks": []')
    for wrong in ([], [open_, "--client", client], ["nothing"], [str(uuid.uuid4())]):
        assert CliRunner().invoke(main, ["webhooks", "retry", *wrong]).exit_code == 2
    assert receiver.ids == [delivered, open_, open_, open_]
    everything = listed.output + json.dumps(only_open)
    assert SECRET not in everything
    assert "PLANTED" not in everything


def test_doctor_says_whose_webhooks_do_not_arrive(installation: Installation, system: System, client: str) -> None:
    assert "1 clients have an address" in overview.examine(system)
    put(installation, client)
    installation.rows("UPDATE webhook_deliveries SET next_attempt_at = now() - interval '1 hour'")
    with pytest.raises(overview.WebhooksFailing, match=f"webhooks of {client}: 1 wait and 0 failed.*nothing sends them"):
        overview.examine(system)
    profile = Profile.model_validate({"webhook_url": "https://e.com", "webhook_secret": "env:NOT_SET_ANYWHERE"})
    with pytest.raises(overview.WebhooksFailing, match="the webhook_secret of other is not there"):
        overview.examine(replace(system, clients=Clients({"other": profile})))


def test_a_profile_that_is_changed_meanwhile_is_heeded_without_a_new_start(
    installation: Installation, system: System, receiver: Receiver, client: str
) -> None:
    put(installation, client)
    assert system.settings.clients_file is not None
    with receiving() as other:
        text = system.settings.clients_file.read_text()
        system.settings.clients_file.write_text(text.replace(receiver.url, other.url))
        Sender(system).run_once()
        assert (len(receiver.got), len(other.got)) == (0, 1)
    system.settings.clients_file.write_text(f"[{client}]\n")
    put(installation, client)
    Sender(system).run_once()
    assert ("failed", 1, "no-address") in states(installation, client)


def test_several_processes_send_each_message_once(
    installation: Installation, system: System, receiver: Receiver, client: str
) -> None:
    ids = put(installation, client, 30)
    over = threading.Event()
    threads = [threading.Thread(target=Sender(system).run, args=(over,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(receiver.got) >= 30, "thirty messages")
    wait_for(lambda: {state for state, _, _ in states(installation, client)} == {"delivered"}, "all to be recorded")
    over.set()
    for thread in threads:
        thread.join(10)
    assert sorted(receiver.ids) == sorted(ids)


def test_a_client_whose_server_hangs_holds_up_no_other(
    installation: Installation,
    system: System,
    receiver: Receiver,
    client: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "TIMEOUT_S", 3.0)
    assert system.settings.clients_file is not None
    with receiving() as slow, sending.sending(system):
        with system.settings.clients_file.open("a") as file:
            file.write(f'[slow]\nwebhook_url = "{slow.url}"\nwebhook_secret = "{SECRET}"\n')
        slow.answers = [crawling] * 20
        put(installation, "slow", 20)
        wait_for(lambda: len(slow.got) == 2, "two to hang")
        started = time.monotonic()
        put(installation, client)
        wait_for(lambda: len(receiver.got) == 1, "the other client to be told")
        assert time.monotonic() - started < 2.5


def test_a_process_that_is_killed_while_it_sends_leaves_it_to_another_under_the_same_id(
    installation: Installation, system: System, receiver: Receiver, client: str
) -> None:
    (delivery_id,) = put(installation, client)
    receiver.answers = [crawling]
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("ORDERS_", "DAGSTER_"))}
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", str(free_port())],
        env=settings | environment(installation, system),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(lambda: len(receiver.got) == 1, "the message")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    Sender(system).run_once()
    assert len(receiver.got) == 1  # its lease is not over
    installation.rows("UPDATE webhook_deliveries SET leased_until = now() - interval '1 second'")
    Sender(system).run_once()
    assert receiver.ids == [delivery_id] * 2
    assert states(installation, client) == [("delivered", 2, None)]


def test_serve_sends_and_ends_at_once_and_its_log_shows_neither_secret_nor_address(
    installation: Installation, system: System, receiver: Receiver, client: str
) -> None:
    put(installation, client, 2)
    receiver.answers = [500]
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("ORDERS_", "DAGSTER_"))}
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", str(free_port())],
        env=settings | environment(installation, system),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: len(receiver.got) == 2, "the messages")
    receiver.answers = [crawling]
    put(installation, client)
    wait_for(lambda: len(receiver.got) >= 3, "one that hangs")
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert time.monotonic() - started < 12
    assert "http-500" in err
    assert "Traceback" not in err
    for secret in (SECRET, "PLANTED", receiver.url):
        assert secret not in out + err


def attempt(system: System, url: str, **settings: object) -> Outcome:
    profile = Profile.model_validate({"webhook_url": url, "webhook_secret": SECRET})
    with system.database.begin() as transaction:
        row = transaction.rows("claim_webhooks", limit=1, of_client=1, lease_s=0)[0]
    return deliver(row, profile, system.settings.model_copy(update=settings))


@pytest.fixture
def planned(installation: Installation, system: System, client: str) -> None:
    put(installation, client)


PUBLIC_NAME = "hooks.example.com"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a name leads to, the next time that it is looked up; one look-up is one answer."""
    answers: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: object, *args: Any, **named: Any) -> list[Any]:
        if host == PUBLIC_NAME:
            found = answers.pop(0).split(",") if answers else ["203.0.113.1"]
            return [
                (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in found
            ]
        return list(real(host, port, *args, **named))

    monkeypatch.setattr(http_connections.socket, "getaddrinfo", look_up)
    return answers


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "::1",
        "fe80::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "8.8.8.8,127.0.0.1",
        "127.0.0.1,8.8.8.8",
    ],
)
def test_a_name_that_leads_to_an_address_of_ours_is_not_called(
    system: System, receiver: Receiver, names: list[str], address: str
) -> None:
    names.append(address)
    port = receiver.url.split(":")[2].split("/")[0]
    outcome = attempt(system, f"https://{PUBLIC_NAME}:{port}/", webhook_private_addresses=False)
    assert (outcome.code, receiver.got) == (REFUSED, [])


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1", "localhost", "0.0.0.0"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_of_ours_in_any_spelling_is_not_called(
    system: System, receiver: Receiver, host: str, scheme: str
) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    outcome = attempt(system, f"{scheme}://{host}:{port}/", webhook_private_addresses=False)
    assert outcome.code in (REFUSED, NOT_REACHED, NO_ANSWER)
    assert receiver.got == []


@pytest.mark.usefixtures("planned")
def test_http_is_for_private_addresses_alone(system: System, receiver: Receiver, names: list[str]) -> None:
    names.append("8.8.8.8")
    assert attempt(system, f"http://{PUBLIC_NAME}/", webhook_private_addresses=True).code == REFUSED


@pytest.mark.usefixtures("planned")
def test_the_address_that_was_checked_is_the_one_that_is_called(
    system: System, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads elsewhere at a second look leads nowhere: there is none."""
    called: list[str] = []

    def connect(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        called.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    names += ["8.8.8.8", "127.0.0.1", "127.0.0.1"]
    assert attempt(system, f"https://{PUBLIC_NAME}/", webhook_private_addresses=False).code == NOT_REACHED
    assert called == ["8.8.8.8"]
    assert names == ["127.0.0.1", "127.0.0.1"]  # it was looked up once


@pytest.mark.usefixtures("planned")
def test_a_redirect_is_not_followed(system: System, receiver: Receiver) -> None:
    with receiving() as inside:
        receiver.answers = [status(307, Location=inside.url)]
        assert attempt(system, receiver.url).code == "redirected"
        assert inside.got == []


@pytest.mark.usefixtures("planned")
def test_an_answer_without_end_is_not_read_and_one_that_does_not_come_is_waited_for_so_long(
    system: System, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "TIMEOUT_S", 1.5)
    receiver.answers = [endless]
    started = time.monotonic()
    assert attempt(system, receiver.url).code is None
    assert time.monotonic() - started < 1.5
    receiver.answers = [crawling]
    started = time.monotonic()
    assert attempt(system, receiver.url).code == NO_ANSWER
    assert 1.0 < time.monotonic() - started < 6.0


@pytest.mark.usefixtures("planned")
def test_https_is_verified_and_the_name_is_the_servers(system: System, tmp_path: Path, names: list[str]) -> None:
    authority, other = Authority(tmp_path / "good", "good"), Authority(tmp_path / "bad", "bad")
    with https_service(*authority.issue("server", PUBLIC_NAME)) as (port, asked):
        names += ["127.0.0.1"] * 2
        url = f"https://{PUBLIC_NAME}:{port}/hooks"
        assert attempt(system, url, ca_file=authority.ca_file).code is None
        assert asked == ["/hooks"]
        assert attempt(system, url, ca_file=other.ca_file).code == NOT_REACHED
        assert asked == ["/hooks"]


def test_neither_secret_nor_answer_is_in_the_database_and_the_address_only_where_the_operators_settings_are(
    installation: Installation, system: System, receiver: Receiver, client: str, tmp_path: Path
) -> None:
    receiver.answers = [endless]
    paid(installation, client, tmp_path)
    Sender(system).run_once()
    names = [name for (name,) in installation.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    holding = {
        text: [
            name
            for name in names
            if installation.rows(f"SELECT 1 FROM {name} AS t WHERE t::text LIKE %s LIMIT 1", f"%{text}%")
        ]
        for text in (SECRET, SECRET.removeprefix("whsec_"), "planted planted", "PLANTED-PATH")
    }
    assert [holding[text] for text in list(holding)[:3]] == [[], [], []]
    assert sorted(holding["PLANTED-PATH"]) == ["audit_events", "known_profiles"]
