"""How commands are called: what is wrong with a call is a usage error, and with --json one JSON object."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from orders_pipeline.cli import main
from orders_pipeline.cli.answering import answer, answers
from orders_pipeline.settings import SettingsError
from orders_pipeline_tests.commands import every


@pytest.mark.parametrize("wrong", [("--nonsense",), ("a", "b", "c", "d"), ("--help-me", "--force=x")])
@pytest.mark.parametrize("command", every())
def test_a_wrong_call_ends_with_2_and_is_one_json_object_if_that_was_asked_for(command, wrong):
    said = CliRunner().invoke(main, [*command.split(), *wrong])
    assert (said.exit_code, said.stdout, "Usage:" in said.stderr) == (2, "", True)
    told = CliRunner().invoke(main, [*command.split(), *wrong, "--json"])
    assert (told.exit_code, json.loads(told.stdout)["error"]["code"]) == (2, "E_USAGE")


@pytest.mark.parametrize("arguments", [["nonsense"], ["db", "nonsense"], []])
def test_a_command_that_is_none_is_told_as_such(arguments):
    told = CliRunner().invoke(main, [*arguments, "--json"])
    assert (told.exit_code, json.loads(told.stdout)["error"]["code"]) == (2, "E_USAGE")


def test_what_goes_wrong_after_a_command_has_answered_is_no_second_object():
    @click.command()
    @answers
    def late(*, as_json):
        answer({"url": "x"}, lambda *_: None, as_json=as_json)
        raise SettingsError("E_SETTINGS: no longer")

    told = CliRunner().invoke(late, ["--json"])
    assert (told.exit_code, json.loads(told.stdout), "E_SETTINGS: no longer" in told.stderr) == (2, {"url": "x"}, True)
