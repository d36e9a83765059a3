"""Clients: the companies that upload, and the profile of settings each has.

Profiles come from a TOML file (`ORDERS_CLIENTS_FILE`), one table a client code; without the file every client has the
default profile. What a setting does belongs in the module that does it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    model_validator,
)

from orders_pipeline.clients.column_sources import ColumnSource
from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.clients.sequences import check_template
from orders_pipeline.clients.webhook_settings import check_secret, check_url, shown_secret
from orders_pipeline.infrastructure.followed_file import FollowedFile
from orders_pipeline.records.grouping import Grouping
from orders_pipeline.records.normalise import normalise_header, numbered
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.records.setting_errors import NO_SETTING, in_words, meant

CLIENT_CODE = re.compile(r"[A-Za-z0-9_-]{1,32}")


class ClientsError(Exception):
    """The clients file is not usable; the text says where."""

    code = "E_CLIENTS_FILE"


def _checked_columns(columns: Mapping[str, ColumnSource]) -> Mapping[str, ColumnSource]:
    if unknown := sorted(set(columns) - set(ORDERS.column_names)):
        raise ValueError(f"there is no column {', '.join(unknown)}, only {', '.join(ORDERS.column_names)}")
    if others := sorted(name for name, source in columns.items() if source.is_of_lines and name != ORDERS.amount):
        raise ValueError(
            f"each, multiply, add and add_each_line are for {ORDERS.amount}, and {', '.join(others)} is another column"
        )
    dates = {column.name for column in ORDERS.columns if column.kind == "date"}
    if others := sorted(name for name, source in columns.items() if source.date_format and name not in dates):
        raise ValueError(f"format is for dates ({', '.join(sorted(dates))}), and {', '.join(others)} is none")
    headers = Counter(normalise_header(name) for source in columns.values() for name in source.names)
    if any(uses > 1 for uses in headers.values()):
        raise ValueError("a header is used for two columns, or twice")
    for name, column in ORDERS.header_names().items():
        others = [each for each, target in ORDERS.header_names().items() if target == column]
        if name in headers and column not in columns and all(each in headers for each in others):
            raise ValueError(f"no header is left to {column}: say where it is")
    return columns


WebhookSecret: TypeAlias = Annotated[
    SecretStr, AfterValidator(check_secret), PlainSerializer(shown_secret, when_used="json")
]


class Profile(BaseModel):
    """One client's settings; a limit that is None is that of the whole system."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="", max_length=100)
    delimiter: Literal[",", "\t", ";", "|"] = ","
    quoting: Literal["double", "none"] = "double"
    encoding: Literal["utf-8", "cp932", "cp1252", "euc_jp", "utf-16"] | None = None
    sheet: Annotated[str, Field(min_length=1, max_length=31)] | None = None
    header_line: Annotated[int, Field(ge=1, le=100)] | Literal["find"] | None = None
    header_rows: Annotated[int, Field(ge=1, le=3)] = 1
    comment: Annotated[str, Field(max_length=5)] = ""
    footer_lines: Annotated[int, Field(ge=0, le=20)] = 0
    skip: tuple[RowChoice, ...] = ()
    reject: tuple[RowChoice, ...] = ()
    ignore: tuple[str, ...] = ()
    lines: Literal["one_per_order", "grouped"] = "one_per_order"
    columns: Annotated[Mapping[str, ColumnSource], AfterValidator(_checked_columns)] = Field(default_factory=dict)
    max_rows: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    bad_rows: Literal["give_back", "refuse_file"] = "give_back"
    refuse_above_rows: Annotated[int, Field(ge=0)] | None = None
    refuse_above_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    approval: Literal["always"] | None = None
    approval_above: Annotated[int, Field(ge=1)] | None = None
    same_bytes: Literal["refuse", "take"] = "refuse"
    same_orders: Literal["reject", "skip"] = "reject"
    settle_s: Annotated[int, Field(ge=0, le=86_400)] = 60
    sequence: Annotated[str, AfterValidator(check_template)] | None = None
    notify_channel: Literal["email", "sms", "none"] = "none"
    payments: Literal["aggregated", "per_order"] = "aggregated"
    declined_payments: Literal["retry_orders", "final"] = "retry_orders"
    notifications: Literal["digest", "per_order"] = "digest"
    webhook_url: Annotated[str, Field(max_length=2_000), AfterValidator(check_url)] | None = None
    webhook_secret: WebhookSecret | None = None
    webhook_previous_secret: WebhookSecret | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Profile:
        if self.bad_rows == "refuse_file" and (self.refuse_above_rows, self.refuse_above_percent) != (None, None):
            raise ValueError("bad_rows = refuse_file leaves nothing to refuse_above_rows and refuse_above_percent")
        if self.approval == "always" and self.approval_above is not None:
            raise ValueError("approval = always leaves nothing to approval_above")
        amount = self.columns.get(ORDERS.amount)
        if self.lines == "one_per_order" and amount is not None and amount.is_of_lines:
            setting = "multiply" if amount.multiply else "each = line"
            raise ValueError(f"lines = one_per_order and {setting} of {ORDERS.amount} contradict each other")
        if amount is not None and any(self._parts_of_amount()[header] == ORDERS.amount for header in amount.added):
            raise ValueError(f"what is added to {ORDERS.amount} is {ORDERS.amount} itself, which would count twice")
        if unknown := sorted(set(self.ignore) - set(ORDERS.column_names)):
            raise ValueError(f"ignore has {', '.join(unknown)}, and there is no such column")
        if placed := sorted(name for name in self.ignore if name in self.columns and self.columns[name].names):
            raise ValueError(f"ignore leaves out {', '.join(placed)}, and columns says where it is")
        if needed := sorted(set(self.ignore) & set(self.required_columns())):
            raise ValueError(
                f"ignore leaves out {', '.join(needed)}, which every order needs: give columns a default for it"
            )
        return self

    @model_validator(mode="after")
    def _webhook_is_whole(self) -> Profile:
        if (self.webhook_url is None) != (self.webhook_secret is None):
            raise ValueError("webhook_url and webhook_secret go together")
        if self.webhook_previous_secret is not None and self.webhook_secret is None:
            raise ValueError("webhook_previous_secret needs webhook_secret")
        return self

    def header_names(self) -> Mapping[str, str]:
        """Return every header the client's files may use, in normal form, with the column it means.

        A column that the profile places has only the names given there, and no other column has these.
        """
        parts = {normalise_header(name): column for name, column in self._parts_of_amount().items()}
        return MappingProxyType(parts | self._headers_of_columns())

    def _headers_of_columns(self) -> dict[str, str]:
        placed = {column: source.names for column, source in self.columns.items() if source.names}
        given = {normalise_header(name): column for column, names in placed.items() for name in names}
        left_out = [*self.ignore, *(name for name, source in self.columns.items() if source.multiply)]
        known = {name: column for name, column in ORDERS.header_names().items() if column not in (*placed, *left_out)}
        nowhere = {numbered("", at): column for at, column in enumerate(left_out)}  # names that no header has
        return known | given | nowhere

    @property
    def parts_of_amount(self) -> tuple[str, ...]:
        """Return the headers of which the amount is made, where it is made of several."""
        amount = self.columns.get(ORDERS.amount)
        return () if amount is None else (*amount.multiply, *amount.added)

    def _parts_of_amount(self) -> dict[str, str]:
        """Return the headers of which the amount is made, with the column that each has: another one's, or its own."""
        known = self._headers_of_columns()
        return {name: known.get(normalise_header(name), f'"{name}"') for name in self.parts_of_amount}

    def grouping(self) -> Grouping | None:
        """Return how orders are made of several rows; None where each row is one."""
        if self.lines == "one_per_order":
            return None
        amount, parts = self.columns.get(ORDERS.amount), self._parts_of_amount()
        if amount is None:
            return Grouping()
        of = (tuple(parts[header] for header in headers) for headers in (amount.multiply, amount.add, amount.add_each_line))
        return Grouping(amount.each, *of)

    def joined_headers(self) -> Mapping[str, tuple[str, ...]]:
        """Return the columns whose cells are joined of several of the client's, with their headers."""
        return {column: source.join for column, source in self.columns.items() if source.join}

    def required_columns(self) -> tuple[str, ...]:
        """Return the columns that every file of the client must have."""
        elsewhere = {column for column, source in self.columns.items() if source.default or source.multiply}
        parts = dict.fromkeys(self._parts_of_amount().values())
        needed = (column for column in ORDERS.required_columns if column not in elsewhere)
        return tuple(dict.fromkeys([*needed, *parts]))

    @property
    def approved_up_to(self) -> int | None:
        """Return up to how many yen a batch is paid without anybody's approval; None: whatever it comes to."""
        return 0 if self.approval == "always" else self.approval_above

    def most_bad_rows(self, rows: int) -> int:
        """Return how many of so many rows may be bad before the whole file is refused."""
        limits = [rows, 0 if self.bad_rows == "refuse_file" else rows]
        if self.refuse_above_rows is not None:
            limits.append(self.refuse_above_rows)
        if self.refuse_above_percent is not None:
            limits.append(int(rows * self.refuse_above_percent / 100))
        return min(limits)


