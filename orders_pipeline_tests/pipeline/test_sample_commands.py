"""The `sample` and `template` commands: files that are what they say they are, and can be imported."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from openpyxl import Workbook

from orders_pipeline.samples.synthetic import write_template
from orders_pipeline_tests.support.commands import Cli
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, check_finished


def test_a_template_that_is_filled_in_can_be_imported_without_its_example(
    installation: Installation, cli: Cli, tmp_path: Path
) -> None:
    target = tmp_path / "template.csv"
    assert cli("template", "-o", target).exit_code == 0
    with target.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(order_row(client_order_ref="MINE-1").values())
    answer = installation.take(target, "template")
    assert answer["rows"] == {"total": 2, "accepted": 1, "rejected": 1, "blank": 0, "skipped": 0}
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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp932", "utf-16"])
def test_a_sample_is_what_it_says_it_is(cli: Cli, encoding: str, tmp_path: Path) -> None:
    target = tmp_path / "sample.csv"
    made = json.loads(cli("sample", "--rows", "50", "--bad", "0.1", "--encoding", encoding, "-o", target, "--json").stdout)
    foretold = json.loads(cli("import", target, "--client", "sampled", "--dry-run", "--json").stdout)
    assert foretold["rows"]["total"] == made["rows"] == 50
    assert foretold["rejections"] == made["bad"]
    assert foretold["amount_jpy"]["accepted"] == made["amount_jpy"]
