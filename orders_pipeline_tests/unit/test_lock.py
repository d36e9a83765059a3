"""S21: the lock that new machines install from."""

import itertools
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)", re.MULTILINE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_s21_every_package_of_the_lock_is_held_by_a_hash_and_everything_asked_for_is_in_it():
    text = (ROOT / ".ci" / "requirements.txt").read_text("utf-8")
    locked = {normal(name): hashes for name, _, hashes in REQUIREMENT.findall(text)}
    assert len(locked) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE))
    assert all(locked.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {normal(re.split(r"[^A-Za-z0-9._-]", each)[0]) for each in asked}
    assert names - {project["name"]} <= locked.keys()
