"""Sealed values open only whole, only with their key, and only in the place they were sealed for."""

from __future__ import annotations

import base64
import io
import pickle

import pyarrow as pa
import pytest
from pydantic import SecretStr

from orders_pipeline.security import encryption
from orders_pipeline.security.encryption import Cipher, DecryptionError, EncryptionKeysError, new_key

OLD, NEW = b"o" * 32, b"n" * 32
PLACE = b"orders.personal/b-1/7"


@pytest.fixture
def cipher() -> Cipher:
    return Cipher({"new": NEW, "old": OLD}, "new")


@pytest.mark.parametrize("plaintext", [b"", b"x", "山田太郎".encode(), b"\x00" * 10_000])
def test_what_was_sealed_opens_in_its_place(cipher, plaintext):
    assert cipher.decrypt(cipher.encrypt(plaintext, PLACE), PLACE) == plaintext


def test_the_envelope_names_its_version_and_key_and_hides_the_rest(cipher):
    sealed = cipher.encrypt(b"planted value", PLACE)
    assert sealed[:5] == b"\x01\x03new"
    assert len(sealed) == 5 + 12 + len(b"planted value") + 16
    assert b"planted" not in sealed


def test_equal_values_are_sealed_differently(cipher):
    sealed = [cipher.encrypt(b"same", PLACE) for _ in range(1000)]
    assert len(set(sealed)) == len({envelope[5:17] for envelope in sealed}) == 1000


def test_a_value_does_not_open_in_another_place(cipher):
    with pytest.raises(DecryptionError, match=r"^E_SEALED_TAMPERED: "):
        cipher.decrypt(cipher.encrypt(b"x", PLACE), b"orders.personal/b-1/8")


def test_every_changed_byte_is_found(cipher):
    sealed = cipher.encrypt(b"value", PLACE)
    for position in range(len(sealed)):
        changed = sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]
        with pytest.raises(DecryptionError):
            cipher.decrypt(changed, PLACE)


def test_every_cut_is_found(cipher):
    sealed = cipher.encrypt(b"value", PLACE)
    for length in range(len(sealed)):
        with pytest.raises(DecryptionError):
            cipher.decrypt(sealed[:length], PLACE)


def test_a_key_id_cannot_be_swapped_for_another_of_the_same_key():
    cipher = Cipher({"aa": NEW, "bb": NEW}, "aa")
    with pytest.raises(DecryptionError, match=r"^E_SEALED_TAMPERED: "):
        cipher.decrypt(cipher.encrypt(b"x", PLACE).replace(b"aa", b"bb", 1), PLACE)


def test_after_a_rotation_old_values_open_and_new_ones_use_the_new_key(cipher):
    before = Cipher({"old": OLD}, "old")
    assert cipher.decrypt(before.encrypt(b"x", PLACE), PLACE) == b"x"
    with pytest.raises(DecryptionError, match=r"^E_SEALED_KEY: .* the key new, which"):
        before.decrypt(cipher.encrypt(b"x", PLACE), PLACE)


def test_the_first_key_of_the_setting_is_current():
    first, second = new_key(), new_key()
    cipher = Cipher.from_setting(SecretStr(f"{first}, {second}"))
    sealed = cipher.encrypt(b"x", PLACE)
    assert Cipher.from_setting(SecretStr(first)).decrypt(sealed, PLACE) == b"x"
    with pytest.raises(DecryptionError):
        Cipher.from_setting(SecretStr(second)).decrypt(sealed, PLACE)


def test_a_new_key_has_256_bits_and_is_never_the_same():
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert {len(base64.b64decode(each.partition(":")[2])) for each in made} == {32}


def test_what_is_no_key_at_all_is_told_how_one_is_written():
    for text in ("abc", "k1:", "k1:not-base64!"):
        with pytest.raises(EncryptionKeysError, match="is written id:base64 or id:kms:base64"):
            Cipher.from_setting(SecretStr(text))


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


PIECES = [b"", b"x", b"0123456789", b"0123456789abcdef" * 4, bytes(range(256)) * 3 + b"!"]


@pytest.fixture
def sealed_file(cipher, monkeypatch):
    """A function that seals a file in pieces of 16 bytes and returns its header's length and its bytes."""
    monkeypatch.setattr(encryption, "PIECE_BYTES", 16)

    def seal(content: bytes) -> tuple[int, bytes]:
        header, *pieces = cipher.encrypt_file(io.BytesIO(content), PLACE)
        return len(header), header + b"".join(pieces)

    return seal


def opened_file(cipher, sealed: bytes, place: bytes = PLACE) -> bytes:
    return b"".join(cipher.decrypt_file(io.BytesIO(sealed), place))


