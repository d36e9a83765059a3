"""`status` without a batch: which stand still, and the newest, of a client, in some states or of some time."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline_tests.support.commands import Cli
from orders_pipeline_tests.support.factories import sample_file
from orders_pipeline_tests.support.installation import Installation


@pytest.fixture
def client_code(installation: Installation, tmp_path: Path) -> str:
    """A client with a batch that is through, one of bad rows only, one that has just come and one that nobody processes."""
    code = f"acme-{uuid.uuid4().hex[:8]}"
    for number, bad in enumerate((0.0, 1.0)):
        installation.take(sample_file(tmp_path, rows=6, seed=number, bad=bad), code)
    for number, hours in ((2, 0), (3, 49)):
        batch_id = installation.receive(sample_file(tmp_path, rows=6, seed=number), code)
        back = "UPDATE batches SET received_at = received_at - make_interval(hours => %s) WHERE batch_id = %s"
        installation.rows(back, hours, batch_id)
    return code


def listed(cli: Cli, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("status", *arguments, "--json").stdout)
    return found


def states(found: dict[str, Any]) -> list[str]:
    return [each["status"] for each in found["batches"]]


def test_batches_are_listed_by_time_and_narrowed_to_a_client_to_states_and_to_a_time(cli: Cli, client_code: str) -> None:
    of_client = ("--client", client_code)
    found = listed(cli, *of_client)
    assert states(found) == ["received", "rejected", "completed", "received"]
    assert [each["received_at"] for each in found["batches"]] == sorted(
        (each["received_at"] for each in found["batches"]), reverse=True
    )
    assert states(listed(cli, *of_client, "--status", "rejected", "--status", "completed")) == ["rejected", "completed"]
    assert states(listed(cli, *of_client, "--since", "2d")) == ["received", "rejected", "completed"]
    assert states(listed(cli, *of_client, "--since", "2020-01-01", "--limit", "2")) == ["received", "rejected"]
    assert states(listed(cli, "--client", "nobody")) == []


def test_what_stands_still_is_named_but_not_what_has_just_come(cli: Cli, client_code: str) -> None:
    found = listed(cli, "--client", client_code)
    (still,) = found["standing_still"]
    assert still["batch_id"] == found["batches"][-1]["batch_id"]
    assert listed(cli, "--client", client_code, "--since", "1h")["standing_still"] == []
    said = cli("status", "--client", client_code).stdout
    assert said.index("stands still") < said.index(found["batches"][0]["batch_id"])
    assert f"  {still['batch_id']}  {client_code}  " in said


def test_refunds_that_are_open_are_counted_and_those_named_on_which_a_person_has_to_decide(
    installation: Installation, cli: Cli, client_code: str
) -> None:
    assert listed(cli, "--client", client_code)["open_refunds"] == []
    ((batch_id, name),) = installation.rows(
        "SELECT batch_id, csv_source FROM batches WHERE client_code = %s AND status = 'completed'", client_code
    )
    plan = read_plan(installation.system.database, batch_id)
    write_plan(installation.system.database, plan, requested_by="operator", reason="returned")
    refunds, yen = installation.rows("SELECT count(*), sum(amount)::bigint FROM refunds WHERE batch_id = %s", batch_id)[0]
    found = {"batch_id": batch_id, "client_code": client_code, "csv_source": name, "refunds": refunds, "amount_jpy": yen}
    assert listed(cli, "--client", client_code)["open_refunds"] == [found | {"need_a_person": 0}]
    said = cli("status", "--client", client_code).stdout
    assert f"refunds open\n  {batch_id}  {client_code}  {name}  1 refund of {yen:,} yen\n\n" in said
    installation.rows(
        "UPDATE refunds SET next_attempt_at = 'infinity' "
        "WHERE refund_id = (SELECT refund_id FROM refunds WHERE batch_id = %s LIMIT 1)",
        batch_id,
    )
    assert listed(cli, "--client", client_code)["open_refunds"] == [found | {"need_a_person": 1}]
    said = cli("status", "--client", client_code).stdout
    assert f"    A person has to decide on 1 of them: orders-pipeline status {batch_id}\n" in said
    assert listed(cli, "--client", client_code, "--since", "1h")["open_refunds"] == []


@pytest.mark.parametrize("since", ["yesterday", "0d", "2026-13-01", "999999d", "2 d"])
def test_a_time_that_is_none_is_a_usage_error(cli: Cli, since: str) -> None:
    assert cli("status", "--since", since).exit_code == 2


def test_one_batch_is_not_narrowed(cli: Cli) -> None:
    assert cli("status", "20260401-000000000000", "--client", "acme").exit_code == 2
