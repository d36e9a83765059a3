"""What all commands have in common: one JSON object, exit statuses, a code for what is wrong, output files."""

from __future__ import annotations

import base64
import csv
import json
import shlex
import signal
import socket
import subprocess
import uuid
from pathlib import Path

import pytest
from click.testing import Result

from orders_pipeline_tests.support.commands import COMMAND, Cli, call, end, error_of, every, invoke, start
from orders_pipeline_tests.support.factories import sample_file
from orders_pipeline_tests.support.installation import Installation


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


def test_rejected_and_errors_write_the_reports_to_a_file_or_the_terminal(
    installation: Installation, cli: Cli, tmp_path: Path
) -> None:
    answer = installation.take(sample_file(tmp_path, bad=0.3), "reports")
    for name in ("rejected", "errors"):
        target, report = tmp_path / f"{name}.csv", installation.report(answer["batch_id"], name)
        written = cli(name, answer["batch_id"], "-o", target)
        assert (written.exit_code, written.stdout, target.read_bytes()) == (0, "", report)
        assert cli(name, answer["batch_id"]).stdout_bytes == report
    listed = json.loads(cli("errors", answer["batch_id"], "--json").stdout)["errors"]
    with (tmp_path / "errors.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [each["code"] for each in listed] == [line["code"] for line in csv.DictReader(file)]


@pytest.mark.parametrize("command", ["template", "sample", "mask", "rejected", "errors", "export"])
def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(
    installation: Installation, cli: Cli, command: str, tmp_path: Path
) -> None:
    path = sample_file(tmp_path, rows=5, bad=0.4, seed=71)
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


@pytest.mark.parametrize(
    ("redirected", "says"),
    [(">/dev/full", "E_OUTPUT: the answer cannot be written: No space left on device\n"), (">&-", ""), ("| true", "")],
)
def test_an_answer_that_nobody_takes_is_no_traceback(redirected: str, says: str) -> None:
    command = shlex.join([*COMMAND, "keys", "new"])
    for form in ("", "--json"):
        ended = subprocess.run(["sh", "-c", f"{command} {form} {redirected}"], capture_output=True, text=True, check=False)
        assert ended.stderr == says


def test_a_port_that_serve_cannot_have_is_named(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = call(installation.environment(), "serve", "--port", str(port))
    assert refused.returncode == 2
    assert refused.stderr == f"E_PORT: port {port} of 127.0.0.1 cannot be used or is in use; choose another with --port\n"


def test_help_is_there_for_every_command() -> None:
    for path in ([], ["import"], ["status"], ["db"], ["db", "migrate"], ["up"], ["sandbox"]):
        result = invoke(*path, "--help")
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
    "audit ship": ((), 2, 1),
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
    "profile try": (("{file}",), 0, 0),
    "reconcile": (("{batch}",), 0, 1),
    "refund": (("{batch}", "--plan"), 0, 1),
    "refuse": (("{batch}", "--why", "x"), 2, 1),
    "rehearse": (("{new}", "--port", "{port}"), 2, 2),
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
    "worker": ((), 2, 2),
}
OTHERS = {"daemon", "web"}  # that are another program from then on


def one_object(result: Result) -> dict[str, object]:
    """Return what a command with --json answered, which is one object and nothing else on stdout."""
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    assert result.stdout.count("\n") == 1
    return answer


def test_each_command_answers_with_one_json_object_and_its_exit_status_whatever_happens(
    installation: Installation, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted({*EACH, *OTHERS}) == every()
    path = sample_file(tmp_path, rows=10, bad=0.4, seed=91)
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
