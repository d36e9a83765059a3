"""Nothing personal in clear: not in a batch's files, the database's own files, Dagster's records or a temporary file."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from orders_pipeline.audit.sealing import HEADS, anchor, seal
from orders_pipeline.batches.artifacts import ORIGINAL, artifact
from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.infrastructure.database_errors import ConstraintViolated
from orders_pipeline.infrastructure.storage import FolderStorage, folder_tree, open_storage
from orders_pipeline.intake import steps
from orders_pipeline.security.encryption import FILE_MARK, DecryptionError, key_id_of_file, new_key
from orders_pipeline.system.composition import System, join_endpoints, open_system
from orders_pipeline.system.errors import describe, read_details
from orders_pipeline.upkeep import approval, key_rotation
from orders_pipeline_tests.database.test_personal import HEADER, PLANTED
from orders_pipeline_tests.support.installation import Installation, work_off

CLIENT = "acme"
CANARIES = {
    name: f"{value}に{index}羽のカナリア" if not value.isascii() else value
    for index, (name, value) in enumerate(PLANTED.items())
}
CANARIES |= {
    "email": "canary.of.the.files@example.com",
    "phone": "08031415926",
    "postal_code": "3141592",
    "payment_token": "tok_canary_31415926",
}
ENCODINGS = ("utf-8", "cp932", "utf-16-le")


def canary_file(folder: Path, reference: str) -> Path:
    """Write one row that is good and one that is rejected, each with every canary."""
    good = [reference, "C-1", "100", "card_on_file", "email", *CANARIES.values()]
    bad = [f"{reference}-bad", "C-1", "0", "card_on_file", "email", *CANARIES.values()]
    path = folder / f"{reference}.csv"
    path.write_text("\r\n".join(",".join(row) for row in (HEADER, good, bad)) + "\r\n", "cp932")
    return path


def files_with_canaries(*folders: Path) -> list[str]:
    written = {value.encode(encoding) for value in CANARIES.values() for encoding in ENCODINGS}
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError, PermissionError):  # PostgreSQL goes on meanwhile
                if path.is_file():
                    content = path.read_bytes()
                    found += [str(path) for each in written if each in content]
    return sorted(set(found))


@pytest.fixture
def no_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every attempt to write a temporary file fail."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")


@pytest.mark.usefixtures("no_temporary_files")
def test_a_batch_leaves_nothing_personal_in_clear_on_any_disk(installation: Installation, tmp_path: Path) -> None:
    path = canary_file(tmp_path, "CLEAR")
    summary = installation.take(path, CLIENT)
    batch_id = summary["batch_id"]
    assert (summary["rows"]["accepted"], summary["rows"]["rejected"]) == (1, 1)
    installation.rows("CHECKPOINT")
    ((data,),) = installation.rows("SHOW data_directory")
    assert files_with_canaries(tmp_path) == [str(path)]  # they are found where they are
    assert any(Path(data, "pg_wal").iterdir())
    assert files_with_canaries(installation.home, Path(data)) == []

    # and who may have them gets them
    rejected = installation.report(batch_id, "rejected") or b""
    assert all(value.encode("cp932") in rejected for value in CANARIES.values())
    with installation.system.storage.local(artifact(batch_id, ORIGINAL)) as original:
        assert original.read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("no_temporary_files")
def test_a_dry_run_writes_no_temporary_file(installation: Installation, tmp_path: Path) -> None:
    from orders_pipeline.reports import preview

    assert preview.preview(installation.system, canary_file(tmp_path, "DRY"), CLIENT, again=False)["rows"]["accepted"] == 1


@pytest.mark.parametrize(
    ("changed", "back", "code"),
    [
        ("personal = personal || '0'", "personal = substring(personal FOR length(personal) - 1)", "E_SEALED_TAMPERED"),
        ("amount = 1000001 - amount", "amount = 1000001 - amount", "E_CONSTRAINT"),
    ],
)
def test_a_batch_says_that_its_orders_were_changed_and_resumes_once_they_are_put_back(
    installation: Installation, tmp_path: Path, changed: str, back: str, code: str
) -> None:
    def change(how: str) -> None:
        installation.rows(f"UPDATE orders SET {how} WHERE batch_id = %s", batch_id)

    system = replace(installation.system, clients=Clients({"acme": Profile(approval="always")}))
    batch_id = installation.receive(canary_file(tmp_path, code), "acme")
    work_off(system, batch_id)
    with system.database.begin() as transaction:
        approval.approve(transaction, batch_id, "somebody else")
    change(changed)
    with pytest.raises((DecryptionError, ConstraintViolated)):
        work_off(system, batch_id)
    summary = installation.summary(batch_id)
    assert (summary["status_code"], summary["payments"]["planned"]) == (code, 0)
    change(back)
    work_off(system, batch_id)
    summary = installation.summary(batch_id)
    assert (summary["status_code"], summary["orders"]["pending"]) == (None, 0)


def kept(installation: Installation, batch_id: str, name: str) -> Path:
    return Path(installation.system.storage.location(artifact(batch_id, name)))


def test_an_archived_file_that_was_cut_or_changed_for_another_is_not_read(
    installation: Installation, tmp_path: Path
) -> None:
    batches = [installation.receive(canary_file(tmp_path, name), CLIENT) for name in ("CUT", "OTHER")]
    cut, other = (kept(installation, batch_id, ORIGINAL) for batch_id in batches)
    cut.write_bytes(other.read_bytes())
    assert "E_SEALED_TAMPERED" in (installation.run(batches[0]) or "")
    other.write_bytes(other.read_bytes()[:-1])
    with pytest.raises(DecryptionError, match="E_SEALED_TAMPERED"):
        steps.stage_batch(installation.system, batches[1])
    for each in (cut, other):
        each.unlink()


def test_a_rotation_seals_all_files_anew(installation: Installation, tmp_path: Path) -> None:
    path = canary_file(tmp_path, "BEFORE")
    batch_id = installation.receive(path, CLIENT)
    original = kept(installation, batch_id, ORIGINAL)
    assert original.read_bytes().startswith(FILE_MARK)
    installation.work_off(batch_id)
    reference = describe(
        ValueError("no such " + CANARIES["email"]), installation.system.settings, installation.system.storage
    ).split()[-1]
    seal(installation.system.database)
    anchor(installation.system.database, installation.system.storage)
    (head,) = installation.system.storage.kept(HEADS)
    old = (installation.home / "encryption_keys").read_text()
    with opened(installation, f"{new_key()},{old}") as system:
        result = rotated(system)
        assert result.is_done
        assert result.files_by_key == {system.cipher.current: result.files}
        assert sealed_with(system) == {system.cipher.current}
    assert original.read_bytes().startswith(FILE_MARK)
    with opened(installation, system.settings.encryption_keys.get_secret_value().partition(",")[0]) as system:
        with system.storage.local(artifact(batch_id, ORIGINAL)) as again:
            assert again.read_bytes() == path.read_bytes()
        assert CANARIES["email"] in read_details(system.storage, reference)
        with system.storage.local(head) as kept_head:
            assert kept_head.read_bytes()
        assert Path(system.storage.location(head)).stat().st_mode & 0o777 == 0o400
        with opened(installation, f"{old},{system.settings.encryption_keys.get_secret_value()}") as before:
            assert key_rotation.rotate(
                before.database, before.storage, before.cipher, lambda _done, _to_do: None
            ).is_done  # as the module's installation had it


def test_a_folder_without_a_cipher_and_the_landing_hold_files_as_they_came(
    installation: Installation, tmp_path: Path
) -> None:
    plain = open_storage(str(tmp_path / "plain"), s3_endpoint_url=None, s3_kms_key_id=None)
    for store in (plain, installation.system.landing):
        store.put("x/a.csv", b"as it came")
        assert Path(store.location("x/a.csv")).read_bytes() == b"as it came"


def rotated(system: System) -> key_rotation.Rotated:
    return key_rotation.rotate(system.database, system.storage, system.cipher, lambda _done, _to_do: None)


def sealed_with(system: System) -> set[str]:
    """Return the keys that all files in a storage need."""
    found = set()
    for path in Path(system.storage.location("x")).parent.rglob("[!.]*"):
        if path.is_file():
            with path.open("rb") as file:
                found.add(key_id_of_file(file))
    return found


def test_a_rotation_names_what_it_could_not_look_at_or_would_launder_and_lets_no_key_be_removed(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = installation.receive(canary_file(tmp_path, "LEFT"), CLIENT)
    installation.work_off(batch_id)
    original = kept(installation, batch_id, ORIGINAL)
    was = original.read_bytes()
    (plain := kept(installation, batch_id, "planted")).write_bytes(b"plain")
    installation.system.storage.put(artifact(batch_id, ORIGINAL), b"another, under our own key")
    write = FolderStorage._write

    def be_late(store: FolderStorage, key: str, source: Path | bytes, name: str, descriptor: int) -> None:
        write(store, key, source, name, descriptor)
        if key == artifact(batch_id, "result.json") and store is not installation.system.storage:
            installation.system.storage.put(key, b"newer")

    entries = folder_tree._entries

    def fail(descriptor: int, inside: folder_tree.ListedName, after: str) -> Iterator[folder_tree.ListedName]:
        if inside.key == "audit/":
            raise OSError(5, "planted")
        return entries(descriptor, inside, after)

    old = (installation.home / "encryption_keys").read_text()
    seal(installation.system.database)
    anchor(installation.system.database, installation.system.storage)
    with opened(installation, f"{new_key()},{old}") as system:
        with monkeypatch.context() as patch:
            patch.setattr(FolderStorage, "_write", be_late)
            patch.setattr(folder_tree, "_entries", fail)
            result = rotated(system)
        assert (result.is_done, result.removable) == (False, [])
        assert result.left == {
            "audit/": "E_STORAGE_UNAVAILABLE",
            artifact(batch_id, ORIGINAL): "E_STORAGE_REPLACED",
            artifact(batch_id, "planted"): "E_SEALED_FORMAT",
            artifact(batch_id, "result.json"): "E_STORAGE_CHANGED",
        }
        with system.storage.local(artifact(batch_id, "result.json")) as newest:
            assert newest.read_bytes() == b"newer"
        original.write_bytes(was)
        plain.unlink()
        result = rotated(system)
        assert (result.is_done, len(result.removable), result.left) == (True, 1, {})
        keys = system.settings.encryption_keys.get_secret_value().partition(",")
        with opened(installation, f"{old},{keys[0]}") as before:
            assert key_rotation.rotate(
                before.database, before.storage, before.cipher, lambda _done, _to_do: None
            ).is_done  # as the module's installation had it


@contextlib.contextmanager
def opened(installation: Installation, keys: str) -> Iterator[System]:
    changed = installation.system.settings.model_copy(update={"encryption_keys": SecretStr(keys)})
    with join_endpoints(changed) as endpoints, open_system(changed, endpoints) as again:
        yield again
