"""The known ways out: how a value leaves a program by default, and what the product does in the same place.

Each pair meets the same mishap with the same value. `by_default` uses the library as it comes; `in_product` goes through
the product's own part. Whether the value got out is decided in the test.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pytest
import requests
import rich.console
import rich.traceback
import sqlalchemy as sa
from pydantic import BaseModel, SecretStr, ValidationError
from requests.adapters import HTTPAdapter

from orders_pipeline.batches.batches import Source, plan_import, register_import
from orders_pipeline.clients import profiles
from orders_pipeline.infrastructure.database import Database
from orders_pipeline.orchestration.assets.boundary import paused
from orders_pipeline.orchestration.resources import SystemResource
from orders_pipeline.records.judgement import Judge
from orders_pipeline.records.orders import ORDERS
from orders_pipeline.records.rejections import message
from orders_pipeline.sandbox import SandboxServer
from orders_pipeline.security import personal_data
from orders_pipeline.services.answers import NoAnswer, NotDelivered
from orders_pipeline.services.http_client import ServiceClient
from orders_pipeline.system.errors import describe
from orders_pipeline.system.settings import load_settings
from orders_pipeline_tests.leaks.bench import Bench
from orders_pipeline_tests.support.factories import judge_rows, order_row, raw_cells, row_context

Way = Callable[[Bench, str], object]
TABLE = "CREATE TABLE IF NOT EXISTS leak_bench (ref text UNIQUE, yen int CHECK (yen > 0))"
NOBODY = "http://127.0.0.1:9"  # nothing listens at the port that discards


@dataclass(frozen=True)
class KnownWay:
    """A way out by default, and the product's part in its place."""

    by_default: Way
    in_product: Way


def _engine(bench: Bench, **options: object) -> sa.Engine:
    url = sa.make_url(bench.system.database.url.get_secret_value()).set(drivername="postgresql+psycopg")
    return sa.create_engine(url, poolclass=sa.NullPool, **options)


def _insert_twice(bench: Bench, value: str) -> None:
    with _engine(bench, hide_parameters=True).begin() as connection:
        connection.execute(sa.text(TABLE))
        for _ in range(2):
            connection.execute(sa.text("INSERT INTO leak_bench VALUES (:ref, 1)"), {"ref": value})


def _script(bench: Bench, *statements: str) -> None:
    with bench.system.database.begin() as transaction:
        for statement in (TABLE, *statements):
            transaction.script(statement)


def _statement_parameters(bench: Bench, value: str) -> None:
    with _engine(bench).begin() as connection:
        connection.execute(sa.text("SELECT CAST(:cell AS integer)"), {"cell": value})


def _statement_parameters_in_product(bench: Bench, value: str) -> None:
    with bench.system.database.begin() as transaction:
        transaction.execute("insert_file_rejection", batch_id=value, line=None, column_name="", code="F_", detail=value)


def _check_violated(bench: Bench, value: str) -> None:
    with _engine(bench, hide_parameters=True).begin() as connection:
        connection.execute(sa.text(TABLE))
        connection.execute(sa.text("INSERT INTO leak_bench VALUES (:ref, -1)"), {"ref": value})


def _log_in(bench: Bench, value: str) -> None:
    sa.create_engine(sa.make_url(str(_engine(bench).url)).set(username=value)).connect()


def _log_in_in_product(bench: Bench, value: str) -> None:
    url = sa.make_url(bench.system.database.url.get_secret_value()).set(username=value, password=value)
    with contextlib.closing(Database(SecretStr(url.render_as_string(hide_password=False)))) as database, database.begin():
        pass


def _server_path(bench: Bench, value: str) -> None:
    with _engine(bench, hide_parameters=True).begin() as connection:
        connection.connection.cursor().execute(f"COPY batches TO '/nowhere/{value}'")


def _judge(column: str) -> Way:
    """Return the product's judgement of a cell, said in the log as it would be."""

    def judge(bench: Bench, value: str) -> list[list[tuple[str, str]]]:
        judged = judge_rows([order_row(**{column: value})])
        assert any(judged.codes), "the cell must be wrong"
        bench.say(str([(column, code, message(code, "en")) for found in judged.found for column, code in found]))
        return judged.found

    return judge


