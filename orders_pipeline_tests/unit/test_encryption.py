"""Sealed values open only whole, only with their key, and only in the place they were sealed for."""

from __future__ import annotations

import base64
import pickle

import pytest
from pydantic import SecretStr

from orders_pipeline.encryption import Cipher, DecryptionError, EncryptionKeysError, new_key

OLD, NEW = b"o" * 32, b"n" * 32
PLACE = b"orders.personal/b-1/7"


@pytest.fixture
def cipher() -> Cipher:
    return Cipher({"new": NEW, "old": OLD}, "new")


@pytest.mark.parametrize("plaintext", [b"", b"x", "山田太郎".encode(), b"\x00" * 10_000])
def test_what_was_sealed_opens_in_its_place(cipher, plaintext):
    assert cipher.open(cipher.seal(plaintext, PLACE), PLACE) == plaintext


def test_the_envelope_names_its_version_and_key_and_hides_the_rest(cipher):
    sealed = cipher.seal(b"planted value", PLACE)
    assert sealed[:5] == b"\x01\x03new"
    assert len(sealed) == 5 + 12 + len(b"planted value") + 16
    assert b"planted" not in sealed


def test_equal_values_are_sealed_differently(cipher):
    sealed = [cipher.seal(b"same", PLACE) for _ in range(1000)]
    assert len(set(sealed)) == len({envelope[5:17] for envelope in sealed}) == 1000


def test_a_value_does_not_open_in_another_place(cipher):
    with pytest.raises(DecryptionError, match=r"^E_SEALED_TAMPERED$"):
        cipher.open(cipher.seal(b"x", PLACE), b"orders.personal/b-1/8")


def test_every_changed_byte_is_found(cipher):
    sealed = cipher.seal(b"value", PLACE)
    for position in range(len(sealed)):
        changed = sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]
        with pytest.raises(DecryptionError):
            cipher.open(changed, PLACE)


def test_every_cut_is_found(cipher):
    sealed = cipher.seal(b"value", PLACE)
    for length in range(len(sealed)):
        with pytest.raises(DecryptionError):
            cipher.open(sealed[:length], PLACE)


def test_a_key_id_cannot_be_swapped_for_another_of_the_same_key():
    cipher = Cipher({"aa": NEW, "bb": NEW}, "aa")
    with pytest.raises(DecryptionError, match=r"^E_SEALED_TAMPERED$"):
        cipher.open(cipher.seal(b"x", PLACE).replace(b"aa", b"bb", 1), PLACE)


def test_after_a_rotation_old_values_open_and_new_ones_use_the_new_key(cipher):
    before = Cipher({"old": OLD}, "old")
    assert cipher.open(before.seal(b"x", PLACE), PLACE) == b"x"
    with pytest.raises(DecryptionError, match=r"^E_SEALED_KEY$"):
        before.open(cipher.seal(b"x", PLACE), PLACE)


def test_the_first_key_of_the_setting_is_current():
    first, second = new_key(), new_key()
    cipher = Cipher.from_setting(SecretStr(f"{first}, {second}"))
    sealed = cipher.seal(b"x", PLACE)
    assert Cipher.from_setting(SecretStr(first)).open(sealed, PLACE) == b"x"
    with pytest.raises(DecryptionError):
        Cipher.from_setting(SecretStr(second)).open(sealed, PLACE)


def test_a_new_key_has_256_bits_and_is_never_the_same():
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert {len(base64.b64decode(each.partition(":")[2])) for each in made} == {32}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k1",
        "k1:",
        ":" + base64.b64encode(NEW).decode(),
        "k1:not-base64!",
        "k1:" + base64.b64encode(b"planted-secret").decode(),
        "k" * 33 + ":" + base64.b64encode(NEW).decode(),
        "鍵:" + base64.b64encode(NEW).decode(),
        "k1:" + base64.b64encode(NEW).decode() + ",k1:" + base64.b64encode(OLD).decode(),
        "k1:" + base64.b64encode(NEW).decode() + ",",
    ],
)
def test_a_setting_that_is_wrong_is_refused_without_showing_it(text):
    with pytest.raises(EncryptionKeysError) as caught:
        Cipher.from_setting(SecretStr(text))
    shown = f"{caught.value} {caught.value!r}"
    assert caught.value.__cause__ is None
    assert not text.partition(":")[2] or text.partition(":")[2] not in shown


def test_a_cipher_shows_no_key_and_cannot_be_pickled(cipher):
    shown = f"{cipher} {cipher!r} {vars(cipher)}"
    for key in (NEW, OLD):
        assert key.decode() not in shown
        assert base64.b64encode(key).decode() not in shown
    with pytest.raises(TypeError):
        pickle.dumps(cipher)


def test_a_decryption_error_tells_its_code_alone(cipher):
    with pytest.raises(DecryptionError) as caught:
        cipher.open(b"planted", b"planted place")
    assert (caught.value.code, str(caught.value)) == ("E_SEALED_FORMAT", "E_SEALED_FORMAT")
