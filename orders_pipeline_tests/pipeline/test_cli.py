"""The command line: answers in words and JSON, exit statuses, and a code and a sentence for what is wrong."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from click.testing import CliRunner, Result
from dagster_postgres.run_storage import PostgresRunStorage
from openpyxl import Workbook
from sqlalchemy import make_url

from orders_pipeline.cli import main
from orders_pipeline.orchestration.run_launcher import ForkingRunLauncher
from orders_pipeline.samples.synthetic import write_sample, write_template
from orders_pipeline.security.encryption import new_key
from orders_pipeline.system.settings import REQUIRED_IN_PRODUCTION
from orders_pipeline_tests.support.commands import COMMAND, call, end, every, start
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, check_finished
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.soak import first_of

Cli = Callable[..., Result]

SHAPE: dict[str, object] = {
    "batch_id": str,
    "status": str,
    "client_code": str,
    "csv_source": str,
    "bulk_import_group": str,
    "encoding": str,
    "rows": {"total", "accepted", "rejected", "blank"},
    "orders": {"pending", "paying", "paid", "declined", "unknown", "refunded", "cancelled"},
    "amount_jpy": {"accepted", "paid", "declined", "unknown", "cancelled"},
    "payments": {"planned", "succeeded", "declined", "unknown"},
    "notifications": {"planned", "sent", "failed"},
    "rejections": dict,
    "artifacts": {"rejected", "errors", "result"},
    "seconds": {"stage", "validate", "load", "pay", "notify", "total"},
}


@pytest.fixture
def cli(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in this process, with the installation's settings as its environment."""
    for name, value in installation.environment().items():
        monkeypatch.setenv(name, value)
    return run


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def sample(tmp_path: Path, rows: int = 20, seed: int = 1, bad: float = 0.0) -> Path:
    path = tmp_path / f"orders-{seed}.csv"
    write_sample(path, rows=rows, seed=seed, bad=bad)
    return path


def error_of(result: Result) -> str:
    """Return the code that a command without --json complained with."""
    found = re.match(r"([A-Z]_[A-Z_]+): \S", result.stderr)
    assert found is not None, result.stderr
    assert "/" not in result.stderr.replace("file:///folder", "").replace("s3://bucket/prefix", "")
    return found[1]


def everything(installation: Installation) -> dict[str, object]:
    """Return the rows of every table but the audit's, and every file of the system, to be compared."""
    tables = installation.rows(
        "SELECT schemaname, tablename FROM pg_tables"
        " WHERE schemaname IN ('public', 'dagster') AND tablename <> 'audit_events'"
    )
    contents: dict[str, object] = {
        f"{schema}.{table}": sorted(map(str, installation.rows(f'SELECT * FROM {schema}."{table}"')))
        for schema, table in tables
    }
    return contents | {str(path): path.stat().st_mtime_ns for path in installation.home.rglob("*") if path.is_file()}


def test_import_answers_with_the_documented_object_and_status_and_the_report_agree(
    installation: Installation, cli: Cli, tmp_path: Path
) -> None:
    result = cli("import", sample(tmp_path, bad=0.2), "--client", "shape", "--json")
    assert result.exit_code == 3
    assert result.stdout.count("\n") == 1
    answer = json.loads(result.stdout)
    for name, inside in SHAPE.items():
        if isinstance(inside, set):
            assert inside <= set(answer[name]), name
        else:
            assert isinstance(answer[name], inside), name
    assert set(answer) - set(SHAPE) <= {
        "status_code",
        "approval",
        "details",
        "source_sha256",
        "duplicate_of",
        "corrects",
        "corrections",
        "next_try",
        "paying_rests",
        "services_left_alone",
        "refused",
        "unknown_payments",
        "refunds",
        "open_refunds",
        "stopped",
        "cancelled",
        "at_work",
        "warnings",
        "queued",
    }
    check_finished(installation, answer["batch_id"], "completed_with_errors")
    assert json.loads(cli("status", answer["batch_id"], "--json").stdout) == answer
    assert json.loads(installation.report(answer["batch_id"], "result") or b"") == answer
    assert all(Path(location).is_file() for location in answer["artifacts"].values())


