"""AWS KMS: data keys that KMS has encrypted and only KMS decrypts; boto3 is imported when KMS is used.

What is encrypted with a data key, and when keys change, belongs in `encryption.py` and `upkeep/key_rotation.py`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orders_pipeline.security.aws_client import aws_client

TRIES = 4
_NEVER = {  # KMS's answers that another try does not change
    "AccessDeniedException",
    "DisabledException",
    "IncorrectKeyException",
    "InvalidCiphertextException",
    "InvalidKeyUsageException",
    "KMSInvalidStateException",
    "NotFoundException",
    "UnrecognizedClientException",
    "ValidationException",
}


class KeyServiceUnavailable(Exception):
    """KMS gave no answer; later it may."""

    code = "E_KMS_UNAVAILABLE"


class KeyServiceRefused(Exception):
    """KMS does not make or decrypt this data key."""

    code = "E_KMS_REFUSED"


@dataclass(frozen=True)
class KeyService:
    """Data keys under one KMS key, each bound to its id by the encryption context, which CloudTrail shows too."""

    kms_key_id: str
    endpoint_url: str | None = None
    ca_file: Path | None = None

    def new_data_key(self, key_id: str) -> bytes:
        """Return a new data key, encrypted by KMS; nobody has seen it in clear."""
        with _errors():
            answer = self._client.generate_data_key_without_plaintext(
                KeyId=self.kms_key_id, KeySpec="AES_256", EncryptionContext=_context(key_id)
            )
            encrypted: bytes = answer["CiphertextBlob"]
        return encrypted

    def open_data_key(self, key_id: str, encrypted: bytes) -> bytes:
        """Return a data key in clear, asking KMS once in a process; raise KeyServiceRefused or KeyServiceUnavailable."""
        return _opened(self, key_id, encrypted)

    @property
    def _client(self) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        return aws_client("kms", self.endpoint_url, self.ca_file, tries=TRIES)


@functools.cache
def _opened(service: KeyService, key_id: str, encrypted: bytes) -> bytes:
    with _errors():
        answer = service._client.decrypt(
            KeyId=service.kms_key_id, CiphertextBlob=encrypted, EncryptionContext=_context(key_id)
        )
        key: bytes = answer["Plaintext"]
    return key


def _context(key_id: str) -> dict[str, str]:
    return {"application": "orders-pipeline", "key": key_id}


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn boto3's errors, whose texts name keys and accounts, into ours."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, SSLError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _NEVER:
            raise KeyServiceRefused("KMS refuses; are the key's id, its policy and the credentials right?") from None
        raise KeyServiceUnavailable("KMS does not answer properly") from None
    except (NoCredentialsError, NoRegionError):
        raise KeyServiceRefused("no AWS credentials or region are set") from None
    except SSLError:
        raise KeyServiceUnavailable(
            "KMS offers no TLS that is asked for, or its certificate is not one for this host that we trust"
        ) from None
    except (BotoCoreError, KeyError, ValueError):  # the latter two where an answer was cut
        raise KeyServiceUnavailable("KMS does not answer") from None
