"""Encryption of values and files: AES-256-GCM under keys with ids, so that keys can be rotated.

An envelope is: version byte, length of the key id, key id, 12 random bytes, ciphertext with tag. Everything before the
ciphertext is authenticated together with what the caller binds the value to.

An encrypted file is: a mark, the length of an envelope (2 bytes), the envelope with the file's own key, and pieces. Each
piece is bound to its position and to being the last or not, so that none can be changed, moved or left out.

What is encrypted, and bound to what, belongs in `personal_data.py`, `infrastructure/storage/` and the use cases.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import IO, ClassVar, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

VERSION = 1
KEY_BYTES = 32
NONCE_BYTES = 12
FILE_MARK = b"\x89orders-sealed\x01"
PIECE_BYTES = 1024 * 1024
_TAG_BYTES = 16
_BY_KMS = "kms:"
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")

OpenDataKey: TypeAlias = Callable[[str, bytes], bytes]


class EncryptionKeysError(Exception):
    """The keys are not usable; the text says what is wrong and never shows them."""

    code = "E_ENCRYPTION_KEYS"


class DecryptionError(Exception):
    """A value cannot be decrypted: it is no envelope, its key is not among ours, or it is not what was encrypted there."""

    TEXTS: ClassVar = {
        "E_SEALED_FORMAT": "what is read is not encrypted as it should be",
        "E_SEALED_KEY": "what is read is encrypted with the key {key_id}, which is not among those set",
        "E_SEALED_TAMPERED": "what is read was changed, or was encrypted for another place",
    }

    def __init__(self, code: str, key_id: str = "") -> None:
        super().__init__(f"{code}: {self.TEXTS[code].format(key_id=key_id)}")
        self.code = code


class Cipher:
    """Encrypts with the current key and decrypts with any; holds no key in readable form and cannot be pickled."""

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        if current not in keys:
            raise EncryptionKeysError("the current encryption key is missing")
        if not all(_KEY_ID.fullmatch(key_id) for key_id in keys):
            raise EncryptionKeysError("an encryption key's id is 1 to 32 of A-Z a-z 0-9 . _ -")
        if any(len(key) != KEY_BYTES for key in keys.values()):
            raise EncryptionKeysError(f"an encryption key has {KEY_BYTES} bytes")
        self._keys = {key_id.encode("ascii"): AESGCM(key) for key_id, key in keys.items()}
        self._current = current.encode("ascii")
        self.fingerprints = {key_id: hashlib.sha256(b"fingerprint|" + key).hexdigest()[:16] for key_id, key in keys.items()}

    @classmethod
    def from_setting(cls, text: SecretStr, open_data_key: OpenDataKey | None = None) -> Self:
        """Read `id:base64,id2:kms:base64`, the first being current; raise EncryptionKeysError if it is not that.

        What is behind `kms:` is a data key as KMS has encrypted it, which `open_data_key` decrypts.
        """
        keys: dict[str, bytes] = {}
        for entry in text.get_secret_value().split(","):
            key_id, _, encoded = entry.strip().partition(":")
            if key_id in keys:
                raise EncryptionKeysError("two encryption keys have the same id")
            is_by_kms = encoded.startswith(_BY_KMS)
            if is_by_kms and open_data_key is None:
                raise EncryptionKeysError("an encryption key is encrypted by KMS, but no key of KMS is set")
            try:
                key = base64.b64decode(encoded.removeprefix(_BY_KMS), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not key:
                raise EncryptionKeysError("an encryption key is written id:base64 or id:kms:base64")
            keys[key_id] = open_data_key(key_id, key) if open_data_key is not None and is_by_kms else key
        return cls(keys, next(iter(keys)))

    @property
    def current(self) -> str:
        """Return the id of the key that encrypts."""
        return self._current.decode("ascii")

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Return the ids of all keys, in the order of the setting."""
        return tuple(key_id.decode("ascii") for key_id in self._keys)

    @property
    def prefix(self) -> bytes:
        """Return what every envelope of the current key begins with, and no other."""
        return bytes((VERSION, len(self._current))) + self._current

    def __repr__(self) -> str:
        return f"<Cipher with {len(self._keys)} keys>"

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        """Return the envelope of `plaintext` under the current key, bound to `aad`, which is needed again to decrypt it."""
        nonce = os.urandom(NONCE_BYTES)
        header = self.prefix + nonce
        return header + self._keys[self._current].encrypt(nonce, plaintext, header + aad)

    def encrypt_all(self, plaintexts: pa.Array, aads: pa.Array) -> pa.Array:
        """Return an envelope of each plaintext (arrays of binary), bound to its own of `aads`; faster than one by one."""
        count = len(plaintexts)
        if len(aads) != count or aads.null_count:
            raise ValueError("each plaintext is bound to something of its own")
        random = pa.py_buffer(os.urandom(NONCE_BYTES * count))
        nonces = pa.Array.from_buffers(pa.binary(NONCE_BYTES), count, [None, random]).cast(pa.binary())
        headers = _joined(self.prefix, nonces)
        cells = (each.to_numpy(zero_copy_only=False).tolist() for each in (nonces, plaintexts, _joined(headers, aads)))
        return _joined(headers, pa.array([*map(self._keys[self._current].encrypt, *cells)], pa.binary()))

    def decrypt(self, envelope: bytes, aad: bytes) -> bytes:
        """Return the plaintext of an envelope; raise DecryptionError if it is not ours, not whole or not for `aad`."""
        start = _header_bytes(envelope)
        end = start + NONCE_BYTES
        key = self._keys.get(envelope[2:start])
        if key is None:
            raise DecryptionError("E_SEALED_KEY", _key_id(envelope))
        try:
            return key.decrypt(envelope[start:end], envelope[end:], envelope[:end] + aad)
        except InvalidTag:
            raise DecryptionError("E_SEALED_TAMPERED") from None

    def encrypt_file(self, file: IO[bytes], aad: bytes) -> Iterator[bytes]:
        """Yield a file's bytes encrypted with a key of its own, whose envelope is of the current key and bound to `aad`."""
        key = AESGCM.generate_key(8 * KEY_BYTES)
        envelope = self.encrypt(key, FILE_MARK + aad)
        yield FILE_MARK + len(envelope).to_bytes(2) + envelope
        encrypt = AESGCM(key).encrypt
        for position, piece, is_last in _pieces(file, PIECE_BYTES):
            yield encrypt(position.to_bytes(NONCE_BYTES), piece, _piece_place(position, is_last=is_last))

    def decrypt_file(self, file: IO[bytes], aad: bytes) -> Iterator[bytes]:
        """Yield what `encrypt_file` encrypted; raise DecryptionError in place of the first piece that is not as it was."""
        envelope = _envelope_of(file)
        decrypt = AESGCM(self.decrypt(envelope, FILE_MARK + aad)).decrypt
        for position, piece, is_last in _pieces(file, PIECE_BYTES + _TAG_BYTES):
            try:
                yield decrypt(position.to_bytes(NONCE_BYTES), piece, _piece_place(position, is_last=is_last))
            except (InvalidTag, ValueError):  # ValueError: too short to have a tag
                raise DecryptionError("E_SEALED_TAMPERED") from None


