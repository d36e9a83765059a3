"""The outside world, opened from the settings: database, storage, services, cipher, clients.

The one place where parts are made and handed on; use cases get what they need from here and never reach for it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from orders_pipeline.audit.recording import os_user, remember_profiles
from orders_pipeline.clients.profiles import Clients, ClientsError, FollowedClients, read_clients
from orders_pipeline.clients.users import FollowedUsers, Users, UsersError, read_users
from orders_pipeline.infrastructure import migrations
from orders_pipeline.infrastructure.database import POOL_SIZE, Database, SessionIdentity
from orders_pipeline.infrastructure.database_url import private_url
from orders_pipeline.infrastructure.followed_file import FollowedFile
from orders_pipeline.infrastructure.storage import Storage, open_storage
from orders_pipeline.security.encryption import Cipher, new_key
from orders_pipeline.security.kms import KeyService
from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.services.notification_service import SERVICE, NotificationService
from orders_pipeline.services.payment_gateway import Capabilities, PaymentGateway
from orders_pipeline.services.payment_providers import PROVIDERS
from orders_pipeline.services.rate_limit import RateLimiter
from orders_pipeline.system import embedded, errors, session_limit
from orders_pipeline.system.restore_guard import RestoreGuard
from orders_pipeline.system.settings import PREFIX, Settings, SettingsError
from orders_pipeline.system.turns import Turns

log = logging.getLogger("orders_pipeline.system")


@dataclass(frozen=True)
class Endpoints:
    """Where the database and the services are, given or embedded."""

    database_url: SecretStr
    payment_url: str
    notification_url: str


@dataclass(frozen=True)
class System:
    """Everything a use case may be handed."""

    settings: Settings
    endpoints: Endpoints
    database: Database
    storage: Storage
    landing: Storage
    cipher: Cipher
    clients: Clients
    users: Users
    payments: PaymentGateway
    notifications: NotificationService
    notification_limiter: RateLimiter

    @property
    def restore_guard(self) -> RestoreGuard:
        """Return what finds out whether our ledger is whole."""
        return RestoreGuard(self.database, self.storage, self.payments)

    @functools.cached_property
    def turns(self) -> Turns:
        """Return what knows which runs wait, and whether there is a daemon that begins them."""
        return Turns(self.endpoints.database_url)


@contextlib.contextmanager
def join_endpoints(settings: Settings) -> Iterator[Endpoints]:
    """Return where everything is; in development, what is not set is started and lives as long as it is used."""
    with contextlib.ExitStack() as stack:
        database_url = given_database(settings)
        lacking: dict[embedded.Part, str] = {}
        if database_url is None:
            lacking["postgres"] = ""
        if settings.payment_url is None or settings.notification_url is None:
            if settings.sandbox_options:
                embedded.require_sandbox_options(settings.sandbox_options)
            lacking["sandbox"] = settings.sandbox_options
        started = embedded.join_all(_writable(settings.home), lacking) if lacking else {}
        for membership in started.values():
            stack.callback(membership.close)
        yield Endpoints(
            database_url or SecretStr(started["postgres"].url),
            settings.payment_url or started["sandbox"].url,
            settings.notification_url or started["sandbox"].url,
        )


def given_database(settings: Settings) -> SecretStr | None:
    """Return where the database is, if that is set; in production over private connections only."""
    if settings.database_url is None or not settings.is_production:
        return settings.database_url
    try:
        return private_url(settings.database_url, settings.ca_file)
    except ValueError:
        raise SettingsError(
            f"{PREFIX}ENV is production, where {PREFIX}DATABASE_URL names a host and asks for no less than "
            "sslmode=verify-full, ssl_min_protocol_version=TLSv1.3 and gssencmode=disable, which are the defaults there"
        ) from None


@contextlib.contextmanager
def open_system(
    settings: Settings,
    endpoints: Endpoints,
    origin: str = "orders-pipeline",
    *,
    pool_size: int = POOL_SIZE,
    actor: str | None = None,
) -> Iterator[System]:
    """Open everything for one run, tick or command, and close it again; an embedded database gets its schema.

    `origin` says in the audit which program it is, `actor` for whom, where that is not who runs it. Raises TooFewSessions
    where the server lets in fewer than may be needed.
    """
    with contextlib.closing(Database(endpoints.database_url)) as database:
        if settings.database_url is None:
            migrations.migrate(database)
        else:
            migrations.require_current(database)
        session_limit.require(database, settings.max_concurrent_runs)
    cipher = open_cipher(settings)
    with contextlib.closing(
        Database(
            endpoints.database_url,
            pool_size=pool_size,
            identity=SessionIdentity(actor or os_user(), origin),
        )
    ) as database:
        yield System(
            settings=settings,
            endpoints=endpoints,
            database=database,
            storage=open_batches(settings, cipher),
            landing=open_landing(settings),
            cipher=cipher,
            clients=read_clients(settings.clients_file),
            users=read_users(settings.users_file),
            payments=_provider(settings, payment_client(settings, endpoints)),
            notifications=NotificationService(notification_client(settings, endpoints)),
            notification_limiter=RateLimiter(
                database,
                SERVICE,
                settings.notification_rate_per_s,
                lease_s=settings.notification_timeout_s + 1.0,
            ),
        )


def following_files(system: System) -> System:
    """Return a system for a process that lives long: it goes by the clients and users as their files have them now.

    A file that cannot be used is listed and logged, and the one before it stays in force.
    """

    def refused(why: Exception) -> None:
        log.error("%s; what it said before stays in force", errors.report(why, system.settings, listed=True).text)

    clients, users = system.clients, system.users
    if (path := system.settings.clients_file) is not None:
        accepted = partial(remember_profiles, system.database)
        file = FollowedFile(path, clients, read_clients, ClientsError, accepted=accepted, refused=refused)
        clients = FollowedClients(file)
    if (path := system.settings.users_file) is not None:
        users = FollowedUsers(FollowedFile(path, users, read_users, UsersError, refused=refused))
    return replace(system, clients=clients, users=users)


def open_cipher(settings: Settings) -> Cipher:
    """Return the cipher with the keys that are set, or in development with one of its own."""
    kms = key_service(settings)
    return Cipher.from_setting(
        settings.encryption_keys or development_key(settings.home), None if kms is None else kms.open_data_key
    )


def open_batches(settings: Settings, cipher: Cipher) -> Storage:
    """Return where batches are kept, encrypted."""
    return _open_storage(settings, settings.storage_location, cipher)


def open_landing(settings: Settings) -> Storage:
    """Return where clients' files arrive; what they put there is not ours to encrypt."""
    return _open_storage(settings, settings.landing_location, None)


