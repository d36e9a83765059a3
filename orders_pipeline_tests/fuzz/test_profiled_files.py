"""Broken order files read as a client's profile says, and broken archives: refused with a code, or all their rows add up."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders_pipeline.batches.artifacts import CONVERTED
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake.file_staging import UNPACKED, unpacked
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline_tests.fuzz.examples import examples
from orders_pipeline_tests.fuzz.mutations import damaged
from orders_pipeline_tests.fuzz.reading import (
    LIMITS,
    Refused,
    Staged,
    check_judged,
    check_refusal,
    check_staged,
    judged,
    staged,
)

CODECS = ("utf-8", "cp932")
TITLES, FOOTERS = b"Report,1\r\n# of today\r\n\r\n", b"# end\r\nin all\r\n"
SKIPPED = [{"header": "payment_method", "values": ["invoice"]}, {"header": "email", "values": [""]}]
PROFILES = {
    "skips": Profile.model_validate({"skip": SKIPPED}),
    "rejects": Profile.model_validate({"reject": [SKIPPED[0], {"header": "note", "except": []}]}),
    "skips in orders of several rows": Profile.model_validate({"skip": SKIPPED, "lines": "grouped"}),
    "titles and footers": Profile(header_line="find", comment="#", footer_lines=1),
    "titles that are counted": Profile(header_line=4, header_rows=2, comment="#", footer_lines=2),
    "unquoted": Profile(delimiter="\t", quoting="none"),
    "unquoted with commas": Profile(quoting="none"),
}
ways = st.tuples(st.sampled_from([512, 2048, 8192]), st.booleans())
places = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), max_size=4)


def made(kind: str, data: bytes) -> bytes:
    """Return a damaged file as a client with such a profile sends it."""
    if kind.startswith("titles"):
        return TITLES + data + FOOTERS
    return data.replace(b",", b"\t") if kind == "unquoted" else data


def read_as(folder: Path, kind: str, data: bytes, block_bytes: int, is_framed: bool) -> None:
    profile, data = PROFILES[kind], made(kind, data) if is_framed else data
    whole = staged(folder, data, profile)
    if isinstance(whole, Refused):
        check_refusal(whole)
    else:
        check_staged(folder, whole)
        if profile.grouping() is None:
            check_judged(whole, judged(folder, whole.file.encoding))
    strictly = staged(folder, data, profile, block_bytes=block_bytes, may_be_even=False)
    assert staged(folder, data, profile, block_bytes=block_bytes) == strictly
    assert isinstance(strictly, type(whole))
    if isinstance(whole, Staged):
        assert strictly == whole


def open_archive(folder: Path, name: str, data: bytes, damages: list[tuple[int, int]], cut: int) -> None:
    """Damage an archive, and assert that what it gives is what was put in, or a code."""
    content = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../orders.csv", data)
    else:
        content.write(gzip.compress(data, mtime=0))
    packed = bytearray(content.getvalue())
    for place, byte in damages:
        packed[place * (len(packed) - 1) // 1000] = byte
    for path in folder.iterdir():
        path.unlink()
    source = folder / "sent"
    source.write_bytes(packed[: len(packed) * cut // 1000] if cut < 1000 else packed)
    try:
        text, kind = unpacked(LIMITS, source, name, folder)
    except FileRejected as refusal:
        why = Refused(refusal.code, refusal.detail)
    else:
        why = None
    if why is not None:
        assert damages or cut < 1000 or len(data) > LIMITS.max_bytes
        assert why.code in ("F_ARCHIVE", "F_TOO_LARGE")
        check_refusal(why)
        return
    assert {path.name for path in folder.iterdir()} <= {"sent", UNPACKED, CONVERTED}
    assert kind.endswith((".csv", ".tsv", ".txt", ".xlsx"))
    assert text.read_bytes() == data


@pytest.mark.parametrize("kind", PROFILES)
@examples(10)
@given(data=st.data(), codec=st.sampled_from(CODECS), way=ways)
def test_a_damaged_file_is_read_as_its_profile_says_or_refused_with_a_code(tmp_path, kind, data, codec, way):
    read_as(tmp_path, kind, data.draw(damaged(codec)).data, *way)


@pytest.mark.parametrize("name", ["orders.csv.gz", "orders.zip"])
@examples(30)
@given(data=st.data(), damages=places, cut=st.sampled_from([1000, 1000, 1000, 999, 500]))
def test_a_damaged_archive_gives_what_was_put_in_or_is_refused_with_a_code(tmp_path, name, data, damages, cut):
    open_archive(tmp_path, name, data.draw(damaged("utf-8")).data, damages, cut)


@pytest.mark.soak
@pytest.mark.parametrize("kind", PROFILES)
@examples(1400)
@given(data=st.data(), codec=st.sampled_from(CODECS), way=ways)
def test_thousands_of_damaged_files_are_read_as_their_profiles_say(tmp_path, kind, data, codec, way):
    read_as(tmp_path, kind, data.draw(damaged(codec)).data, *way)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["orders.csv.gz", "orders.zip"])
@examples(800)
@given(data=st.data(), damages=places, cut=st.sampled_from([1000, 1000, 1000, 999, 500]))
def test_thousands_of_damaged_archives_give_what_was_put_in(tmp_path, name, data, damages, cut):
    open_archive(tmp_path, name, data.draw(damaged("utf-8")).data, damages, cut)
