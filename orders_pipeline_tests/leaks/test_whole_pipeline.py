"""S01, S11, S22: an installation full of planted values where everything goes wrong; then all it wrote is read."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

import pytest

from orders_pipeline.audit.recording import sign_in
from orders_pipeline.batches import batches
from orders_pipeline.infrastructure.storage import StorageUnavailable
from orders_pipeline.intake import file_staging, loading, validation
from orders_pipeline.reports import finishing
from orders_pipeline.sandbox.faults import KINDS
from orders_pipeline.sandbox.options import Options
from orders_pipeline.services import circuit_breaker
from orders_pipeline.services.notification_service import NotificationService
from orders_pipeline.services.payment_providers import PROVIDERS
from orders_pipeline.settlement import batch_settlement
from orders_pipeline.settlement import ledger as ledgers
from orders_pipeline.settlement.payments import settle
from orders_pipeline.upkeep.webhooks import sending
from orders_pipeline.upkeep.webhooks.sending import Sender
from orders_pipeline_tests.leaks.detector import files_below, traces
from orders_pipeline_tests.leaks.planted import (
    IN_CLEAR,
    SECRETS,
    WRONG,
    PlantedHouse,
    open_planted_installation,
    planted_file,
)
from orders_pipeline_tests.support import commands

pytestmark = pytest.mark.soak

# one for each step of the job, deep inside it
UNFORESEEN = (
    (file_staging, "stage_file"),
    (validation, "validate"),
    (loading, "load"),
    (settle, "plan_batch"),
    (PROVIDERS["rest"], "pay"),  # in a thread of its own
    (NotificationService, "send"),
    (batches, "final_status"),
    (finishing, "summary_of"),
)
OF_THE_CLIENT = {"original", "staged.parquet", "rejected.csv", "rejections.parquet", "accepted.parquet"}

LAST_WORDS = "this is the end of the log"
DATABASE_GONE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orders-pipeline'"


def names(found: set[str]) -> set[str]:
    """Return what was found without the place it was planted in: columns, secrets, headers, file names."""
    return {name.rpartition(": ")[2] for name in found}


@pytest.fixture(scope="module")
def planted(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlantedHouse]:
    """The installation after everything has happened in it."""
    folder = tmp_path_factory.mktemp("planted")
    log = StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with open_planted_installation(server_url, template, folder) as opened, pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledgers, "BACKOFF_S", 0.01)
            patch.setattr(ledgers, "MAX_BACKOFF_S", 0.02)
            for name, seconds in (("FIRST_PROBE_S", 0.02), ("PROBE_S", 0.05), ("PATIENCE_S", 0.5)):
                patch.setattr(circuit_breaker, name, seconds)
            with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
                _everything_goes_wrong(opened, folder, KINDS)
            logging.getLogger("end").debug(LAST_WORDS)
            opened.log.append(log.getvalue())
            _by_command(opened, folder)
            yield opened
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _everything_goes_wrong(opened: PlantedHouse, folder: Path, kinds: Sequence[str]) -> None:
    installation = opened.installation
    sign_in(installation.system.database, installation.system.clients, installation.system.cipher)
    for number, (module, function) in enumerate(UNFORESEEN):
        batch_id = installation.receive(planted_file(opened.canaries, folder, f"unforeseen{number}"), "shop")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, function, _failing(opened.everything_planted()))
            failure = installation.run(batch_id)
        assert failure is not None, function
        opened.said.append(failure)
    for service in ("faults", "notification_faults"):
        _with_bad_service(opened, folder, service, kinds)
    _without_database(opened, folder)
    _without_storage(opened, folder)
    _with_webhooks(opened)


def _failing(text: str):
    def fail(*_: object, **__: object) -> None:
        try:
            raise KeyError(text)
        except KeyError:
            raise ValueError(text)  # noqa: B904 - with its context, as careless code does

    return fail


def _with_bad_service(opened: PlantedHouse, folder: Path, service: str, kinds: Sequence[str]) -> None:
    """Have every kind of fault, one batch each after the other; what stays open is gone on with at the end."""
    installation, waiting = opened.installation, []
    for kind in kinds:
        installation.sandbox.service.options = Options()
        installation.sandbox.change(**{service: f"{kind}=1,max_per_key=1,retry_after=0,late_s=0,hang_s=1.2"})
        batch_id = installation.receive(planted_file(opened.canaries, folder, f"{service}-{kind}"), "shop")
        opened.said.append(str(installation.run(batch_id)))
        waiting.append(batch_id)
    installation.sandbox.service.options = Options()
    batch_settlement.probe_now(installation.system)
    for batch_id in waiting:
        opened.said.append(str(installation.run(batch_id)))


def _without_database(opened: PlantedHouse, folder: Path) -> None:
    installation = opened.installation
    batch_id = installation.receive(planted_file(opened.canaries, folder, "database"), "shop")
    whole = loading.load

    def cut(*arguments, **named):
        installation.rows(DATABASE_GONE)
        return whole(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", cut)
        opened.said.append(str(installation.run(batch_id)))
    installation.rows("ALTER TABLE orders RENAME TO orders_elsewhere")
    opened.said.append(str(installation.run(batch_id)))
    installation.rows("ALTER TABLE orders_elsewhere RENAME TO orders")
    opened.said.append(str(installation.run(batch_id)))


def _without_storage(opened: PlantedHouse, folder: Path) -> None:
    installation = opened.installation
    batch_id = installation.receive(planted_file(opened.canaries, folder, "storage"), "shop")
    with pytest.MonkeyPatch.context() as patch:
        for failure in (StorageUnavailable(), OSError(28, opened.everything_planted(), opened.everything_planted())):
            patch.setattr(type(installation.system.storage), "put", _raising(failure))
            opened.said.append(str(installation.run(batch_id)))
    opened.said.append(str(installation.run(batch_id)))


def _with_webhooks(opened: PlantedHouse) -> None:
    """Send webhooks: some go wrong as nobody has foreseen, and the address is none that may be called."""
    sender = Sender(opened.installation.system)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending, "post_outside", _failing(opened.everything_planted()))
        sender.run_once()
    opened.installation.rows("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'planned'")
    sender.run_once()
    assert opened.installation.rows("SELECT DISTINCT outcome_code FROM webhook_deliveries") == [(sending.REFUSED,)]


def _raising(error: Exception):
    def put(*_: object, **__: object) -> None:
        raise error

    return put


def _by_command(opened: PlantedHouse, folder: Path) -> None:
    """Use the commands on the same installation, also with a database that is not there; keep the process list meanwhile."""
    settings = opened.settings()
    path = planted_file(opened.canaries, folder, "command")
    importing = commands.start(settings, "import", path, "--client", "shop", "--json")
    while importing.poll() is None:
        opened.said.extend(_process_list(importing, path))
        with contextlib.suppress(subprocess.TimeoutExpired):
            importing.wait(0.2)
    imported = commands.end(importing)
    opened.said.extend(_output(imported))
    batch_id = json.loads(imported.stdout)["batch_id"]
    for arguments in (("status", batch_id, "--json"), ("status",), ("webhooks", "list"), ("doctor",)):
        opened.said.extend(_output(commands.call(settings, *arguments)))
    opened.reported.extend(_output(commands.call(settings, "errors", batch_id)))
    gone = settings | {"ORDERS_DATABASE_URL": settings["ORDERS_DATABASE_URL"].rpartition("/")[0] + "/gone"}
    opened.said.extend(_output(commands.call(gone, "status", "--json")))
    wrong = settings | {"ORDERS_MAX_ROWS": opened.canaries.plant("wrong setting")}
    opened.said.extend(_output(commands.call(wrong, "status")))


def _process_list(process: subprocess.Popen[str], path: Path) -> list[str]:
    """Return the command lines of all processes, without the file that the command itself was told to import."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(file.read_text("utf-8", "replace").replace(str(path), ""))
    assert any("orders-pipeline" in line for line in lines) or process.poll() is not None
    return lines


