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
from orders_pipeline.reports import reports
from orders_pipeline.security.encryption import DecryptionError
from orders_pipeline.upkeep import cancelling
from orders_pipeline_tests.factories import order_row
from orders_pipeline_tests.house import House, open_house
from orders_pipeline_tests.order_file import OrderFile
from orders_pipeline_tests.s3_desk import open_s3

CLIENT = "acme"
STEPS = (steps.stage_batch, steps.validate_batch, steps.load_batch, reports.finish_batch)


@pytest.fixture(scope="module", params=["folder", "s3"])
def house(
    request: pytest.FixtureRequest, server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    if request.param == "folder":
        with open_house(server_url, template, folder) as opened:
            yield opened
        return
    with open_s3() as desk:
        store = {"storage_url": f"s3://{desk.bucket()}/kept", "s3_endpoint_url": desk.server_url}
        with open_house(server_url, template, folder, **store) as opened:
            yield opened


@pytest.fixture
def two(house: House, tmp_path: Path) -> tuple[str, str]:
    """Two batches with a good and a bad row each."""

    def received(name: str, amount: str, wrong: str) -> str:
        file = OrderFile("utf-8")
        reference = uuid.uuid4().hex
        file.add(order_row(client_order_ref=reference, amount=amount))
        file.add(order_row(client_order_ref=f"{reference}-bad", amount=wrong))
        path = tmp_path / f"{name}.csv"
        path.write_bytes(file.text.encode())
        return house.receive(path, CLIENT)

    return received("ours", "10", "none"), received("theirs", "900000", "")


def bytes_of(house: House, batch_id: str, name: str) -> bytes:
    with house.system.storage.local(artifact(batch_id, name)) as path:
        return path.read_bytes()


def is_shown(house: House, batch_id: str, code: str) -> bool:
    return bool(house.rows("SELECT status_code FROM batches WHERE batch_id = %s", batch_id) == [(code,)])


@pytest.mark.parametrize(
    ("name", "before"),
    [(ORIGINAL, 0), (STAGED, 1), (ACCEPTED, 2), (REJECTIONS, 2), (ORIGINAL, 3), (STAGED, 3)],
    ids=["original", "staged", "accepted", "rejections", "original reported", "staged reported"],
)
def test_a_file_that_was_replaced_is_found_by_who_reads_it(
    house: House, two: tuple[str, str], name: str, before: int
) -> None:
    ours, theirs = two
    for batch_id in two:
        for step in STEPS[:before]:
            step(house.system, batch_id)
    own, loaded = bytes_of(house, ours, name), len(house.rows("SELECT 1 FROM orders WHERE batch_id = %s", ours))
    house.system.storage.put(artifact(ours, name), bytes_of(house, theirs, name))  # sealed with our key, for this place
    with pytest.raises(ObjectReplaced, match="E_STORAGE_REPLACED"):
        STEPS[before](house.system, ours)
    assert is_shown(house, ours, "E_STORAGE_REPLACED")
    assert house.rows("SELECT sum(amount) FROM orders WHERE batch_id = %s", ours) == [(10 if loaded else None,)]
    if name in (ACCEPTED, REJECTIONS):  # what another made of the staged rows is not needed
        steps.load_batch(house.system, ours)
    else:
        house.system.storage.put(artifact(ours, name), own)
        for step in STEPS[before:3]:
            step(house.system, ours)
    reports.finish_batch(house.system, ours)
    assert house.rows("SELECT amount FROM orders WHERE batch_id = %s", ours) == [(10,)]
    assert not is_shown(house, ours, "E_STORAGE_REPLACED")
    assert b"-bad" in (house.report(ours, "rejected") or b"")


@pytest.mark.parametrize("name", [ORIGINAL, STAGED])
def test_a_batch_whose_file_is_gone_ends_without_its_rejected_rows_which_nothing_corrects(
    house: House, two: tuple[str, str], name: str, tmp_path: Path
) -> None:
    """As from a storage that was put back to before the file came, and the database was not."""
    ours, theirs = two
    for batch_id in two:
        for step in STEPS[:3]:
            step(house.system, batch_id)
    reports.finish_batch(house.system, theirs)
    house.system.storage.delete(artifact(ours, name))
    with house.system.database.begin() as transaction:
        cancelling.begin(transaction, ours, cancelled_by="operator", why="the storage was put back")
    cancelling.finish(house.system, ours)
    summary = house.summary(ours)
    assert (summary["status"], summary["status_code"], summary["warnings"]) == ("cancelled", None, ["W_ROWS_GONE"])
    assert sorted(summary["artifacts"]) == ["errors", "result"]
    assert all(code in (house.report(ours, "errors") or b"") for code in (b"W_ROWS_GONE", b"R_AMOUNT_FORMAT"))
    console = Console(file=io.StringIO(), width=200)
    show_summary(console, summary | {"corrections": {"batches": 1, "rows_open": 1, "open_in": [ours]}})
    assert "1 row, to be sent as a new file" in console.file.getvalue()  # type: ignore[attr-defined]

    house.system.storage.delete(artifact(ours, STAGED))
    corrected = tmp_path / "corrected.csv"
    rejected = house.report(theirs, "rejected") or b""
    corrected.write_bytes(rejected.replace(theirs.encode(), ours.encode()).replace(b",,", b",5,", 1))
    late = house.receive(corrected, CLIENT)
    for step in STEPS[:2]:
        step(house.system, late)
    assert (house.summary(late)["status"], house.summary(late)["status_code"]) == ("rejected", "F_BATCH_COLUMN")


def test_a_plain_file_in_place_of_an_encrypted_one_is_not_read(house: House, two: tuple[str, str]) -> None:
    batch_id, _ = two
    location = house.system.storage.location(artifact(batch_id, ORIGINAL))
    if location.startswith("s3:"):
        pytest.skip("KMS encrypts there, and what is no object's own is found by its digest")
    plain = bytes_of(house, batch_id, ORIGINAL)
    Path(location).write_bytes(plain)
    with pytest.raises(DecryptionError, match="E_SEALED_FORMAT"):
        steps.stage_batch(house.system, batch_id)
    assert is_shown(house, batch_id, "E_SEALED_FORMAT")
    Path(location).unlink()
