"""The boundary of errors: what is shown of one, and where the rest of it stays."""

from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from orders_pipeline.batches.batches import UnknownBatch
from orders_pipeline.infrastructure.database_errors import (
    ConstraintViolated,
    DatabaseError,
    DatabaseTooOld,
    DatabaseUnavailable,
    RoleMissing,
    _translate,
)
from orders_pipeline.infrastructure.migrations import MigrationError
from orders_pipeline.infrastructure.storage import StorageUnavailable, open_storage
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.security.encryption import Cipher
from orders_pipeline.system import errors
from orders_pipeline.system.errors import UnknownReference, describe, read_details
from orders_pipeline.system.payment_stop import LedgersDiffer, PaymentStop
from orders_pipeline.system.settings import Settings, SettingsError

SECRET = "geheim-4711"


@pytest.fixture
def development(tmp_path):
    return Settings.model_construct(home=tmp_path / "home")


@pytest.fixture
def production(tmp_path):
    return Settings.model_construct(home=tmp_path / "home", env="production")


@pytest.fixture
def storage(tmp_path):
    cipher = Cipher({"k1": bytes(32)}, "k1")
    return open_storage(str(tmp_path / "storage"), s3_endpoint_url=None, s3_kms_key_id=None, cipher=cipher)


def unforeseen():
    try:
        try:
            raise KeyError(SECRET)
        except KeyError:
            raise ValueError("no such " + SECRET) from None
    except ValueError as error:
        return error


def reference_in(said):
    return said.rpartition("reference ")[2]


