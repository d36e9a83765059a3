"""Files of a batch that somebody replaced in the storage, who has our key or may write there: nothing is made of them."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from orders_pipeline.batches.artifacts import ACCEPTED, ORIGINAL, REJECTIONS, STAGED, artifact
from orders_pipeline.cli.console import show_summary
from orders_pipeline.infrastructure.storage import ObjectReplaced
from orders_pipeline.intake import steps
from orders_pipeline.reports import finishing
from orders_pipeline.security.encryption import DecryptionError
from orders_pipeline.system.composition import System
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, open_installation
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.s3_server import open_s3

CLIENT = "acme"


def report(system: System, batch_id: str) -> None:
    finishing.finish_batch(system.storage, system.database, batch_id)


STEPS = (steps.stage_batch, steps.validate_batch, steps.load_batch, report)


@pytest.fixture(scope="module", params=["folder", "s3"])
def installation(
    request: pytest.FixtureRequest, server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    if request.param == "folder":
        with open_installation(server_url, template, folder) as opened:
            yield opened
        return
    with open_s3() as harness:
        store = {"storage_url": f"s3://{harness.bucket()}/kept", "s3_endpoint_url": harness.server_url}
        with open_installation(server_url, template, folder, **store) as opened:
            yield opened


@pytest.fixture
def two(installation: Installation, tmp_path: Path) -> tuple[str, str]:
    """Two batches with a good and a bad row each."""

    def received(name: str, amount: str, wrong: str) -> str:
        file = OrderFile("utf-8")
        reference = uuid.uuid4().hex
        file.add(order_row(client_order_ref=reference, amount=amount))
        file.add(order_row(client_order_ref=f"{reference}-bad", amount=wrong))
        path = tmp_path / f"{name}.csv"
        path.write_bytes(file.text.encode())
        return installation.receive(path, CLIENT)

    return received("ours", "10", "none"), received("theirs", "900000", "")


def bytes_of(installation: Installation, batch_id: str, name: str) -> bytes:
    with installation.system.storage.local(artifact(batch_id, name)) as path:
        return path.read_bytes()


def is_shown(installation: Installation, batch_id: str, code: str) -> bool:
    return bool(installation.rows("SELECT status_code FROM batches WHERE batch_id = %s", batch_id) == [(code,)])


@pytest.mark.parametrize(
    ("name", "before"),
    [(ORIGINAL, 0), (STAGED, 1), (ACCEPTED, 2), (REJECTIONS, 2), (ORIGINAL, 3), (STAGED, 3)],
    ids=["original", "staged", "accepted", "rejections", "original reported", "staged reported"],
)
def test_a_file_that_was_replaced_is_found_by_who_reads_it(
    installation: Installation, two: tuple[str, str], name: str, before: int
) -> None:
    ours, theirs = two
    for batch_id in two:
        for step in STEPS[:before]:
            step(installation.system, batch_id)
    own, loaded = (
        bytes_of(installation, ours, name),
        len(installation.rows("SELECT 1 FROM orders WHERE batch_id = %s", ours)),
    )
    installation.system.storage.put(
        artifact(ours, name), bytes_of(installation, theirs, name)
    )  # sealed with our key, for this place
    with pytest.raises(ObjectReplaced, match="E_STORAGE_REPLACED"):
        STEPS[before](installation.system, ours)
    assert is_shown(installation, ours, "E_STORAGE_REPLACED")
    assert installation.rows("SELECT sum(amount) FROM orders WHERE batch_id = %s", ours) == [(10 if loaded else None,)]
    if name in (ACCEPTED, REJECTIONS):  # what another made of the staged rows is not needed
        steps.load_batch(installation.system, ours)
    else:
        installation.system.storage.put(artifact(ours, name), own)
        for step in STEPS[before:3]:
            step(installation.system, ours)
    finishing.finish_batch(installation.system.storage, installation.system.database, ours)
    assert installation.rows("SELECT amount FROM orders WHERE batch_id = %s", ours) == [(10,)]
    assert not is_shown(installation, ours, "E_STORAGE_REPLACED")
    assert b"-bad" in (installation.report(ours, "rejected") or b"")


@pytest.mark.parametrize("name", [ORIGINAL, STAGED])
def test_a_batch_whose_file_is_gone_ends_without_its_rejected_rows_which_nothing_corrects(
    installation: Installation, two: tuple[str, str], name: str, tmp_path: Path
) -> None:
    """As from a storage that was put back to before the file came, and the database was not."""
    ours, theirs = two
    for batch_id in two:
        for step in STEPS[:3]:
            step(installation.system, batch_id)
    finishing.finish_batch(installation.system.storage, installation.system.database, theirs)
    installation.system.storage.delete(artifact(ours, name))
    with installation.system.database.begin() as transaction:
        cancelling.begin(transaction, ours, cancelled_by="operator", why="the storage was put back")
    cancelling.finish(installation.system, ours)
    summary = installation.summary(ours)
    assert (summary["status"], summary["status_code"], summary["warnings"]) == ("cancelled", None, ["W_ROWS_GONE"])
    assert sorted(summary["artifacts"]) == ["errors", "result"]
    assert all(code in (installation.report(ours, "errors") or b"") for code in (b"W_ROWS_GONE", b"R_AMOUNT_FORMAT"))
    console = Console(file=io.StringIO(), width=200, highlight=False, soft_wrap=True)
    show_summary(console, summary | {"corrections": {"batches": 1, "rows_open": 1, "open_in": [ours]}})
    assert "1 row, to be sent as a new file" in console.file.getvalue()  # type: ignore[attr-defined]

    installation.system.storage.delete(artifact(ours, STAGED))
    corrected = tmp_path / "corrected.csv"
    rejected = installation.report(theirs, "rejected") or b""
    corrected.write_bytes(rejected.replace(theirs.encode(), ours.encode()).replace(b",,", b",5,", 1))
    late = installation.receive(corrected, CLIENT)
    for step in STEPS[:2]:
        step(installation.system, late)
    assert (installation.summary(late)["status"], installation.summary(late)["status_code"]) == (
        "rejected",
        "F_BATCH_COLUMN",
    )


def test_a_plain_file_in_place_of_an_encrypted_one_is_not_read(installation: Installation, two: tuple[str, str]) -> None:
    batch_id, _ = two
    location = installation.system.storage.location(artifact(batch_id, ORIGINAL))
    if location.startswith("s3:"):
        pytest.skip("KMS encrypts there, and what is no object's own is found by its digest")
    plain = bytes_of(installation, batch_id, ORIGINAL)
    Path(location).write_bytes(plain)
    with pytest.raises(DecryptionError, match="E_SEALED_FORMAT"):
        steps.stage_batch(installation.system, batch_id)
    assert is_shown(installation, batch_id, "E_SEALED_FORMAT")
    Path(location).unlink()
