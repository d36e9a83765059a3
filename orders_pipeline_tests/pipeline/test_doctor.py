"""The `doctor` command: what it looks at, names, and leaves out where something before it is missing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orders_pipeline.cli import console, doctor
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.support.commands import Cli
from orders_pipeline_tests.support.factories import sample_file
from orders_pipeline_tests.support.installation import Installation


def test_the_doctor_finds_everything_well_and_names_what_is_not(
    installation: Installation, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies_there = (
        "INSERT INTO landing_left_alone (key, seen_again, is_refused) VALUES ('acme/bad.csv', true, true) RETURNING key"
    )
    assert installation.rows(lies_there) == [("acme/bad.csv",)]
    well = cli("doctor", "--json")
    assert well.exit_code == 0
    answer = json.loads(well.stdout)
    assert answer["ok"] is True
    (found,) = [each["says"] for each in answer["checks"] if each["name"] == "landing"]
    assert "refused or cancelled, and still there: 1 (acme/bad.csv)" in found
    assert {each["name"] for each in answer["checks"]} >= {"settings", "database", "schema", "storage", "landing"}
    monkeypatch.setenv("ORDERS_PAYMENT_URL", "http://127.0.0.1:9")
    ill = cli("doctor", "--json")
    assert ill.exit_code == 1
    assert [each["name"] for each in json.loads(ill.stdout)["checks"] if not each["ok"]] == ["payment service"]
    assert "FAIL" in cli("doctor").stdout
    monkeypatch.setenv("ORDERS_DATABASE_URL", "postgresql://nobody:geheim@127.0.0.1:9/none")
    gone = cli("doctor", "--json")
    assert (gone.exit_code, "geheim" in gone.output) == (1, False)
    checks = {each["name"]: each for each in json.loads(gone.stdout)["checks"]}
    assert [name for name, each in checks.items() if each["ok"] is False] == ["database", "payment service"]
    lacking = {name: each["says"].rpartition(": ")[2] for name, each in checks.items() if each["ok"] is None}
    assert lacking == {
        "sessions": "database",
        "clock": "database",
        "schema": "database",
        "workers": "database",
        "daemon": "database",
        "keys": "database, sessions, schema",
        "ledger": "database, sessions, schema",
        "audit": "database, sessions, schema",
        "audit shipping": "database, sessions, schema",
        "webhooks": "database, sessions, schema",
    }
    assert "connection refused (host 127.0.0.1, port 9)" in checks["database"]["says"]
    assert {"storage", "landing", "encryption", "notification service"} <= checks.keys()  # whatever can be, is looked at


@pytest.mark.parametrize(
    ("name", "value", "where", "unseen"),
    [
        ("ORDERS_CLIENTS_FILE", "nowhere.toml", "settings", {"keys", "ledger", "audit", "audit shipping", "webhooks"}),
        (
            "ORDERS_ENCRYPTION_KEYS",
            "abc",
            "encryption",
            {"storage", "keys", "ledger", "audit", "audit shipping", "webhooks"},
        ),
        ("ORDERS_STORAGE_URL", "ftp://x/", "storage", {"keys", "ledger", "audit", "audit shipping", "webhooks"}),
    ],
)
def test_the_doctor_names_a_wrong_setting_once_and_says_of_the_rest_that_it_was_not_looked_at(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str, where: str, unseen: set[str]
) -> None:
    everything = {each["name"] for each in json.loads(cli("doctor", "--json").stdout)["checks"]}
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("ORDERS_LANDING_URL", ".")
    ill = cli("doctor", "--json")
    checks = json.loads(ill.stdout)["checks"]
    assert ill.exit_code == 2
    assert {each["name"] for each in checks} == everything
    assert [each["name"] for each in checks if each["ok"] is False] == [where]
    assert {each["name"]: each["says"].rpartition(": ")[2].split(", ")[0] for each in checks if each["ok"] is None} == (
        dict.fromkeys(unseen, where)
    )
    assert "-     audit" in cli("doctor").stdout


def test_the_doctor_misses_a_key_that_something_is_encrypted_with(
    installation: Installation, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installation.take(sample_file(tmp_path), "keyless")
    in_use = json.loads(cli("keys", "list", "--json").stdout)["current"]
    monkeypatch.setenv("ORDERS_ENCRYPTION_KEYS", cli("keys", "new").stdout.strip())
    (missing,) = [each for each in json.loads(cli("doctor", "--json").stdout)["checks"] if not each["ok"]]
    assert (missing["name"], in_use in missing["says"]) == ("keys", True)


def test_the_doctor_misses_the_key_that_others_encrypt_with_before_there_is_an_order(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = json.loads(cli("keys", "list", "--json").stdout)["current"]
    monkeypatch.setattr(doctor.key_rotation, "require_all", lambda *_: 0)  # whatever other tests have left here
    monkeypatch.setenv("ORDERS_ENCRYPTION_KEYS", cli("keys", "new").stdout.strip())
    (missing,) = [each for each in json.loads(cli("doctor", "--json").stdout)["checks"] if not each["ok"]]
    assert missing["says"].startswith(f"E_ENCRYPTION_KEYS: ORDERS_ENCRYPTION_KEYS lacks {current} as the others have it")


@pytest.mark.parametrize(
    ("environment", "rate", "mark"), [("production", 50, "warn"), ("production", 10, "ok"), ("development", 50, "ok")]
)
def test_the_doctor_warns_in_production_of_more_notifications_than_the_platform_takes(
    environment: Any, rate: int, mark: str
) -> None:
    found = doctor._settings(Settings(env=environment, notification_rate_per_s=rate))
    assert found.ok is True
    screen = io.StringIO()
    console.show_findings(Console(file=screen), {"checks": [asdict(found)]})
    assert screen.getvalue().split()[0] == mark
    assert ("ORDERS_NOTIFICATION_RATE_PER_S is 50, and the platform takes 10" in found.says) is (mark == "warn")


WITHOUT_EXTRAS = """
import sys
for name in ("celery", "kombu", "dagster_celery", "kubernetes", "dagster_k8s"):
    sys.modules[name] = None  # as where it is not installed
from orders_pipeline.cli.doctor import examine
import orders_pipeline.definitions
print(*(f"{each.name}: {each.says}" for each in examine() if not each.ok), sep="\\n")
"""


@pytest.mark.usefixtures("cli")
def test_nothing_is_missing_where_only_what_one_host_needs_is_installed() -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr
