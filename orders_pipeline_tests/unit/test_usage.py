"""How commands are called: what is wrong with a call is a usage error, and with --json one JSON object."""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import orders_pipeline
from orders_pipeline.cli import main
from orders_pipeline.cli.command import answer, answers
from orders_pipeline.system.settings import SettingsError
from orders_pipeline_tests.support.commands import every


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
    def late():
        answer({"url": "x"}, lambda *_: None)
        raise SettingsError("E_SETTINGS: no longer")

    told = CliRunner().invoke(late, ["--json"])
    assert (told.exit_code, json.loads(told.stdout), "E_SETTINGS: no longer" in told.stderr) == (2, {"url": "x"}, True)


NAMED = re.compile(r"(?<!of )orders-pipeline ((?:[^`;,()]|\([^)]*\))+)")


def said_commands() -> Iterator[tuple[str, str]]:
    """Every command that a sentence of ours names, and the sentence up to there; what is filled in is X."""
    package = Path(orders_pipeline.__file__).parent
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        no_sentence = {
            id(part)
            for node in ast.walk(tree)
            for part in (
                node.values
                if isinstance(node, ast.JoinedStr)
                else [node.body[0].value]
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
                else []
            )
        }
        for node in ast.walk(tree):
            if id(node) in no_sentence:
                continue
            text = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            for found in NAMED.finditer(text):
                yield text[: found.start()], found[1]


def parsed(words: list[str]) -> tuple[str, dict[str, object]]:
    command: click.Command = main
    while isinstance(command, click.Group):
        context = command.make_context("", [words[0]])
        _, command, _ = command.resolve_command(context, [words.pop(0)])
    return command.name or "", command.make_context(command.name, words).params


def test_every_command_that_a_sentence_names_can_be_pasted():
    seen = set()
    for before, said in said_commands():
        words = said.partition("  ")[0]
        for choice in itertools.product(*(part.strip("()").split(" | ") for part in re.findall(r"\(.*?\)", words))):
            chosen = iter(choice)
            line = re.sub(r"\(.*?\)", lambda _, chosen=chosen: next(chosen), words).split()
            if line[:1] in ([], ["X"]):
                continue
            name, given = parsed(line)
            seen.add(name)
            if name == "refund" or (name == "cancel" and "end it" not in before):  # why is said when it begins
                assert given["why"], before + said
    assert {"resume", "cancel", "refund", "resolve", "reconcile"} <= seen
