"""The same inputs through `import --json`, paid and all: a few of different ends always, the rest in long runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orders_pipeline.batches import batches
from orders_pipeline.cli import main
from orders_pipeline_tests.inputs.case import Case
from orders_pipeline_tests.inputs.catalogue import CASES, as_parameter
from orders_pipeline_tests.inputs.outcome import check, clients_file, write
from orders_pipeline_tests.support.installation import Installation

EXIT_STATUS = {"completed": 0, "completed_with_errors": 3, "rejected": 4}
ALWAYS = {
    "input_003_cp932_without_BOM",
    "input_006_UTF_8_and_then_CP932",
    "input_043_one_byte_over_the_default_limit",
    "input_056_a_reference_of_an_earlier_file",
    "input_093_all_rows_bad",
}


def parameters() -> list[object]:
    assert {case.test_name for case in CASES} >= ALWAYS
    return [as_parameter(case, *(() if case.test_name in ALWAYS else (pytest.mark.soak,))) for case in CASES]


def call(case: Case, path: Path) -> Result:
    """Run the command; it must say nothing that was not meant to be said."""
    result = CliRunner().invoke(main, ["import", str(path), "--client", case.client, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    assert "Traceback" not in result.output
    for value in case.personal:
        assert value not in result.output
        assert json.dumps(value)[1:-1] not in result.output
    return result


@pytest.mark.parametrize("case", parameters())
def test_what_the_command_says_of(
    installation: Installation, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "today", lambda: case.today)
    settings = {f"ORDERS_{name.upper()}": str(value) for name, value in case.settings.items()}
    if profiles := clients_file(case, tmp_path):
        settings["ORDERS_CLIENTS_FILE"] = str(profiles)
    for name, value in installation.environment(**settings).items():
        monkeypatch.setenv(name, value)
    earlier = ""
    for number, data in enumerate(case.before):
        path = tmp_path / f"before-{number}.csv"
        path.write_bytes(data)
        earlier = json.loads(call(case, path).stdout)["batch_id"]
    path = write(case, tmp_path)
    result = call(case, path)
    answer = json.loads(result.stdout)
    if case.at_the_door:
        assert (result.exit_code, answer["error"]["code"]) == (4, case.file_code)
        return
    seen = check(
        case, installation, path, answer["batch_id"], "completed_with_errors" if case.back else "completed", earlier
    )
    assert answer == seen.summary
    assert result.exit_code == EXIT_STATUS[answer["status"]]
    assert answer["orders"]["paid"] == len(case.accepted)
    assert answer["amount_jpy"]["paid"] == sum(int(str(each["amount"])) for each in case.accepted.values())
    assert installation.sandbox.ledger(answer["batch_id"])["orders"] == {
        "paid": len(case.accepted),
        "paid_more_than_once": 0,
    }
