"""A followed file: what is new in it is heard once, what cannot be used leaves what was, and what failed is tried again."""

from __future__ import annotations

import os
import threading

import pytest

from orders_pipeline.infrastructure.followed_file import FollowedFile


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("1")
    return path


@pytest.fixture
def refused():
    return []


def following(path, refused, **more):
    return FollowedFile(path, 0, lambda path: int(path.read_text()), ValueError, refused=refused.append, **more)


def test_a_file_is_read_anew_whenever_it_is_another(path, refused):
    reads = []
    file = following(path, refused, accepted=reads.append)
    assert [file.now(), file.now()] == [1, 1]
    path.write_text("22")
    assert [file.now(), file.now()] == [22, 22]
    other = path.with_suffix(".new")  # of the same length and time
    other.write_text("33")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert file.now() == 33
    assert (reads, refused) == ([1, 22, 33], [])


def test_what_cannot_be_used_is_refused_once_and_what_was_stays(path, refused):
    file = following(path, refused)
    assert file.now() == 1
    path.write_text("none")
    assert [file.now(), file.now()] == [1, 1]
    assert len(refused) == 1
    path.write_text("4")
    assert file.now() == 4


def test_what_was_not_accepted_is_read_again(path, refused):
    answers = iter([ConnectionError(), None])

    def accepted(_):
        if (answer := next(answers)) is not None:
            raise answer

    file = following(path, refused, accepted=accepted)
    with pytest.raises(ConnectionError):
        file.now()
    assert file.now() == 1


def test_of_many_who_ask_at_once_one_reads(path, refused):
    reads = []
    file = following(path, refused, accepted=reads.append)
    threads = [threading.Thread(target=file.now) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == [1]