def test_a_file_without_errors_ends_with_0_and_says_so_in_words(cli: Cli, tmp_path: Path) -> None:
    result = cli("import", sample(tmp_path), "--client", "words")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert re.search(r"20 accepted, 0 rejected", result.stdout)
    assert re.search(r"payments +\d+ planned: \d+ succeeded\n", result.stdout)
    batch_id = result.stdout.split()[0]
    assert cli("status", batch_id).stdout == result.stdout
    assert cli("resume", batch_id).exit_code == 0
    assert batch_id in cli("status").stdout


def test_a_dry_run_changes_nothing_and_foretells_what_the_import_comes_to(
    installation: Installation, cli: Cli, tmp_path: Path
) -> None:
    path = sample(tmp_path, rows=60, seed=4, bad=0.3)
    assert cli("status").exit_code == 0  # who comes first notes keys and profiles
    before, sent = everything(installation), installation.sandbox.ledger()
    result = cli("import", path, "--client", "dry", "--dry-run", "--json")
    assert result.exit_code == 3
    assert everything(installation) == before
    assert installation.sandbox.ledger() == sent
    foretold = json.loads(result.stdout)
    assert cli("import", path, "--client", "dry", "--dry-run").exit_code == 3
    answer = json.loads(cli("import", path, "--client", "dry", "--json").stdout)
    for name in ("client_code", "csv_source", "encoding", "rows", "rejections"):
        assert foretold[name] == answer[name]
    assert foretold["amount_jpy"]["accepted"] == answer["amount_jpy"]["accepted"]
    assert foretold["payments"]["planned"] == answer["payments"]["planned"]
    assert foretold["notifications"]["planned"] == answer["notifications"]["planned"]
    repeated = cli("import", path, "--client", "dry", "--dry-run")
    assert (repeated.exit_code, error_of(repeated)) == (4, "F_DUPLICATE_FILE")
    again = cli("import", path, "--client", "dry", "--dry-run", "--again", "--json")
    assert json.loads(again.stdout)["rows"]["accepted"] == 0


def test_a_dry_run_in_words_shows_the_first_errors_and_how_many_more_there_are(cli: Cli, tmp_path: Path) -> None:
    made = OrderFile("utf-8")
    for number in range(25):
        made.add(order_row(client_order_ref=f"W-{number}", email="bad"))
    path = tmp_path / "orders.csv"
    path.write_text(made.text.replace("email", "メールアドレス", 1), "utf-8")
    result = cli("import", path, "--client", "words", "--dry-run")
    assert (result.exit_code, result.stderr) == (4, "")
    assert "  row 1, line 2, メールアドレス: R_EMAIL: The e-mail address is not valid.\n" in result.stdout
    assert (result.stdout.count("R_EMAIL: "), "and 5 more" in result.stdout) == (21, True)
    assert cli("import", path, "--client", "words", "-o", tmp_path / "errors.csv").exit_code == 2


