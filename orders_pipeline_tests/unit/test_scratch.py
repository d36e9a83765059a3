"""Scratch files: gone at the end, also where the system has no files in memory."""

import os
import subprocess
import sys
import tempfile

import pytest

from orders_pipeline.infrastructure.scratch import scratch_files


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_is_written_is_read_again_and_gone_at_the_end(in_memory, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create")
    with scratch_files() as folder:
        (folder / "a").write_text("geheim")
        assert (folder / "a").read_text() == "geheim"
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert bool(files) is not in_memory
        assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("*") if path.is_dir())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_a_killed_process_left_on_the_disk_goes_with_the_next(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create")
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    with scratch_files() as folder:
        (folder / "mine").write_text("x")
        left = (folder / "mine").parent.with_name(f"{killed.pid}-0")
        left.mkdir()
        (left / "a").write_text("geheim")
        with scratch_files():
            assert not left.exists()
            assert (folder / "mine").exists()


def test_a_folder_that_others_may_read_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create")
    (tmp_path / f"orders-scratch-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(PermissionError), scratch_files():
        pass
