"""Broken order files: each is refused with a code, or all its rows add up; never anything else, and twice the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders_pipeline_tests.fuzz.examples import examples
from orders_pipeline_tests.fuzz.mutations import CODECS, damaged, senseless
from orders_pipeline_tests.fuzz.reading import Refused, Staged, check_judged, check_refusal, check_staged, judged, staged
from orders_pipeline_tests.support.soak import first_of

ways = st.tuples(st.sampled_from([512, 2048, 8192]), st.sampled_from([None, None, None, None, 16]))


def read_every_way(folder, data: bytes, block_bytes: int, chunk_rows: int | None) -> None:
    """Read a file and assert what must hold for any file, however it is cut into blocks and chunks."""
    whole = staged(folder, data)
    if isinstance(whole, Refused):
        check_refusal(whole)
    else:
        check_staged(folder, whole)
        verdict = judged(folder, whole.file.encoding)
        check_judged(whole, verdict)
        if chunk_rows is not None:
            again = judged(folder, whole.file.encoding, chunk_rows)
            assert again.accepted.equals(verdict.accepted)
            assert again.rejections.equals(verdict.rejections)
            assert again.summary == verdict.summary
    assert staged(folder, data) == whole
    strictly = staged(folder, data, block_bytes=block_bytes, may_be_even=False)
    assert staged(folder, data, block_bytes=block_bytes) == strictly
    if isinstance(whole, Staged):
        assert strictly == whole
    else:  # of two reasons to refuse a file the first block may show the other
        assert isinstance(strictly, Refused)
        check_refusal(strictly)


@pytest.mark.parametrize("codec", first_of(CODECS))
@examples(8)
@given(data=st.data(), way=ways)
def test_a_damaged_sample_is_refused_with_a_code_or_its_rows_add_up(tmp_path, codec, data, way):
    read_every_way(tmp_path, data.draw(damaged(codec)).data, *way)


@examples(40)
@given(data=senseless, way=ways)
def test_any_bytes_are_refused_with_a_code_or_their_rows_add_up(tmp_path, data, way):
    read_every_way(tmp_path, data, *way)


@pytest.mark.soak
@pytest.mark.parametrize("codec", first_of(CODECS))
@examples(1500)
@given(data=st.data(), way=ways)
def test_thousands_of_damaged_samples_are_refused_with_a_code_or_their_rows_add_up(tmp_path, codec, data, way):
    read_every_way(tmp_path, data.draw(damaged(codec)).data, *way)


@pytest.mark.soak
@examples(1000)
@given(data=senseless, way=ways)
def test_thousands_of_files_of_any_bytes_are_refused_with_a_code_or_their_rows_add_up(tmp_path, data, way):
    read_every_way(tmp_path, data, *way)
