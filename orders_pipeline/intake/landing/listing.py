"""Order files in a listing of the landing, each with the version of its manifest; versions, and what a key is.

Listing itself belongs in `infrastructure/storage/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from orders_pipeline.clients.file_names import composed, is_order_name
from orders_pipeline.clients.profiles import CLIENT_CODE
from orders_pipeline.infrastructure.storage import Page, StoredObject
from orders_pipeline.infrastructure.storage.interface import METADATA, is_key
from orders_pipeline.intake.manifest import SUFFIX, manifest_names, order_names

Find = Callable[[str], StoredObject | None]
AGAIN = " #"  # in the version of a batch, before how often the same version was one already


@dataclass(frozen=True)
class Landed:
    """An order file in the landing, with the version of its manifest if it has one, which may be another file's too."""

    stored: StoredObject
    manifest: str = ""
    shares_manifest: bool = False
    again: int = 0  # how many batches this version was already

    @property
    def key(self) -> str:
        """Return the key as it is stored."""
        return self.stored.key

    @property
    def client_code(self) -> str:
        """Return the client in whose folder it lies."""
        return self.key.partition("/")[0]

    @property
    def version(self) -> str:
        """Return the version of the file and, after a blank, that of its manifest: with another one it is another file."""
        return f"{self.stored.version} {self.manifest}".rstrip()

    @property
    def batch_version(self) -> str:
        """Return the version of the batch that it becomes: no other one has the same."""
        return f"{self.version}{AGAIN}{self.again}" if self.again else self.version

    @property
    def content(self) -> str:
        """Return the part of the version that changes with the bytes, and not with rights or links."""
        return content_of(self.stored.version)


def content_of(version: str) -> str:
    """Return the part of a version that changes with the bytes."""
    return version.partition(" ")[0].partition(METADATA)[0]


def is_same_file(version: str, other: str) -> bool:
    """Return whether two versions are one file with a like manifest, of which rights, links or bytes may have changed."""
    (one, its_manifest), (another, the_others) = (
        (stored.rpartition("-")[0], content_of(manifest))
        for stored, _, manifest in (each.partition(AGAIN)[0].partition(" ") for each in (version, other))
    )
    return METADATA in one and (one, its_manifest) == (another, the_others)


def is_version(stored: StoredObject, version: str) -> bool:
    """Return whether a stored file is this version of it, whatever its manifest is now."""
    return stored.version == version.partition(" ")[0]


def is_order_file(key: str) -> bool:
    """Return whether a key is `<client_code>/<name>` with the name of an order file."""
    client_code, _, name = key.partition("/")
    return bool(CLIENT_CODE.fullmatch(client_code)) and "/" not in name and is_order_name(name)


def is_manifest(key: str) -> bool:
    """Return whether a key is that of a manifest in a client's folder."""
    client_code, _, name = key.partition("/")
    return bool(CLIENT_CODE.fullmatch(client_code)) and "/" not in name and name.endswith(SUFFIX) and name != SUFFIX


def with_manifests(page: Page, after: str, find: Find) -> list[Landed]:
    """Return the order files of a page with the manifests beside them; `find` looks for those just outside of it."""
    orders = [stored for stored in page.objects if is_order_file(stored.key)]
    manifests = {composed(stored.key): stored for stored in page.objects if is_manifest(stored.key)}
    sharing = Counter(manifest_names(composed(stored.key))[1] for stored in orders)

    def elsewhere(name: str) -> StoredObject | None:
        return find(name) if is_key(name) and not is_within(name, page, after) else None

    def is_shared(name: str) -> bool:
        others = (each for each in order_names(name) if manifest_names(each)[1] == name)
        return sharing[composed(name)] > 1 or any(elsewhere(each) is not None for each in others)

    def landed(stored: StoredObject) -> Landed:
        own, shared = manifest_names(stored.key)
        if (found := manifests.get(composed(own)) or elsewhere(own)) is not None:
            return Landed(stored, found.version)
        if (found := manifests.get(composed(shared)) or elsewhere(shared)) is not None:
            return Landed(stored, found.version, shares_manifest=is_shared(shared))
        return Landed(stored)

    return [landed(stored) for stored in orders]


def is_within(key: str, page: Page, after: str) -> bool:
    """Return whether a page that begins behind a key would hold this one."""
    return after < key and (page.upto is None or key <= page.upto)