def test_a_dry_run_of_a_file_that_would_be_given_back_says_why(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("a,b\r\n1,2\r\n")
    result = cli("import", path, "--client", "dry", "--dry-run", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["error"]["code"] == "F_HEADER_MISSING"


def test_a_file_given_back_ends_with_4_and_its_errors_can_be_read(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("client_order_ref,amount\r\nA-1,100\r\n")
    result = cli("import", path, "--client", "given-back", "--json")
    assert result.exit_code == 4
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["rejections"]) == ("rejected", {"F_HEADER_MISSING": 1})
    assert cli("resume", answer["batch_id"]).exit_code == 4
    listed = json.loads(cli("errors", answer["batch_id"], "--json").stdout)["errors"]
    assert [(each["code"], bool(each["message_ja"])) for each in listed] == [("F_HEADER_MISSING", True)]
    assert "F_HEADER_MISSING" in cli("errors", answer["batch_id"]).stdout
    assert "no such report" in cli("rejected", answer["batch_id"]).stderr


def test_the_same_file_twice_ends_with_4_and_names_its_batch(cli: Cli, tmp_path: Path) -> None:
    path = sample(tmp_path)
    first = json.loads(cli("import", path, "--client", "twice", "--json").stdout)["batch_id"]
    second = cli("import", path, "--client", "twice", "--json")
    assert second.exit_code == 4
    assert json.loads(second.stdout)["error"]["detail"] == {"batch_id": first}
    assert f"status {first}" in cli("import", path, "--client", "twice").stderr
    third = json.loads(cli("import", path, "--client", "twice", "--again", "--json").stdout)
    assert third["batch_id"] != first


def test_a_column_that_nobody_knows_is_said_at_once_and_in_status(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    row = order_row(client_order_ref="UC-1") | {"対応状況": "注文取消し"}
    path.write_text("\r\n".join([",".join(row), ",".join(row.values()), ""]), "utf-8")
    imported = cli("import", path, "--client", "more")
    batch_id = imported.stdout.split()[0]
    for said in imported, cli("status", batch_id):
        assert "warning        W_UNKNOWN_COLUMN: Columns that are not known were ignored (1): 対応状況." in said.stdout
    answer = json.loads(cli("status", batch_id, "--json").stdout)
    assert answer["warnings"] == ["W_UNKNOWN_COLUMN"]
    assert answer["details"] == {"W_UNKNOWN_COLUMN": {"columns": "対応状況", "count": "1"}}


def test_status_says_why_a_file_was_given_back_as_much_as_a_dry_run_does(cli: Cli, tmp_path: Path) -> None:
    row = order_row(client_order_ref="HM-1")
    del row["amount"], row["payment_method"]
    path = tmp_path / "orders.csv"
    path.write_text("\r\n".join([",".join(row), ",".join(row.values()), ""]), "utf-8")
    foretold = json.loads(cli("import", path, "--client", "why", "--dry-run", "--json").stdout)["errors"][0]["message"]
    said = cli("import", path, "--client", "why").stdout
    assert "amount, payment_method" in foretold
    assert f"why            F_HEADER_MISSING: {foretold}" in said


def test_a_service_that_is_down_ends_with_1_and_says_how_to_go_on(
    installation: Installation, cli: Cli, impatient: None, tmp_path: Path
) -> None:
    installation.sandbox.change(faults={"unavailable": 1, "retry_after": "0"})
    result = cli("import", sample(tmp_path), "--client", "down")
    assert result.exit_code == 1
    assert "paused" in result.stdout
    batch_id = result.stdout.split()[0]
    assert f"orders-pipeline resume {batch_id}" in result.stdout
    installation.sandbox.change(faults={})
    assert cli("resume", batch_id).exit_code == 0
    check_finished(installation, batch_id)


@pytest.mark.parametrize("command", ["status", "resume", "errors", "rejected"])
def test_an_unknown_batch_is_said_to_be_unknown(cli: Cli, command: str) -> None:
    result = cli(command, "20260401-000000000000")
    assert (result.exit_code, error_of(result)) == (2, "E_UNKNOWN_BATCH")


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "nowhere.csv", "--client", "acme"),
        ("import", "."),
        ("import", ".", "--client", "acme"),
        ("status", "--limit", "many"),
        ("sample", "--rows", "0", "-o", "x.csv"),
        ("nonsense",),
    ],
)
def test_wrong_usage_ends_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_what_cannot_be_read_as_a_file_is_given_back(cli: Cli, tmp_path: Path) -> None:
    pipe = tmp_path / "orders.csv"
    os.mkfifo(pipe)
    result = cli("import", pipe, "--client", "unreadable")
    assert (result.exit_code, error_of(result)) == (4, "F_DENIED")


