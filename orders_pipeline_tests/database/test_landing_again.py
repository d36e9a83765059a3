"""Files of the landing that come again: alike, replaced, mended, refused or cancelled before."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from orders_pipeline.intake.landing.arrivals import register_arrivals
from orders_pipeline_tests.support.landing_folder import batches, later, left_alone, put, twice
from orders_pipeline_tests.support.ledgers import Harness, order

pytestmark = pytest.mark.usefixtures("hasty_landing")


def rewrite(path: Path, text: str) -> None:
    """Write other bytes of the same length into the same file, and put its time back."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def refuse(harness: Harness, batch_id: str, code: str | None = None, twin: str | None = None) -> None:
    harness.run(
        """UPDATE batches SET status = 'rejected', status_code = %s, duplicate_of = %s, finished_at = now()
           WHERE batch_id = %s""",
        code,
        twin,
        batch_id,
    )


def cancel(harness: Harness, batch_id: str) -> None:
    """Note that a batch was cancelled."""
    harness.run(
        """UPDATE batches SET status = 'cancelled', cancelled_by = 'ops', cancelled_why = 'wrong', cancelled_at = now(),
                              finished_at = now() WHERE batch_id = %s""",
        batch_id,
    )


def read(harness: Harness, batch_id: str, path: Path) -> None:
    """Note what the batch's bytes are, as staging does."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    harness.run("UPDATE batches SET source_sha256 = %s WHERE batch_id = %s", sha256, batch_id)


@pytest.mark.parametrize("replace", [True, False])
def test_another_file_of_the_same_name_size_and_time_is_another_batch(harness, folder, landing, replace):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    (batch_id,) = twice(harness, landing)
    assert twice(harness, landing) == []
    if replace:
        put(folder, "acme/new.tmp", "other\n")
        (folder / "acme/new.tmp").replace(path)
    else:
        rewrite(path, "other\n")
    assert twice(harness, landing) == []  # not before it is known what the first one's bytes were
    harness.run("UPDATE batches SET source_sha256 = %s", hashlib.sha256(b"first\n").hexdigest())
    (other,) = register_arrivals(harness.database, landing)
    assert other != batch_id
    assert twice(harness, landing) == []


def test_a_file_of_which_only_metadata_changed_is_no_other_batch(harness, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv")
    (batch_id,) = twice(harness, landing)
    read(harness, batch_id, path)
    for change in (
        lambda: path.chmod(0o600),
        lambda: (folder / "acme/link.tmp").hardlink_to(path),
        lambda: shutil.copy2(path, folder / "acme/copy.tmp") and (folder / "acme/copy.tmp").replace(path),
    ):
        change()
        assert twice(harness, landing) == []
        assert register_arrivals(harness.database, landing) == []
    assert harness.value("SELECT count(*) FROM landing_files WHERE batch_id = %s", batch_id) == 4
    assert len(batches(harness)) == 1


def test_a_refused_file_that_is_put_again_is_taken_again_however_alike_it_is(harness, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv")
    (batch_id,) = twice(harness, landing)
    read(harness, batch_id, path)
    refuse(harness, batch_id)
    assert twice(harness, landing) == []
    shutil.copy2(path, folder / "acme/copy.tmp")
    (folder / "acme/copy.tmp").replace(path)
    assert len(twice(harness, landing)) == 1


def test_a_file_that_was_away_is_another_batch_when_it_is_back_unchanged(harness, folder, landing):
    put(folder, "acme/orders.csv", "head\n1,10")  # as it lies there it has settled
    twice(harness, landing)
    later(harness, 60.0)
    (first,) = register_arrivals(harness.database, landing)
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    refuse(harness, first, "F_GONE")
    assert twice(harness, landing) == []
    folder.rmdir()
    folder.with_name("away").rename(folder)
    (second,) = twice(harness, landing)
    assert second != first
    read(harness, second, folder / "acme/orders.csv")
    assert twice(harness, landing) == []
    harness.run("UPDATE batches SET status = 'loaded' WHERE batch_id = %s", second)
    assert twice(harness, landing) == []
    assert len(batches(harness)) == 2


def test_a_file_whose_twin_was_refused_is_another_batch_and_named_until_then(harness, folder, landing):
    put(folder, "acme/one.csv")
    (one,) = twice(harness, landing)
    put(folder, "acme/two.csv")
    (two,) = twice(harness, landing)
    refuse(harness, two, "F_DUPLICATE_FILE", twin=one)
    assert twice(harness, landing) == []
    assert left_alone(harness, "refused") == {"acme/two.csv"}
    cancel(harness, one)
    assert twice(harness, landing) == []  # nobody asked for the same orders from under another name
    assert left_alone(harness, "refused") == {"acme/one.csv", "acme/two.csv"}
    harness.run("UPDATE batches SET status = 'rejected' WHERE batch_id = %s", one)
    assert len(twice(harness, landing)) == 1
    twice(harness, landing)
    assert left_alone(harness, "refused") == {"acme/one.csv"}
    (folder / "acme/one.csv").unlink()
    register_arrivals(harness.database, landing)
    assert left_alone(harness, "refused") == set()


@pytest.mark.parametrize("was_read", [True, False])
def test_what_is_put_there_after_a_cancellation_unpaid_is_taken_however_alike_it_is(harness, folder, landing, was_read):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    (batch_id,) = twice(harness, landing)
    if was_read:
        read(harness, batch_id, path)
    cancel(harness, batch_id)
    assert twice(harness, landing) == []  # by itself it does not come again
    put(folder, "acme/new.tmp", "first\n" if was_read else "other\n")
    (folder / "acme/new.tmp").replace(path)
    assert len(twice(harness, landing)) == 1


def test_a_cancelled_file_does_not_come_again_for_other_rights_or_links(harness, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    put(folder, "acme/orders.manifest.json")
    (batch_id,) = twice(harness, landing)
    read(harness, batch_id, path)
    cancel(harness, batch_id)
    (folder / "acme/orders.manifest.json").chmod(0o600)
    assert twice(harness, landing) == []
    path.chmod(0o600)
    assert twice(harness, landing) == []
    (folder / "acme/link.tmp").hardlink_to(path)
    assert twice(harness, landing) + twice(harness, landing) == []
    assert left_alone(harness, "refused") == {"acme/orders.csv"}
    put(folder, "acme/orders.manifest.json", "another\n")
    assert len(twice(harness, landing)) == 1


@pytest.mark.parametrize("was_read", [True, False])
def test_a_cancelled_file_that_is_written_to_comes_again(harness, folder, landing, was_read):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv", "first\n")
    (batch_id,) = twice(harness, landing)
    if was_read:
        read(harness, batch_id, path)
    cancel(harness, batch_id)
    rewrite(path, "other\n")
    assert len(twice(harness, landing)) == 1


def test_bytes_of_a_batch_cancelled_when_some_was_paid_do_not_come_again(harness, folder, landing):
    path = folder / "acme/orders.csv"
    put(folder, "acme/orders.csv")
    (batch_id,) = twice(harness, landing)
    read(harness, batch_id, path)
    cancel(harness, batch_id)
    harness.orders(order(1), batch_id=batch_id)
    harness.tamper("UPDATE orders SET status = 'paid' WHERE import_row_number = 1")
    shutil.copy2(path, folder / "acme/copy.tmp")
    (folder / "acme/copy.tmp").replace(path)
    assert twice(harness, landing) == []


def test_a_refused_file_is_taken_again_when_its_manifest_is_mended_and_a_loaded_one_is_not(harness, folder, landing):
    put(folder, "acme/orders.csv")
    put(folder, "acme/orders.manifest.json", '{"row_count": 2}')
    (first,) = twice(harness, landing)
    put(folder, "acme/orders.manifest.json", '{"row_count": 11}')
    assert twice(harness, landing) == []  # the first one is under way, and reads what is there
    refuse(harness, first)
    (second,) = twice(harness, landing)
    assert second != first
    put(folder, "acme/orders.manifest.json", '{"row_count": 111}')
    harness.run("UPDATE batches SET status = 'loaded' WHERE batch_id = %s", second)
    assert twice(harness, landing) == []
    assert len(batches(harness)) == 2
