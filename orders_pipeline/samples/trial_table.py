"""What was found out of a file that is tried, and the table of the clients file that comes of it, with guesses marked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from orders_pipeline.records.orders import PAYMENT_METHODS
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.samples.trial_outcome import Outcome

NO_CODE = "; put the client's code here"
DEFAULTS: Mapping[str, str] = MappingProxyType({"customer_code": "guest", "payment_method": "invoice"})


@dataclass
class Trial:
    """What was found out of a file; `settings` and `columns` are what a profile would say, `guessed` what is a guess.

    `left_out` are headers of yen that are not in the amount, and may belong there. `outcome` is what the file would come to,
    as far as it was read.
    """

    encoding: str | None = None
    delimiter: str = ","
    header_line: int = 1
    header: Sequence[str] = ()
    mapped: dict[str, Sequence[str]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    outcome: Outcome = field(default_factory=Outcome)
    readings: str = ""
    guessed: set[str] = field(default_factory=set)
    refusal: FileRejected | None = None
    rows: list[dict[str, str]] = field(default_factory=list)


def table_of(name: str, trial: Trial, missing: Sequence[str], client_code: str) -> str:
    """Return a table of the clients file for a file of this name, or nothing where nothing lacks."""
    asked = [*_questions(trial)]
    if not (trial.settings or trial.columns or missing or asked or trial.readings or trial.refusal):
        return ""
    lines = [f"[{client_code}]  # for files like {_plain(name)}" + NO_CODE * (client_code == "client")]
    lines += [f"{setting} = {_written(value)}  # a guess" for setting, value in trial.settings.items()]
    if trial.readings:
        lines.append(f"# the text can be read as each of these: {trial.readings}")
    if trial.columns or missing or asked:
        lines += ["", f"[{client_code}.columns]"]
    for column, place in trial.columns.items():
        value = place["header"] if set(place) == {"header"} else place
        lines.append(f"{column} = {_written(value)}  # a guess")
    if trial.refusal is not None and trial.refusal.code == "F_SHEETS":
        lines.insert(1, f'# sheet = "..."  # needed: one of {_plain(trial.refusal.detail["sheets"])}')
    for column in missing:
        if column not in trial.columns:
            default = DEFAULTS.get(column)
            instead = "" if default is None else f" or {{ default = {_written(default)} }}"
            lines.append(f'# {column} = "..."{instead}  # needed: which header is it?')
    return "\n".join([*lines, *asked]) + "\n"


def _questions(trial: Trial) -> Iterator[str]:
    """Yield what nobody but the client knows, as comments."""
    if trial.outcome.unknown:
        values = _written(dict.fromkeys(trial.outcome.unknown, "..."))
        yield f"# payment_method needs values = {values}: what is each of {', '.join(PAYMENT_METHODS)}?"
    if cards := trial.outcome.without_token:
        yield f"# payment_method: {', '.join(map(_plain, cards))} is card_on_file, which needs a payment_token, and no"
        yield f"# header is one: name it, or say with values = {_written(dict.fromkeys(cards, '...'))} what it is instead"
    if trial.left_out:
        named = ", ".join(map(_plain, trial.left_out))
        yield f"# amount is the sum of the lines, without {named}: are these to be in add, or add_each_line?"


def _written(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_written(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
