"""Compressed files: one order file in gzip or ZIP is read as it is inside; anything else is refused, and cheaply."""

from __future__ import annotations

import gzip
import io
import time
import zipfile
from pathlib import Path

import openpyxl
import pyarrow.parquet as pq
import pytest

from orders_pipeline.batches.artifacts import CONVERTED, STAGED
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake import compressed_file
from orders_pipeline.intake.csv_file import Limits
from orders_pipeline.intake.file_staging import stage_file, unpacked
from orders_pipeline.intake.landing.arrivals import is_complete
from orders_pipeline.intake.manifest import manifest_names, order_names
from orders_pipeline.records.rejections import FileRejected

TEXT = "client_order_ref,customer_code,customer_name,amount,payment_method\r\nA-1,C-1,髙橋,1000,invoice\r\n"
DATA = TEXT.encode("cp932")
LIMITS = Limits(max_bytes=8 << 20)


def named(value: object) -> str:
    """Return the name of a case: its bytes are others at every time."""
    return value if isinstance(value, str) else "data"


def zipped(*files: tuple[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", how) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return content.getvalue()


def workbook() -> bytes:
    content = io.BytesIO()
    book = openpyxl.Workbook()
    for line in TEXT.splitlines():
        book.active.append(line.split(","))
    book.save(content)
    return content.getvalue()


def staged(folder: Path, name: str, data: bytes, limits: Limits = LIMITS) -> list[dict[str, object]]:
    source = folder / "sent"
    source.write_bytes(data)
    inside, kind = unpacked(limits, source, name, folder)
    stage_file(limits, Profile(), inside, kind, folder)
    return pq.read_table(folder / STAGED).to_pylist()


def refusal(folder: Path, name: str, data: bytes, limits: Limits = LIMITS) -> tuple[str, str]:
    started = time.monotonic()
    with pytest.raises(FileRejected) as caught:
        staged(folder, name, data, limits)
    assert time.monotonic() - started < 5
    assert sum(path.stat().st_size for path in folder.iterdir() if path.name != "sent") <= limits.max_bytes
    return caught.value.code, caught.value.detail.get("hint", "")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("orders.csv.gz", gzip.compress(DATA)),
        ("ORDERS.TXT.GZ", gzip.compress(DATA[:20]) + gzip.compress(DATA[20:])),
        ("orders.zip", zipped(("注文.csv", DATA))),
        (
            "orders.ZIP",
            zipped(("a/b/", b""), ("a/b/../../../etc/x.TXT", DATA), ("__MACOSX/a/._x.txt", b"-"), (".DS_Store", b"-")),
        ),
        ("orders.zip", zipped(("stored.csv", DATA), how=zipfile.ZIP_STORED)),
        ("orders.zip", zipped(("book.xlsx", workbook()))),
    ],
    ids=named,
)
def test_one_order_file_is_read_as_it_is_inside(tmp_path, name, data):
    (row,) = staged(tmp_path, name, data)
    assert (row["client_order_ref"], row["customer_name"]) == ("A-1", "髙橋")
    assert {path.name for path in tmp_path.iterdir()} <= {"sent", "unpacked", CONVERTED, STAGED}
    with (tmp_path / CONVERTED).open("rb") as text:
        text.seek(row["offset"])
        assert text.read(row["length"]).startswith((b"A-1,", b'"A-1",'))


