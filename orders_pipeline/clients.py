"""Clients: the companies that upload, and the profile of settings each has.

Profiles come from a TOML file (`ORDERS_CLIENTS_FILE`), one table a client code; without the file every client has the
default profile. What a setting does belongs in the module that does it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orders_pipeline.rejections import FileRejected

CLIENT_CODE = re.compile(r"[A-Za-z0-9_-]{1,32}")


class ClientsError(Exception):
    """The clients file is not usable; the text says where."""

    code = "E_CLIENTS_FILE"


class Profile(BaseModel):
    """One client's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="", max_length=100)
    delimiter: Literal[",", "\t"] = ","
    notify_channel: Literal["email", "sms", "none"] = "none"
    payments: Literal["aggregated", "per_order"] = "aggregated"
    notifications: Literal["digest", "per_order"] = "digest"


class Clients:
    """The profiles by client code; with none configured, every client has the default one."""

    def __init__(self, profiles: Mapping[str, Profile] | None = None) -> None:
        self._profiles = profiles

    def profile(self, client_code: str) -> Profile:
        """Return the client's profile; raise FileRejected(F_UNKNOWN_CLIENT) for a client that is not configured."""
        if not CLIENT_CODE.fullmatch(client_code):
            raise FileRejected("F_UNKNOWN_CLIENT", {})
        if self._profiles is None:
            return Profile()
        if client_code not in self._profiles:
            raise FileRejected("F_UNKNOWN_CLIENT", {})
        return self._profiles[client_code]


def read_clients(path: Path | None) -> Clients:
    """Read the clients file; raise ClientsError naming the client and setting that is wrong."""
    if path is None:
        return Clients()
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        raise ClientsError("ORDERS_CLIENTS_FILE cannot be read") from None
    except tomllib.TOMLDecodeError as error:
        raise ClientsError(f"ORDERS_CLIENTS_FILE is not TOML: {error}") from None
    return Clients({code: _profile(code, table) for code, table in tables.items()})


def _profile(code: str, table: object) -> Profile:
    if not CLIENT_CODE.fullmatch(code):
        raise ClientsError(f"ORDERS_CLIENTS_FILE: [{code}] is not a client code (1-32 of A-Z a-z 0-9 _ -)")
    try:
        return Profile.model_validate(table)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join([code, *(str(part) for part in problem["loc"])])
        raise ClientsError(f"ORDERS_CLIENTS_FILE: {where}: {problem['msg']}") from None
