"""README and the pages beside it: what they name is there, and what is there they name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import orders_pipeline
from orders_pipeline.clients.column_sources import ColumnSource
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.sandbox import app
from orders_pipeline.sandbox.contract import PROBLEMS
from orders_pipeline.system.settings import Settings
from orders_pipeline_tests.support.commands import every
from orders_pipeline_tests.support.generated_pages import DOCS, made, pages

PACKAGE = Path(orders_pipeline.__file__).parent
README = PACKAGE.parent / "README.md"
TESTS = PACKAGE.parent / "orders_pipeline_tests"
DOCUMENTS = [README, *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)?(?:#([^)\s]+))?\)")
ERROR = re.compile(r"[\"'(]\s*(E_[A-Z_]*[A-Z])(?=[\"':])")


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    text = path.read_text("utf-8")
    links = [(file, place) for file, place in LINK.findall(text) if not file.startswith("http")]
    assert [file for file, _ in links if file and not (path.parent / file).exists()] == []
    headings = {
        re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    assert [place for file, place in links if not file and place not in headings] == []


def test_readme_is_short():
    assert len(README.read_text("utf-8").splitlines()) <= 120


def test_readme_leads_to_every_page():
    assert {path.name for path in DOCS.glob("*.md")} <= set(re.findall(r"docs/([\w.]+)", README.read_text("utf-8")))


@pytest.mark.parametrize(("path", "text"), pages().items(), ids=lambda each: getattr(each, "name", ""))
def test_what_is_made_from_the_catalogue_is_as_it_is_today(path, text):
    assert text == made(text), "run python -m orders_pipeline_tests.support.generated_pages"


def test_every_error_of_the_installation_is_explained():
    source = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    assert len(set(ERROR.findall(source))) > 60
    explained = {"E_ELSE", *re.findall(r"E_[A-Z_]+", page("TROUBLESHOOT.md"))}  # the first are the page's words for others
    assert set(ERROR.findall(source)) - explained == set()


def test_every_command_is_listed():
    listed = set(re.findall(r"`([a-z]+(?: [a-z]+)?)", page("COMMANDS.md")))
    assert {command for command in every() if command not in listed} == set()


def test_every_setting_is_listed():
    named = set(re.findall(r"`(?:ORDERS_)?([A-Z0-9_]+)`", page("OPERATE.md")))
    assert {name.upper() for name in Settings.model_fields} - named == set()


def test_every_call_and_problem_of_the_services_is_described():
    described = page("SERVICES.md")
    calls = {f"{method} {path}" for method, path, _ in app._API}
    assert {call for call in calls if call not in described} == set()
    assert {slug for slug in PROBLEMS if f"`{slug}`" not in described} == set()


def test_every_setting_of_a_profile_is_shown():
    shown = set(re.findall(r"\b[a-z_]+\b", page("FILES.md").partition("## Clients' profiles")[2]))
    settings = {
        each.alias or name for kind in (Profile, ColumnSource, RowChoice) for name, each in kind.model_fields.items()
    }
    assert settings - shown == set()


def test_each_limit_that_is_lifted_names_tests_that_exist():
    trees = [ast.parse(path.read_text("utf-8")) for path in TESTS.rglob("test_*.py")]
    tests = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    rows = re.findall(r"^\| (?!Limit|---).*$", page("LIMITS_LIFTED.md"), re.MULTILINE)
    assert rows
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, row
        assert named <= tests, row
