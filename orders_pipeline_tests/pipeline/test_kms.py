"""Data keys of AWS KMS (moto's server, over HTTP): made, opened once, bound to their id, and taken over by a rotation."""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from pydantic import SecretStr

from orders_pipeline.batches.artifacts import ORIGINAL, artifact
from orders_pipeline.intake import steps
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.security import kms
from orders_pipeline.security.encryption import Cipher, EncryptionKeysError, new_key
from orders_pipeline.security.kms import KeyService, KeyServiceRefused, KeyServiceUnavailable
from orders_pipeline.system.composition import join_endpoints, open_system
from orders_pipeline.upkeep import key_rotation
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.s3_server import Line, Trouble, open_s3

PLACE = b"here"


@pytest.fixture(scope="module")
def aws() -> Iterator[tuple[str, Any]]:
    """The server's URL and a raw client of its KMS."""
    with open_s3() as harness:
        yield harness.server_url, boto3.client("kms", endpoint_url=harness.server_url, config=Config(proxies={}))


@pytest.fixture
def service(aws: tuple[str, Any]) -> KeyService:
    url, raw = aws
    kms._opened.cache_clear()
    return KeyService(raw.create_key()["KeyMetadata"]["KeyId"], url)


def cipher_of(service: KeyService, *keys: str) -> Cipher:
    return Cipher.from_setting(SecretStr(",".join(keys)), service.open_data_key)


def test_a_data_key_is_set_in_sealed_form_and_seals_like_any_other(service: KeyService) -> None:
    key = new_key(service.new_data_key)
    key_id, kind, _ = key.split(":")
    assert kind == "kms"
    sealed = cipher_of(service, key).encrypt(b"planted", PLACE)
    assert sealed[2 : 2 + len(key_id)] == key_id.encode()
    kms._opened.cache_clear()  # another process
    assert cipher_of(service, key, new_key()).decrypt(sealed, PLACE) == b"planted"


def test_a_process_asks_kms_once_for_each_key(service: KeyService, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key(service.new_data_key)
    sealed = cipher_of(service, key).encrypt(b"planted", PLACE)
    monkeypatch.setattr(KeyService, "_client", property(lambda _: pytest.fail("KMS was asked again")))
    assert cipher_of(service, key).decrypt(sealed, PLACE) == b"planted"


def test_a_data_key_opens_unchanged_under_its_own_id_and_kms_key_only(service: KeyService, aws: tuple[str, Any]) -> None:
    url, raw = aws
    key = new_key(service.new_data_key)
    with pytest.raises(KeyServiceRefused) as refused:
        cipher_of(service, f"another:{key.partition(':')[2]}")
    assert service.kms_key_id not in str(refused.value)
    key_id, _, sealed = key.split(":")
    changed = bytearray(base64.b64decode(sealed))
    changed[-1] ^= 1
    with pytest.raises(KeyServiceRefused):
        service.open_data_key(key_id, bytes(changed))
    with pytest.raises(KeyServiceRefused):
        cipher_of(KeyService(raw.create_key()["KeyMetadata"]["KeyId"], url), key)


def test_a_kms_key_that_is_not_there_makes_no_data_key(service: KeyService) -> None:
    with pytest.raises(KeyServiceRefused):
        KeyService("alias/planted-nobody", service.endpoint_url).new_data_key("k")


def test_a_kms_that_does_not_answer_is_told_apart_from_one_that_refuses(
    monkeypatch: pytest.MonkeyPatch, service: KeyService
) -> None:
    monkeypatch.setattr(kms, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(KeyServiceUnavailable):
        KeyService("planted", f"http://127.0.0.1:{port}").new_data_key("k")
    with contextlib.closing(Line(str(service.endpoint_url))) as line:
        line.troubles.append(Trouble("POST", "/"))  # half an answer
        with pytest.raises(KeyServiceUnavailable):
            KeyService(service.kms_key_id, line.url).new_data_key("k")


def test_a_sealed_key_without_a_kms_key_is_refused_at_the_start(service: KeyService) -> None:
    key = new_key(service.new_data_key)
    with pytest.raises(EncryptionKeysError, match="KMS") as refused:
        Cipher.from_setting(SecretStr(key))
    assert key.rpartition(":")[2] not in str(refused.value)
    with pytest.raises(EncryptionKeysError):
        cipher_of(service, "k:kms:planted!")


def test_a_key_of_the_setting_is_replaced_by_one_of_kms(
    installation: Installation, service: KeyService, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    write_sample(path, rows=20, bad=0.0)
    batch_id = installation.receive(path, "acme")
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(installation.system, batch_id)
    under_kms = {"ORDERS_KMS_KEY_ID": service.kms_key_id, "ORDERS_KMS_ENDPOINT_URL": str(service.endpoint_url)}
    key = commands.answer(installation.environment(**under_kms), "keys", "new")["key"]
    assert key.split(":")[1] == "kms"
    old = (installation.home / "encryption_keys").read_text()
    result = commands.answer(installation.environment(ORDERS_ENCRYPTION_KEYS=f"{key},{old}", **under_kms), "keys", "rotate")
    assert (result["done"], result["resealed"]) == (True, 20)
    settings = installation.system.settings.model_copy(
        update={
            "encryption_keys": SecretStr(key),
            "kms_key_id": service.kms_key_id,
            "kms_endpoint_url": service.endpoint_url,
        }
    )
    with join_endpoints(settings) as endpoints, open_system(settings, endpoints) as system:
        assert key_rotation.keys_in_use(system.database) == {key.partition(":")[0]: 20}
        with system.storage.local(artifact(batch_id, ORIGINAL)) as original:
            assert original.read_bytes() == path.read_bytes()
