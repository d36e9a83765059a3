"""D17 and S10: private connections in production, against a real PostgreSQL server and a real https service."""

from __future__ import annotations

import contextlib
import shutil
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest
from pydantic import SecretStr

from orders_pipeline.infrastructure import database as database_module
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.infrastructure.database_errors import (
    DatabaseError,
    DatabaseLoginRefused,
    DatabaseNotNamed,
    DatabaseNotPrivate,
    DatabaseUnavailable,
)
from orders_pipeline.infrastructure.database_url import dagster_url, libpq_url, private_url
from orders_pipeline.infrastructure.storage import StorageUnavailable, open_storage
from orders_pipeline.sandbox.certificates import Authority
from orders_pipeline.security.kms import KeyService, KeyServiceUnavailable
from orders_pipeline.services.answers import NoAnswer, NotDelivered
from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.system.composition import join_endpoints
from orders_pipeline.system.settings import SettingsError, load_settings
from orders_pipeline_tests.support import commands
from orders_pipeline_tests.support.tls_server import TlsPostgres, https_service, tls_postgres

EXPIRED = timedelta(days=-1)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "Ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"), "Somebody else")


@pytest.fixture(scope="module")
def server(ours: Authority) -> Iterator[TlsPostgres]:
    with tls_postgres(ours.issue("database", "localhost")) as started:
        yield started


