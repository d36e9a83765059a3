"""Points at which a command kills itself, as a power cut would: SIGKILL, no clean-up, no rollback.

`CRASH=C15:3` in a command's environment arms one point for its third hit; `CRASH_COUNT=FILE` only counts the hits of all.
The points wrap the product's own functions, so that the product knows nothing of them; what must hold after a restart is
said by the tests.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orders_pipeline.batches import heartbeat, workers
from orders_pipeline.settlement.payments.ledger import PaymentLedger
from orders_pipeline.settlement.refunds.ledger import RefundLedger

VARIABLE = "CRASH"
COUNT = "CRASH_COUNT"
WAIT = "LOOK_UP_WAIT_S"

Chosen = Callable[..., bool]


def _always(*_arguments: object, **_named: object) -> bool:
    return True


def _statement(*names: str) -> Chosen:
    return lambda _transaction, name, *_rest, **_named: name in names


def _artifact(*names: str) -> Chosen:
    return lambda _store, key, *_rest, **_named: key.rpartition("/")[2] in names


def _is_at_rest(_transaction: object, _batch_id: str, status: str, *_rest: object, **_named: object) -> bool:
    return status != "paying"


def _post(path: str) -> Chosen:
    return lambda _client, method, called, *_rest, **_named: method == "POST" and called.endswith(path)


@dataclass(frozen=True)
class Point:
    """A function of the product, and whether the process dies before or after its n-th call."""

    function: str  # module:Class.name
    dies_after: bool = False
    chosen: Chosen = _always


_TRANSACTION = "orders_pipeline.infrastructure.database:Transaction"
_FOLDER = "orders_pipeline.infrastructure.storage.folder:FolderStorage"
_PUT = f"{_FOLDER}.put"
_CALL = "orders_pipeline.services.http_client:ServiceClient.call"
_REQUEST = "orders_pipeline.services.http_connections:_Connection.request"
POINTS = {
    "C02": Point(_PUT, chosen=_artifact("original")),
    "C03": Point(_PUT, dies_after=True, chosen=_artifact("original")),
    "C04": Point("orders_pipeline.intake.file_import:import_file", dies_after=True),
    "C04s": Point(f"{_TRANSACTION}.execute", chosen=_statement("set_staged")),
    "C05": Point(f"{_TRANSACTION}.copy", chosen=_statement("copy_orders")),
    "C06": Point(f"{_TRANSACTION}.copy", dies_after=True, chosen=_statement("copy_orders")),
    "C07": Point("orders_pipeline.intake.loading:load", dies_after=True),
    "C08": Point(f"{_TRANSACTION}.execute", chosen=_statement("set_validated")),
    "C09": Point(_PUT, chosen=_artifact("rejected.csv", "errors.csv", "result.json")),
    "C10": Point(_PUT, dies_after=True, chosen=_artifact("rejected.csv", "errors.csv", "result.json")),
    "C11": Point(f"{_TRANSACTION}.execute", chosen=_statement("insert_payments", "insert_notifications")),
    "C12": Point(_CALL, chosen=_post("/v1/payments")),
    "C13": Point(
        "orders_pipeline.services.http_connections:_Connection.request", dies_after=True, chosen=_post("/v1/payments")
    ),
    "C14": Point(_CALL, dies_after=True, chosen=_post("/v1/payments")),
    "C15": Point(f"{_TRANSACTION}.rows", chosen=_statement("record_payments")),
    "C16": Point("orders_pipeline.settlement.payments.ledger:PaymentLedger.record", dies_after=True),
    "C17": Point(_CALL, chosen=_post("/v1/notifications")),
    "C18": Point(_CALL, dies_after=True, chosen=_post("/v1/notifications")),
    "C19": Point("orders_pipeline.services.rate_limit:RateLimiter._take", dies_after=True),
    "C20": Point("orders_pipeline.batches.batches:set_status", chosen=_is_at_rest),
}
# passed by `cancel`, each once: the first before it is committed that nothing more is sent, the last when all is called off
CANCEL_POINTS = {
    "K1": Point("orders_pipeline.upkeep.cancelling:begin", dies_after=True),
    "K2": Point("orders_pipeline.upkeep.cancelling:_look_up"),
    "K3": Point("orders_pipeline.upkeep.cancelling:_look_up", dies_after=True),
    "K4": Point(f"{_TRANSACTION}.execute", chosen=_statement("cancel_orders")),
    "K5": Point("orders_pipeline.intake.steps:give_up_loading"),
    "K6": Point("orders_pipeline.reports.finishing:finish_batch"),
    "K7": Point("orders_pipeline.reports.finishing:finish_batch", dies_after=True),
}
# passed by `serve`, each once for a file that is sent to the batch API
SERVE_POINTS = {
    "A1": Point(f"{_TRANSACTION}.execute", dies_after=True, chosen=_statement("insert_api_request")),
    "A2": Point("orders_pipeline.intake.file_import:register", dies_after=True),
    "A3": Point("orders_pipeline.web.run_hint:RunHint.give", dies_after=True),
}
# passed by who loads a batch that needs approval, by `approve`, and by `refuse` before it passes those of a cancellation
WAITING_POINTS = {
    "W1": Point("orders_pipeline.batches.batches:final_status"),
    "W2": Point("orders_pipeline.batches.batches:set_status", dies_after=True, chosen=_is_at_rest),
    "W3": Point("orders_pipeline.reports.finishing:finish_batch", dies_after=True),
}
APPROVING_POINTS = {
    "V1": Point("orders_pipeline.upkeep.approval:approve", dies_after=True),
    "V2": Point("orders_pipeline.cli.batches:_resumed"),
    "V3": Point("orders_pipeline.settlement.payments.settle:plan_batch"),
}
REFUSING_POINTS = {
    "V4": Point("orders_pipeline.upkeep.approval:refuse", dies_after=True),
    "V5": Point("orders_pipeline.cli.batches:_end_cancelled"),
}
# not on the way of a file: passed by `refund`, `audit seal`, `keys rotate` and `db migrate`
OTHER_POINTS = (
    CANCEL_POINTS
    | SERVE_POINTS
    | WAITING_POINTS
    | APPROVING_POINTS
    | REFUSING_POINTS
    | {
        "C11r": Point("orders_pipeline.settlement.batch_settlement:probe_now"),
        "C12r": Point(_CALL, chosen=_post("/refunds")),
        "C13r": Point(
            "orders_pipeline.services.http_connections:_Connection.request", dies_after=True, chosen=_post("/refunds")
        ),
        "C14r": Point(_CALL, dies_after=True, chosen=_post("/refunds")),
        "C15r": Point(f"{_TRANSACTION}.execute", chosen=_statement("plan_corrections")),
        "C16r": Point("orders_pipeline.settlement.refunds.ledger:RefundLedger.record", dies_after=True),
        "C21": Point(f"{_TRANSACTION}.scalar", chosen=_statement("audit_seal")),
        "C21s": Point(f"{_TRANSACTION}.scalar", dies_after=True, chosen=_statement("audit_seal")),
        "C22": Point(f"{_TRANSACTION}.execute", dies_after=True, chosen=_statement("reencrypt_orders")),
        "C22c": Point("orders_pipeline.upkeep.key_rotation:_reencrypt_orders", dies_after=True),
        "C22f": Point(f"{_FOLDER}.delete", chosen=_artifact("accepted.parquet")),
        "C24": Point(f"{_TRANSACTION}.script", dies_after=True),
    }
)


def arm() -> None:
    """Wrap the function of the point that the environment names, if it names one; and wait less before look-ups."""
    PaymentLedger.doubt_s = RefundLedger.doubt_s = float(os.environ[WAIT])
    workers.LEASE_S, heartbeat.HEARTBEAT_S = 4.0, 0.5  # a look-up waits for a killed worker's lease too
    if COUNT in os.environ:
        hits: list[str] = []
        for name in POINTS:
            _wrap(name, functools.partial(hits.append, name))
        atexit.register(lambda: Path(os.environ[COUNT]).write_text(json.dumps(Counter(hits))))
    elif VARIABLE in os.environ:
        name, _, hit = os.environ[VARIABLE].partition(":")
        _wrap(name, _Strike(int(hit)))


class _Strike:
    """Kills the process when it is called for the n-th time."""

    def __init__(self, hit: int) -> None:
        self._left = hit
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _wrap(name: str, strike: Callable[[], None]) -> None:
    point = (POINTS | OTHER_POINTS)[name]
    module, _, place = point.function.partition(":")
    *owners, attribute = place.split(".")
    owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
    function = getattr(owner, attribute)

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

    setattr(owner, attribute, wrapped)
