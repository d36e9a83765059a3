"""The doctor: whether everything the system needs is there and works, each thing tried for real.

A finding says what was tried and what to do; it shows no secret, and what fails is named by its code.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from orders_pipeline.audit import sealing
from orders_pipeline.batches import run_processes
from orders_pipeline.cli.console import counted
from orders_pipeline.clients.profiles import read_clients
from orders_pipeline.clients.users import read_users
from orders_pipeline.infrastructure import migrations
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.infrastructure.storage import Storage
from orders_pipeline.intake.landing import left_alone
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.services.answers import NoAnswer, NotDelivered
from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.system import clock, daemon, errors, payment_stop, session_limit
from orders_pipeline.system.composition import (
    Endpoints,
    System,
    join_endpoints,
    notification_client,
    open_batches,
    open_cipher,
    open_landing,
    open_system,
    payment_client,
)
from orders_pipeline.system.settings import PLATFORM_RATE_PER_S, Settings, SettingsError, load_settings, unknown
from orders_pipeline.upkeep import key_rotation
from orders_pipeline.upkeep.audit_shipping import shipping
from orders_pipeline.upkeep.webhooks import overview

SETTINGS = ("E_SETTINGS", "E_CLIENTS_FILE", "E_USERS_FILE", "E_ENCRYPTION_KEYS")  # codes of what somebody has set wrongly


@dataclass(frozen=True)
class Finding:
    """One thing that was tried, or that could not be: then `ok` is None."""

    name: str
    ok: bool | None
    says: str
    warning: bool = False  # well, and yet somebody should know

    @property
    def is_settings(self) -> bool:
        """Return whether something is wrong that somebody has set."""
        return self.ok is False and self.says.startswith(SETTINGS)


@dataclass(frozen=True)
class Concern:
    """What is said of something that is well, and that somebody should know all the same."""

    says: str


Check: TypeAlias = Callable[["Patient"], str | Concern]


@dataclass(frozen=True)
class Patient:
    """The parts of a system, each opened by itself when a check needs it."""

    settings: Settings
    endpoints: Endpoints
    open_parts: contextlib.ExitStack

    @functools.cached_property
    def login(self) -> Database:
        """Return the database as whoever logs in, whichever schema it has."""
        return self.open_parts.enter_context(contextlib.closing(Database(self.endpoints.database_url, pool_size=1)))

    @functools.cached_property
    def cipher(self) -> Cipher:
        """Return the cipher with the keys that are set."""
        return open_cipher(self.settings)

    @functools.cached_property
    def system(self) -> System:
        """Return the whole."""
        return self.open_parts.enter_context(open_system(self.settings, self.endpoints))


def examine() -> list[Finding]:
    """Try everything in the order it is needed, and say of what depends on something broken that it was not looked at."""
    try:
        settings = load_settings()
    except Exception as error:  # noqa: BLE001 - a finding, whatever it is
        return _nothing_else([Finding("settings", ok=False, says=errors.describe(error))])
    try:
        findings = [_settings(settings)]
    except Exception as error:  # noqa: BLE001 - a finding, whatever it is
        findings = [Finding("settings", ok=False, says=errors.describe(error, settings))]
    with contextlib.ExitStack() as stack:
        try:
            patient = Patient(settings, stack.enter_context(join_endpoints(settings)), stack)
        except Exception as error:  # noqa: BLE001 - a finding, whatever it is
            return _nothing_else([*findings, Finding("start", ok=False, says=errors.describe(error, settings))])
        for name, check in CHECKS.items():
            lacking = [each.name for each in findings if not each.ok and each.name in NEEDS.get(name, set())]
            found = _not_looked_at(name, lacking) if lacking else _try(name, check, patient)
            same = [each.name for each in findings if each.says == found.says and each.ok is found.ok is False]
            findings.append(_not_looked_at(name, same) if same else found)
    return findings


def _settings(settings: Settings) -> Finding:
    read_clients(settings.clients_file)
    read_users(settings.users_file)
    no_settings, rate = unknown(), settings.notification_rate_per_s
    is_too_fast = settings.is_production and rate > PLATFORM_RATE_PER_S
    says = [
        f"ORDERS_ENV is {settings.env}",
        *([f"these are no settings: {', '.join(no_settings)}"] if no_settings else []),
        *(
            [f"ORDERS_NOTIFICATION_RATE_PER_S is {rate}, and the platform takes {PLATFORM_RATE_PER_S}"]
            if is_too_fast
            else []
        ),
    ]
    return Finding("settings", ok=not no_settings, says="; ".join(says), warning=is_too_fast)


def _nothing_else(findings: list[Finding]) -> list[Finding]:
    """Return findings after which nothing can be tried."""
    return [*findings, *(_not_looked_at(name, [findings[-1].name]) for name in CHECKS)]


def _not_looked_at(name: str, lacking: list[str]) -> Finding:
    return Finding(name, ok=None, says=f"not looked at, as that needs what is above: {', '.join(lacking)}")


def _try(name: str, check: Check, patient: Patient) -> Finding:
    try:
        found = check(patient)
        if isinstance(found, Concern):
            return Finding(name, ok=True, says=found.says, warning=True)
        return Finding(name, ok=True, says=found)
    except Exception as error:  # noqa: BLE001 - a finding, whatever it is
        return Finding(name, ok=False, says=errors.describe(error, patient.settings))


def _database(patient: Patient) -> str:
    with patient.login.begin() as transaction:
        version = transaction.scalar("server_version")
    return f"PostgreSQL {version}"


def _sessions(patient: Patient) -> str:
    session_limit.require_own(patient.login)
    workers = len(run_processes.offered_slots(patient.login))
    return session_limit.require(patient.login, patient.settings.max_concurrent_runs, workers)


def _schema(patient: Patient) -> str:
    if patient.settings.database_url is None:
        migrations.migrate(patient.login)
    migrations.require_current(patient.login)
    return "up to date"


def _encryption(patient: Patient) -> str:
    if patient.cipher.decrypt(patient.cipher.encrypt(b"doctor", b"doctor"), b"doctor") != b"doctor":
        raise ValueError
    return "encrypted and decrypted"


def _write_and_read(storage: Storage) -> str:
    key, content = f"doctor/{uuid.uuid4().hex}", b"doctor"
    storage.put(key, content)
    try:
        storage.keep(key, content, datetime.now(UTC))  # as heads and blocks of the audit are, but not locked
        with storage.local(key) as path:
            if path.read_bytes() != content or key not in storage.kept(key):
                raise OSError
    finally:
        storage.delete(key)
    return "written, read and deleted"


def _landing(patient: Patient) -> str:
    left = left_alone.listed(open_landing(patient.settings))
    with contextlib.suppress(DatabaseError), patient.login.begin() as transaction:  # else the listing alone
        left["refused"] = left_alone.recorded(transaction)["refused"]
    return "; ".join(["listed", *left_alone.in_words(left)])


def _keys(patient: Patient) -> str:
    in_use = key_rotation.require_all(patient.system.database, patient.cipher)
    key_rotation.require_same(patient.system.database, patient.cipher)
    return f"{in_use} in use, all set"


def _ledger(patient: Patient) -> str:
    patient.system.restore_guard.is_behind()
    with patient.system.database.begin() as transaction:
        found = payment_stop.current(transaction)
    if found is not None:
        raise payment_stop.LedgersDiffer(found)
    return "whole, as far as is known"


def _audit(patient: Patient) -> str:
    waiting = sealing.unsealed(patient.system.database)
    if waiting.is_held_up:
        raise sealing.SealingHeldUp(str(waiting))
    return str(waiting)


def _runs(patient: Patient) -> str:
    if patient.settings.run_launcher == "celery":  # its library is not installed on one host alone
        from orders_pipeline.orchestration import celery_launcher

        return celery_launcher.require_broker(patient.settings)
    if patient.settings.run_launcher == "kubernetes":
        from orders_pipeline.orchestration import kubernetes_jobs

        return kubernetes_jobs.require_api_server()
    return "on the daemon's host"


class TooFewSlots(SettingsError):
    """More runs may be started at once than workers run: the rest would wait where nobody sees them."""

    code = "E_WORKER_SLOTS"


def _workers(patient: Patient) -> str | Concern:
    if patient.settings.run_launcher != "celery":
        return "none is needed"
    slots, runs = run_processes.offered_slots(patient.login), patient.settings.max_concurrent_runs
    offered = f"{counted(sum(slots), 'slot')} of {counted(len(slots), 'worker')}"
    if runs > sum(slots):
        remedy = "lower it, or start workers" if slots else "start workers"
        raise TooFewSlots(f"{offered}, and ORDERS_MAX_CONCURRENT_RUNS is {runs}: {remedy}")
    left = sum(slots[1:])
    if runs > left:
        return Concern(f"{offered} for {runs} runs at once; when the largest is lost, {runs - left} of them wait for it")
    return f"{offered} for {runs} runs at once, {left} without the largest worker"


def _daemon(patient: Patient) -> str | Concern:
    """Return when Dagster's daemon was last heard, which nobody misses on one host while nothing is to be done."""
    with patient.login.begin() as transaction:
        heard = transaction.rows("daemon_heartbeats") if transaction.scalar("dagster_heartbeats_exist") else []
    ages = [row.age_s for row in heard if row.daemon == "SENSOR"]  # any other part may go on where this one hangs
    says = f"last heard from {ages[0]:.0f} s ago" if ages else "never heard from"
    is_silent = not ages or ages[0] > daemon.SILENT_S
    if (waiting := daemon.daemons(patient.login) - 1) > 0:
        says += f"; {waiting} more would take over"
    return Concern(f"{says}: no file is seen, and no run begins") if is_silent and patient.settings.has_many_hosts else says