def _output(ended: subprocess.CompletedProcess[str]) -> list[str]:
    return [ended.stdout, ended.stderr]


def dump(opened: PlantedHouse, schema: str) -> dict[str, str]:
    """Return every table of a schema as text."""
    tables = opened.installation.rows("SELECT tablename FROM pg_tables WHERE schemaname = %s", schema)
    return {
        table: "\n".join(row for (row,) in opened.installation.rows(f'SELECT t::text FROM "{schema}"."{table}" AS t'))
        for (table,) in tables
    }


def test_s01_everything_happened(planted: PlantedHouse) -> None:
    done = planted.installation.rows("SELECT status, count(*) FROM batches GROUP BY 1")
    assert sum(count for _, count in done) >= len(UNFORESEEN) + 2 * len(KINDS) + 3
    assert dict(done)["completed_with_errors"] >= len(KINDS)
    assert any("E_UNEXPECTED" in said for said in planted.said)
    assert any("E_DATABASE" in said for said in planted.said)
    assert any("E_STORAGE" in said for said in planted.said)


def test_s01_what_is_said_names_nothing_but_what_identifies_an_order(planted: PlantedHouse) -> None:
    found = names(planted.canaries.found_in(*planted.said))
    assert found <= IN_CLEAR | {"file name", "header", "home"}


def test_s22_nothing_planted_is_in_the_log(planted: PlantedHouse) -> None:
    assert LAST_WORDS in "".join(planted.log)
    assert names(planted.canaries.found_in(*planted.log)) <= {"file name"}


def test_s01_the_report_for_the_client_has_the_wrong_words_its_unknown_header_and_nothing_personal(
    planted: PlantedHouse,
) -> None:
    assert names(planted.canaries.found_in(*planted.reported)) == {f"wrong {column}" for column in WRONG} | {"header"}


def test_s01_dagsters_records_hold_no_planted_value_but_the_names_of_files(planted: PlantedHouse) -> None:
    tables = dump(planted, "dagster")
    assert "E_UNEXPECTED" in tables["event_logs"], "the search sees what was recorded"
    assert names(planted.canaries.found_in(*tables.values())) <= {"file name"}


def test_s01_dagsters_records_tell_nothing_of_the_inside(planted: PlantedHouse) -> None:
    tables = dump(planted, "dagster")
    assert traces(tables["event_logs"], tables["runs"]) == {}


def test_s01_the_database_holds_in_clear_only_what_names_nobody(planted: PlantedHouse) -> None:
    found = names(planted.canaries.found_in(*dump(planted, "public").values()))
    assert found - IN_CLEAR - {"file name", "header"} == set()


def test_s01_files_hold_no_planted_value_but_the_batches_own(planted: PlantedHouse) -> None:
    for name, data in files_below(planted.installation.home):
        if Path(name).name in OF_THE_CLIENT:
            continue
        found = names(planted.canaries.found_in(data, name))
        assert found - IN_CLEAR - {"file name", "header", "home"} == set(), name


def test_s11_no_secret_is_said_or_written_anywhere(planted: PlantedHouse) -> None:
    places = [*planted.said, *planted.log, *dump(planted, "dagster").values(), *dump(planted, "public").values()]
    places += [data for _, data in files_below(planted.installation.home)]
    assert planted.canaries.found_in(*places) & (set(SECRETS) - {"home"}) == set()
