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
from orders_pipeline.security import personal
from orders_pipeline.security.encryption import Cipher, DecryptionError, EncryptionKeysError, new_key
from orders_pipeline.system.opening import System, join_endpoints, open_system
from orders_pipeline.upkeep import rotation
from orders_pipeline_tests import commands
from orders_pipeline_tests.house import House, check_finished, open_house

CLIENT = "acme"
ROWS = 5000
OLD, NEW = f"old:{new_key().partition(':')[2]}", f"new:{new_key().partition(':')[2]}"
BOTH = f"{NEW},{OLD}"
KILLED = -9


@pytest.fixture
def house(server_url: str, template: str, tmp_path: Path) -> Iterator[House]:
    """A house with an old key."""
    with open_house(server_url, template, tmp_path, encryption_keys=SecretStr(OLD)) as opened:
        yield opened


def received(house: House, rows: int, seed: int = 1, *steps: object) -> str:
    path = house.home / f"orders-{seed}.csv"
    write_sample(path, rows=rows, seed=seed, bad=0.0)
    batch_id = house.receive(path, CLIENT)
    for step in steps:
        step(house.system, batch_id)
    return batch_id


def loaded(house: House, rows: int, seed: int = 1) -> str:
    return received(house, rows, seed, steps.stage_batch, steps.validate_batch, steps.load_batch)


def opened(house: House, keys: str) -> list[dict[str, str]]:
    cipher = Cipher.from_setting(SecretStr(keys))
    rows = house.rows("SELECT batch_id, import_row_number, personal FROM orders ORDER BY order_id")
    return [personal.reveal(cipher, *row) for row in rows]


def by_key(house: House) -> dict[str, int]:
    return rotation.keys_in_use(house.system)


def with_keys(house: House, keys: str, **more: str) -> dict[str, str]:
    return house.environment(ORDERS_ENCRYPTION_KEYS=keys, **more)


@pytest.mark.parametrize("point", ["C22", *(pytest.param(name, marks=pytest.mark.soak) for name in ("C22c", "C22f"))])
def test_c22_a_rotation_killed_half_way_is_readable_and_goes_on(house: House, point: str) -> None:
    loaded(house, ROWS)
    waiting = received(house, 20, 2, steps.stage_batch, steps.validate_batch)
    before = opened(house, OLD)
    hit = "1" if point == "C22f" else "2"
    killed = commands.call(with_keys(house, BOTH, CRASH=f"{point}:{hit}", LOOK_UP_WAIT_S="1"), "keys", "rotate")
    assert killed.returncode == KILLED
    resealed = {"C22": rotation.CHUNK_ROWS, "C22c": 2 * rotation.CHUNK_ROWS, "C22f": 0}[point]
    assert by_key(house) == {key: rows for key, rows in {"new": resealed, "old": ROWS - resealed}.items() if rows}
    assert opened(house, BOTH) == before

    result = commands.answer(with_keys(house, BOTH), "keys", "rotate")
    assert (result["done"], result["removable"], result["resealed"]) == (True, ["old"], ROWS - resealed)
    assert by_key(house) == {"new": ROWS}
    assert opened(house, NEW) == before
    with _opened(house, NEW) as system:
        steps.load_batch(system, waiting)
    assert by_key(house) == {"new": ROWS + 20}


def test_s05_a_batch_whose_loading_stopped_half_way_goes_on_after_a_rotation(house: House, monkeypatch) -> None:
    monkeypatch.setattr("orders_pipeline.intake.loading.CHUNK_ROWS", 300)
    batch_id = received(house, 1000, 1, steps.stage_batch, steps.validate_batch)
    with monkeypatch.context() as patch:
        patch.setattr("orders_pipeline.intake.loading.binary_copy", _failing_from(3))
        with pytest.raises(ConnectionError):
            steps.load_batch(house.system, batch_id)
    assert by_key(house)["old"] in (300, 600)
    with _opened(house, BOTH) as system:
        assert rotation.rotate(system, lambda _done, _to_do: None).is_done
        steps.load_batch(system, batch_id)
    assert by_key(house) == {"new": 1000}
    assert len(opened(house, NEW)) == 1000
    assert house.summary(batch_id)["rows"]["accepted"] == 1000


