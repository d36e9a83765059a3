"""What a user may set, and the only place that reads the environment.

Every setting is an `ORDERS_` variable. Secrets are `SecretStr`, so no repr, log or error shows them. What a setting means
for the parts it configures belongs in those parts; opening them from settings belongs in `composition.py`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from orders_pipeline.records.setting_errors import in_words, meant

PREFIX = "ORDERS_"
MIB = 1024 * 1024
PLATFORM_RATE_PER_S = 10  # calls that the Notification service takes
UNDER_UP = "_ORDERS_UP"  # no setting: `up` sets it for those it starts
AUDIT_SHIP = re.compile(r"cloudwatch://[^?#]+/[^/?#]+|https?://[^/?#@]+/[^?#]+", re.IGNORECASE)
AUTHORIZATION = re.compile(r"(ApiKey|Basic|Bearer) [!-~]+")
CAPABILITIES = re.compile(r"none|(keys|look-up|list)(,(keys|look-up|list))*")


class SettingsError(Exception):
    """A setting is missing or wrong; the text names settings, never their values."""

    code = "E_SETTINGS"


def _capabilities(text: str) -> str:
    if not CAPABILITIES.fullmatch(text):
        raise ValueError("this must be none, or some of keys, look-up and list, with commas between")
    return text


class Settings(BaseSettings):
    """The settings of one process, read from the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, hide_input_in_errors=True)

    env: Literal["development", "production"] = "development"
    home: Path = Path(".orders-pipeline")
    database_url: SecretStr | None = None
    storage_url: str | None = None
    landing_url: str | None = None
    s3_endpoint_url: str | None = None
    s3_kms_key_id: str | None = None
    payment_provider: str = "rest"
    payment_url: str | None = None
    payment_token: SecretStr | None = None
    payment_capabilities: Annotated[str, AfterValidator(_capabilities)] = "keys,look-up,list"
    payment_timeout_s: Annotated[float, Field(gt=0, le=90)] = 30.0  # less than PaymentLedger.doubt_s, by far
    payment_concurrency: Annotated[int, Field(ge=1, le=256)] = 32
    notification_url: str | None = None
    notification_token: SecretStr | None = None
    notification_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    notification_rate_per_s: Annotated[int, Field(ge=1, le=1000)] = PLATFORM_RATE_PER_S
    reports_url: str | None = None
    dagster_url: str | None = None
    alert_url: SecretStr | None = None  # its path is often the only secret
    audit_ship_url: str | None = None
    audit_ship_token: SecretStr | None = None
    audit_ship_endpoint_url: str | None = None
    ca_file: Path | None = None
    encryption_keys: SecretStr | None = None
    kms_key_id: str | None = None
    kms_endpoint_url: str | None = None
    clients_file: Path | None = None
    users_file: Path | None = None
    proxy_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    max_rows: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=1)] = 20 * MIB
    max_concurrent_runs: Annotated[int, Field(ge=1, le=512)] = 3
    run_launcher: Literal["fork", "celery", "kubernetes"] = "fork"
    celery_broker: SecretStr | None = None
    kubernetes_image: str | None = None
    webhook_private_addresses: bool = False
    sandbox_options: str = ""

    @property
    def is_production(self) -> bool:
        """Return whether nothing may be embedded or synthetic."""
        return self.env == "production"

    @property
    def has_many_hosts(self) -> bool:
        """Return whether runs are on other hosts than the daemon, which see nothing of its HOME."""
        return self.run_launcher != "fork"

    @property
    def storage_location(self) -> str:
        """Return where batches are kept: a folder path or `s3://` URL."""
        return self.storage_url or str(self.home.resolve() / "storage")

    @property
    def landing_location(self) -> str:
        """Return where clients' files arrive: a folder path or `s3://` URL."""
        return self.landing_url or f"{self.storage_location.rstrip('/')}/landing"

    @property
    def dagster_home(self) -> Path:
        """Return the folder of Dagster's own configuration; its records are in PostgreSQL."""
        return Path(os.environ.get("DAGSTER_HOME") or self.home.resolve() / "dagster")


REQUIRED_IN_PRODUCTION = (
    "database_url",
    "storage_url",
    "payment_url",
    "payment_token",
    "notification_url",
    "notification_token",
    "encryption_keys",
)

# what HOME would hold for one host alone
REQUIRED_ON_MANY_HOSTS = ("database_url", "storage_url", "payment_url", "notification_url", "encryption_keys")
REQUIRED_BY_LAUNCHER = {"celery": "celery_broker", "kubernetes": "kubernetes_image"}
LIBRARY_OF_LAUNCHER = {"celery": "dagster_celery", "kubernetes": "dagster_k8s"}
PRIVATE_BROKERS = ("amqps://", "rediss://")

URLS = (  # in production of https
    *("payment_url", "notification_url", "s3_endpoint_url", "kms_endpoint_url", "alert_url"),
    "audit_ship_endpoint_url",
)


def load_settings() -> Settings:
    """Read the settings from the environment; raise SettingsError naming all that is wrong or missing."""
    settings = read_settings()
    missing = [name for name in REQUIRED_IN_PRODUCTION if getattr(settings, name) is None]
    if settings.storage_location.startswith("s3:") and settings.s3_kms_key_id is None:
        missing.append("s3_kms_key_id")
    if settings.is_production and missing:
        raise SettingsError(f"{PREFIX}ENV is production, where nothing is synthetic; please set {_names(missing)}")
    folders = [name for name in ("home", "storage_url", "landing_url") if _is_relative(str(getattr(settings, name) or "/"))]
    if settings.is_production and folders:  # they would be others wherever a command is started
        raise SettingsError(f"{PREFIX}ENV is production, where these are whole paths, from /: {_names(folders)}")
    _require_for_many_hosts(settings)
    if settings.is_production and (names := unknown()):  # what was meant to be set, is not
        raise SettingsError(f"{PREFIX}ENV is production, where nothing starts with what is no setting: {', '.join(names)}")
    return settings


