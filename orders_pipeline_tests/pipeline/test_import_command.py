"""The `import` command: its answers in words and JSON, its dry run, files that it rejects or that are named oddly."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.base import AssetRecordsFilter

from orders_pipeline.system import whereabouts
from orders_pipeline_tests.support.commands import Cli, call, error_of
from orders_pipeline_tests.support.factories import order_row, sample_file
from orders_pipeline_tests.support.installation import Installation, check_finished
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.soak import first_of

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


def test_after_an_import_dagster_links_to_where_up_serves_reports(
    installation: Installation, cli: Cli, tmp_path: Path
) -> None:
    def shown(seed: int) -> str:
        path = sample_file(tmp_path, rows=3, seed=seed)
        batch_id = json.loads(cli("import", path, "--client", f"linked-{seed}", "--json").stdout)["batch_id"]
        wanted = AssetRecordsFilter(asset_key=dg.AssetKey("batch_report"), asset_partitions=[batch_id])
        (record,) = installation.instance.fetch_materializations(wanted, limit=1).records
        return str(record.asset_materialization.metadata["errors report"].value).replace(batch_id, "BATCH")

    assert shown(1) == "orders-pipeline errors BATCH"
    whereabouts.note_reports(installation.home, "http://127.0.0.1:3001")
    assert shown(2) == "http://127.0.0.1:3001/batches/BATCH/errors.csv"


def test_import_answers_with_the_documented_object_and_status_and_the_report_agree(
    installation: Installation, cli: Cli, tmp_path: Path
) -> None:
    result = cli("import", sample_file(tmp_path, bad=0.2), "--client", "shape", "--json")
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
    result = cli("import", sample_file(tmp_path), "--client", "words")
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
    path = sample_file(tmp_path, rows=60, seed=4, bad=0.3)
    assert cli("status").exit_code == 0  # who comes first notes keys and profiles
    before, sent = everything(installation), installation.sandbox.ledger()
    result = cli("import", path, "--client", "dry", "--dry-run", "--json")
    assert result.exit_code == 3
    assert everything(installation) == before
    assert installation.sandbox.ledger() == sent
    foretold = json.loads(result.stdout)
    assert cli("import", path, "--client", "dry", "--dry-run").exit_code == 3
    answer = installation.take(path, "dry")
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


def test_a_dry_run_of_a_file_that_would_be_rejected_says_why(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("a,b\r\n1,2\r\n")
    result = cli("import", path, "--client", "dry", "--dry-run", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["error"]["code"] == "F_HEADER_MISSING"


def test_a_rejected_file_ends_with_4_and_its_errors_can_be_read(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("client_order_ref,amount\r\nA-1,100\r\n")
    result = cli("import", path, "--client", "rejected", "--json")
    assert result.exit_code == 4
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["rejections"]) == ("rejected", {"F_HEADER_MISSING": 1})
    assert cli("resume", answer["batch_id"]).exit_code == 4
    listed = json.loads(cli("errors", answer["batch_id"], "--json").stdout)["errors"]
    assert [(each["code"], bool(each["message_ja"])) for each in listed] == [("F_HEADER_MISSING", True)]
    assert "F_HEADER_MISSING" in cli("errors", answer["batch_id"]).stdout
    assert "no such report" in cli("rejected", answer["batch_id"]).stderr


def test_the_same_file_twice_ends_with_4_and_names_its_batch(installation: Installation, cli: Cli, tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    first = installation.take(path, "twice")["batch_id"]
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


def test_status_says_why_a_file_was_rejected_as_much_as_a_dry_run_does(cli: Cli, tmp_path: Path) -> None:
    row = order_row(client_order_ref="HM-1")
    del row["amount"], row["payment_method"]
    path = tmp_path / "orders.csv"
    path.write_text("\r\n".join([",".join(row), ",".join(row.values()), ""]), "utf-8")
    foretold = json.loads(cli("import", path, "--client", "why", "--dry-run", "--json").stdout)["errors"][0]["message"]
    said = cli("import", path, "--client", "why").stdout
    assert "amount, payment_method" in foretold
    assert f"why            F_HEADER_MISSING: {foretold}" in said


def test_a_service_that_is_down_ends_with_1_and_says_how_to_resume(
    installation: Installation, cli: Cli, impatient: None, tmp_path: Path
) -> None:
    installation.sandbox.change(faults={"unavailable": 1, "retry_after": "0"})
    result = cli("import", sample_file(tmp_path), "--client", "down")
    assert result.exit_code == 1
    assert "paused" in result.stdout
    batch_id = result.stdout.split()[0]
    assert f"orders-pipeline resume {batch_id}" in result.stdout
    installation.sandbox.change(faults={})
    assert cli("resume", batch_id).exit_code == 0
    check_finished(installation, batch_id)


def test_what_cannot_be_read_as_a_file_is_rejected(cli: Cli, tmp_path: Path) -> None:
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


def test_a_file_name_that_is_no_text_is_rejected(installation: Installation, tmp_path: Path) -> None:
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
        result = cli("import", sample_file(tmp_path), "--client", code, *more)
        assert (result.exit_code, "1 to 32 of the characters A-Z a-z 0-9 _ -" in result.stderr) == (2, True)


def test_everything_of_a_bad_day_is_said_in_words(installation: Installation, tmp_path: Path) -> None:
    made = OrderFile("utf-8")
    made.add(order_row(client_order_ref="W-1"))
    made.add(order_row(client_order_ref="W-2", amount="x"), codes="R_AMOUNT_FORMAT")
    path = made.write(tmp_path / "orders.csv")
    ended = call(installation.environment(), "import", path, "--client", "words-too")
    assert ended.returncode == 3
    assert ended.stderr == ""
    assert "R_AMOUNT_FORMAT" in ended.stdout