class Clients:
    """The profiles by client code; with none configured, every client has the default one."""

    def __init__(self, profiles: Mapping[str, Profile] | None = None) -> None:
        self._profiles = profiles

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """Return the profiles that are configured."""
        return self._profiles or {}

    def profile(self, client_code: str) -> Profile:
        """Return the client's profile; raise FileRejected(F_UNKNOWN_CLIENT) for a client that is not configured."""
        if not CLIENT_CODE.fullmatch(client_code):
            raise FileRejected("F_UNKNOWN_CLIENT", {})
        if self._profiles is None:
            return Profile()
        if client_code not in self._profiles:
            raise FileRejected("F_UNKNOWN_CLIENT", {})
        return self._profiles[client_code]

    def profile_of_batch(self, client_code: str) -> Profile:
        """Return the profile with which what has arrived is treated: the default one once the client has none."""
        try:
            return self.profile(client_code)
        except FileRejected:
            return Profile()


class FollowedClients(Clients):
    """The profiles as the clients file has them now."""

    def __init__(self, file: FollowedFile[Clients]) -> None:
        super().__init__()
        self._file = file

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """Return the profiles that are configured."""
        return self._file.now().profiles

    def profile(self, client_code: str) -> Profile:
        """Return the client's profile, as above."""
        return self._file.now().profile(client_code)