def key_id_of_file(file: IO[bytes]) -> str:
    """Return the id of the key that an encrypted file needs, by its beginning; raise DecryptionError where it is none."""
    return _key_id(_envelope_of(file))


def _joined(*parts: bytes | pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(*parts, b"")


def _envelope_of(file: IO[bytes]) -> bytes:
    if file.read(len(FILE_MARK)) != FILE_MARK:
        raise DecryptionError("E_SEALED_FORMAT")
    return file.read(int.from_bytes(file.read(2)))


def _header_bytes(envelope: bytes) -> int:
    start = 2 + (envelope[1] if len(envelope) > 1 else 0)
    if len(envelope) < start + NONCE_BYTES + _TAG_BYTES or envelope[0] != VERSION:
        raise DecryptionError("E_SEALED_FORMAT")
    return start


def _key_id(envelope: bytes) -> str:
    key_id = envelope[2 : _header_bytes(envelope)].decode("ascii", "replace")
    return key_id if _KEY_ID.fullmatch(key_id) else "without an id"


def _pieces(file: IO[bytes], size: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield a file in pieces with their positions and whether each is the last; an empty file is one empty piece."""
    piece, position = file.read(size), 0
    while following := file.read(size):
        yield position, piece, False
        piece, position = following, position + 1
    yield position, piece, True


def _piece_place(position: int, *, is_last: bool) -> bytes:
    return FILE_MARK + position.to_bytes(8) + bytes((is_last,))


def new_key(new_data_key: Callable[[str], bytes] | None = None) -> str:
    """Return a new random key as the setting has it, encrypted by KMS where `new_data_key` makes it for an id."""
    key_id = f"k{os.urandom(4).hex()}"
    key = AESGCM.generate_key(8 * KEY_BYTES) if new_data_key is None else new_data_key(key_id)
    return f"{key_id}:{'' if new_data_key is None else _BY_KMS}{base64.b64encode(key).decode('ascii')}"
