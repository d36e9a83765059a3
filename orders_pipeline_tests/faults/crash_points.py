"""Points at which a command kills itself, as a power cut would: SIGKILL, no clean-up, no rollback.

`CRASH=C15:3` in a command's environment arms one point for its third hit. The points wrap the product's own functions, so
that the product knows nothing of them; what must hold after a restart is said by the tests.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orders_pipeline.payments import settle

VARIABLE = "CRASH"
WAIT = "LOOK_UP_WAIT_S"

Chosen = Callable[..., bool]


def _always(*_arguments: object, **_named: object) -> bool:
    return True


def _statement(*names: str) -> Chosen:
    return lambda _transaction, name, *_rest, **_named: name in names


def _artifact(*names: str) -> Chosen:
    return lambda _store, key, *_rest, **_named: key.rpartition("/")[2] in names


def _post(path: str) -> Chosen:
    return lambda _client, method, called, **_named: method == "POST" and called == path


@dataclass(frozen=True)
class Point:
    """A function of the product, and whether the process dies before or after its n-th call."""

    function: str  # module:Class.name
    dies_after: bool = False
    chosen: Chosen = _always


_TRANSACTION = "orders_pipeline.database:Transaction"
_PUT = "orders_pipeline.storage.folder:FolderStorage.put"
_CALL = "orders_pipeline.http_client:ServiceClient.call"
POINTS = {
    "C02": Point(_PUT, chosen=_artifact("original")),
    "C03": Point(_PUT, dies_after=True, chosen=_artifact("original")),
    "C04": Point("orders_pipeline.intake:import_file", dies_after=True),
    "C04s": Point(f"{_TRANSACTION}.execute", chosen=_statement("set_staged")),
    "C05": Point(f"{_TRANSACTION}.copy", chosen=_statement("copy_orders")),
    "C06": Point(f"{_TRANSACTION}.copy", dies_after=True, chosen=_statement("copy_orders")),
    "C07": Point("orders_pipeline.loading:load", dies_after=True),
    "C08": Point(f"{_TRANSACTION}.execute", chosen=_statement("set_validated")),
    "C09": Point(_PUT, chosen=_artifact("rejected.csv", "errors.csv", "result.json")),
    "C10": Point(_PUT, dies_after=True, chosen=_artifact("rejected.csv", "errors.csv", "result.json")),
    "C11": Point(f"{_TRANSACTION}.execute", chosen=_statement("insert_payments", "insert_notifications")),
    "C12": Point(_CALL, chosen=_post("/v1/payments")),
    "C14": Point(_CALL, dies_after=True, chosen=_post("/v1/payments")),
    "C15": Point(f"{_TRANSACTION}.rows", chosen=_statement("record_payments")),
    "C16": Point("orders_pipeline.payments.settle:PaymentLedger.record", dies_after=True),
    "C17": Point(_CALL, chosen=_post("/v1/notifications")),
    "C18": Point(_CALL, dies_after=True, chosen=_post("/v1/notifications")),
    "C19": Point("orders_pipeline.rate_limit:RateLimiter._take", dies_after=True),
    "C20": Point("orders_pipeline.batches:set_status", chosen=lambda _transaction, _batch, status, *_: status != "paying"),
}
KEY_POINTS = {
    "C22": Point(f"{_TRANSACTION}.execute", dies_after=True, chosen=_statement("reseal_orders")),
    "C22c": Point("orders_pipeline.rotation:_reseal_orders", dies_after=True),
    "C22f": Point(_PUT, chosen=_artifact("accepted.parquet")),
}


def arm() -> None:
    """Wrap the function of the point that the environment names, if it names one; and wait less before look-ups."""
    settle.LOOK_UP_WAIT_S = float(os.environ[WAIT])
    if VARIABLE not in os.environ:
        return
    name, _, hit = os.environ[VARIABLE].partition(":")
    point = (POINTS | KEY_POINTS)[name]
    module, _, place = point.function.partition(":")
    *owners, attribute = place.split(".")
    owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, attribute, _dying(getattr(owner, attribute), point, int(hit)))


def _dying(function: Callable[..., Any], point: Point, hit: int) -> Callable[..., Any]:
    lock, hits = threading.Lock(), 0

    def strike() -> None:
        nonlocal hits
        with lock:
            hits += 1
            if hits == hit:
                os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if not point.chosen(*arguments, **named):
            return function(*arguments, **named)
        if not point.dies_after:
            strike()
        result = function(*arguments, **named)
        if point.dies_after:
            strike()
        return result

    return wrapped
