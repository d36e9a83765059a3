"""Named statements: how their files are read, and that names in SQL and in Python are the same names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

import orders_pipeline
from orders_pipeline.infrastructure import database, database_url
from orders_pipeline.infrastructure.database import Transaction, parse_queries, queries
from orders_pipeline.infrastructure.database_errors import DatabaseNotNamed
from orders_pipeline.settlement.notifications.ledger import CorrectionLedger, ResultLedger
from orders_pipeline.settlement.payments.ledger import PaymentLedger
from orders_pipeline.settlement.refunds.ledger import RefundLedger

PACKAGE = Path(orders_pipeline.__file__).parent
METHODS = {"execute", "rows", "row", "scalar", "stream", "copy", "execute_with_columns"}


def names(argument: ast.expr, place: str) -> set[str]:
    """Return the statements that an argument names: one that is written out, or each ledger's for `f"verb_{self.name}"`."""
    if isinstance(argument, ast.JoinedStr) and ast.unparse(argument).endswith("_{self.name}'"):
        verb = ast.unparse(argument).removeprefix("f'").removesuffix("{self.name}'")
        return {f"{verb}{ledger.name}" for ledger in (PaymentLedger, RefundLedger, ResultLedger, CorrectionLedger)}
    assert isinstance(argument, ast.Constant), f"{place} calls a name that is not written out"
    return {str(argument.value)}


def called_names() -> set[str]:
    """Return the first arguments, written out, of calls of a transaction's methods, and `queries()["name"]`, anywhere."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                owner = node.func.value
                owners = {"transaction", "session", *(["self"] if path.name == "database.py" else [])}
                if isinstance(owner, ast.Name) and owner.id in owners and node.args:
                    found |= names(node.args[0], f"{path.name}:{node.lineno}")
            if (
                isinstance(node, ast.Subscript)
                and ast.unparse(node.value) == "queries()"
                and isinstance(node.slice, ast.Constant)
            ):
                found.add(str(node.slice.value))
    return found


def test_a_file_is_split_at_its_names():
    source = "-- name: first\n-- What it is for.\nSELECT 1\n\n-- name:second \nSELECT\n    2\n"
    assert parse_queries(source) == {"first": "-- What it is for.\nSELECT 1", "second": "SELECT\n    2"}


def test_text_before_the_first_name_belongs_to_no_statement():
    assert parse_queries("-- a heading\n\n-- name: only\nSELECT 1") == {"only": "SELECT 1"}


def test_a_name_in_the_middle_of_a_line_splits_nothing():
    assert list(parse_queries("-- name: only\nSELECT '-- name: other'")) == ["only"]


def test_a_statement_with_braces_in_its_name_is_made_for_each_line_that_says_what_they_stand_for():
    places = '-- for: {"item": "a"}\n-- for: {"item": "b"}\n\n'
    source = f"{places}-- name: get_{{item}}\nSELECT {{item}}_id\n\n-- name: all\nSELECT {{columns}}"
    assert parse_queries(source) == {"get_a": "SELECT a_id", "get_b": "SELECT b_id", "all": "SELECT {columns}"}


def test_a_file_without_names_has_no_statements():
    assert parse_queries("SELECT 1") == {}


def test_a_name_used_twice_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "queries").mkdir()
    for file in ("a.sql", "b.sql"):
        (tmp_path / "queries" / file).write_text("-- name: same\nSELECT 1")
    monkeypatch.setattr(database, "SQL", tmp_path)
    queries.cache_clear()
    try:
        with pytest.raises(ValueError, match="two statements are named same"):
            queries()
    finally:
        queries.cache_clear()


def test_every_statement_is_used_and_every_name_used_is_a_statement():
    assert called_names() == set(queries())


@pytest.mark.parametrize("name", sorted(queries()))
def test_a_statement_begins_with_a_comment_that_is_a_sentence(name):
    comment, _, body = queries()[name].text.partition("\n")
    assert re.fullmatch(r"-- [A-Z].*[.]", comment), comment
    assert body.strip()
    assert not body.rstrip().endswith(";")


@pytest.mark.parametrize("columns", [["amount; DROP TABLE orders"], ["Amount"], [""], ["a", "b-c"], ['"a"']])
def test_a_column_that_is_not_a_plain_name_never_gets_into_a_statement(columns):
    with pytest.raises(ValueError, match="lower case"):
        database._with_columns("copy_orders", columns)


def test_columns_stand_where_the_statement_wants_them():
    assert b"COPY orders (amount, personal) FROM STDIN" in database._with_columns("copy_orders", ["amount", "personal"])


def test_transactions_take_statements_by_name_only():
    assert not [name for name in vars(Transaction) if name in {"sql", "query", "raw"}]


@pytest.mark.parametrize(
    "url", ["postgresql://u:planted@h/d", "postgresql+psycopg2://u:planted@h/d", "postgresql+psycopg://u:planted@h/d"]
)
def test_whatever_scheme_a_url_comes_with_our_driver_is_used(url):
    assert database_url.normalise_url(url) == "postgresql+psycopg://u:planted@h/d"


@pytest.mark.parametrize(
    "url", ["planted", "mysql://u:planted@h/d", "postgresql://u:planted@h:x/d", "postgresql://u:planted@h/d?nonsense=1"]
)
def test_what_names_no_database_is_said_so_without_a_word_of_it(url):
    for read in (database_url.normalise_url, lambda url: database_url.libpq_url(SecretStr(url))):
        with pytest.raises(DatabaseNotNamed) as refused:
            read(url)
        assert "planted" not in f"{refused.value}{refused.value.__context__}"


def test_dagsters_sessions_are_watched_as_ours_are():
    ours = dict(re.findall(r"'(tcp_\w+)', '(\d+)'", queries()["watch_client"].text))
    assert ours == {name: str(value) for name, value in database_url.WATCHED.items()}