def encrypted() -> bytes:
    data = bytearray(zipped(("orders.csv", DATA)))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("o.zip", zipped(), "archive_several"),
        ("o.zip", zipped(("a.csv", DATA), ("b.csv", DATA)), "archive_several"),
        ("o.zip", zipped(*((f"{number}.csv", b"") for number in range(3_000))), "archive_several"),
        ("o.zip", zipped(("day1.csv", DATA)) + zipped(("day2.csv", DATA)), "archive_several"),
        ("o.zip", DATA + zipped(("a.csv", DATA)), "archive_several"),
        ("o.zip", zipped(("a.csv", DATA)) + DATA, "archive_several"),
        ("o.zip", zipped(("a.csv", DATA), (".hidden.csv", DATA)), "archive_several"),
        ("o.zip", zipped(("a.zip", zipped(("a.csv", DATA)))), "archive_nested"),
        ("o.zip", zipped(("a.csv.gz", gzip.compress(DATA))), "archive_nested"),
        ("o.zip", zipped(("a.exe", DATA)), "archive_kind"),
        ("o.zip", encrypted(), "archive_encrypted"),
        ("o.zip", zipped(("a.csv", DATA), how=zipfile.ZIP_LZMA), "archive_damaged"),
        ("o.zip", zipped(("a.csv", DATA * 50))[:-30], "archive_damaged"),
        ("o.zip", zipped(("a.csv", DATA), how=zipfile.ZIP_STORED).replace(b"C-1", b"C-2", 1), "archive_damaged"),
        ("o.zip", b"", "archive_damaged"),
        ("o.zip", DATA, "archive_damaged"),
        ("o.csv.gz", DATA, "archive_damaged"),
        ("o.csv.gz", gzip.compress(DATA)[:-9], "archive_damaged"),
        ("o.csv.gz", gzip.compress(DATA) + b"rest", "archive_damaged"),
        ("o.csv.gz", gzip.compress(b"") * 2_000 + gzip.compress(DATA), "archive_damaged"),
    ],
    ids=named,
)
def test_what_is_not_one_order_file_is_refused_with_a_reason(tmp_path, name, data, why):
    assert refusal(tmp_path, name, data) == ("F_ARCHIVE", why)


@pytest.mark.parametrize(
    ("name", "data"), [("o.csv.gz", gzip.compress(DATA)), ("o.zip", zipped(("a.csv", DATA)))], ids=named
)
def test_what_cannot_be_written_out_is_our_own_trouble(tmp_path, name, data):
    (tmp_path / "sent").write_bytes(data)
    small = FullDisk(tmp_path / "unpacked")
    with pytest.raises(OSError, match="No space left"):
        compressed_file.unpack(tmp_path / "sent", name, small, 1 << 20)


class FullDisk(type(Path())):  # type: ignore[misc]
    """A file that nothing can be written to."""

    def open(self, *arguments, **named):
        return Path("/dev/full").open("wb", buffering=0)


def test_an_archive_in_gzip_is_no_order_file(tmp_path):
    assert refusal(tmp_path, "o.csv.gz", gzip.compress(zipped(("a.csv", DATA))))[0] == "F_NOT_CSV"
    assert refusal(tmp_path, "o.csv.gz", gzip.compress(b""))[0] == "F_EMPTY"


@pytest.mark.parametrize("name", ["o.csv.gz", "o.zip"])
def test_what_is_larger_inside_than_a_file_may_be_is_refused_before_it_is_written(tmp_path, name):
    large = TEXT.encode() + b"\r\n".join(b"A-%d,C-1,x,1000,invoice" % number for number in range(400_000))
    assert len(large) > LIMITS.max_bytes
    pack = gzip.compress if name.endswith("gz") else lambda data: zipped(("a.csv", data))
    assert refusal(tmp_path, name, pack(large))[0] == "F_TOO_LARGE"
    bomb = pack(bytes(64 << 20))
    assert refusal(tmp_path, name, bomb, Limits(max_bytes=1 << 40))[0] == "F_TOO_LARGE"


def test_an_archive_that_lies_about_its_size_is_refused(tmp_path):
    data = bytearray(zipped(("a.csv", bytes(64 << 20))))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(mark) + at
        data[place : place + 4] = (1000).to_bytes(4, "little")
    assert refusal(tmp_path, "o.zip", bytes(data)) == ("F_ARCHIVE", "archive_damaged")


def test_a_landing_waits_for_the_whole_of_an_archive_and_a_while_for_gzip():
    archive = zipped(("a.csv", DATA))
    assert is_complete("shop/o.zip", len(archive), archive[:22], archive[-22:])
    assert not is_complete("shop/o.zip", len(archive) - 1, archive[:22], archive[-23:-1])
    assert not is_complete("shop/o.csv.gz", 100, b"\x1f\x8b", b"\n")


def test_a_compressed_file_has_the_manifest_of_its_name_with_or_without_its_ending():
    assert manifest_names("shop/o.csv.gz") == ("shop/o.csv.gz.manifest.json", "shop/o.manifest.json")
    assert manifest_names("o.ZIP") == ("o.ZIP.manifest.json", "o.manifest.json")
    assert {"o.csv.gz", "o.zip", "o.csv"} <= {*order_names("o.manifest.json")}
    assert order_names("o.csv.gz.manifest.json")[0] == "o.csv.gz"
