"""How the sandbox behaves: faults, latencies and which of the contract's abilities it lacks.

Given at the start, changed at run time through `POST /sandbox/faults`. What they do belongs in the other modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from orders_pipeline.sandbox.faults import Faults

Milliseconds = Annotated[float, Field(ge=0, le=600_000)]


class Options(BaseModel):
    """The sandbox's behaviour; `Options()` keeps the contract and does nothing wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    faults: Faults = Faults()  # of payments and refunds, and of notifications unless those have their own
    notification_faults: Faults | None = None
    lookup_faults: Faults = Faults()  # of every GET below /v1
    latency_ms: Milliseconds = 0.0  # from a request's first bytes on; half passes before the booking, half after
    jitter_ms: Milliseconds = 0.0  # up to this much more, by chance
    notification_latency_ms: Milliseconds | None = None  # None: the same latency
    honour_keys: bool = True  # False: idempotency keys and dedupe keys are ignored
    guard_orders: bool = True  # False: an order that is paid already is charged again
    lookups: bool = True  # False: every look-up is 404
    lookup_lag_s: Annotated[float, Field(ge=0)] = 0.0  # look-ups do not see what is younger
    bulk: bool = False  # True: POST /v1/notifications/batches takes many in one call
    rate_per_s: Annotated[int, Field(ge=1)] = 10  # notification calls accepted in any sliding second
    templates: tuple[str, ...] = ()  # the known ones; empty: every template is known


def changed(options: Options, changes: Mapping[str, object]) -> Options:
    """Return `options` with `changes` by name; raise pydantic's ValidationError where they are not usable."""
    return Options.model_validate({**dict(options), **changes})