def _pandera(_: Bench, value: str) -> None:
    schema = pandera.DataFrameSchema({"quantity": pandera.Column(str, pandera.Check.str_matches("^[0-9]+$"))})
    schema.validate(pd.DataFrame({"quantity": [value]}), lazy=True)


def _last_word(_: Bench, value: str) -> None:
    cells = raw_cells([order_row(payment_method=value)])
    judge = Judge(ORDERS, row_context())
    judge.confirm(judge.judge(pa.array([1], pa.int32()), cells)[0])


class _Order(BaseModel):
    amount: int


def _settings(_: Bench, value: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ORDERS_MAX_ROWS", value)
        environment.setenv("ORDERS_ENV", value)
        load_settings()


def _settings_and_profile(bench: Bench, value: str) -> None:
    file = bench.system.settings.home / "clients.toml"
    file.write_text(f'[shop]\nmax_rows = "{value}"\n', "utf-8")
    try:
        profiles.read_clients(file)
    except profiles.ClientsError as error:
        file.unlink()
        bench.say(describe(error, bench.system.settings, bench.system.storage))
    _settings(bench, value)


def _key_error(_: Bench, value: str) -> str:
    return {"C-001": "見本"}[value]


def _get(path: str, token: str | None = None) -> Way:
    """Return a call of the product's client to `path`, in which the value stands for braces."""

    def call(bench: Bench, value: str) -> None:
        secret = None if token is None else SecretStr(token.format(value))
        for url in (bench.system.endpoints.payment_url, NOBODY):
            client = ServiceClient(url, secret, timeout_s=2.0)
            try:
                bench.say(str(client.call("GET", path, query={"reference": value})))
            except (NoAnswer, NotDelivered) as failure:
                bench.say(f"{failure!r}")
        client.call("GET", path, query={"reference": value})

    return call


def _reason(_: Bench, value: str) -> None:
    response = requests.Response()
    response.status_code, response.reason, response.url = 500, value, NOBODY
    response.raise_for_status()


def _chained(_: Bench, value: str) -> None:
    try:
        int(value)
    except ValueError as error:
        raise RuntimeError("the amount is not usable") from error


def _failure_metadata(_: Bench, value: str) -> None:
    raise dg.Failure("the row is wrong", metadata={"row": value})


def _paused(bench: Bench, value: str) -> None:
    with bench.system.database.begin() as transaction:
        batch_id, again_no = plan_import(transaction, "shop", "0" * 64, again=False)
        source = Source(f"{value}.csv", sha256="0" * 64, size=1)
        assert register_import(transaction, batch_id, "shop", source, again_no=again_no)
    raise paused(bench.system, batch_id)


class _Service(dg.ConfigurableResource):
    token: str


def _repr_of_resource(bench: Bench, value: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BENCH_TOKEN", value)
        resource = _Service(token=dg.EnvVar("BENCH_TOKEN"))
        bench.say(repr(resource.process_config_and_initialize()))


def _repr_in_product(bench: Bench, value: str) -> None:
    settings = bench.system.settings.model_copy(
        update={"payment_token": SecretStr(value), "database_url": SecretStr(f"postgresql://u:{value}@h/d")}
    )
    client = ServiceClient(NOBODY, SecretStr(value), timeout_s=1.0)
    bench.say(repr([SystemResource(), settings, client, bench.system]))
    bench.say(repr(vars(client)))


def _retry_logged(_: Bench, value: str) -> None:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=1))
    session.get(NOBODY, params={"email": value})


def _locals_shown(bench: Bench, value: str) -> None:
    customer_name = value
    try:
        del customer_name
        row = {"customer_name": value}
        int(row["quantity"])
    except KeyError:
        rich.console.Console(file=bench.log).print(rich.traceback.Traceback(show_locals=True))


def _log_exception(_: Bench, value: str) -> str:
    row = {"customer_name": value}
    return row["quantity"]


def _body_echoed(bench: Bench, value: str) -> None:
    try:
        _Order.model_validate({"amount": value})
    except ValidationError as error:  # what a web framework answers a request with that does not fit its model
        bench.say(json.dumps(error.errors(include_url=False)))


