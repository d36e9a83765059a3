"""A mutant: the program with one mistake in it, which the tests that are named for it must see."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = "orders_pipeline_tests"
COPIED = ("orders_pipeline", TESTS)
SERVER = "TEST_SERVER_URL"  # where a server with the template is that a mutant's tests may use
MIGRATIONS = "sql/migrations/"
FAILED = 1  # pytest's exit status when tests ran and some failed
PATIENCE_S = 600.0
PAYMENT_LEDGER = [f"database/test_payment_{subject}.py" for subject in ("ledger", "doubt", "workers")]


@dataclass(frozen=True)
class Mutant:
    """A mistake: `new` in place of `old`, which is in the file once; and what it would do to users, or why nothing."""

    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]  # below the folder of tests: files, or one test of a file

    @property
    def name(self) -> str:
        return f"{Path(self.file).name}: {self.why}"

    def write(self, copy: Path) -> None:
        """Make the mistake in a copy of the tree."""
        target = copy / self.file
        text = target.read_text("utf-8")
        assert text.count(self.old) == 1, f"{self.name}: found {text.count(self.old)} times"
        target.unlink()  # not the file that it may be a link to
        target.write_text(text.replace(self.old, self.new), "utf-8")

    def is_seen(self, copy: Path, server_url: str) -> bool:
        """Run the tests that are named for it, in a copy of the tree with the mistake."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"PYTHONPATH": str(copy)}
        if not self.file.startswith(MIGRATIONS):  # else its databases are of a template with the mistake
            environment |= {SERVER: server_url}
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-m", "not soak", "-p", "no:cacheprovider"),
                *(f"{TESTS}/{test}" for test in self.tests),
            ],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert ran.returncode in (0, FAILED), f"{self.name}: its tests could not be run\n{ran.stdout[-2000:]}"
        return ran.returncode == FAILED


def mutants(file: str, tests: Sequence[str], *mistakes: tuple[str, ...]) -> list[Mutant]:
    """Return mutants of one file: each made of what is, what is in its place, why, and the one of the tests that must see it.

    Where that is left out, all of the tests are run, in the order of their file until one fails.
    """
    return [Mutant(file, old, new, why, _named(tests, *name)) for old, new, why, *name in mistakes]


def _named(tests: Sequence[str], name: str = "") -> tuple[str, ...]:
    return (f"{tests[0]}::{name}",) if name else tuple(tests)


def copy_tree(target: Path) -> Path:
    """Copy the program and its tests; `sql` is where an installed package has it."""
    for name in COPIED:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("sql"), symlinks=True)
    shutil.copytree(ROOT / "sql", target / "sql")
    (target / "orders_pipeline" / "sql").symlink_to(target / "sql")
    shutil.copy2(ROOT / "pyproject.toml", target)
    return target
