"""C22 and S05: a key is replaced by another while batches wait and run, killed half way, and gone on with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import SecretStr

from orders_pipeline.definitions import defs
from orders_pipeline.infrastructure.binary_copy import binary_copy
from orders_pipeline.intake import steps
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.security import personal_data
from orders_pipeline.security.encryption import Cipher, DecryptionError, EncryptionKeysError, new_key
from orders_pipeline.system.composition import System, join_endpoints, open_system
from orders_pipeline.upkeep import key_rotation
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.installation import Installation, check_finished, open_installation

CLIENT = "acme"
ROWS = 5000
OLD, NEW = f"old:{new_key().partition(':')[2]}", f"new:{new_key().partition(':')[2]}"
BOTH = f"{NEW},{OLD}"
KILLED = -9


@pytest.fixture
def installation(server_url: str, template: str, tmp_path: Path) -> Iterator[Installation]:
    """An installation with an old key."""
    with open_installation(server_url, template, tmp_path, encryption_keys=SecretStr(OLD)) as opened:
        yield opened


def received(installation: Installation, rows: int, seed: int = 1, *steps: object) -> str:
    path = installation.home / f"orders-{seed}.csv"
    write_sample(path, rows=rows, seed=seed, bad=0.0)
    batch_id = installation.receive(path, CLIENT)
    for step in steps:
        step(installation.system, batch_id)
    return batch_id


def loaded(installation: Installation, rows: int, seed: int = 1) -> str:
    return received(installation, rows, seed, steps.stage_batch, steps.validate_batch, steps.load_batch)


def opened(installation: Installation, keys: str) -> list[dict[str, str]]:
    cipher = Cipher.from_setting(SecretStr(keys))
    rows = installation.rows("SELECT batch_id, import_row_number, personal FROM orders ORDER BY order_id")
    return [personal_data.decrypt(cipher, *row) for row in rows]


def by_key(installation: Installation) -> dict[str, int]:
    return key_rotation.keys_in_use(installation.system.database)


def with_keys(installation: Installation, keys: str, **more: str) -> dict[str, str]:
    return installation.environment(ORDERS_ENCRYPTION_KEYS=keys, **more)


@pytest.mark.parametrize("point", ["C22", *(pytest.param(name, marks=pytest.mark.soak) for name in ("C22c", "C22f"))])
def test_c22_a_rotation_killed_half_way_is_readable_and_goes_on(installation: Installation, point: str) -> None:
    loaded(installation, ROWS)
    waiting = received(installation, 20, 2, steps.stage_batch, steps.validate_batch)
    before = opened(installation, OLD)
    hit = "1" if point == "C22f" else "2"
    killed = commands.call(with_keys(installation, BOTH, CRASH=f"{point}:{hit}", LOOK_UP_WAIT_S="1"), "keys", "rotate")
    assert killed.returncode == KILLED
    resealed = {"C22": key_rotation.CHUNK_ROWS, "C22c": 2 * key_rotation.CHUNK_ROWS, "C22f": 0}[point]
    assert by_key(installation) == {key: rows for key, rows in {"new": resealed, "old": ROWS - resealed}.items() if rows}
    assert opened(installation, BOTH) == before

    result = commands.answer(with_keys(installation, BOTH), "keys", "rotate")
    assert (result["done"], result["removable"], result["resealed"]) == (True, ["old"], ROWS - resealed)
    assert by_key(installation) == {"new": ROWS}
    assert opened(installation, NEW) == before
    with _opened(installation, NEW) as system:
        steps.load_batch(system, waiting)
    assert by_key(installation) == {"new": ROWS + 20}


def test_s05_a_batch_whose_loading_stopped_half_way_goes_on_after_a_rotation(
    installation: Installation, monkeypatch
) -> None:
    monkeypatch.setattr("orders_pipeline.intake.loading.CHUNK_ROWS", 300)
    batch_id = received(installation, 1000, 1, steps.stage_batch, steps.validate_batch)
    with monkeypatch.context() as patch:
        patch.setattr("orders_pipeline.intake.loading.binary_copy", _failing_from(3))
        with pytest.raises(ConnectionError):
            steps.load_batch(installation.system, batch_id)
    assert by_key(installation)["old"] in (300, 600)
    with _opened(installation, BOTH) as system:
        assert key_rotation.rotate(system.database, system.storage, system.cipher, lambda _done, _to_do: None).is_done
        steps.load_batch(system, batch_id)
    assert by_key(installation) == {"new": 1000}
    assert len(opened(installation, NEW)) == 1000
    assert installation.summary(batch_id)["rows"]["accepted"] == 1000


@pytest.mark.soak
def test_s05_batches_are_paid_while_their_values_are_sealed_anew(installation: Installation) -> None:
    installation.sandbox.change(latency_ms=20)
    path = installation.home / "orders.csv"
    write_sample(path, rows=150, bad=0.0)
    importing = commands.start(with_keys(installation, f"{OLD},{NEW}"), "import", path, "--client", CLIENT)
    commands.wait_for(lambda: installation.sandbox.ledger()["payments"]["count"] > 5, "payments")
    assert commands.answer(with_keys(installation, BOTH), "keys", "rotate")["done"]
    ended = commands.end(importing)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ((batch_id,),) = installation.rows("SELECT batch_id FROM batches")
    check_finished(installation, batch_id)
    assert by_key(installation) == {"new": 150}


def test_s05_the_job_shows_its_progress_and_what_may_be_removed(installation: Installation) -> None:
    loaded(installation, 50)
    with _opened(installation, BOTH) as system:
        result = defs.resolve_job_def("rotate_keys").execute_in_process(
            instance=installation.instance, resources={"system": system}
        )
    (made,) = result.asset_materializations_for_node("encryption_keys")
    assert made.metadata["orders encrypted anew"].value == 50
    assert made.metadata["keys that may be removed"].value == "old"
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    logged = [entry.user_message for entry in installation.instance.all_logs(result.run_id)]
    assert "50 of 50 orders encrypted anew" in logged


def test_s05_a_rotation_without_the_old_key_is_refused_and_names_it(installation: Installation) -> None:
    loaded(installation, 5)
    refused = commands.call(with_keys(installation, NEW), "keys", "rotate")
    assert refused.returncode == 2
    assert "E_ENCRYPTION_KEYS" in refused.stderr
    assert "old" in refused.stderr
    assert by_key(installation) == {"old": 5}
    waiting = received(installation, 5, 2)
    with _opened(installation, NEW) as system:
        with pytest.raises(EncryptionKeysError):
            key_rotation.rotate(system.database, system.storage, system.cipher, lambda _done, _to_do: None)
        with pytest.raises(DecryptionError, match=r"E_SEALED_KEY: .* the key old, which"):
            steps.stage_batch(system, waiting)
    assert installation.summary(waiting)["status_code"] == "E_SEALED_KEY"
    found = commands.call(with_keys(installation, NEW), "doctor", "--json")
    assert found.returncode != 0
    assert "5 orders with old" in found.stdout


def test_s05_a_damaged_envelope_stops_nothing_but_the_removal_of_its_key(installation: Installation) -> None:
    loaded(installation, 5)
    installation.rows(
        "UPDATE orders SET personal = set_byte(personal, 60, get_byte(personal, 60) # 1) WHERE import_row_number = 3"
    )
    ended = commands.call(with_keys(installation, BOTH), "keys", "rotate")
    assert ended.returncode == 1
    assert "1 orders are still encrypted with old" in " ".join(ended.stdout.split())
    assert by_key(installation) == {"new": 4, "old": 1}
    with pytest.raises(DecryptionError, match="E_SEALED_TAMPERED"):
        opened(installation, BOTH)


def test_the_keys_in_use_are_listed_with_how_much_they_seal(installation: Installation) -> None:
    loaded(installation, 5)
    listed = commands.answer(with_keys(installation, BOTH), "keys", "list")
    assert listed == {"current": "new", "keys": {"old": {"orders": 5, "set": True}, "new": {"orders": 0, "set": True}}}
    made = commands.answer(with_keys(installation, BOTH), "keys", "new")["key"]
    assert Cipher.from_setting(SecretStr(made)).current not in ("old", "new")


def _failing_from(call: int):
    calls = iter(range(1, 100))

    def copy(chunks: Iterable[pa.RecordBatch], same: Mapping[str, str], types: Mapping[str, str]):
        if "csv_source" in same and next(calls) >= call:
            raise ConnectionError
        return binary_copy(chunks, same, types)

    return copy


@contextlib.contextmanager
def _opened(installation: Installation, keys: str) -> Iterator[System]:
    changed = installation.system.settings.model_copy(update={"encryption_keys": SecretStr(keys)})
    with join_endpoints(changed) as endpoints, open_system(changed, endpoints) as again:
        yield again