def _body_in_product(bench: Bench, value: str) -> None:
    with SandboxServer() as sandbox:
        for body in ({"amount": value}, {"amount": 1, "reference": {"a": value}}, value):
            answered = requests.post(f"{sandbox.url}/v1/payments", json=body, headers={"Idempotency-Key": "k-1"}, timeout=5)
            assert answered.status_code >= 400
            bench.say(f"{answered.status_code} {dict(answered.headers)} {answered.text}")


def _seal_and_count(bench: Bench, value: str) -> int:
    """Keep rows where they are kept, sealed and by their batch, and return how many."""
    rows = pa.record_batch({"import_row_number": [1], "customer_name": [value]})
    sealed = personal_data.encrypter(bench.system.cipher, "b-1")(rows).to_pylist()
    bench.system.storage.put("batches/b-1/accepted", b"".join(sealed))
    return len(sealed)


def _printed(_: Bench, value: str) -> None:
    print("customer", value, flush=True)  # noqa: T201 - the way itself
    sys.stdout.flush()


SOURCE = "def settle():\n    raise LookupError()  # {}\n"


def _source_line(bench: Bench, value: str) -> None:
    path = Path(bench.system.settings.home) / "module_of_ours.py"
    path.write_text(SOURCE.format(value), "utf-8")
    scope: dict[str, Callable[[], None]] = {}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), scope)
    scope["settle"]()


def _logged_with_stack(_: Bench, value: str) -> None:
    try:
        int(value)
    except ValueError:
        logging.getLogger("library").exception("retrying")
        raise


KNOWN_WAYS: Mapping[str, KnownWay] = {
    "parameters of a statement": KnownWay(_statement_parameters, _statement_parameters_in_product),
    "key that is there already": KnownWay(
        _insert_twice, lambda bench, value: _script(bench, *[f"INSERT INTO leak_bench VALUES ('{value}', 1)"] * 2)
    ),
    "row that breaks a check": KnownWay(
        _check_violated, lambda bench, value: _script(bench, f"INSERT INTO leak_bench VALUES ('{value}', -1)")
    ),
    "user of the database": KnownWay(_log_in, _log_in_in_product),
    "path on the database server": KnownWay(
        _server_path, lambda bench, value: _script(bench, f"COPY batches TO '/nowhere/{value}'")
    ),
    "failure cases of a schema": KnownWay(_pandera, _last_word),
    "cast of a column": KnownWay(
        lambda _, value: pd.Series([value]).astype("int64"),
        _judge("unit_price"),
    ),
    "int of a cell": KnownWay(lambda _, value: int(value), _judge("amount")),
    "input of a model": KnownWay(lambda _, value: _Order.model_validate({"amount": value}), _settings_and_profile),
    "key of a mapping": KnownWay(_key_error, _key_error),
    "query of a URL": KnownWay(lambda _, value: requests.get(NOBODY, params={"q": value}), _get("/v1/payments")),
    "URL of a bad answer": KnownWay(
        lambda bench, value: requests.get(f"{bench.system.endpoints.payment_url}/none/{value}").raise_for_status(),
        lambda bench, value: _get(f"/none/{value}")(bench, value),
    ),
    "reason of a bad answer": KnownWay(_reason, _get("/v1/none")),
    "token in a bad header": KnownWay(
        lambda _, value: requests.get(NOBODY, headers={"Authorization": f"Bearer {value}\n"}),
        _get("/v1/payments", "{}\n"),
    ),
    "cause of an exception": KnownWay(_chained, _chained),
    "metadata of a failure": KnownWay(_failure_metadata, _paused),
    # the value is in the run's config, from which an op takes it; the product's comes out of its settings
    "config of a run": KnownWay(lambda *_: None, _get("/v1/payments/none", "{}")),
    "repr of a resource": KnownWay(_repr_of_resource, _repr_in_product),
    "output of an op": KnownWay(lambda _, value: {"rows": [value]}, _seal_and_count),
    "print in an op": KnownWay(_printed, _printed),
    "source line of a stack": KnownWay(_source_line, _source_line),
    "retry that is logged": KnownWay(_retry_logged, _get("/v1/notifications")),
    "locals of a stack": KnownWay(_locals_shown, _log_exception),
    "request echoed by a service": KnownWay(_body_echoed, _body_in_product),
}
