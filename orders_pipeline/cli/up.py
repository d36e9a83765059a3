"""The whole system for a browser: what is embedded, Dagster's web server and daemon, started and stopped together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from orders_pipeline.audit.recording import sign_in
from orders_pipeline.orchestration.dagster_home import prepare_dagster_home
from orders_pipeline.services.answers import NoAnswer, NotDelivered
from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.system import embedded
from orders_pipeline.system.composition import System, following_files, join_endpoints, open_system
from orders_pipeline.system.daemon import daemons
from orders_pipeline.system.session_limit import WEB_POOL_SIZE
from orders_pipeline.system.settings import UNDER_UP, Settings, export_environment
from orders_pipeline.system.whereabouts import note_reports
from orders_pipeline.upkeep.webhooks.sending import sending
from orders_pipeline.web import server

HOST = "127.0.0.1"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.25
LOG_BYTES = 10 << 20
LOG_POLL_S = 60.0
# Dagster, which asks the kernel for a SIGINT (2) when its parent is gone without a word: PR_SET_PDEATHSIG (1)
DAGSTER = "import ctypes, runpy; ctypes.CDLL(None).prctl(1, 2); runpy.run_module('dagster', run_name='__main__')"


class AlreadyUp(Exception):
    """The system of this HOME runs already: a second daemon would look at the same landing."""

    code = "E_ALREADY_UP"


class DagsterDidNotStart(Exception):
    """Dagster ended or does not answer; its log in HOME says why."""

    code = "E_DAGSTER"


class PortTaken(Exception):
    """Something else listens where we should; the text says which port."""

    code = "E_PORT"


@dataclass(frozen=True)
class Places:
    """Where a person finds the parts of the running system."""

    page: str
    browser: str
    reports: str
    api: str
    landing: str
    services: str
    log: str
    process: subprocess.Popen[bytes] = field(repr=False)

    def as_dict(self) -> dict[str, str]:
        """Return the places by name."""
        return {name: getattr(self, name) for name in ("page", "browser", "reports", "api", "landing", "services", "log")}

    def wait(self) -> None:
        """Return when the user stops the system; raise DagsterDidNotStart if Dagster ends by itself."""
        with contextlib.suppress(KeyboardInterrupt):
            while self.process.poll() is None:
                _begin_anew(Path(self.log))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(LOG_POLL_S)
            if self.process.returncode:
                raise DagsterDidNotStart("Dagster has ended; its log says why")


def _begin_anew(log: Path) -> None:
    """Keep a log that has become long as the one before, and empty it for who only adds to it."""
    with contextlib.suppress(OSError):  # it is nobody's to stop the system for
        if log.stat().st_size > LOG_BYTES:
            shutil.copyfile(log, f"{log}.1")
            os.truncate(log, 0)


@contextlib.contextmanager
def running(settings: Settings, port: int, say: Callable[[str], None] = lambda _: None) -> Iterator[Places]:
    """Run everything, the API and reports at the port after the UI's, and say where it is; all is stopped at the end.

    `say` gets a line for each part that is started.
    """
    for each in (signal.SIGINT, signal.SIGTERM):  # also where a shell started us with SIGINT ignored
        signal.signal(each, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        up_lock = stack.enter_context(_up_lock(settings.home))
        for each_port in (port, port + 1):
            _require_free(each_port)
        for line in _parts(settings):
            say(line)
        endpoints = stack.enter_context(join_endpoints(settings))
        system = following_files(stack.enter_context(open_system(settings, endpoints, "orders-pipeline up")))
        sign_in(system.database, system.clients, system.cipher)
        prepare_dagster_home(system)
        code = secrets.token_urlsafe(16)
        api_url = stack.enter_context(server.serving(served(system, port), port + 1, code))
        stack.enter_context(sending(system))
        reports_url = settings.reports_url or api_url
        note_reports(settings.home, reports_url)
        export_environment(
            ORDERS_REPORTS_URL=reports_url,
            DAGSTER_WEBSERVER_DB_POOL_MAX_OVERFLOW=str(WEB_POOL_SIZE - 1),
            **{UNDER_UP: "1"},
            PYTHONSAFEPATH="1",  # no module is taken from the folder that we were started in
        )
        if "://" not in settings.landing_location:
            Path(settings.landing_location).mkdir(parents=True, exist_ok=True)
        log = settings.dagster_home / "dagster.log"
        say("starting Dagster's web server and daemon")
        if daemons(system.database):
            say("another daemon works on this database: this one's waits, and takes over when that one has ended")
        process = stack.enter_context(_dagster(port, log, up_lock))
        _wait_until_it_answers(process, port)
        yield Places(
            page=f"{api_url}/sign-in?code={code}",
            browser=f"http://{HOST}:{port}",
            reports=reports_url,
            api=f"{api_url}/v1",
            landing=f"{settings.landing_location}/<client>/<name>.csv",
            services=endpoints.payment_url,
            log=str(log),
            process=process,
        )
    embedded.wait_until_gone(settings.home)


def served(system: System, port: int) -> System:
    """Return the system as the API has it: it asks our own web server for runs, unless another is set."""
    url = system.settings.dagster_url
    own = f"http://{HOST}:{port}"
    return replace(system, settings=system.settings.model_copy(update={"dagster_url": own if url is None else url}))


def _parts(settings: Settings) -> Iterator[str]:
    """Yield a line about each part that is there before Dagster is."""
    if settings.database_url is None:
        yield "starting PostgreSQL in ORDERS_HOME and bringing its schema up to date"
    else:
        yield "opening the database that ORDERS_DATABASE_URL names"
    if settings.payment_url is None or settings.notification_url is None:
        yield "starting the sandbox's services"


@contextlib.contextmanager
def _up_lock(home: Path) -> Iterator[int]:
    """Hold the lock of a HOME's running system; the descriptor holds it for every process that has it open."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(home / ".up", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode()
            raise AlreadyUp(
                f"the system of this ORDERS_HOME runs already, started by process {pid}, or what that has started still ends"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield lock
    finally:
        os.close(lock)


def _require_free(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except (OSError, OverflowError):
        raise PortTaken(f"port {port} cannot be used or is in use; choose another with --port") from None


@contextlib.contextmanager
def _dagster(port: int, log: Path, up_lock: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", DAGSTER, "dev", "-h", HOST, "-p", str(port), "-m", "orders_pipeline.definitions"]
    command += ["--working-directory", str(log.parent)]  # from there Dagster would import, else from where we were started
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, pass_fds=(up_lock,)
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):  # it leads the group of its servers and runs, if any are left
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    client = ServiceClient(f"http://{HOST}:{port}", None, timeout_s=5.0)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(NotDelivered, NoAnswer):
            if client.call("GET", "/server_info").status == 200:
                return
        time.sleep(POLL_S)
    raise DagsterDidNotStart("Dagster did not start; its log in ORDERS_HOME says why")