def everything_in(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_in_development_our_own_sentence_is_said(development):
    assert describe(ConstraintViolated("23505", "orders_key"), development) == "E_CONSTRAINT: orders_key"
    assert not development.home.exists()


def test_in_production_there_is_the_code_and_a_reference(production, storage):
    said = describe(ConstraintViolated("23505", "orders_key"), production, storage)
    assert said == f"E_CONSTRAINT: reference {reference_in(said)}"
    assert "orders_key" in read_details(storage, reference_in(said))


def test_in_production_the_log_says_what_the_database_calls_its_error(production, storage):
    for sqlstate, condition in (("42501", "42501 insufficient_privilege"), ("99Z99", "99Z99")):
        said = describe(DatabaseError(sqlstate), production, storage)
        (line,) = errors.explain(reference_in(said), production, lambda: storage).listed
        assert f"DatabaseError ({condition}) E_DATABASE: " in line


@pytest.mark.parametrize(
    "error",
    [
        FileRejected("F_EMPTY"),
        SettingsError("E_SETTINGS: please set ORDERS_HOME"),
        UnknownBatch("E_UNKNOWN_BATCH: there is none"),
        LedgersDiffer(PaymentStop("storage", datetime(2026, 7, 1, tzinfo=UTC))),
        MigrationError("E_MIGRATION: run `orders-pipeline db migrate`"),
        DatabaseTooOld("15.18", 16),
        RoleMissing('The "app"'),
    ],
)
def test_what_somebody_can_do_something_about_is_said_in_production_too(production, error):
    assert describe(error, production) == str(error)
    assert not production.home.exists()


def test_what_was_behind_our_sentence_is_kept_in_production(production, storage):
    try:
        try:
            raise OSError(SECRET)
        except OSError:
            raise StorageUnavailable from None
    except StorageUnavailable as error:
        said = describe(error, production, storage)
    assert said == f"{StorageUnavailable()}; reference {reference_in(said)}"
    assert SECRET in read_details(storage, reference_in(said))


@pytest.mark.parametrize("env", ["development", "production"])
def test_the_unforeseen_is_a_reference_and_its_words_and_causes_are_sealed(tmp_path, env, storage):
    settings = Settings.model_construct(home=tmp_path / "home", env=env)
    said = describe(unforeseen(), settings, storage)
    assert said.startswith("E_UNEXPECTED: ")
    assert SECRET not in said
    assert SECRET.encode() not in everything_in(tmp_path)
    details = read_details(storage, reference_in(said))
    assert details.index("ValueError") < details.index("KeyError")
    assert details.count(SECRET) >= 2


def test_errors_log_lists_the_reference_and_the_code_and_is_its_owners_alone(development, storage):
    said = describe(unforeseen(), development, storage)
    log = development.home / "errors.log"
    assert log.stat().st_mode & 0o777 == 0o600
    (line,) = log.read_text("utf-8").splitlines()
    words = ["E_UNEXPECTED:", "something", "unforeseen", "happened"]
    assert line.split()[1:] == [reference_in(said), "builtins.ValueError", *words]


class Away:
    def head(self, key):
        raise StorageUnavailable

    def put(self, key, source):
        raise StorageUnavailable


@pytest.mark.parametrize("opened", [True, False])
def test_where_nothing_can_be_kept_the_log_says_where_it_happened_and_no_value(development, opened):
    describe(unforeseen(), development, Away() if opened else None)
    log = (development.home / "errors.log").read_text("utf-8")
    assert f"{Path(__file__).name}:" in log
    assert SECRET not in log


def test_what_passes_by_itself_is_not_kept_at_every_try(production, storage, tmp_path):
    describe(DatabaseUnavailable(None), production, storage)
    assert not list(tmp_path.glob("storage/errors/*"))


def test_an_error_of_every_tick_is_kept_and_listed_once_an_hour(production, storage, tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "_hour", lambda: "2026-07-01T12")
    said = {describe(unforeseen(), production, storage) for _ in range(20)}
    describe(ConstraintViolated("23505", "orders_key"), production, storage)
    assert len(said) == 1
    assert len(list(tmp_path.glob("storage/errors/*"))) == 2
    monkeypatch.setattr(errors, "_hour", lambda: "2026-07-01T13")
    describe(unforeseen(), production, storage)
    assert len((production.home / "errors.log").read_text("utf-8").splitlines()) == 3


def test_a_long_errors_log_is_begun_anew_and_the_one_before_kept(development, storage):
    log = development.home / "errors.log"
    log.parent.mkdir(parents=True)
    log.write_text("x" * errors.LOG_BYTES + "\n")
    describe(unforeseen(), development, storage)
    assert len(log.read_text("utf-8").splitlines()) == 1
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.with_suffix(".log.1").stat().st_size == errors.LOG_BYTES + 1


def test_an_errors_log_that_another_process_puts_aside_just_then_is_its_owners_alone_too(development, monkeypatch):
    log = development.home / "errors.log"
    log.parent.mkdir(exist_ok=True)
    monkeypatch.setattr(Path, "read_text", lambda path, *_: str(path.unlink()))
    assert errors.note(development, "0" * 12, "E_TEST: text")
    assert log.stat().st_mode & 0o777 == 0o600


def test_what_errors_log_lists_is_explained_whether_or_not_anything_was_kept(development, storage):
    reference = reference_in(describe(unforeseen(), development))
    for opened in (lambda: storage, Away):
        known = errors.explain(reference, development, opened)
        assert known.details is None
        assert "builtins.ValueError E_UNEXPECTED" in known.listed[0]
        assert f"{Path(__file__).name}:" in known.listed[1]
    assert "E_STORAGE_UNAVAILABLE" in known.listed[-1]
    log = development.home / "errors.log"
    log.rename(log.with_suffix(".log.1"))
    assert errors.explain(reference, development, Away).listed[:2] == known.listed[:2]
    with pytest.raises(StorageUnavailable):
        errors.explain("0123456789ab", development, Away)


def test_of_what_the_system_refused_errors_log_has_its_word_and_no_name(development):
    describe(OSError(28, SECRET, SECRET), development)
    log = (development.home / "errors.log").read_text("utf-8")
    assert "builtins.OSError (No space left on device) E_UNEXPECTED" in log
    assert SECRET not in log


def test_an_id_of_dagsters_leads_to_what_was_kept(development, storage):
    masked = "97cb909e-0000-4000-8000-000000000000"
    errors.note(development, masked, describe(unforeseen(), development, storage))
    known = errors.explain(masked, development, lambda: storage)
    assert "E_UNEXPECTED" in known.listed[0]
    assert SECRET in known.details


def test_what_is_to_be_listed_says_in_words_what_it_was_and_is_listed_once(development, storage):
    error = ConstraintViolated("23505", "orders_key")
    told, *again = [errors.report(error, development, storage, listed=True) for _ in range(3)]
    assert (told.is_new, [each.is_new for each in again]) == (True, [False, False])
    assert told.text == "E_CONSTRAINT: orders_key"
    (line,) = errors.explain(told.reference, development, lambda: storage).listed
    assert line.endswith("ConstraintViolated (23505 unique_violation) E_CONSTRAINT: orders_key")


@pytest.mark.parametrize("reference", ["0123456789ab", "../../home/x", "", "0123456789AB"])
def test_an_unknown_reference_is_refused(storage, reference):
    with pytest.raises(UnknownReference):
        read_details(storage, reference)


def test_details_that_were_put_under_another_reference_do_not_open(production, storage, tmp_path):
    first, second = (
        reference_in(describe(error, production, storage)) for error in (unforeseen(), ConstraintViolated("23505", "key"))
    )
    folder = tmp_path / "storage" / "errors"
    (folder / first).write_bytes((folder / second).read_bytes())
    with pytest.raises(Exception, match="E_SEALED_TAMPERED"):
        read_details(storage, first)


def test_a_home_that_cannot_be_written_takes_nothing_from_the_answer(tmp_path):
    (tmp_path / "home").write_text("a file")
    said = describe(unforeseen(), Settings.model_construct(home=tmp_path / "home"))
    assert said.startswith(errors.UNEXPECTED)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'connection failed: connection to server at "db.example.com" (192.0.2.7), port 5432 failed: Connection refused',
            "no connection: connection refused (host db.example.com, port 5432)",
        ),
        (
            "failed to resolve host 'db.example.com': [Errno -2] Name",
            "no connection: failed to resolve host (host db.example.com)",
        ),
        (
            'connection to server on socket "/geheim/.s.PGSQL.5432" failed: No such file or directory',
            "no connection: no such file",
        ),
        (
            'connection to server at "db", port 5 failed: FATAL: password authentication failed for user "geheim"',
            "the server refuses the user, the password or the database's name (host db, port 5)",
        ),
        (
            'connection to server at "certificate.recovery", port 5 failed: Connection refused',
            "no connection: connection refused (host certificate.recovery, port 5)",
        ),
        ("the connection is lost", "E_DATABASE_UNAVAILABLE: the connection was lost"),
        (
            "consuming input failed: server closed the connection unexpectedly",
            "E_DATABASE_UNAVAILABLE: the connection was lost",
        ),
    ],
)
def test_a_server_that_cannot_be_reached_is_named_with_the_cause(said, told):
    text = str(_translate(psycopg.OperationalError(said)))
    assert told in text
    assert "geheim" not in text


