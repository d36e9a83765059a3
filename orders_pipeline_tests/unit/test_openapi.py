"""The description of the API: it has the operations that the application has, and the problems and scopes there are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from starlette.routing import Route

from orders_pipeline.clients.api_tokens import SCOPES
from orders_pipeline.web.app import CONTROLLING, READING, build_app
from orders_pipeline.web.problems import KINDS, language_of

DOCUMENT: dict[str, Any] = yaml.safe_load((resources.files("orders_pipeline.web") / "openapi.yaml").read_text("utf-8"))


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def operations() -> set[tuple[str, str]]:
    return {
        (path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in item if method in ("get", "post")
    }


def is_of_the_page(path: str) -> bool:
    """Say whether a path is for people's browsers alone."""
    of_page = ("/", "/check", "/send", "/history", "/overview")
    return path in of_page or path.startswith(("/b/", "/sign-", "/static/", "/language/"))


def test_the_document_and_the_application_have_the_same_operations():
    system: Any = SimpleNamespace(settings=SimpleNamespace(dagster_url=None))
    routes = [route for route in build_app(system).routes if isinstance(route, Route)]
    found = {(route.path, method) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    assert {(path, method) for path, method in found if not is_of_the_page(path)} == operations()


def test_every_reference_leads_somewhere():
    for reference in references(DOCUMENT):
        part: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_each_operation_names_its_scope_and_has_a_name_of_its_own():
    names = [
        item[method]["operationId"] for item in DOCUMENT["paths"].values() for method in ("get", "post") if method in item
    ]
    assert len(set(names)) == len(names) == len(operations())
    for operation in (*READING, *CONTROLLING):
        described = DOCUMENT["paths"][operation.path][operation.method.lower()]["description"]
        assert f"Scope `{operation.scope}`" in described
        assert operation.scope in SCOPES


@pytest.mark.parametrize("slug", KINDS)
def test_every_problem_has_a_title_in_both_languages(slug):
    kind = KINDS[slug]
    assert kind.title("en").endswith(".")
    assert kind.title("ja").endswith("。")
    assert 400 <= kind.status < 600


@pytest.mark.parametrize(
    ("asked", "language"),
    [("en", "en"), ("EN-us,ja;q=0.9", "en"), ("ja,en;q=0.9", "ja"), ("ja,en", "ja"), ("fr,ja;q=0.1", "ja")],
)
def test_the_language_is_the_one_that_is_wanted_most(asked, language):
    assert language_of(asked) == language_of(asked, "en") == language


@pytest.mark.parametrize("asked", ["", "*", "fr;q=1,en;q=x"])
def test_who_wants_neither_language_gets_the_one_of_the_place(asked):
    assert (language_of(asked), language_of(asked, "en")) == ("ja", "en")


def test_the_application_does_without_dagster_and_what_only_some_files_need():
    code = "import sys, orders_pipeline.web.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"dagster", "openpyxl", "faker"} & set(loaded)
