"""Dagster resources: the opened `System`, handed to assets and sensors as a plain object.

Only opening and closing belongs here; what is opened is made in `system/composition.py`. Commands and tests that run a job
in their own process hand in the system they have opened instead.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Iterator
from typing import Self

import dagster as dg

from orders_pipeline.audit.recording import sign_in
from orders_pipeline.batches import batches
from orders_pipeline.batches.run_processes import run_process
from orders_pipeline.batches.run_tags import PARTITION_TAG, REFUND
from orders_pipeline.orchestration.attribution import asked_for_by
from orders_pipeline.orchestration.dagster_errors import SafeFailure
from orders_pipeline.orchestration.dagster_records import keep_connections
from orders_pipeline.orchestration.run_labels import labelled
from orders_pipeline.orchestration.terminated_runs import is_asked_for, stopping_when_terminated
from orders_pipeline.system import errors
from orders_pipeline.system.composition import Endpoints, System, join_endpoints, open_system
from orders_pipeline.system.session_limit import RUN_POOL_SIZE, TICK_POOL_SIZE
from orders_pipeline.system.settings import SettingsError, load_settings, read_settings
from orders_pipeline.system.whereabouts import whereabouts


@functools.cache
def process_endpoints() -> Endpoints:
    """Return where everything is, and keep what is embedded alive as long as this process."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(join_endpoints(load_settings()))


class SystemResource(dg.ConfigurableResource[System]):
    """The database, services and storage that everything here works with.

    The `ORDERS_` settings of the processes say what they are; to change a value on this page changes nothing.
    """

    environment: str = ""
    database: str = ""
    payment_service: str = ""
    notification_service: str = ""
    storage: str = ""
    landing: str = ""

    @classmethod
    def of_settings(cls) -> Self:
        """Return the resource of the environment's settings, as far as these can be read."""
        try:
            return cls(**whereabouts(read_settings()))
        except SettingsError:  # whoever runs something is told
            return cls()

    @contextlib.contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[System]:
        """Give the opened system and close it at the end."""
        origin = f"run {context.run_id}" if context.run_id else "daemon"
        with contextlib.ExitStack() as stack:
            settings = None
            try:
                settings = load_settings()
                pool_size = RUN_POOL_SIZE if context.run_id else TICK_POOL_SIZE
                actor = None if context.run is None else asked_for_by(context.run, settings)
                system = stack.enter_context(
                    open_system(settings, process_endpoints(), origin, pool_size=pool_size, actor=actor)
                )
                if context.run_id:
                    if context.instance is not None:
                        keep_connections(context.instance)
                    batch_id = None if context.run is None else context.run.tags.get(PARTITION_TAG)
                    stack.enter_context(run_process(system.database, context.run_id, batch_id))
                    sign_in(system.database, system.clients, system.cipher)
                    if batch_id is not None:
                        stack.enter_context(_obeying(context, system, batch_id))
            except Exception as error:  # noqa: BLE001 - the boundary
                raise SafeFailure(errors.report(error, settings, listed=True)) from None
            yield system


@contextlib.contextmanager
def _obeying(context: dg.InitResourceContext, system: System, batch_id: str) -> Iterator[None]:
    """Resume a stopped batch if a person has asked for this run, and stop it when one terminates the run, which is tagged.

    A run that refunds is no word about the rest of its batch.
    """
    run, instance = context.run, context.instance
    if run is None or instance is None:
        raise AssertionError("a run has its records")
    with labelled(system.database, instance, run.run_id, batch_id):
        if run.job_name == REFUND:
            yield
            return
        if is_asked_for(run):
            with system.database.begin() as transaction:
                batches.restart(transaction, batch_id, by_run=True)
        with stopping_when_terminated(system.database, instance, run.run_id, batch_id):
            yield
