"""What is written into the audit from here: sign-ins, readings of personal data, administration, security events.

Changes of rows are not among it: the database's own triggers record those. Nothing here holds a personal value.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from orders_pipeline.audit.records import Category
from orders_pipeline.clients.profiles import Clients
from orders_pipeline.infrastructure.database import Database, Transaction
from orders_pipeline.infrastructure.database_errors import DatabaseError
from orders_pipeline.security.encryption import Cipher

MEANWHILE = "explained.log"  # in HOME: readings that are not in the audit yet
SECURITY_CODES = {
    "E_AUDIT_BROKEN",
    "E_SEALED_FORMAT",
    "E_SEALED_KEY",
    "E_SEALED_TAMPERED",
    "E_STORAGE_CHANGED",
    "E_STORAGE_DENIED",
    "E_STORAGE_REPLACED",
}


def os_user() -> str:
    """Return who the operating system says we are; variables of the environment, which anybody may set, are not asked."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        return f"uid {os.getuid()}"


def record(
    transaction: Transaction,
    category: Category,
    action: str,
    entity: str | None = None,
    *,
    batch_id: str | None = None,
    rows: int | None = None,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write a record; `detail` goes into exports and holds no personal value."""
    transaction.execute(
        "audit_record",
        category=category,
        action=action,
        entity=entity,
        batch_id=batch_id,
        rows=rows,
        detail=json.dumps(detail or {}, ensure_ascii=False),
    )


def read_personal(transaction: Transaction, purpose: str, batch_id: str | None, rows: int) -> None:
    """Record that personal columns of so many orders were opened, unless there were none."""
    if rows:
        record(
            transaction, "phi_access", "read", "orders.personal", batch_id=batch_id, rows=rows, detail={"purpose": purpose}
        )


def read_report(database: Database, batch_id: str, name: str, by: str) -> None:
    """Record that a report with personal values was read; `by` says how."""
    with database.begin() as transaction:
        record(transaction, "phi_access", "download", name, batch_id=batch_id, detail={"by": by})


def read_error(database: Database, reference: str) -> None:
    """Record that what is kept of an error, which may hold personal values, was read."""
    with database.begin() as transaction:
        _read_error(transaction, reference)


def _read_error(transaction: Transaction, reference: str, **more: str) -> None:
    record(transaction, "phi_access", "read", "error", detail={"reference": reference, **more})


def read_error_meanwhile(home: Path, reference: str) -> None:
    """Write down in HOME what `read_error` would, for `catch_up`: the database is what failed."""
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    path = home / MEANWHILE
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{moment} {reference} {os_user()}\n")
        file.flush()
        os.fsync(file.fileno())


def catch_up(database: Database, home: Path) -> None:
    """Record what was read while the database was away."""
    path = home / MEANWHILE
    if not path.exists():
        return
    with path.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with database.begin() as transaction:
            for line in file:
                moment, _, rest = line.strip().partition(" ")
                reference, _, who = rest.partition(" ")
                _read_error(transaction, reference, at=moment, by=who)
        file.truncate(0)


def sign_in(database: Database, clients: Clients, cipher: Cipher) -> None:
    """Record that a command or run begins its work, and what has changed in profiles and keys since the last did."""
    with database.begin() as transaction:
        record(transaction, "authentication", "sign_in", "database", detail={"process": os.getpid()})
        _remember_profiles(transaction, clients)
        _remember_keys(transaction, cipher)


def remember_profiles(database: Database, clients: Clients) -> None:
    """Record what has changed in profiles, before a process that is at work already goes by them."""
    with database.begin() as transaction:
        _remember_profiles(transaction, clients)


def failed(database: Database, error: BaseException) -> None:
    """Record an error that may mean an attack; others are none of the audit's."""
    code = getattr(error, "code", None)
    if code in SECURITY_CODES:
        with contextlib.suppress(DatabaseError), database.begin() as transaction:  # the error says more than one of ours
            record(transaction, "security", "failure", type(error).__name__, detail={"code": code})


def _remember_profiles(transaction: Transaction, clients: Clients) -> None:
    known = {row.name: row.value for row in transaction.rows("known_profiles")}
    given = {name: profile.model_dump(mode="json") for name, profile in clients.profiles.items()}
    if known != given:
        profiles = [json.dumps(profile) for profile in given.values()]
        transaction.execute("set_known_profiles", names=list(given), profiles=profiles)
        transaction.execute("forget_profiles", names=list(given))


def _remember_keys(transaction: Transaction, cipher: Cipher) -> None:
    known = {row.key_id: (row.fingerprint, row.is_current) for row in transaction.rows("known_keys")}
    given = {key_id: (print_, key_id == cipher.current) for key_id, print_ in cipher.fingerprints.items()}
    if known != given:
        transaction.execute(
            "set_known_keys",
            key_ids=list(given),
            fingerprints=[print_ for print_, _ in given.values()],
            are_current=[is_current for _, is_current in given.values()],
        )
        transaction.execute("forget_keys", key_ids=list(given))