@pytest.mark.parametrize(
    "name",
    first_of(["a\nb\x1b[31m.csv", "=cmd|' C calc'!A0.csv", "[bold]x[red].csv", "注文①.csv", "x" * 250 + ".csv"], 3),
)
def test_a_file_name_is_data_and_nothing_else(cli: Cli, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("a,b\r\n1,2\r\n")
    result = cli("import", path, "--client", "names", "--json", "--again")
    assert result.exit_code == 4, result.output
    answer = json.loads(result.stdout)
    assert answer["csv_source"] == name
    for command in (("status", answer["batch_id"]), ("status",), ("import", path, "--client", "named", "--dry-run")):
        said = cli(*command)
        assert "\x1b" not in said.output
    shown = "a\\nb\\x1b[31m.csv" if "\n" in name else name
    assert shown in cli("status", answer["batch_id"]).stdout


def test_a_file_name_that_is_no_text_is_given_back(installation: Installation, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.csv"
    with open(path, "w") as file:  # noqa: PTH123 - the name is not text
        file.write("a,b\r\n3,4\r\n")
    ended = call(installation.environment(), "import", os.fsdecode(path), "--client", "names")
    assert ended.returncode == 4, ended.stderr
    assert ended.stderr.startswith("F_NAME: ")


@pytest.mark.parametrize("code", ["../etc", "bad name/../x", "", "x" * 33, "取引先"])
def test_a_client_code_that_can_be_none_is_a_usage_error_that_says_how_one_is_written(
    cli: Cli, code: str, tmp_path: Path
) -> None:
    for more in ((), ("--dry-run",)):
        result = cli("import", sample(tmp_path), "--client", code, *more)
        assert (result.exit_code, "1 to 32 of the characters A-Z a-z 0-9 _ -" in result.stderr) == (2, True)


def test_rejected_and_errors_write_the_reports_to_a_file_or_the_terminal(
    installation: Installation, cli: Cli, tmp_path: Path
) -> None:
    answer = installation.take(sample(tmp_path, bad=0.3), "reports")
    for name in ("rejected", "errors"):
        target, report = tmp_path / f"{name}.csv", installation.report(answer["batch_id"], name)
        written = cli(name, answer["batch_id"], "-o", target)
        assert (written.exit_code, written.stdout, target.read_bytes()) == (0, "", report)
        assert cli(name, answer["batch_id"]).stdout_bytes == report
    listed = json.loads(cli("errors", answer["batch_id"], "--json").stdout)["errors"]
    with (tmp_path / "errors.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [each["code"] for each in listed] == [line["code"] for line in csv.DictReader(file)]


def test_a_template_that_is_filled_in_can_be_imported_without_its_example(
    installation: Installation, cli: Cli, tmp_path: Path
) -> None:
    target = tmp_path / "template.csv"
    assert cli("template", "-o", target).exit_code == 0
    with target.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(order_row(client_order_ref="MINE-1").values())
    answer = json.loads(cli("import", target, "--client", "template", "--json").stdout)
    assert answer["rows"] == {"total": 2, "accepted": 1, "rejected": 1, "blank": 0}
    assert answer["rejections"] == {"R_EXAMPLE_ROW": 1}
    check_finished(installation, answer["batch_id"], "completed_with_errors")


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: None,
        lambda rows: rows[1].update(order_date="2026/1/5"),
        lambda rows: [row.pop(name) for row in rows for name in ("customer_name_kana", "phone", "note", "notify_channel")],
    ],
)
@pytest.mark.parametrize("kind", ["utf-8-sig", "cp932", "xlsx"])
def test_a_templates_example_comes_back_however_a_spreadsheet_saves_it(
    cli: Cli, change: Callable[[list[dict[str, str]]], object], kind: str, tmp_path: Path
) -> None:
    write_template(tmp_path / "template.csv")
    with (tmp_path / "template.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    rows = [{name: name for name in row}, row]
    change(rows)
    path = tmp_path / f"saved.{kind if kind == 'xlsx' else 'csv'}"
    if kind == "xlsx":
        book = Workbook()
        for each in rows:
            cells = [int(cell) if cell in ("2", "1500", "3000") else cell for cell in each.values()]
            book.active.append(cells)
        book.save(path)
    else:
        with path.open("w", encoding=kind, newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(each.values() for each in rows)
    result = cli("import", path, "--client", "example", "--dry-run", "--json")
    assert json.loads(result.stdout)["rejections"] == {"R_EXAMPLE_ROW": 1}


@pytest.mark.parametrize("command", ["template", "sample", "mask", "rejected", "errors", "export"])
def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(
    installation: Installation, cli: Cli, command: str, tmp_path: Path
) -> None:
    path = sample(tmp_path, rows=5, bad=0.4, seed=71)
    batch_id = installation.take(path, f"kept-{command}")["batch_id"]
    arguments = {"mask": ("mask", path), "export": ("audit", "export")}.get(command, (command,))
    if command in ("rejected", "errors"):
        arguments = (command, batch_id)
    target = tmp_path / "mine.csv"
    target.write_text("mine")
    kept = cli(*arguments, "-o", target)
    assert (kept.exit_code, "--force" in kept.stderr, target.read_text()) == (2, True, "mine")
    assert cli(*arguments, "-o", target, "--force").exit_code == 0
    assert target.read_bytes() != b"mine"
    assert cli(*arguments, "-o", tmp_path / "new.csv").exit_code == 0
    if command in ("rejected", "errors", "export"):
        assert {path.stat().st_mode & 0o777 for path in (target, tmp_path / "new.csv")} == {0o600}
    assert cli(*arguments, "-o", "/dev/null").exit_code == 0
    for missing in (tmp_path / "nowhere" / "x.csv", target / "x.csv", tmp_path):
        refused = cli(*arguments, "-o", missing)
        assert (refused.exit_code, "E_UNEXPECTED" in refused.output) == (2, False)
    assert {each.name for each in tmp_path.iterdir()} == {path.name, "mine.csv", "new.csv"}


def test_nothing_made_up_is_run_in_production(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("refund", "20260401-000000000000", "--plan"), "E_UNKNOWN_BATCH"),
        (("reconcile", "20260401-000000000000"), "E_UNKNOWN_BATCH"),
        (("reconcile", "--accept", "999", "--why", "x"), "E_UNKNOWN_FINDING"),
        (("resolve", "999", "--not-paid", "--why", "x"), "E_NOT_RESOLVABLE"),
        (("resolve", "6f2c9e5e-0000-4000-8000-000000000000", "--not-refunded", "--why", "x"), "E_NOT_RESOLVABLE"),
        (("explain", "000000000000"), "E_UNKNOWN_REFERENCE"),
        (("audit", "hold", "--batch", "nosuch", "--why", "x"), "E_UNKNOWN_BATCH"),
        (("audit", "release", "999", "--why", "x"), "E_LEGAL_HOLD"),
    ],
)
def test_a_command_about_nothing_is_a_usage_error(cli: Cli, arguments: tuple[str, ...], code: str) -> None:
    result = cli(*arguments)
    assert (result.exit_code, error_of(result)) == (2, code)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp932", "utf-16"])
def test_a_sample_is_what_it_says_it_is(cli: Cli, encoding: str, tmp_path: Path) -> None:
    target = tmp_path / "sample.csv"
    made = json.loads(cli("sample", "--rows", "50", "--bad", "0.1", "--encoding", encoding, "-o", target, "--json").stdout)
    foretold = json.loads(cli("import", target, "--client", "sampled", "--dry-run", "--json").stdout)
    assert foretold["rows"]["total"] == made["rows"] == 50
    assert foretold["rejections"] == made["bad"]
    assert foretold["amount_jpy"]["accepted"] == made["amount_jpy"]


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
        "schema": "database",
        "keys": "database, sessions, schema",
        "ledger": "database, sessions, schema",
        "audit": "database, sessions, schema",
        "webhooks": "database, sessions, schema",
    }
    assert "connection refused; host 127.0.0.1, port 9" in checks["database"]["says"]
    assert {"storage", "landing", "encryption", "notification service"} <= checks.keys()  # whatever can be, is looked at