@pytest.mark.soak
def test_s05_batches_are_paid_while_their_values_are_sealed_anew(house: House) -> None:
    house.sandbox.change(latency_ms=20)
    path = house.home / "orders.csv"
    write_sample(path, rows=150, bad=0.0)
    importing = commands.start(with_keys(house, f"{OLD},{NEW}"), "import", path, "--client", CLIENT)
    commands.wait_for(lambda: house.sandbox.ledger()["payments"]["count"] > 5, "payments")
    assert commands.answer(with_keys(house, BOTH), "keys", "rotate")["done"]
    ended = commands.end(importing)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ((batch_id,),) = house.rows("SELECT batch_id FROM batches")
    check_finished(house, batch_id)
    assert by_key(house) == {"new": 150}


def test_s05_the_job_shows_its_progress_and_what_may_be_removed(house: House) -> None:
    loaded(house, 50)
    with _opened(house, BOTH) as system:
        result = defs.resolve_job_def("rotate_keys").execute_in_process(
            instance=house.instance, resources={"system": system}
        )
    (made,) = result.asset_materializations_for_node("encryption_keys")
    assert made.metadata["orders sealed anew"].value == 50
    assert made.metadata["keys that may be removed"].value == "old"
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    logged = [entry.user_message for entry in house.instance.all_logs(result.run_id)]
    assert "50 of 50 orders sealed anew" in logged


def test_s05_a_rotation_without_the_old_key_is_refused_and_names_it(house: House) -> None:
    loaded(house, 5)
    refused = commands.call(with_keys(house, NEW), "keys", "rotate")
    assert refused.returncode == 2
    assert "E_ENCRYPTION_KEYS" in refused.stderr
    assert "old" in refused.stderr
    assert by_key(house) == {"old": 5}
    waiting = received(house, 5, 2)
    with _opened(house, NEW) as system:
        with pytest.raises(EncryptionKeysError):
            rotation.rotate(system, lambda _done, _to_do: None)
        with pytest.raises(DecryptionError, match=r"E_SEALED_KEY: .* the key old, which"):
            steps.stage_batch(system, waiting)
    assert house.summary(waiting)["status_code"] == "E_SEALED_KEY"
    found = commands.call(with_keys(house, NEW), "doctor", "--json")
    assert found.returncode != 0
    assert "5 orders with old" in found.stdout


def test_s05_a_damaged_envelope_stops_nothing_but_the_removal_of_its_key(house: House) -> None:
    loaded(house, 5)
    house.rows("UPDATE orders SET personal = set_byte(personal, 60, get_byte(personal, 60) # 1) WHERE import_row_number = 3")
    ended = commands.call(with_keys(house, BOTH), "keys", "rotate")
    assert ended.returncode == 1
    assert "1 orders are still sealed with old" in " ".join(ended.stdout.split())
    assert by_key(house) == {"new": 4, "old": 1}
    with pytest.raises(DecryptionError, match="E_SEALED_TAMPERED"):
        opened(house, BOTH)


def test_the_keys_in_use_are_listed_with_how_much_they_seal(house: House) -> None:
    loaded(house, 5)
    listed = commands.answer(with_keys(house, BOTH), "keys", "list")
    assert listed == {"current": "new", "keys": {"old": {"orders": 5, "set": True}, "new": {"orders": 0, "set": True}}}
    made = commands.answer(with_keys(house, BOTH), "keys", "new")["key"]
    assert Cipher.from_setting(SecretStr(made)).current not in ("old", "new")


def _failing_from(call: int):
    calls = iter(range(1, 100))

    def copy(chunks: Iterable[pa.RecordBatch], same: Mapping[str, str], types: Mapping[str, str]):
        if "csv_source" in same and next(calls) >= call:
            raise ConnectionError
        return binary_copy(chunks, same, types)

    return copy


@contextlib.contextmanager
def _opened(house: House, keys: str) -> Iterator[System]:
    changed = house.system.settings.model_copy(update={"encryption_keys": SecretStr(keys)})
    with join_endpoints(changed) as endpoints, open_system(changed, endpoints) as again:
        yield again
