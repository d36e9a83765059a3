"""The command `sample`: what it is asked for on the command line is what it makes, and says."""

import json

import pytest
from click.testing import CliRunner

from orders_pipeline.cli import main


def sample(tmp_path, *arguments):
    return CliRunner().invoke(main, ["sample", "-o", str(tmp_path / "s.csv"), *arguments])


def test_rates_by_code_are_made_and_no_others(tmp_path):
    made = json.loads(
        sample(
            tmp_path, "--rows", "100", "--reject", "R_EMAIL=0.1", "--reject", "R_PHONE=0.03", "--excel", "0.06", "--json"
        ).stdout
    )
    assert made["bad"] == {"R_EMAIL": 10, "R_PHONE": 4, "R_DATE_FORMAT": 1, "R_AMOUNT_FORMAT": 1}
    assert sum(made["excel"].values()) == 6
    assert made["rows"] == 100


def test_the_rows_of_each_code_are_said(tmp_path):
    said = sample(tmp_path, "--rows", "100", "--reject", "R_EMAIL=0.1").stdout.splitlines()
    assert "100 rows, 10 of them bad on purpose" in said[0]
    assert said[1:] == ["         10 x R_EMAIL"]


def test_without_rates_one_row_in_a_hundred_is_bad(tmp_path):
    assert sum(json.loads(sample(tmp_path, "--rows", "300", "--json").stdout)["bad"].values()) == 3


@pytest.mark.parametrize("rate", ["R_EMAIL", "R_EMAIL=", "R_EMAIL=2", "R_EMAIL=nan", "R_NOPE=0.1", "F_EMPTY=0.1"])
def test_rates_that_mean_nothing_end_with_2(tmp_path, rate):
    result = sample(tmp_path, "--reject", rate)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert not (tmp_path / "s.csv").exists()