def _require_for_many_hosts(settings: Settings) -> None:
    if not settings.has_many_hosts:
        return
    launcher = settings.run_launcher
    if importlib.util.find_spec(LIBRARY_OF_LAUNCHER[launcher]) is None:
        raise SettingsError(f"{PREFIX}RUN_LAUNCHER is {launcher}, which takes: pip install 'orders-pipeline[{launcher}]'")
    required = (*REQUIRED_ON_MANY_HOSTS, REQUIRED_BY_LAUNCHER[launcher])
    lacking = [name for name in required if getattr(settings, name) is None]
    folders = [name for name in ("storage_url", "landing_url") if not (getattr(settings, name) or "s3:").startswith("s3:")]
    if lacking or folders:
        sentences = [f"please set {_names(lacking)}"] if lacking else []
        sentences += [f"these begin with s3:// there: {_names(folders)}"] if folders else []
        raise SettingsError(
            f"{PREFIX}RUN_LAUNCHER is {launcher}, whose runs are on other hosts and see nothing of this one's HOME; "
            + "; ".join(sentences)
        )


def _require_private_broker(settings: Settings) -> None:
    """Raise SettingsError in production for a broker without TLS, or with options that may ask for less."""
    url = "" if settings.celery_broker is None else settings.celery_broker.get_secret_value()
    if settings.is_production and url and (not url.startswith(PRIVATE_BROKERS) or "?" in url):
        schemes = " or ".join(PRIVATE_BROKERS)
        raise SettingsError(f"{PREFIX}ENV is production, where {PREFIX}CELERY_BROKER begins with {schemes}, without options")


def read_settings() -> Settings:
    """Read what is set, be it all that is needed or not; raise SettingsError naming all that is wrong."""
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = [f"{PREFIX}{str(place[0]).upper()} ({says})" for place, says in sorted(in_words(error).items())]
        raise SettingsError("these settings are not usable: " + "; ".join(wrong)) from None
    plain = [name for name in URLS if not (_given(settings, name) or "https:").lower().startswith("https:")]
    if (settings.audit_ship_url or "").lower().startswith("http:"):
        plain.append("audit_ship_url")
    if settings.is_production and plain:
        raise SettingsError(f"{PREFIX}ENV is production, where these begin with https://: {_names(plain)}")
    _require_private_broker(settings)
    if (settings.users_file is None) != (settings.proxy_secret is None):
        raise SettingsError(f"{PREFIX}USERS_FILE and {PREFIX}PROXY_SECRET are set together, or neither")
    _check_audit_shipping(settings)
    none = [name for name in (*URLS, "dagster_url") if not _is_url(_given(settings, name) or "https://host")]
    if none:
        raise SettingsError(f"these are no URLs of a server: {_names(none)}")
    if settings.ca_file is not None and not _has_certificates(settings.ca_file):
        raise SettingsError(f"{PREFIX}CA_FILE is not a file with certificates")
    return settings


def referenced_secret(secret: SecretStr) -> SecretStr:
    """Return a secret that may be given as `env:VARIABLE` or `file:PATH`; raise SettingsError where there is none."""
    kind, _, place = secret.get_secret_value().partition(":")
    if kind == "env":
        value = os.environ.get(place)
    elif kind == "file":
        try:
            value = Path(place).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            value = None
    else:
        return secret
    if not value:
        raise SettingsError("a secret is not where the clients file says: the variable is not set, or the file not there")
    return SecretStr(value)


def _check_audit_shipping(settings: Settings) -> None:
    url, token = settings.audit_ship_url, settings.audit_ship_token
    if url is not None and not AUDIT_SHIP.fullmatch(url):
        raise SettingsError(f"{PREFIX}AUDIT_SHIP_URL is cloudwatch://GROUP/STREAM or https://HOST:PORT/INDEX")
    if token is not None and not AUTHORIZATION.fullmatch(token.get_secret_value()):
        raise SettingsError(f"{PREFIX}AUDIT_SHIP_TOKEN begins with ApiKey, Basic or Bearer, and a space")


def _given(settings: Settings, name: str) -> str | None:
    value = getattr(settings, name)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _is_relative(location: str) -> bool:
    return "://" not in location and not location.startswith("/")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port or an address
        return False


def _has_certificates(path: Path) -> bool:
    try:
        return ssl.create_default_context(cafile=path).cert_store_stats()["x509"] > 0
    except OSError:  # SSLError is one
        return False


def unknown() -> list[str]:
    """Return each variable that looks like a setting and is none: one of them may be misspelt."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def about_unknown(name: str) -> str:
    """Return a sentence about a variable that is no setting, and which one is meant where its name is near to it."""
    near = meant(name.removeprefix(PREFIX), [known.upper() for known in Settings.model_fields])
    return f"{name} is set and is no setting" + (f"; is {PREFIX}{near} meant?" if near else "")


def _names(names: list[str]) -> str:
    return ", ".join(PREFIX + name.upper() for name in names)


def export_environment(**values: str) -> None:
    """Set variables for this process and the programs it starts."""
    os.environ.update(values)


def forget_environment(*names: str) -> None:
    """Take variables away from this process and the programs it starts."""
    for name in names:
        os.environ.pop(name, None)


def ends_with_up() -> bool:
    """Return whether this process was started by `up`, which ends all that it started."""
    return UNDER_UP in os.environ
