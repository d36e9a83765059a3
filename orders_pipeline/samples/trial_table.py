"""What was found out of a file that is tried, and the table of the clients file that comes of it, with guesses marked."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    as far as it was read, and `unmet` what of `skip` and `reject` no row of it has.
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
    unmet: list[dict[str, Any]] = field(default_factory=list)


def table_of(name: str, trial: Trial, missing: Sequence[str], client_code: str | None, said: Collection[str] | None) -> str:
    """Return a table of the clients file for a file of this name, or nothing where nothing lacks.

    Where the clients file has one, in which these settings are `said`, it is what is to be added: no table begins twice.
    """
    code = client_code or "client"
    columns = [*_columns(trial, missing), *_questions(trial)]
    settings = [f"{setting} = {_written(value)}  # a guess" for setting, value in trial.settings.items()]
    if trial.refusal is not None and trial.refusal.code == "F_SHEETS":
        settings.insert(0, f'# sheet = "..."  # needed: one of {_plain(trial.refusal.detail["sheets"])}')
    if trial.readings:
        settings.append(f"# the text can be read as each of these: {trial.readings}")
    if not (settings or columns or (trial.refusal and said is None)):
        return ""
    fits = f"# for files like {_plain(name)}"
    begin = [f"[{code}]  {fits}{NO_CODE * (client_code is None)}" if said is None else fits]
    if said is not None and settings:
        begin.append(f"# under [{code}], above its other tables:")
    if columns:
        table = f"{code}.columns"
        columns[:0] = ["", f"# under [{table}]:" if said is not None and "columns" in said else f"[{table}]"]
    return "\n".join([*begin, *settings, *columns]) + "\n"


def _columns(trial: Trial, missing: Sequence[str]) -> Iterator[str]:
    """Yield where columns are, and as comments which are nowhere."""
    for column, place in trial.columns.items():
        value = place["header"] if set(place) == {"header"} else place
        yield f"{column} = {_written(value)}  # a guess"
    for column in missing:
        if column not in trial.columns:
            default = DEFAULTS.get(column)
            instead = "" if default is None else f" or {{ default = {_written(default)} }}"
            yield f'# {column} = "..."{instead}  # needed: which header is it?'


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