@pytest.mark.parametrize(
    ("name", "value", "where", "unseen"),
    [
        ("ORDERS_CLIENTS_FILE", "nowhere.toml", "settings", {"keys", "ledger", "audit", "webhooks"}),
        ("ORDERS_ENCRYPTION_KEYS", "abc", "encryption", {"storage", "keys", "ledger", "audit", "webhooks"}),
        ("ORDERS_STORAGE_URL", "ftp://x/", "storage", {"keys", "ledger", "audit", "webhooks"}),
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
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cli("import", sample(tmp_path), "--client", "keyless").exit_code in (0, 3)
    in_use = json.loads(cli("keys", "list", "--json").stdout)["current"]
    monkeypatch.setenv("ORDERS_ENCRYPTION_KEYS", cli("keys", "new").stdout.strip())
    (missing,) = [each for each in json.loads(cli("doctor", "--json").stdout)["checks"] if not each["ok"]]
    assert (missing["name"], in_use in missing["says"]) == ("keys", True)


def test_a_misspelt_setting_is_named_at_every_start(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_MAX_ROW", "geheim")
    for arguments in (("status",), ("doctor",), ("keys", "new")):
        said = cli(*arguments)
        assert said.exit_code == 0
        assert "ORDERS_MAX_ROW is set and is no setting; is ORDERS_MAX_ROWS meant?" in said.stderr
        assert "geheim" not in said.output


def test_a_key_can_be_made_before_anything_else_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_ENV", "production")
    made = run("keys", "new")
    assert made.exit_code == 0
    assert made.stdout.count(":") == 1


@pytest.mark.parametrize(
    ("redirected", "says"),
    [(">/dev/full", "E_OUTPUT: the answer cannot be written: No space left on device\n"), (">&-", ""), ("| true", "")],
)
def test_an_answer_that_nobody_takes_is_no_traceback(redirected: str, says: str) -> None:
    command = shlex.join([*COMMAND, "keys", "new"])
    for form in ("", "--json"):
        ended = subprocess.run(["sh", "-c", f"{command} {form} {redirected}"], capture_output=True, text=True, check=False)
        assert ended.stderr == says


def test_a_database_that_is_not_there_is_said_so_without_its_url(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORDERS_DATABASE_URL", "postgresql://nobody:geheim@127.0.0.1:9/none")
    for arguments in (("status",), ("import", sample(tmp_path), "--client", "acme"), ("db", "migrate")):
        result = cli(*arguments)
        assert (result.exit_code, error_of(result)) == (1, "E_DATABASE_UNAVAILABLE")
        assert "geheim" not in result.output


def test_migrating_brings_an_empty_database_up_to_date_once(
    installation: Installation, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.rows("CREATE DATABASE empty_for_migrating")
    try:
        empty = make_url(installation.database_url).set(database="empty_for_migrating")
        monkeypatch.setenv("ORDERS_DATABASE_URL", empty.render_as_string(hide_password=False))
        assert (cli("status").exit_code, error_of(cli("status"))) == (2, "E_MIGRATION")
        first, second = cli("db", "migrate", "--json"), cli("db", "migrate", "--json")
        assert [len(json.loads(each.stdout)["applied"]) > 0 for each in (first, second)] == [True, False]
        assert "up to date" in cli("db", "migrate").stdout
        assert cli("status").exit_code == 0
    finally:
        installation.rows("DROP DATABASE empty_for_migrating WITH (FORCE)")


def test_the_url_of_the_database_is_one_that_psql_reads(cli: Cli) -> None:
    result = cli("db", "url")
    assert result.exit_code == 0
    with psycopg.connect(result.stdout.strip()) as connection:
        assert connection.execute("SELECT count(*) FROM batches").fetchone() is not None
    assert json.loads(cli("db", "url", "--json").stdout) == {"url": result.stdout.strip()}


def test_dagsters_own_programs_find_our_records_by_the_variables_that_are_printed(
    installation: Installation, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "never there"))
    printed = dict(line.split("=", 1) for line in shlex.split(cli("db", "dagster").stdout))
    assert json.loads(cli("db", "dagster", "--json").stdout) == printed
    for name, value in printed.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.run_launcher, ForkingRunLauncher)
        assert isinstance(instance.run_storage, PostgresRunStorage)
        assert instance.get_runs_count() == installation.instance.get_runs_count()


def test_in_production_everything_that_is_missing_is_named_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("ORDERS_ENV", "production")
    monkeypatch.setenv("ORDERS_HOME", str(home))
    commands = (("status",), ("up",), ("import", sample(tmp_path), "--client", "acme"), ("demo",), ("db", "migrate"))
    for arguments in commands:
        result = run(*arguments)
        assert (result.exit_code, error_of(result)) == (2, "E_SETTINGS")
        assert all(f"ORDERS_{name.upper()}" in result.stderr for name in REQUIRED_IN_PRODUCTION)
    assert json.loads(run("doctor", "--json").stdout)["ok"] is False
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
def test_a_setting_that_turns_out_wrong_later_is_told_by_a_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: str
) -> None:
    monkeypatch.setenv(name, value)
    result = cli("status")
    assert (result.exit_code, error_of(result)) == (2, code)
    assert "geheim" not in result.output


def test_help_is_there_for_every_command() -> None:
    for path in ([], ["import"], ["status"], ["db"], ["db", "migrate"], ["up"], ["sandbox"]):
        result = run(*path, "--help")
        assert result.exit_code == 0
        assert "Usage:" in result.stdout


def test_the_sandbox_command_answers_until_it_is_stopped() -> None:
    process = start({}, "sandbox", "--port", "0", "--json")
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert json.loads(call({}, "sandbox", "--port", url.rpartition(":")[2], "--json").stdout)["error"]["code"]
        process.send_signal(signal.SIGINT)
        assert end(process).returncode == 0
    finally:
        process.kill()


def test_everything_of_a_bad_day_is_told_in_words(installation: Installation, tmp_path: Path) -> None:
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="W-1"))
    made.add(order_row(client_order_ref="W-2", amount="x"), codes="R_AMOUNT_FORMAT")
    path = made.write(tmp_path / "orders.csv")
    ended = call(installation.environment(), "import", path, "--client", "words-too")
    assert ended.returncode == 3
    assert ended.stderr == ""
    assert "R_AMOUNT_FORMAT" in ended.stdout


