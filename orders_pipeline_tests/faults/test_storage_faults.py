"""O01 to O13: what goes wrong with files in S3, from the landing to the report; moto's server behind a line that breaks.

What a store by itself makes of it is in pipeline/test_storage_s3.py, what a landing folder shows in pipeline/test_sensor.py.
"""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orders_pipeline.batches.artifacts import ORIGINAL, STAGED, artifact
from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.infrastructure.storage import ObjectDenied
from orders_pipeline.intake import archive, steps
from orders_pipeline.intake.landing import arrivals
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished, open_installation
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.s3_server import S3Harness, Trouble, open_s3
from orders_pipeline_tests.support.soak import first_of

CLIENT = "acme"


@pytest.fixture(scope="module")
def harness() -> Iterator[S3Harness]:
    with open_s3() as opened:
        yield opened


@pytest.fixture(scope="module")
def _module_installation(
    server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory, harness: S3Harness
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    storage = f"s3://{harness.bucket()}/kept"
    with open_installation(server_url, template, folder, storage_url=storage, s3_endpoint_url=harness.line.url) as opened:
        yield opened


@dataclass(frozen=True)
class Landing:
    """An installation whose landing is in S3, and a client's side of it."""

    installation: Installation
    harness: S3Harness

    @property
    def bucket(self) -> str:
        return str(self.installation.system.settings.storage_url).split("/")[2]

    def put(self, key: str, content: bytes) -> None:
        self.harness.raw.put_object(Bucket=self.bucket, Key=f"kept/landing/{key}", Body=content)

    def delete(self, key: str) -> None:
        self.harness.raw.delete_object(Bucket=self.bucket, Key=f"kept/landing/{key}")

    def look(self) -> list[str]:
        return arrivals.register_arrivals(self.installation.system.database, self.installation.system.landing)

    def arrive(self, key: str, content: bytes) -> str:
        """Put a file and return the batch it becomes."""
        self.put(key, content)
        (batch_id,) = self.look()
        return batch_id

    def stage(self, batch_id: str) -> dict[str, Any]:
        steps.stage_batch(self.installation.system, batch_id)
        return self.installation.summary(batch_id)

    def archived(self, batch_id: str) -> bytes:
        with self.installation.system.storage.local(artifact(batch_id, ORIGINAL)) as path:
            return path.read_bytes()

    def trouble(self, method: str, ending: str, status: int = 0, **more: Any) -> None:
        self.harness.line.troubles.append(Trouble(method, ending, status, **more))


@pytest.fixture
def clients_landing(
    _module_installation: Installation, harness: S3Harness, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Landing]:
    """An empty landing and a line without troubles."""
    monkeypatch.setattr(archive, "READ_PAUSE_S", 0.01)
    harness.line.asked.clear()
    opened = Landing(_module_installation, harness)
    yield opened
    harness.line.troubles.clear()
    harness.empty(opened.bucket, "kept/landing/")


def orders(*references: str, amount: int = 1000) -> bytes:
    """Return an order file with these references."""
    file = OrderFile("utf-8")
    for reference in references:
        file.add(order_row(client_order_ref=reference, amount=str(amount)))
    return file.text.encode()


def test_o01_an_upload_in_parts_is_no_batch_before_it_is_complete(clients_landing: Landing) -> None:
    raw, place = clients_landing.harness.raw, {"Bucket": clients_landing.bucket, "Key": f"kept/landing/{CLIENT}/o01.csv"}
    content = orders("O01-1", "O01-2")
    upload = raw.create_multipart_upload(**place)["UploadId"]
    part = raw.upload_part(**place, UploadId=upload, PartNumber=1, Body=content)
    assert [clients_landing.look() for _ in range(2)] == [[], []]
    raw.complete_multipart_upload(
        **place, UploadId=upload, MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    )
    (batch_id,) = clients_landing.look()
    assert clients_landing.stage(batch_id)["status"] == "staged"
    assert clients_landing.archived(batch_id) == content


def test_o02_a_file_replaced_while_it_is_read_is_rejected_and_the_new_one_is_taken(clients_landing: Landing) -> None:
    old, new = orders("O02-old"), orders("O02-new", "O02-more")
    first = clients_landing.arrive(f"{CLIENT}/o02.csv", old)
    clients_landing.trouble("GET", "o02.csv", times=1, then=lambda: clients_landing.put(f"{CLIENT}/o02.csv", new))
    summary = clients_landing.stage(first)
    assert (summary["status"], summary["status_code"], summary["source_sha256"]) == ("rejected", "F_CHANGED", None)
    assert clients_landing.installation.system.storage.head(artifact(first, ORIGINAL)) is None
    (second,) = clients_landing.look()
    assert clients_landing.stage(second)["rows"]["total"] == 2
    assert clients_landing.archived(second) == new


def test_o03_a_file_deleted_before_or_while_it_is_read_is_gone_and_the_others_go_on(clients_landing: Landing) -> None:
    for number in range(3):
        clients_landing.put(f"{CLIENT}/o03-{number}.csv", orders(f"O03-{number}"))
    batch_ids = clients_landing.look()
    clients_landing.delete(f"{CLIENT}/o03-0.csv")
    clients_landing.trouble("GET", "o03-1.csv", times=1, then=lambda: clients_landing.delete(f"{CLIENT}/o03-1.csv"))
    summaries = [clients_landing.stage(batch_id) for batch_id in batch_ids]
    assert {each["csv_source"]: each["status_code"] or each["status"] for each in summaries} == {
        "o03-0.csv": "F_GONE",
        "o03-1.csv": "F_GONE",
        "o03-2.csv": "staged",
    }


def test_o03_a_file_that_was_gone_and_is_put_again_with_the_same_bytes_is_taken(clients_landing: Landing) -> None:
    first = clients_landing.arrive(f"{CLIENT}/o03.csv", orders("O03-again"))
    clients_landing.delete(f"{CLIENT}/o03.csv")
    assert clients_landing.stage(first)["status_code"] == "F_GONE"
    again: list[str] = []
    while not again:  # the store's time goes by whole seconds
        clients_landing.put(f"{CLIENT}/o03.csv", orders("O03-again"))
        again = clients_landing.look()
    assert clients_landing.stage(again[0])["status"] == "staged"


def test_o04_the_same_content_under_two_names_is_one_batch_and_the_second_says_of_which(clients_landing: Landing) -> None:
    content = orders("O04-1")
    first = clients_landing.arrive(f"{CLIENT}/o04.csv", content)
    assert clients_landing.stage(first)["status"] == "staged"
    second = clients_landing.arrive(f"{CLIENT}/o04-renamed.csv", content)
    summary = clients_landing.stage(second)
    assert (summary["status_code"], summary["duplicate_of"]) == ("F_DUPLICATE_FILE", first)
    other = clients_landing.arrive("beta/o04.csv", content)  # another client may send the same
    assert clients_landing.stage(other)["status"] == "staged"


def test_o05_the_same_name_with_new_content_is_a_new_batch_and_known_orders_in_it_come_back(
    clients_landing: Landing,
) -> None:
    installation = clients_landing.installation
    first = clients_landing.arrive(f"{CLIENT}/o05.csv", orders("O05-1", "O05-2"))
    installation.work_off(first)
    second = clients_landing.arrive(f"{CLIENT}/o05.csv", orders("O05-2", "O05-3"))
    installation.work_off(second)
    assert check_finished(installation, first)["orders"]["paid"] == 2
    summary = check_finished(installation, second, "completed_with_errors")
    assert (summary["orders"]["paid"], summary["rejections"]) == (1, {"R_REF_EXISTS": 1})
    assert b"O05-2" in (installation.report(second, "rejected") or b"")


def test_o06_the_same_content_again_is_a_new_batch_only_where_it_is_asked_for(
    clients_landing: Landing, tmp_path: Path
) -> None:
    path = tmp_path / "o06.csv"
    path.write_bytes(orders("O06-1"))
    first = clients_landing.arrive(f"{CLIENT}/o06.csv", path.read_bytes())
    clients_landing.stage(first)
    with pytest.raises(FileRejected) as refusal:
        clients_landing.installation.receive(path, CLIENT)
    assert (refusal.value.code, refusal.value.detail) == ("F_DUPLICATE_FILE", {"batch_id": first})
    again = clients_landing.installation.receive(path, CLIENT, again=True)
    assert again != first
    assert clients_landing.stage(again)["status"] == "staged"


def test_o07_files_of_one_second_on_several_pages_are_all_taken_once(
    clients_landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MAX_NEW", 2_000)
    names = {f"{number:04}.csv" for number in range(1100)}
    clients_landing.harness.fill(clients_landing.bucket, [f"kept/landing/o07/{name}" for name in names])
    system = clients_landing.installation.system
    assert len(arrivals.register_arrivals(system.database, system.landing)) == len(names)
    assert clients_landing.look() == []
    found = clients_landing.installation.rows("SELECT csv_source FROM batches WHERE client_code = 'o07'")
    assert sorted(name for (name,) in found) == sorted(names)
    clients_landing.installation.rows(
        "UPDATE batches SET status = 'cancelled', finished_at = now() WHERE client_code = 'o07'"
    )


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize(("status", "code"), [(404, "F_GONE"), (403, "E_STORAGE_DENIED")])
def test_o08_a_listed_file_that_cannot_be_read_is_tried_three_times_and_taken_later_and_the_others_go_on(
    clients_landing: Landing, status: int, code: str, method: str
) -> None:
    name = f"o08-{status}-{method}"
    for number in range(2):
        clients_landing.put(f"{CLIENT}/{name}-{number}.csv", orders(f"{name}-{number}"))
    clients_landing.trouble(method, f"{name}-0.csv", status)
    batch_ids = clients_landing.look()
    for batch_id in batch_ids:
        with contextlib.suppress(ObjectDenied):
            clients_landing.stage(batch_id)
    summaries = {each["csv_source"]: each for each in map(clients_landing.installation.summary, batch_ids)}
    assert {name: each["status_code"] or each["status"] for name, each in summaries.items()} == {
        f"{name}-0.csv": code,
        f"{name}-1.csv": "staged",
    }
    assert len(clients_landing.harness.line.ranges(method, f"{name}-0.csv")) == 3
    clients_landing.harness.line.troubles.clear()
    later = clients_landing.look() or [summaries[f"{name}-0.csv"]["batch_id"]]  # denied it still waits, gone it is another
    assert [clients_landing.stage(batch_id)["status"] for batch_id in later] == ["staged"]


@pytest.mark.parametrize("status", [404, 403])
def test_o08_a_listed_file_that_cannot_be_read_at_first_is_taken(clients_landing: Landing, status: int) -> None:
    batch_id = clients_landing.arrive(f"{CLIENT}/o08.csv", orders(f"O08-{status}"))
    clients_landing.trouble("GET", "o08.csv", status, times=2)
    assert clients_landing.stage(batch_id)["status"] == "staged"


def test_o09_a_file_whose_reading_breaks_off_half_way_is_archived_whole(clients_landing: Landing, tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.csv", rows=2000, seed=9, bad=0)
    content = (tmp_path / "sample.csv").read_bytes()
    batch_id = clients_landing.arrive(f"{CLIENT}/o09.csv", content)
    clients_landing.trouble("GET", "o09.csv", times=2)
    assert clients_landing.stage(batch_id)["rows"]["total"] == 2000
    assert clients_landing.archived(batch_id) == content
    first, *others = clients_landing.harness.line.ranges("GET", "o09.csv")
    assert first is None
    assert len(others) == 2
    assert None not in others


ODD_NAMES = [
    "'; DROP TABLE orders; --.csv",
    "=cmd|' C calc'!A0.csv",
    "<script>alert(1)<script>.csv",
    "か\u3099 7月.csv",
    "x" * 1000 + ".csv",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_o10_a_file_of_any_name_is_archived_under_its_batch_alone(clients_landing: Landing, name: str) -> None:
    batch_id = clients_landing.arrive(f"{CLIENT}/{name}", orders(f"O10-{sum(map(ord, name))}"))
    before = set(clients_landing.harness.keys(clients_landing.bucket))
    summary = clients_landing.stage(batch_id)
    assert (summary["status"], summary["csv_source"]) == ("staged", unicodedata.normalize("NFC", name))
    made = set(clients_landing.harness.keys(clients_landing.bucket)) - before
    assert made == {f"kept/batches/{batch_id}/{file}" for file in (ORIGINAL, STAGED)}


@pytest.mark.parametrize("name", ["a\0b.csv", "あ" * 340 + ".csv", "../../o10.csv"])
def test_o10_a_name_that_cannot_be_kept_is_left_out_and_holds_up_nobody(clients_landing: Landing, name: str) -> None:
    clients_landing.harness.fill(clients_landing.bucket, [f"kept/landing/{CLIENT}/{name}"])
    assert len(clients_landing.arrive(f"{CLIENT}/o10.csv", orders(f"O10-{len(name)}"))) > 0


@pytest.mark.soak
def test_o11_in_a_bucket_of_a_hundred_thousand_a_new_file_is_found_in_one_round(clients_landing: Landing) -> None:
    keys = [f"kept/landing/c{number % 20:02}/{number:06}.part" for number in range(100_000)]
    clients_landing.harness.fill(clients_landing.bucket, keys)
    clients_landing.put("c10/new.csv", orders("O11-1"))
    clients_landing.put("c19/zzz.csv", orders("O11-2"))
    found: list[str] = []
    for _ in range(100_000 // (arrivals.PAGES_AT_LEAST * 1000) + 1):
        found += clients_landing.look()
    assert len(found) == 2
    assert [clients_landing.stage(batch_id)["status"] for batch_id in found] == ["staged"] * 2


@pytest.mark.parametrize("name", first_of(["result.json", "rejected.csv"]))
def test_o12_a_report_that_cannot_be_written_leaves_what_is_paid_and_is_written_later(
    clients_landing: Landing, name: str
) -> None:
    installation, prefix = clients_landing.installation, name.partition(".")[0]
    file = OrderFile("utf-8")
    file.add(order_row(client_order_ref=f"O12-{prefix}"))
    file.add(order_row(client_order_ref=f"O12-{prefix}-bad", amount="-1"))
    batch_id = clients_landing.arrive(f"{CLIENT}/o12-{name}.csv", file.text.encode())
    clients_landing.trouble("PUT", f"{batch_id}/{name}", 403)
    said = installation.run(batch_id)
    assert (said or "").startswith("E_STORAGE_DENIED")
    assert check_books(installation, batch_id)["orders"]["paid"] == 1
    assert installation.rows("SELECT finished_at FROM batches WHERE batch_id = %s", batch_id) == [
        (None,)
    ]  # the sweep resumes it
    theirs = installation.sandbox.ledger(batch_id)
    clients_landing.harness.line.troubles.clear()
    assert installation.run(batch_id) is None
    check_finished(installation, batch_id, "completed_with_errors")
    assert installation.sandbox.ledger(batch_id) == theirs
    assert b"O12" in (installation.report(batch_id, "rejected") or b"")
    assert json.loads(installation.report(batch_id, "result") or b"{}")["status"] == "completed_with_errors"


def test_o13_whose_file_it_is_says_its_folder_and_never_its_content(clients_landing: Landing) -> None:
    content = b"client_code," + orders("O13-1").replace(b"\r\nO13-1", b"\r\nbeta,O13-1")
    for key in (
        "stray.csv",
        "gamma/beta/o13.csv",
        "gamma//o13.csv",
        "no client/o13.csv",
        "取引先/o13.csv",
        f"{'c' * 33}/o13.csv",
    ):
        clients_landing.put(key, content)
    assert clients_landing.look() == []
    batch_id = clients_landing.arrive("gamma/o13.csv", content)
    assert clients_landing.stage(batch_id)["client_code"] == "gamma"
    assert clients_landing.installation.rows("SELECT batch_id FROM batches WHERE client_code = 'beta'") != [(batch_id,)]


def test_o13_a_folder_of_no_known_client_is_rejected(clients_landing: Landing) -> None:
    system = replace(clients_landing.installation.system, clients=Clients({CLIENT: Profile()}))
    batch_id = clients_landing.arrive("stranger/o13.csv", orders("O13-2"))
    steps.stage_batch(system, batch_id)
    assert clients_landing.installation.summary(batch_id)["status_code"] == "F_UNKNOWN_CLIENT"
    taken: list[str] = []

    def is_taken() -> bool:
        clients_landing.put("stranger/o13.csv", orders("O13-2"))  # the same once more: S3 tells by the second
        taken.extend(clients_landing.look())
        return bool(taken)

    wait_for(is_taken, "the file to be taken again")
    assert clients_landing.stage(taken[0])["status"] == "staged"
