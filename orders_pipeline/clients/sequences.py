"""Sequence numbers in file names: what a client's naming says about a file, and which number should have come before it.

A template such as `orders-{series}-{number}.csv` says where the number stands; numbers count within a series (a day, a
shop), or over all files where there is none. Which files a client has sent is asked of the database in `intake`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orders_pipeline.clients.file_names import composed

_FIELD = re.compile(r"\{(series|number)\}")
_PATTERNS = {"series": "(?P<series>.+?)", "number": "(?P<number>[0-9]{1,15})"}


@dataclass(frozen=True)
class Position:
    """A file's place in its client's sequence; `series` is "" where the client's names have none."""

    series: str
    number: int


def check_template(template: str) -> str:
    """Return a template in the form of names; raise ValueError unless it has `{number}` once and `{series}` at most once."""
    fields = _FIELD.findall(template)
    rest = _FIELD.sub("", template)
    if sorted(fields) not in (["number"], ["number", "series"]) or "{" in rest or "}" in rest:
        raise ValueError("a sequence is a file name with {number} once, and {series} if numbers begin anew in each")
    return composed(template)


def position_of(name: str, template: str) -> Position | None:
    """Return the place of a file called `name`, or None where its name does not follow the template."""
    parts = (_PATTERNS[part] if at % 2 else re.escape(part) for at, part in enumerate(_FIELD.split(template)))
    found = re.fullmatch("".join(parts), composed(name), re.IGNORECASE)
    if found is None:
        return None
    return Position(found.groupdict().get("series") or "", int(found["number"]))


def missing_before(position: Position, latest_before: int | None) -> int | None:
    """Return the number that should have come before this one and did not, or None.

    `latest_before` is the highest number below this one among the files received in its series. The first file ever seen
    may have any number, but a series of its own begins at 0 or 1.
    """
    if latest_before is None:
        return 1 if position.series and position.number > 1 else None
    return latest_before + 1 if latest_before + 1 < position.number else None