@pytest.mark.parametrize("faults", ["bogus=1", "decline=2", "decline", "decline=0.6,reset_after=0.6,empty=0.6"])
def test_faults_that_there_are_not_are_answered_with_those_that_there_are(cli: Cli, faults: str) -> None:
    result = cli("sandbox", "--port", "0", "--faults", faults)
    assert (result.exit_code, "reset_after" in result.stderr, "Traceback" in result.output) == (2, True, False)


def test_no_batches_are_not_asked_for(cli: Cli) -> None:
    assert cli("status", "--limit", "0").exit_code == 2


# a call of each command: what it ends with, and what with when the database is away
EACH: dict[str, tuple[tuple[str, ...], int, int]] = {
    "approve": (("{batch}",), 2, 1),
    "audit export": ((), 0, 1),
    "audit hold": (("--why", "x"), 0, 1),
    "audit release": (("999", "--why", "x"), 2, 1),
    "audit retention": ((), 0, 1),
    "audit seal": ((), 0, 1),
    "audit verify": ((), 0, 1),
    "cancel": (("{batch}", "--why", "x", "--yes"), 2, 1),
    "db dagster": ((), 0, 1),
    "db migrate": ((), 0, 1),
    "db url": ((), 0, 0),
    "demo": (("--rows", "50"), 3, 1),
    "doctor": ((), 0, 1),
    "errors": (("{batch}",), 0, 1),
    "explain": (("000000000000",), 2, 2),
    "import": (("{file}", "--client", "other"), 3, 1),
    "keys list": ((), 0, 1),
    "keys new": ((), 0, 0),
    "keys rotate": ((), 0, 1),
    "mask": (("{file}", "-o", "{new}"), 0, 0),
    "reconcile": (("{batch}",), 0, 1),
    "refund": (("{batch}", "--plan"), 0, 1),
    "refuse": (("{batch}", "--why", "x"), 2, 1),
    "rejected": (("{batch}",), 0, 1),
    "resolve": (("999", "--not-paid", "--why", "x"), 2, 1),
    "resume": (("{batch}",), 3, 1),
    "sample": (("--rows", "5", "-o", "{new}"), 0, 0),
    "sandbox": (("--port", "{port}"), 2, 2),
    "serve": (("--port", "{port}"), 2, 1),
    "status": (("{batch}",), 0, 1),
    "template": (("-o", "{new}"), 0, 0),
    "tokens list": ((), 0, 1),
    "tokens new": (("--client", "other", "--name", "x"), 0, 1),
    "tokens revoke": (("abcdefgh",), 2, 1),
    "up": (("--port", "{port}"), 2, 2),
    "webhooks list": ((), 0, 1),
    "webhooks retry": (("--client", "other"), 0, 1),
}


