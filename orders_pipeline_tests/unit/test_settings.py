"""Settings: production makes nothing up, and no error, repr or text shows a value that was set."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest
from pydantic import ValidationError

from orders_pipeline.system.embedded import require_sandbox_options
from orders_pipeline.system.settings import REQUIRED_IN_PRODUCTION, SettingsError, about_unknown, load_settings

COMPLETE = {
    "ORDERS_ENV": "production",
    "ORDERS_HOME": "/var/lib/orders-pipeline",
    "ORDERS_DATABASE_URL": "postgresql://user:planted@db/orders",
    "ORDERS_STORAGE_URL": "/var/lib/orders",
    "ORDERS_PAYMENT_URL": "https://payments.example.com",
    "ORDERS_PAYMENT_TOKEN": "planted",
    "ORDERS_NOTIFICATION_URL": "https://notifications.example.com",
    "ORDERS_NOTIFICATION_TOKEN": "planted",
    "ORDERS_ENCRYPTION_KEYS": "k1:planted",
}


@pytest.fixture
def environment(monkeypatch):
    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def test_development_needs_no_setting_at_all():
    settings = load_settings()
    assert (settings.is_production, settings.database_url, settings.payment_url) == (False, None, None)


def test_the_defaults_are_those_that_the_services_contract_states():
    settings = load_settings()
    assert (settings.payment_timeout_s, settings.notification_timeout_s) == (30, 10)
    assert (settings.notification_rate_per_s, settings.payment_concurrency) == (10, 32)
    assert (settings.max_rows, settings.max_bytes) == (10_000, 20 * 1024 * 1024)


def test_production_names_everything_that_is_missing(environment):
    environment(ORDERS_ENV="production")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    for name in COMPLETE.keys() - {"ORDERS_ENV", "ORDERS_HOME"}:
        assert name in str(refused.value)


@pytest.mark.parametrize("name", [f"ORDERS_{name.upper()}" for name in REQUIRED_IN_PRODUCTION])
def test_production_names_the_one_setting_that_is_missing_and_no_other(environment, name):
    environment(**{key: value for key, value in COMPLETE.items() if key != name})
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert name in str(refused.value)
    assert not any(other in str(refused.value) for other in COMPLETE.keys() - {"ORDERS_ENV", name})
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize("name", [f"ORDERS_{name.upper()}" for name in REQUIRED_IN_PRODUCTION])
def test_in_production_an_empty_setting_is_a_missing_one(environment, name):
    environment(**COMPLETE | {name: ""})
    with pytest.raises(SettingsError, match=name):
        load_settings()


@pytest.mark.parametrize(
    "name",
    [
        "ORDERS_PAYMENT_URL",
        "ORDERS_NOTIFICATION_URL",
        "ORDERS_S3_ENDPOINT_URL",
        "ORDERS_ALERT_URL",
        "ORDERS_AUDIT_SHIP_ENDPOINT_URL",
    ],
)
def test_s10_in_production_services_are_reached_over_https_only(environment, name):
    environment(**COMPLETE | {name: "http://planted.example.com"})
    with pytest.raises(SettingsError, match=name) as refused:
        load_settings()
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "is_right"),
    [
        ("cloudwatch://orders/main", True),
        ("cloudwatch:///aws/orders/audit/main", True),
        ("https://search.example.com:9200/orders-audit", True),
        ("https://user:planted@search.example.com/orders-audit", False),
        ("https://search.example.com/", False),
        ("cloudwatch://orders", False),
        ("planted", False),
    ],
)
def test_where_the_audit_is_sent_is_one_of_the_forms_there_are(environment, url, is_right):
    environment(ORDERS_AUDIT_SHIP_URL=url)
    if is_right:
        assert load_settings().audit_ship_url == url
        return
    with pytest.raises(SettingsError, match="ORDERS_AUDIT_SHIP_URL is cloudwatch://GROUP/STREAM or") as refused:
        load_settings()
    assert "planted" not in str(refused.value)


def test_the_audit_is_sent_by_https_in_production_and_with_a_header_that_there_is(environment):
    environment(**COMPLETE | {"ORDERS_AUDIT_SHIP_URL": "http://planted.example.com/audit"})
    with pytest.raises(SettingsError, match="begin with https://: ORDERS_AUDIT_SHIP_URL"):
        load_settings()
    environment(ORDERS_AUDIT_SHIP_URL="https://planted.example.com/audit", ORDERS_AUDIT_SHIP_TOKEN="planted")
    with pytest.raises(SettingsError, match="ORDERS_AUDIT_SHIP_TOKEN begins with ApiKey, Basic or Bearer") as refused:
        load_settings()
    assert "planted" not in str(refused.value)
    environment(ORDERS_AUDIT_SHIP_TOKEN="ApiKey planted")
    assert "planted" not in repr(load_settings().audit_ship_token)


def test_in_production_a_bucket_has_a_key_of_its_own(environment):
    environment(**COMPLETE | {"ORDERS_STORAGE_URL": "s3://bucket/prefix"})
    with pytest.raises(SettingsError, match="ORDERS_S3_KMS_KEY_ID"):
        load_settings()
    environment(ORDERS_S3_KMS_KEY_ID="alias/orders")
    assert load_settings().s3_kms_key_id == "alias/orders"


MANY_HOSTS = {
    "ORDERS_DATABASE_URL": "postgresql://user:planted@db/orders",
    "ORDERS_STORAGE_URL": "s3://bucket",
    "ORDERS_PAYMENT_URL": "https://payments.example.com",
    "ORDERS_NOTIFICATION_URL": "https://notifications.example.com",
    "ORDERS_ENCRYPTION_KEYS": "k1:planted",
    "ORDERS_RUN_LAUNCHER": "celery",
    "ORDERS_CELERY_BROKER": "redis://:planted@broker",
}


@pytest.mark.parametrize("name", sorted(MANY_HOSTS.keys() - {"ORDERS_RUN_LAUNCHER"}))
def test_on_many_hosts_what_home_would_hold_for_one_is_asked_for(environment, name):
    environment(**MANY_HOSTS)
    assert load_settings().has_many_hosts
    environment(**{name: ""})
    with pytest.raises(SettingsError, match=f"please set {name}$") as refused:
        load_settings()
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize("name", ["ORDERS_STORAGE_URL", "ORDERS_LANDING_URL"])
def test_on_many_hosts_no_folder_is_taken(environment, name):
    environment(**MANY_HOSTS | {name: "/planted"})
    with pytest.raises(SettingsError, match=f"these begin with s3:// there: {name}$"):
        load_settings()


def test_kubernetes_asks_for_an_image(environment):
    environment(**MANY_HOSTS | {"ORDERS_RUN_LAUNCHER": "kubernetes", "ORDERS_CELERY_BROKER": ""})
    with pytest.raises(SettingsError, match=r"please set ORDERS_KUBERNETES_IMAGE$"):
        load_settings()


def test_a_launcher_that_is_not_installed_says_what_to_install(environment, monkeypatch):
    environment(**MANY_HOSTS)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'orders-pipeline\[celery\]'"):
        load_settings()


@pytest.mark.parametrize("url", ["amqp://planted", "redis://planted", "rediss://planted?ssl_cert_reqs=none", "planted"])
def test_in_production_the_broker_is_reached_over_tls_only(environment, url):
    environment(**COMPLETE | MANY_HOSTS | {"ORDERS_S3_KMS_KEY_ID": "alias/orders", "ORDERS_CELERY_BROKER": "amqps://broker"})
    assert load_settings().celery_broker is not None
    environment(ORDERS_CELERY_BROKER=url)
    with pytest.raises(SettingsError, match="ORDERS_CELERY_BROKER begins with amqps:// or rediss://") as refused:
        load_settings()
    assert "planted" not in str(refused.value)


def test_a_file_of_authorities_that_is_not_there_is_said_at_once(environment):
    environment(ORDERS_CA_FILE="/nonexistent/planted.pem")
    with pytest.raises(SettingsError, match="ORDERS_CA_FILE") as refused:
        load_settings()
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "planted", "-----BEGIN PRIVATE KEY-----\nplanted\n-----END PRIVATE KEY-----\n"])
def test_a_file_of_authorities_without_one_is_said_at_once(environment, tmp_path, content):
    path = tmp_path / "planted.pem"
    path.write_text(content)
    environment(ORDERS_CA_FILE=str(path))
    with pytest.raises(SettingsError, match="ORDERS_CA_FILE is not a file with certificates"):
        load_settings()
    environment(ORDERS_CA_FILE=certifi.where())
    assert load_settings().ca_file


@pytest.mark.parametrize(
    "value", ["planted", "planted:8080", "ftp://planted", "https://", "https://planted:99999", "http://["]
)
@pytest.mark.parametrize("name", ["PAYMENT_URL", "NOTIFICATION_URL", "S3_ENDPOINT_URL", "KMS_ENDPOINT_URL"])
def test_what_is_no_url_of_a_server_is_said_at_once(environment, name, value):
    environment(**{f"ORDERS_{name}": value})
    with pytest.raises(SettingsError, match=f"no URLs of a server: ORDERS_{name}") as refused:
        load_settings()
    assert "planted" not in str(refused.value)


def test_production_with_everything_set_starts(environment):
    environment(**COMPLETE)
    assert load_settings().is_production


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ORDERS_ENV", "planted"),
        ("ORDERS_PAYMENT_TIMEOUT_S", "planted"),
        ("ORDERS_PAYMENT_TIMEOUT_S", "0"),
        ("ORDERS_PAYMENT_TIMEOUT_S", "-1"),
        ("ORDERS_PAYMENT_TIMEOUT_S", "301"),
        ("ORDERS_PAYMENT_CONCURRENCY", "0"),
        ("ORDERS_PAYMENT_CONCURRENCY", "257"),
        ("ORDERS_PAYMENT_CONCURRENCY", "1.5"),
        ("ORDERS_NOTIFICATION_RATE_PER_S", "0"),
        ("ORDERS_NOTIFICATION_RATE_PER_S", "planted"),
        ("ORDERS_NOTIFICATION_TIMEOUT_S", "nan"),
        ("ORDERS_MAX_ROWS", "0"),
        ("ORDERS_MAX_BYTES", "20MB-planted"),
        ("ORDERS_MAX_CONCURRENT_RUNS", "0"),
        ("ORDERS_MAX_CONCURRENT_RUNS", "513"),
        ("ORDERS_RUN_LAUNCHER", "planted"),
    ],
)
def test_a_setting_that_is_not_usable_is_named_without_its_value(environment, name, value):
    environment(**{name: value})
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert name in str(refused.value)
    assert "planted" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_what_a_setting_must_be_is_said_in_our_words(environment):
    environment(
        ORDERS_ENV="test",
        ORDERS_MAX_ROWS="many",
        ORDERS_PAYMENT_CAPABILITIES="keys;list",
        ORDERS_PAYMENT_TIMEOUT_S="91",
        ORDERS_NOTIFICATION_TIMEOUT_S="0",
        ORDERS_PROXY_SECRET="short",
        ORDERS_WEBHOOK_PRIVATE_ADDRESSES="perhaps",
    )
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value).removeprefix("these settings are not usable: ").split("; ") == [
        "ORDERS_ENV (this must be 'development' or 'production')",
        "ORDERS_MAX_ROWS (this must be a whole number)",
        "ORDERS_NOTIFICATION_TIMEOUT_S (this must be more than 0)",
        "ORDERS_PAYMENT_CAPABILITIES (this must be none, or some of keys, look-up and list, with commas between)",
        "ORDERS_PAYMENT_TIMEOUT_S (this must be 90 or less)",
        "ORDERS_PROXY_SECRET (this must have 32 or more)",
        "ORDERS_WEBHOOK_PRIVATE_ADDRESSES (this must be true or false)",
    ]


@pytest.mark.parametrize("name", ["ORDERS_HOME", "ORDERS_STORAGE_URL", "ORDERS_LANDING_URL"])
def test_in_production_no_folder_depends_on_where_a_command_is_started(environment, name):
    environment(**COMPLETE | {name: "planted/folder"})
    with pytest.raises(SettingsError, match=f"these are whole paths, from /: {name}$") as refused:
        load_settings()
    assert "planted" not in str(refused.value)
    environment(**{name: "/var/lib/orders" if name == "ORDERS_HOME" else "file:///var/lib/orders"})
    assert load_settings().is_production


def test_all_unusable_settings_are_named_at_once(environment):
    environment(ORDERS_MAX_ROWS="none", ORDERS_PAYMENT_CONCURRENCY="none")
    with pytest.raises(SettingsError, match=r"(?s)ORDERS_MAX_ROWS.*ORDERS_PAYMENT_CONCURRENCY"):
        load_settings()


def test_no_text_of_the_settings_shows_a_secret(environment):
    environment(**COMPLETE)
    settings = load_settings()
    assert "planted" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_settings_cannot_be_changed_once_they_are_read():
    with pytest.raises(ValidationError):
        load_settings().max_rows = 1


def test_variables_that_are_not_ours_are_left_alone(environment):
    environment(MAX_ROWS="5", ORDERS_SOMETHING_ELSE="x")
    assert load_settings().max_rows == 10_000


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAX_ROW", "MAX_ROWS"),
        ("CLIENT_FILE", "CLIENTS_FILE"),
        ("STORAGE", "STORAGE_URL"),
        ("NOTIFICATION_RATE", "NOTIFICATION_RATE_PER_S"),  # by its letters nearer to NOTIFICATION_TOKEN
        ("APROVAL", None),
        ("X", None),
        ("PAYMENT", None),  # several begin so
        ("MAX_RUNS", None),
        ("DAGSTER_HOME", None),
    ],
)
def test_a_setting_is_said_to_be_meant_only_where_its_name_is_near(name, meant):
    hint = f"; is ORDERS_{meant} meant?" if meant else ""
    assert about_unknown(f"ORDERS_{name}") == f"ORDERS_{name} is set and is no setting{hint}"


def test_the_store_and_the_landing_are_in_home_unless_said_otherwise(environment, tmp_path):
    environment(ORDERS_HOME=str(tmp_path))
    settings = load_settings()
    assert settings.storage_location == str(tmp_path / "storage")
    assert settings.landing_location == f"{tmp_path}/storage/landing"


def test_the_landing_lies_in_the_store_that_was_set(environment):
    environment(ORDERS_STORAGE_URL="s3://bucket/prefix/")
    assert load_settings().landing_location == "s3://bucket/prefix/landing"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('{"falts": "decline=0.02"}', "these are wrong: falts"),
        ('{"faults": "planted=0.02", "latency_ms": -1}', "these are wrong: faults, latency_ms"),
        ("planted", "this must be a JSON object"),
        ("[]", "this must be a JSON object"),
    ],
)
def test_options_of_the_sandbox_are_refused_before_it_starts(options, said):
    with pytest.raises(SettingsError) as refused:
        require_sandbox_options(options)
    assert str(refused.value) == f"ORDERS_SANDBOX_OPTIONS is not usable ({said})"


def test_a_relative_home_is_made_absolute_for_other_processes(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment(ORDERS_HOME="here")
    assert Path(load_settings().storage_location) == tmp_path / "here" / "storage"