AT = 'connection failed: connection to server at "db" (192.0.2.7), port 5 failed: '
LOGIN, TLS, URL, AWAY = "E_DATABASE_LOGIN", "E_DATABASE_TLS", "E_DATABASE_URL", "E_DATABASE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("said", "code", "told"),
    [
        ("FATAL:  connection requires a valid client certificate", LOGIN, "wants a certificate of this user"),
        ("SSL error: tlsv13 alert certificate required", LOGIN, "wants a certificate of this user"),
        ("SSL error: ssl/tls alert certificate revoked", LOGIN, "wants a certificate of this user"),
        ("SSL error: tlsv1 alert unknown ca", LOGIN, "wants a certificate of this user"),
        ("SSL error: certificate verify failed: unable to get local issuer certificate", TLS, "offers no TLS that is asked"),
        ('root certificate file "/geheim/root.crt" does not exist', TLS, "set ORDERS_CA_FILE"),
        ('could not read certificate file "/geheim": No such file or directory', URL, "are not files with a certificate"),
        ('private key file "/geheim" has group or world access', URL, "its owner alone may read"),
        (
            'FATAL:  no pg_hba.conf entry for host "192.0.2.8", user "geheim", database "x", no encryption',
            LOGIN,
            "without TLS",
        ),
        ('FATAL:  role "geheim" is not permitted to log in', LOGIN, "refuses the user"),
        ("received invalid response to SSL negotiation: H", URL, "no PostgreSQL server"),
        ("FATAL:  sorry, too many clients already", AWAY, "no session left"),
        ("FATAL:  the database system is starting up", AWAY, "is starting or stopping"),
        ("session is read-only", AWAY, "takes no writes"),
        ("server closed the connection unexpectedly\n\tThis probably means the", AWAY, "hung up without a word"),
        ("SSL SYSCALL error: EOF detected", AWAY, "hung up without a word"),
        ('FATAL:  ユーザー"geheim"のパスワード認証に失敗しました', AWAY, "in words that we do not know"),
    ],
)
def test_why_there_is_no_connection_is_told_in_our_words(said: str, code: str, told: str) -> None:
    text = str(_translate(psycopg.OperationalError(AT + said)))
    assert text.startswith(f"{code}: ")
    assert told in text
    assert text.endswith("(host db, port 5)")
    assert "geheim" not in text


def test_a_refusal_with_and_without_tls_is_no_matter_of_tls() -> None:
    entry = 'FATAL:  no pg_hba.conf entry for host "192.0.2.8", user "u", database "d", '
    text = str(_translate(psycopg.OperationalError(f"{AT}{entry}SSL encryption\n{AT}{entry}no encryption")))
    assert "does not let this user into this database from here (host db, port 5)" in text