def one_object(result: Result) -> dict[str, object]:
    """Return what a command with --json answered, which is one object and nothing else on stdout."""
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    assert result.stdout.count("\n") == 1
    return answer


def test_each_command_answers_with_one_json_object_and_its_exit_status_whatever_happens(
    installation: Installation, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(EACH) == every()
    path = sample(tmp_path, rows=10, bad=0.4, seed=91)
    batch_id = installation.take(path, "each")["batch_id"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = {"batch": batch_id, "file": str(path), "port": str(taken.getsockname()[1])}

        def call(name: str, *more: str) -> Result:
            arguments = [each.format(**given, new=tmp_path / uuid.uuid4().hex) for each in EACH[name][0]]
            return cli(*name.split(), *arguments, *more, "--json")

        for name, (_, status, _) in EACH.items():
            result = call(name)
            assert (name, result.exit_code, "error" in one_object(result)) == (name, status, status == 2)
        for name in ("errors", "rejected", "audit export"):
            target = tmp_path / name.replace(" ", ".")
            assert one_object(call(name, "-o", str(target)))["output"] == str(target)
            assert target.stat().st_size
        assert base64.b64decode(str(one_object(call("rejected"))["content_base64"])) == installation.report(
            batch_id, "rejected"
        )
        monkeypatch.setenv("ORDERS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
        for name, (_, _, status) in EACH.items():
            result = call(name)
            answer = one_object(result)
            assert (name, result.exit_code, "error" in answer) == (name, status, status > 0 and name != "doctor")