def key_service(settings: Settings) -> KeyService | None:
    """Return where data keys are made and opened, if one is set."""
    if settings.kms_key_id is None:
        return None
    return KeyService(settings.kms_key_id, settings.kms_endpoint_url, settings.ca_file)


def payment_client(settings: Settings, endpoints: Endpoints) -> ServiceClient:
    """Return a client of the Payment service."""
    return ServiceClient(endpoints.payment_url, settings.payment_token, settings.payment_timeout_s, settings.ca_file)


def notification_client(settings: Settings, endpoints: Endpoints) -> ServiceClient:
    """Return a client of the Notification service."""
    return ServiceClient(
        endpoints.notification_url, settings.notification_token, settings.notification_timeout_s, settings.ca_file
    )


def _provider(settings: Settings, client: ServiceClient) -> PaymentGateway:
    if settings.payment_provider not in PROVIDERS:
        raise SettingsError(f"{PREFIX}PAYMENT_PROVIDER is none of those there are: {', '.join(PROVIDERS)}")
    able = settings.payment_capabilities.split(",")
    capabilities = Capabilities(honours_keys="keys" in able, can_look_up="look-up" in able, can_list="list" in able)
    return PROVIDERS[settings.payment_provider](client, capabilities)


def _open_storage(settings: Settings, url: str, cipher: Cipher | None) -> Storage:
    try:
        return open_storage(
            url,
            s3_endpoint_url=settings.s3_endpoint_url,
            s3_kms_key_id=settings.s3_kms_key_id,
            ca_file=settings.ca_file,
            cipher=cipher,
        )
    except ValueError:
        raise SettingsError(
            f"{PREFIX}STORAGE_URL and {PREFIX}LANDING_URL are each a folder, file:///folder or s3://bucket/prefix, "
            f"and {PREFIX}S3_ENDPOINT_URL is a URL"
        ) from None


def _writable(home: Path) -> Path:
    """Return HOME, made if it is not there; raise SettingsError where nothing can be written."""
    with contextlib.suppress(OSError):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(home, os.W_OK | os.X_OK):
        raise SettingsError(f"{PREFIX}HOME is not a folder that can be made and written; please set another")
    return home


def development_key(home: Path) -> SecretStr:
    """Return the key kept in HOME, made on first use: personal columns are encrypted in development too."""
    path = _writable(home) / "encryption_keys"
    if not path.exists():
        made = home / f"encryption_keys.{uuid.uuid4().hex}"
        made.touch(mode=0o600)
        made.write_text(new_key())
        with contextlib.suppress(FileExistsError):  # another process was first: its key it is
            path.hardlink_to(made)
        made.unlink()
    return SecretStr(path.read_text().strip())