def read_tables(path: Path, setting: str, unusable: type[Exception]) -> dict[str, Any]:
    """Return the tables in the file that a setting names; raise `unusable` where there are none to read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else "it is no text in UTF-8"
        raise unusable(f"{setting} cannot be read: {path.absolute()}: {why}") from None
    except tomllib.TOMLDecodeError as error:
        raise unusable(f"{setting} is not TOML: {error}") from None


def read_clients(path: Path | None) -> Clients:
    """Read the clients file; raise ClientsError naming each client and setting that is wrong."""
    if path is None:
        return Clients()
    profiles: dict[str, Profile] = {}
    wrong: list[str] = []
    for code, table in read_tables(path, "ORDERS_CLIENTS_FILE", ClientsError).items():
        try:
            profiles[code] = Profile.model_validate(table)
        except ValidationError as error:
            wrong += _in_words(code, error)
        if not CLIENT_CODE.fullmatch(code):
            wrong.append(f"[{code}] is not a client code (1-32 of A-Z a-z 0-9 _ -)")
    if wrong:
        raise ClientsError(f"ORDERS_CLIENTS_FILE: {'; '.join(wrong)}")
    return Clients(profiles)


def _in_words(code: str, error: ValidationError) -> Iterator[str]:
    """Return where each wrong setting of a client is and what may be there, without its value."""
    for place, says in in_words(error).items():
        hint = _hint(code, str(place[-1]), str(place[0]) if len(place) > 1 else "") if says == NO_SETTING else ""
        yield f"{'.'.join([code, *map(str, place)])}: {says}{hint}"


def _hint(code: str, name: str, within: str) -> str:
    """Return what may be meant by a name that is no setting: one that is near, or where a column's is set.

    It stands `within` a setting of the profile, or is to be one.
    """
    kinds: Mapping[str, tuple[type[BaseModel], str]] = {
        "": (Profile, "a profile"),
        "skip": (RowChoice, "skip"),
        "reject": (RowChoice, "reject"),
    }
    kind, whole = kinds.get(within, (ColumnSource, "a column"))
    known = [field.alias or name for name, field in kind.model_fields.items()]
    columns = {} if within else dict.fromkeys(ORDERS.column_names, f" in [{code}.columns]")
    places = columns | dict.fromkeys(known, "")
    near = meant(name, list(places))
    of = f" of {whole}; "
    return of + (f"is {near}{places[near]} meant?" if near else "docs/FILES.md has them all")
