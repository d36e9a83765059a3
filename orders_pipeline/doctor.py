"""The doctor: whether everything the system needs is there and works, each thing tried for real.

A finding says what was tried and what to do; it shows no secret, and what fails is told by its code.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from orders_pipeline import continuity, errors, landing, migrations, sessions
from orders_pipeline.http_client import NoAnswer, NotDelivered, ServiceClient
from orders_pipeline.settings import load_settings
from orders_pipeline.storage import Storage
from orders_pipeline.system import System, join_endpoints, notification_client, open_system, payment_client


@dataclass(frozen=True)
class Finding:
    """One thing that was tried."""

    name: str
    ok: bool
    says: str

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as it goes into JSON."""
        return asdict(self)


def examine() -> list[Finding]:
    """Try everything in the order it is needed; what depends on something broken is left out."""
    try:
        settings = load_settings()
    except Exception as error:  # noqa: BLE001 - a finding, whatever it is
        return [Finding("settings", ok=False, says=errors.describe(error))]
    findings = [Finding("settings", ok=True, says=f"ORDERS_ENV is {settings.env}")]
    with contextlib.ExitStack() as stack:
        try:
            endpoints = stack.enter_context(join_endpoints(settings))
            system = stack.enter_context(open_system(settings, endpoints))
        except Exception as error:  # noqa: BLE001 - a finding, whatever it is
            return [*findings, Finding("start", ok=False, says=errors.describe(error, settings))]
        findings += [_try(name, check, system) for name, check in CHECKS.items()]
    return findings


def _try(name: str, check: Callable[[System], str], system: System) -> Finding:
    try:
        return Finding(name, ok=True, says=check(system))
    except Exception as error:  # noqa: BLE001 - a finding, whatever it is
        return Finding(name, ok=False, says=errors.describe(error, system.settings, system))


def _database(system: System) -> str:
    with system.database.begin() as transaction:
        version = transaction.scalar("server_version")
    return f"PostgreSQL {version}"


def _sessions(system: System) -> str:
    return sessions.require(system.database, system.settings.max_concurrent_runs)


def _schema(system: System) -> str:
    migrations.require_current(system.database)
    return "up to date"


def _storage(system: System) -> str:
    return _write_and_read(system.storage)


def _write_and_read(storage: Storage) -> str:
    key, content = f"doctor/{uuid.uuid4().hex}", b"doctor"
    storage.put(key, content)
    try:
        with storage.local(key) as path:
            if path.read_bytes() != content:
                raise OSError
    finally:
        storage.delete(key)
    return "written, read and deleted"


def _landing(system: System) -> str:
    return "; ".join(["listed", *landing.in_words(landing.left_in(system.landing))])


def _ledger(system: System) -> str:
    system.continuity.is_behind()
    with system.database.begin() as transaction:
        found = continuity.rest(transaction)
    if found is not None:
        raise continuity.LedgersDiffer(found)
    return "whole, as far as is known"


def _encryption(system: System) -> str:
    if system.cipher.open(system.cipher.seal(b"doctor", b"doctor"), b"doctor") != b"doctor":
        raise ValueError
    return "sealed and opened"


def _payment_service(system: System) -> str:
    return _ask(payment_client(system.settings, system.endpoints), "/v1/payments", {"reference": "doctor"})


def _notification_service(system: System) -> str:
    return _ask(notification_client(system.settings, system.endpoints), "/v1/notifications", {"dedupe_key": "doctor"})


class ServiceRefused(Exception):
    """A service answered, but not as it should."""

    code = "E_SERVICE"


def _ask(client: ServiceClient, path: str, query: dict[str, str]) -> str:
    try:
        answer = client.call("GET", path, query=query)
    except (NotDelivered, NoAnswer) as failure:
        raise ServiceRefused(f"no usable answer ({failure.code}); is its URL right?") from None
    if answer.status in (401, 403):
        raise ServiceRefused("the token is refused")
    if answer.status != 200:
        raise ServiceRefused(f"a look-up is answered {answer.problem}")
    return "answers a look-up"


CHECKS: dict[str, Callable[[System], str]] = {
    "database": _database,
    "sessions": _sessions,
    "schema": _schema,
    "storage": _storage,
    "landing": _landing,
    "encryption": _encryption,
    "payment service": _payment_service,
    "notification service": _notification_service,
    "ledger": _ledger,
}