class ServiceRefused(Exception):
    """A service answered, but not as it should."""

    code = "E_SERVICE"


def _ask(client: ServiceClient, path: str, query: dict[str, str]) -> str:
    try:
        answer = client.call("GET", path, query=query)
    except (NotDelivered, NoAnswer) as failure:
        raise ServiceRefused(f"{client.server}: {failure.why} ({failure.code}); is its URL right?") from None
    if answer.status in (401, 403):
        raise ServiceRefused(f"{client.server} refuses the token")
    if answer.status != 200:
        raise ServiceRefused(f"{client.server} answers a look-up with {answer.problem}; is its URL right?")
    return "answers a look-up"


CHECKS: dict[str, Check] = {
    "database": _database,
    "sessions": _sessions,
    "clock": lambda patient: clock.require(patient.login) if patient.settings.has_many_hosts else "one host's clock",
    "schema": _schema,
    "encryption": _encryption,
    "storage": lambda patient: _write_and_read(open_batches(patient.settings, patient.cipher)),
    "landing": _landing,
    "runs": _runs,
    "workers": _workers,
    "daemon": _daemon,
    "payment service": lambda patient: _ask(
        payment_client(patient.settings, patient.endpoints), "/v1/payments", {"reference": "doctor"}
    ),
    "notification service": lambda patient: _ask(
        notification_client(patient.settings, patient.endpoints), "/v1/notifications", {"dedupe_key": "doctor"}
    ),
    "keys": _keys,
    "ledger": _ledger,
    "audit": _audit,
    "audit shipping": lambda patient: shipping.examine(patient.system),
    "webhooks": lambda patient: overview.examine(patient.system),
}
NEEDS = {
    "sessions": {"database"},
    "clock": {"database"},
    "schema": {"database"},
    "workers": {"database"},
    "daemon": {"database"},
    "storage": {"encryption"},
    "keys": {"database", "schema", "encryption", "sessions"},
    "ledger": {"database", "schema", "encryption", "sessions", "storage"},
    "audit": {"database", "schema", "encryption", "sessions", "storage"},
    "audit shipping": {"database", "schema", "encryption", "sessions"},
    "webhooks": {"database", "schema", "encryption", "sessions"},
}
