"""Users of the page whom the company's own login knows: which client each works for, and what each may do there.

They come from a TOML file (`ORDERS_USERS_FILE`), one table a user. That a request is really theirs is for
`web/authentication.py` to find out.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, ValidationError, model_validator

from orders_pipeline.clients.api_tokens import (
    ALL_SCOPES,
    APPROVE,
    CONTROL,
    OPERATOR,
    PAGE,
    READ,
    READ_REJECTED,
    REFUND,
    WRITE,
    Caller,
)
from orders_pipeline.clients.profiles import CLIENT_CODE, read_tables
from orders_pipeline.infrastructure.followed_file import FollowedFile
from orders_pipeline.records.setting_errors import in_words

MOST_NAME_CHARS = 254  # of an e-mail address
USER_HEADER, SECRET_HEADER = "orders-user", "orders-proxy-secret"  # of the proxy that people log in at
ROLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "reader": frozenset({PAGE, READ}),
        "clerk": frozenset({PAGE, READ, WRITE, READ_REJECTED}),
        "manager": frozenset({PAGE, READ, WRITE, READ_REJECTED, CONTROL, APPROVE, REFUND}),
        "operator": ALL_SCOPES,
    }
)


class UsersError(Exception):
    """The users file is not usable; the text says where."""

    code = "E_USERS_FILE"


def _client_code(code: str) -> str:
    if not CLIENT_CODE.fullmatch(code):
        raise ValueError("this must be a client's code")
    return code


class User(BaseModel):
    """One user: whose batches they see, or as an operator all, and what they may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client: Annotated[str, AfterValidator(_client_code)] | None = None
    role: Literal["reader", "clerk", "manager", "operator"]

    @model_validator(mode="after")
    def _makes_sense(self) -> User:
        if (self.client is None) != (self.role == OPERATOR):
            raise ValueError("a user is of one client, and an operator of none")
        return self


def is_our_proxy(given: str | None, secret: SecretStr | None) -> bool:
    """Return whether a request comes from our proxy, which says who has logged in; without a secret none does."""
    return secret is not None and hmac.compare_digest((given or "").encode(), secret.get_secret_value().encode())


class Users:
    """The users by name; with none configured, there is no other login than tokens."""

    def __init__(self, users: Mapping[str, User] = MappingProxyType({})) -> None:
        self._users = users

    def caller(self, name: str) -> Caller | None:
        """Return who a user is; None for one that is not configured."""
        user = self._users.get(name)
        if user is None:
            return None
        return Caller(user.client or "", f"{user.client or OPERATOR}/{name}", ROLES[user.role])


class FollowedUsers(Users):
    """The users as the users file has them now."""

    def __init__(self, file: FollowedFile[Users]) -> None:
        super().__init__()
        self._file = file

    def caller(self, name: str) -> Caller | None:
        """Return who a user is, as above."""
        return self._file.now().caller(name)


def read_users(path: Path | None) -> Users:
    """Read the users file; raise UsersError naming each user and setting that is wrong."""
    if path is None:
        return Users()
    users: dict[str, User] = {}
    wrong: list[str] = []
    for name, table in read_tables(path, "ORDERS_USERS_FILE", UsersError).items():
        if not (0 < len(name) <= MOST_NAME_CHARS and name.isascii() and name.isprintable()):
            wrong.append("a user's name is not 1 to 254 printable ASCII characters")
            continue
        try:
            users[name] = User.model_validate(table)
        except ValidationError as error:
            wrong += [f"{name}: {'.'.join(map(str, place)) or 'user'}: {says}" for place, says in in_words(error).items()]
    if wrong:
        raise UsersError("ORDERS_USERS_FILE: " + "; ".join(wrong))
    return Users(MappingProxyType(users))