@pytest.fixture(autouse=True)
def any_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the server that the system has, if it is too old for us, too: it is only connected to."""
    monkeypatch.setattr(database_module, "OLDEST", 0)


def connect(url: SecretStr) -> tuple[bool, str]:
    """Connect as the pipeline does and say whether that was over TLS, and its version."""
    with contextlib.closing(Database(url)) as database, database.session() as session:
        row = session._connection.exec_driver_sql("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").one()
        return row.ssl, row.version


def test_s10_the_right_certificate_is_taken_over_tls_1_3_by_us_and_by_dagster(server: TlsPostgres, ours: Authority) -> None:
    url = private_url(SecretStr(server.url()), ours.ca_file)
    assert connect(url) == (True, "TLSv1.3")
    dagsters = dagster_url(url, "public").get_secret_value().replace("+psycopg2", "")
    with contextlib.closing(psycopg2.connect(dagsters)) as connection:
        assert connection.info.ssl_attribute("protocol") == "TLSv1.3"
        with connection.cursor() as cursor:  # the sessions of a host that vanished are dropped
            cursor.execute("SHOW tcp_user_timeout")
            assert cursor.fetchone() == ("30000",)
    assert "sslmode=verify-full" in libpq_url(url)


def refuse(url: SecretStr, kind: type[DatabaseError], says: str = "") -> None:
    with pytest.raises(kind) as refused:
        connect(url)
    assert refused.value.code in str(refused.value)
    assert says in str(refused.value)
    assert "planted" not in str(refused.value)
    assert refused.value.is_transient is (kind is DatabaseUnavailable)


@pytest.mark.parametrize(
    ("host", "settings"),
    [("127.0.0.1", {}), ("localhost", {"ssl": "off"}), ("localhost", {"ssl_max_protocol_version": "TLSv1.2"})],
    ids=["another host's certificate", "no TLS", "TLS 1.2 at most"],
)
def test_s10_d17_what_is_not_private_is_refused(server: TlsPostgres, ours: Authority, host: str, settings: dict) -> None:
    server.change(**settings)
    try:
        refuse(private_url(SecretStr(server.url(host)), ours.ca_file), DatabaseNotPrivate)
    finally:
        server.change(ssl="on", ssl_max_protocol_version="")


def test_s10_d17_an_unknown_authority_and_an_expired_certificate_are_refused(
    server: TlsPostgres, ours: Authority, theirs: Authority
) -> None:
    refuse(private_url(SecretStr(server.url()), theirs.ca_file), DatabaseNotPrivate)
    server.show(ours.issue("expired", "localhost", until=EXPIRED))
    try:
        refuse(private_url(SecretStr(server.url()), ours.ca_file), DatabaseNotPrivate)
    finally:
        server.show(ours.issue("database", "localhost"))


def test_d17_a_wrong_password_is_told_by_its_code_alone(server: TlsPostgres, ours: Authority) -> None:
    for wrong in ("orders:planted-wrong", "planted-nobody:planted-secret"):
        url = server.url().replace("orders:planted-secret", wrong)
        refuse(private_url(SecretStr(url), ours.ca_file), DatabaseLoginRefused)


@pytest.fixture
def rules(server: TlsPostgres) -> Iterator[Callable[[str], None]]:
    """Put a rule before those of pg_hba.conf, until the test ends."""
    file = server.folder / "data" / "pg_hba.conf"
    before = file.read_text()

    def put(rule: str) -> None:
        file.write_text(f"{rule}\n{before}")
        server.change()

    yield put
    file.write_text(before)
    server.change()


def test_d17_a_server_that_wants_a_certificate_of_ours_says_so_whatever_it_is_shown(
    server: TlsPostgres, ours: Authority, theirs: Authority, rules: Callable[[str], None], tmp_path: Path
) -> None:
    shutil.copyfile(ours.ca_file, server.folder / "clients.pem")
    server.change(ssl_ca_file=server.folder / "clients.pem")
    rules("hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca")

    def url(certificate: tuple[Path, Path] | None) -> SecretStr:
        named = {} if certificate is None else dict(zip(("sslcert", "sslkey"), map(str, certificate), strict=True))
        return private_url(SecretStr(server.url(**named)), ours.ca_file)

    right = ours.issue("client", "orders")
    assert connect(url(right)) == (True, "TLSv1.3")
    for wrong in (None, theirs.issue("client", "orders"), ours.issue("over", "orders", until=EXPIRED)):
        refuse(url(wrong), DatabaseLoginRefused, "the server wants a certificate")
    refuse(url((right[0], tmp_path / "nowhere.key")), DatabaseNotNamed, "sslcert and sslkey of ORDERS_DATABASE_URL are not")
    right[1].chmod(0o644)
    refuse(url(right), DatabaseNotNamed, "its owner alone may read")


def test_d17_what_keeps_a_login_out_is_told_by_what_it_is(
    server: TlsPostgres, ours: Authority, rules: Callable[[str], None]
) -> None:
    rules("hostnossl all all 127.0.0.1/32 reject")
    refuse(SecretStr(server.url(sslmode="disable")), DatabaseLoginRefused, "from here without TLS (host 127.0.0.1")
    server.run("ALTER ROLE orders CONNECTION LIMIT 0")
    refuse(private_url(SecretStr(server.url()), ours.ca_file), DatabaseUnavailable, "no session left for this login")
    server.run("ALTER ROLE orders CONNECTION LIMIT -1 NOLOGIN")
    refuse(private_url(SecretStr(server.url()), ours.ca_file), DatabaseLoginRefused, "refuses the user")
    server.run("ALTER ROLE orders LOGIN")
    refuse(private_url(SecretStr(server.url().replace("/postgres?", "/planted?")), ours.ca_file), DatabaseLoginRefused)
    refuse(private_url(SecretStr(server.url()), None), DatabaseNotPrivate, "set ORDERS_CA_FILE")


def test_d17_a_command_in_production_says_what_is_wrong_with_the_database(server: TlsPostgres, theirs: Authority) -> None:
    ended = commands.call(production(server.url(), theirs.ca_file), "status")
    assert ended.returncode == 2
    assert "E_DATABASE_TLS" in ended.stderr
    assert "planted" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:planted@db/orders?sslmode=require",
        "postgresql://u:planted@db/orders?sslmode=disable",
        "postgresql://u:planted@db/orders?ssl_min_protocol_version=TLSv1.2",
        "postgresql://u:planted@db/orders?gssencmode=prefer",
        "postgresql://u:planted@/orders?host=/var/run/postgresql",
        "postgresql://u:planted@%2Fvar%2Frun/orders",
        "postgresql://u:planted@db/orders?host=/var/run/postgresql",
        "postgresql://u:planted@/orders?host=db,/var/run/postgresql",
        "postgresql:///orders",
        "planted",
    ],
)
def test_s10_a_database_url_that_asks_for_less_is_refused_in_production(url: str, monkeypatch) -> None:
    for name, value in production(url, None).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="ORDERS_DATABASE_URL") as refused, join_endpoints(load_settings()):
        pass
    assert "planted" not in str(refused.value)


def production(database_url: str, ca_file: Path | None) -> dict[str, str]:
    return {
        "ORDERS_ENV": "production",
        "ORDERS_HOME": "/nonexistent/planted",
        "ORDERS_DATABASE_URL": database_url,
        "ORDERS_STORAGE_URL": "/nonexistent/planted",
        "ORDERS_PAYMENT_URL": "https://payments.example.com",
        "ORDERS_PAYMENT_TOKEN": "planted",
        "ORDERS_NOTIFICATION_URL": "https://notifications.example.com",
        "ORDERS_NOTIFICATION_TOKEN": "planted",
        "ORDERS_ENCRYPTION_KEYS": "planted:" + "A" * 43 + "=",
        "ORDERS_CA_FILE": str(ca_file or ""),
    }


def client(host: str, port: int, ca_file: Path | None) -> ServiceClient:
    return ServiceClient(f"https://{host}:{port}", SecretStr("planted"), 5.0, ca_file)


def test_s10_a_service_with_the_right_certificate_is_asked(ours: Authority) -> None:
    with https_service(*ours.issue("service", "localhost")) as (port, asked):
        assert client("localhost", port, ours.ca_file).call("GET", "/x").status == 200
        assert asked == ["/x"]


def test_s10_a_service_that_is_not_proven_or_not_private_is_asked_nothing(ours: Authority, theirs: Authority) -> None:
    right, expired = ours.issue("service", "localhost"), ours.issue("expired", "localhost", until=EXPIRED)
    cases = [
        ("127.0.0.1", right, ours, None, "certificate"),
        ("localhost", right, theirs, None, "certificate"),
        ("localhost", right, None, None, "certificate"),
        ("localhost", expired, ours, None, "certificate"),
        ("localhost", right, ours, ssl.TLSVersion.TLSv1_2, "no TLS 1.3"),
    ]
    for host, certificate, believed, newest, why in cases:
        with https_service(*certificate, newest) as (port, asked):
            with pytest.raises(NotDelivered) as refused:
                client(host, port, believed.ca_file if believed else None).call("GET", "/x")
            assert why in refused.value.why
            assert asked == []


def test_y01_a_service_that_talks_no_tls_was_asked_nothing(sandbox) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(NotDelivered):
        client("127.0.0.1", port, None).call("GET", "/x")


def test_s10_a_bucket_or_kms_behind_an_unknown_certificate_is_told_nothing(
    ours: Authority, theirs: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-1")
    monkeypatch.setattr("orders_pipeline.infrastructure.storage.s3.SERVICE_TRIES", 1)
    monkeypatch.setattr("orders_pipeline.security.kms.TRIES", 1)
    with https_service(*ours.issue("bucket", "localhost")) as (port, asked):
        for authority, believed in ((theirs, False), (ours, True)):
            url = f"https://localhost:{port}"
            store = open_storage("s3://bucket/x", s3_endpoint_url=url, s3_kms_key_id=None, ca_file=authority.ca_file)
            with pytest.raises(StorageUnavailable) as refused:
                store.delete("a/b")
            assert (bool(asked), refused.value.code == "E_STORAGE_TLS") == (believed, not believed)
            kms = KeyService("planted", url, authority.ca_file)
            with pytest.raises(KeyServiceUnavailable) as unanswered:
                kms.new_data_key("k")  # what answers is no KMS
            assert ("certificate" in str(unanswered.value)) != believed


def test_an_exchange_that_breaks_after_the_handshake_is_still_in_doubt(ours: Authority, monkeypatch) -> None:
    from http.server import BaseHTTPRequestHandler

    with https_service(*ours.issue("service", "localhost")) as (port, asked):
        monkeypatch.setattr(BaseHTTPRequestHandler, "send_response", lambda self, *_: self.connection.close())
        with pytest.raises(NoAnswer):
            client("localhost", port, ours.ca_file).call("GET", "/x")
        assert asked == ["/x"]
