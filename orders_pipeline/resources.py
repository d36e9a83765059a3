"""Dagster resources: the opened `System`, handed to assets and sensors as a plain object.

Only opening and closing belongs here; what is opened is made in `system.py`. Commands and tests that run a job in their
own process hand in the system they have opened instead.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Iterator

import dagster as dg

from orders_pipeline import errors
from orders_pipeline.audit.recording import sign_in
from orders_pipeline.settings import load_settings
from orders_pipeline.system import Endpoints, System, join_endpoints, open_system
from orders_pipeline.workers import behind_run


@functools.cache
def process_endpoints() -> Endpoints:
    """Return where everything is, and keep what is embedded alive as long as this process."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(join_endpoints(load_settings()))


class SystemResource(dg.ConfigurableResource[System]):
    """Opens the system of the environment's settings for one run or tick."""

    @contextlib.contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[System]:
        """Give the opened system and close it at the end."""
        origin = f"run {context.run_id}" if context.run_id else "daemon"
        with contextlib.ExitStack() as stack:
            settings = None
            try:
                settings = load_settings()
                system = stack.enter_context(open_system(settings, process_endpoints(), origin))
                if context.run_id:
                    stack.enter_context(behind_run(system.database, context.run_id))
                    sign_in(system.database, system.clients, system.cipher)
            except Exception as error:  # noqa: BLE001 - the boundary
                raise dg.Failure(errors.describe(error, settings)) from None
            yield system
