"""What `--help` says: every command, in a group, in whole sentences; and what completes in a shell."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from orders_pipeline.cli import main
from orders_pipeline.cli.command import OTHERS, SECTIONS
from orders_pipeline_tests.support.commands import PROGRAM


def helped(*command: str) -> str:
    return CliRunner().invoke(main, [*command, "--help"], prog_name=PROGRAM).stdout


def test_every_command_is_in_one_group_and_new_ones_are_in_the_last():
    listed = re.findall(r"^  ([a-z]+)  ", helped(), re.MULTILINE)
    assert sorted(listed) == sorted(main.commands)
    named = [name for names in SECTIONS.values() for name in names]
    assert listed[: len(named)] == named
    headings = re.findall(r"^([A-Z][a-z ]+):$", helped(), re.MULTILINE)
    assert headings == ["Options", *SECTIONS, OTHERS]


@pytest.mark.parametrize("command", [(), ("audit",), ("keys",), ("tokens",), ("db",), ("webhooks",), ("profile",)])
def test_no_sentence_is_cut(command):
    assert "..." not in helped(*command).replace("[ARGS]...", "")


def test_help_has_examples_and_all_exit_statuses():
    said = helped()
    assert f"{PROGRAM} import orders.csv --client shop" in said
    assert re.findall(r"^    ([0-9])  ", said, re.MULTILINE) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("line", "completed"),
    [("st", {"status"}), ("import --cl", {"--client"}), ("keys r", {"rotate"}), ("status --status pau", {"paused"})],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_states_complete(shell, line, completed):
    *words, last = line.split()
    asked = {
        "_ORDERS_PIPELINE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": f"{PROGRAM} {line}",
        "COMP_CWORD": last if shell == "fish" else str(len(words) + 1),
    }
    told = CliRunner(env=asked).invoke(main, [], prog_name=PROGRAM)
    assert completed <= set(re.split(r"[\s,]+", told.stdout))


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_said(option):
    assert re.fullmatch(rf"{PROGRAM}, version [0-9.]+\n", CliRunner().invoke(main, [option], prog_name=PROGRAM).stdout)