@pytest.mark.parametrize("content", PIECES)
def test_a_sealed_file_opens_in_its_place_and_hides_what_it_holds(cipher, sealed_file, content):
    _, sealed = sealed_file(content)
    assert opened_file(cipher, sealed) == content
    assert len(content) < 10 or content[:10] not in sealed
    assert sealed_file(content) != sealed_file(content)
    with pytest.raises(DecryptionError):
        opened_file(cipher, sealed, b"another place")


def test_every_cut_and_every_changed_byte_of_a_sealed_file_is_found(cipher, sealed_file):
    _, sealed = sealed_file(bytes(range(100)))
    for length in range(len(sealed)):
        with pytest.raises(DecryptionError):
            opened_file(cipher, sealed[:length])
    for at in range(len(sealed)):
        with pytest.raises(DecryptionError):
            opened_file(cipher, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])


def test_pieces_of_a_sealed_file_cannot_be_moved_left_out_repeated_or_added(cipher, sealed_file):
    start, sealed = sealed_file(b"0123456789abcdef" * 4)
    header, pieces = sealed[:start], [sealed[at : at + 32] for at in range(start, len(sealed), 32)]
    assert len(pieces) == 4
    _, other = sealed_file(b"0123456789abcdef" * 4)
    for wrong in (
        [pieces[1], pieces[0], *pieces[2:]],
        pieces[1:],
        pieces[:-1],
        [pieces[0], *pieces[2:]],
        [pieces[0], *pieces],
        [*pieces, pieces[-1]],
        [*pieces[:-1], other[-32:]],
        [],
    ):
        with pytest.raises(DecryptionError):
            opened_file(cipher, header + b"".join(wrong))


def test_a_plain_file_is_not_taken_for_a_sealed_one(cipher):
    for content in (b"", b"x", b"client_order_ref\r\n" * 10):
        with pytest.raises(DecryptionError, match="E_SEALED_FORMAT"):
            opened_file(cipher, content)
        with pytest.raises(DecryptionError, match="E_SEALED_FORMAT"):
            encryption.key_id_of_file(io.BytesIO(content))


def test_a_sealed_file_tells_which_key_it_needs(cipher):
    sealed = b"".join(cipher.encrypt_file(io.BytesIO(b"x"), PLACE))
    assert encryption.key_id_of_file(io.BytesIO(sealed)) == cipher.current
    for cut in range(len(encryption.FILE_MARK) + 2 + len(cipher.prefix)):
        with pytest.raises(DecryptionError, match="E_SEALED_FORMAT"):
            encryption.key_id_of_file(io.BytesIO(sealed[:cut]))


def test_what_is_sealed_together_opens_each_in_its_own_place(cipher):
    plaintexts, places = [b"one", b"", b"three"], [b"a", b"b", b"c"]
    sealed = cipher.encrypt_all(pa.array([b"", *plaintexts])[1:], pa.array([*places, b""])[:3]).to_pylist()
    assert [cipher.decrypt(each, place) for each, place in zip(sealed, places, strict=True)] == plaintexts
    for each, place in [(sealed[0], b"b"), (sealed[1], b"a"), (sealed[2], b"")]:
        with pytest.raises(DecryptionError):
            cipher.decrypt(each, place)
    assert cipher.encrypt_all(pa.array([], pa.binary()), pa.array([], pa.binary())).to_pylist() == []


@pytest.mark.parametrize("places", [pa.array([b"a", None]), pa.array([b"a"]), pa.array([b"a", b"b", b"c"])])
def test_nothing_is_sealed_without_a_place_of_its_own(cipher, places):
    with pytest.raises(ValueError, match="something of its own"):
        cipher.encrypt_all(pa.array([b"one", b"two"]), places)


def test_s03_no_nonce_is_used_twice_in_a_million():
    cipher = Cipher({"a": b"k" * 32}, "a")
    nonces = set()
    for _ in range(20):
        sealed = cipher.encrypt_all(pa.array([b"same"] * 50_000), pa.array([PLACE] * 50_000))
        nonces.update(each[3 : 3 + encryption.NONCE_BYTES] for each in sealed.to_pylist())
    assert len(nonces) == 1_000_000


def test_a_decryption_error_tells_nothing_of_what_was_read(cipher):
    with pytest.raises(DecryptionError) as caught:
        cipher.decrypt(b"planted", b"planted place")
    assert (caught.value.code, "planted" in str(caught.value)) == ("E_SEALED_FORMAT", False)
    with pytest.raises(DecryptionError, match=r"the key without an id, which"):
        cipher.decrypt(bytes((1, 20)) + b"\nplanted" + bytes(60), PLACE)
