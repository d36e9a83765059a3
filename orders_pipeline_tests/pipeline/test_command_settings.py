"""Settings as commands meet them: those that are missing, misspelt or wrong are named, without their values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orders_pipeline.security.encryption import new_key
from orders_pipeline.system.settings import REQUIRED_IN_PRODUCTION
from orders_pipeline_tests.support.commands import Cli, error_of, invoke
from orders_pipeline_tests.support.factories import sample_file


def test_nothing_synthetic_is_run_in_production(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    complete = {
        "STORAGE_URL": str(tmp_path / "storage"),
        "PAYMENT_URL": "https://payments.example",
        "PAYMENT_TOKEN": "x",
        "NOTIFICATION_URL": "https://notifications.example",
        "NOTIFICATION_TOKEN": "x",
        "ENCRYPTION_KEYS": new_key(),
    }
    for name, value in complete.items():
        monkeypatch.setenv(f"ORDERS_{name}", value)
    monkeypatch.setenv("ORDERS_ENV", "production")
    for arguments in (("demo",), ("sandbox", "--port", "0")):
        result = cli(*arguments)
        assert (result.exit_code, error_of(result)) == (2, "E_SETTINGS")
    monkeypatch.setenv("ORDERS_CLIENT_FILE", "clients.toml")  # which would have had files wait for approval
    for arguments in (("status",), ("doctor",), ("status", "--json")):
        result = cli(*arguments)
        assert result.exit_code == 2
        assert result.output.count("ORDERS_CLIENT_FILE is set and is no setting; is ORDERS_CLIENTS_FILE meant?") == 1
        assert "ORDERS_ENV is production, where nothing starts with what is no setting: ORDERS_CLIENT_FILE" in result.output


def test_a_misspelt_setting_is_named_at_every_start(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_MAX_ROW", "geheim")
    for *arguments, status in (("status", 0), ("doctor", 1), ("keys", "new", 0)):
        said = cli(*arguments)
        assert said.exit_code == status
        assert said.output.count("is ORDERS_MAX_ROWS meant?") == 1
        assert "ORDERS_MAX_ROW is set and is no setting; is ORDERS_MAX_ROWS meant?" in said.stderr
        assert "geheim" not in said.output


def test_a_key_can_be_made_before_anything_else_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_ENV", "production")
    made = invoke("keys", "new")
    assert made.exit_code == 0
    assert made.stdout.count(":") == 1


def test_a_database_that_is_not_there_is_said_so_without_its_url(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORDERS_DATABASE_URL", "postgresql://nobody:geheim@127.0.0.1:9/none")
    for arguments in (("status",), ("import", sample_file(tmp_path), "--client", "acme"), ("db", "migrate")):
        result = cli(*arguments)
        assert (result.exit_code, error_of(result)) == (1, "E_DATABASE_UNAVAILABLE")
        assert "geheim" not in result.output


def test_in_production_everything_that_is_missing_is_named_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("ORDERS_ENV", "production")
    monkeypatch.setenv("ORDERS_HOME", str(home))
    commands = (("status",), ("up",), ("import", sample_file(tmp_path), "--client", "acme"), ("demo",), ("db", "migrate"))
    for arguments in commands:
        result = invoke(*arguments)
        assert (result.exit_code, error_of(result)) == (2, "E_SETTINGS")
        assert all(f"ORDERS_{name.upper()}" in result.stderr for name in REQUIRED_IN_PRODUCTION)
    assert json.loads(invoke("doctor", "--json").stdout)["ok"] is False
    assert not home.exists()


@pytest.mark.parametrize(
    ("name", "value"), [("ORDERS_MAX_ROWS", "geheim"), ("ORDERS_PAYMENT_TIMEOUT_S", "-1"), ("ORDERS_ENV", "geheim")]
)
def test_a_setting_that_cannot_be_used_is_named_without_its_value(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    result = cli("status")
    assert (result.exit_code, error_of(result)) == (2, "E_SETTINGS")
    assert name in result.stderr
    assert "geheim" not in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("ORDERS_ENCRYPTION_KEYS", "k1:geheim", "E_ENCRYPTION_KEYS"),
        ("ORDERS_CLIENTS_FILE", "nowhere/clients.toml", "E_CLIENTS_FILE"),
        ("ORDERS_USERS_FILE", "nowhere/users.toml", "E_SETTINGS"),
        ("ORDERS_STORAGE_URL", "ftp://geheim/", "E_SETTINGS"),
        ("ORDERS_LANDING_URL", "s3://", "E_SETTINGS"),
        ("ORDERS_PAYMENT_PROVIDER", "geheim", "E_SETTINGS"),
        ("ORDERS_HOME", "/proc/geheim", "E_SETTINGS"),
        ("ORDERS_DATABASE_URL", "postgresql://geheim@127.0.0.1:9/d?sslmode=geheim", "E_DATABASE_URL"),
    ],
)
def test_a_setting_that_turns_out_wrong_later_is_said_by_a_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: str
) -> None:
    monkeypatch.setenv(name, value)
    result = cli("status")
    assert (result.exit_code, error_of(result)) == (2, code)
    assert "geheim" not in result.output
