"""Runs on the workers of Celery: how a run's id gets into the broker, and the application that both ends share.

The broker is told a run's id and nothing else; the rest is in Dagster's records. Whether a run's process is there is known
from `batches/run_processes.py`, on whichever host it is, and that it is to end from its status: the broker is asked neither.
What a worker does is in `celery_worker.py`.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import dagster as dg
from celery import Celery
from dagster import DagsterEvent, DagsterRunStatus
from dagster._config import UserConfigSchema
from dagster._core.launcher import LaunchRunContext
from dagster._serdes import ConfigurableClassData
from dagster_celery.launcher import CeleryRunLauncher
from kombu.exceptions import OperationalError

from orders_pipeline.orchestration.run_process import cancel
from orders_pipeline.system.settings import PREFIX, Settings, forget_environment, load_settings

QUEUE = "dagster"
RUN_TASK = "orders_pipeline.run"
# each of which Celery takes in place of what it is told
CELERYS_OWN = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")
LONGEST_RUN_S = 24 * 3_600  # Redis offers what was not acknowledged by then to another worker
ANSWER_S = 10
PATIENCE_S = 15.0  # with ANSWER_S less than Dagster's daemon waits at its end for what is under way
POLL_S = 2.0

log = logging.getLogger("orders_pipeline.daemon")


class BrokerUnavailable(Exception):
    """Celery's broker cannot be reached or does not take what it is told."""

    code = "E_BROKER"


class CeleryLauncher(CeleryRunLauncher):
    """Dagster's launcher, but for what it asks of the broker: no state of a run is there, and no run is ended by it."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the settings that dagster.yaml may give: none."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """Make the launcher for the broker that is set."""
        return cls(inst_data=inst_data, default_queue=QUEUE, **connection(load_settings()))

    def launch_run(self, context: LaunchRunContext) -> None:
        """Put a run's id into the queue; while the broker takes none, the run waits in Dagster's."""
        run = context.dagster_run
        given_up = time.monotonic() + PATIENCE_S
        while not self._is_taken(run):
            if not _answers_by(given_up):
                found = self._instance.get_run_by_id(run.run_id)
                if found is not None and found.status is DagsterRunStatus.STARTING:
                    self._instance.report_dagster_event(DagsterEvent.job_enqueue(run), run.run_id)
                return

    def _is_taken(self, run: dg.DagsterRun) -> bool:
        """Offer a run's id to the broker and return whether it has taken it."""
        try:
            self._launch_celery_task_run(run, self.celery.signature(RUN_TASK, (run.run_id,), immutable=True), RUN_TASK)
        except (OperationalError, OSError):
            return False
        return True

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end, wherever its process is; return whether it had not ended yet."""
        return cancel(self._instance, run_id)

    @property
    def supports_resume_run(self) -> bool:
        """Return that no other process goes on with a run: its batch is resumed by another run."""
        return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return that the broker does not know which runs live."""
        return False

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:  # noqa: ARG002
        """Return nothing: there is nowhere to look it up."""
        return None


def connection(settings: Settings) -> dict[str, Any]:
    """Return how both ends reach the broker and treat what is in it; what Celery finds in the environment is forgotten."""
    forget_environment(*CELERYS_OWN)
    url = "" if settings.celery_broker is None else settings.celery_broker.get_secret_value()
    authorities = None if settings.ca_file is None else str(settings.ca_file)
    private: dict[str, dict[str, Any]] = {  # else the one trusts every server, and the other any name
        "amqps": {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": authorities, "server_hostname": None},
        "rediss": {"ssl_cert_reqs": "required", "ssl_ca_certs": authorities, "ssl_check_hostname": True},
    }
    return {
        "broker": url,
        "config_source": {
            "broker_use_ssl": private.get(url.partition(":")[0]),
            "broker_connection_retry_on_startup": True,
            # Redis takes 0 for the most urgent, RabbitMQ for the least: only the second hears of priorities
            "broker_transport_options": {"visibility_timeout": LONGEST_RUN_S, "priority_steps": [0]},
            "result_backend": None,
            "task_ignore_result": True,
            "task_acks_late": True,
            "task_reject_on_worker_lost": False,
            "worker_prefetch_multiplier": 1,
            "worker_enable_remote_control": False,
            "worker_proc_alive_timeout": 60.0,  # a busy host forks slowly
            "worker_redirect_stdouts": False,
        },
    }


def place_of_broker(settings: Settings) -> str:
    """Return where the broker is, for people: a host and a port, if it has them."""
    with contextlib.suppress(ValueError):
        parts = urlsplit("" if settings.celery_broker is None else settings.celery_broker.get_secret_value())
        if parts.hostname:
            return f" (host {parts.hostname}" + (f", port {parts.port})" if parts.port else ")")
    return ""


def _answers_by(given_up: float) -> bool:
    """Wait for the broker and return whether it answers, but not beyond a moment."""
    while time.monotonic() < given_up:
        time.sleep(POLL_S)
        try:
            require_broker(load_settings())
        except BrokerUnavailable as error:
            log.warning("%s: %s; runs wait until it does", error.code, error)
        else:
            return True
    return False


def _is_away(error: BaseException | None) -> bool:
    """Return whether an error, or what was behind it, is one of the network."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error is not None


def require_broker(settings: Settings) -> str:
    """Return that the broker answers; raise BrokerUnavailable."""
    given = connection(settings)
    app = Celery(broker=given["broker"], config_source=given["config_source"])
    try:
        with app.connection_for_write(connect_timeout=ANSWER_S) as opened:
            opened.ensure_connection(max_retries=1, interval_start=0, timeout=ANSWER_S)
    except Exception as error:  # noqa: BLE001 - whatever a transport finds wrong
        says = "does not answer" if _is_away(error) else "does not answer as one, or refuses us"
        raise BrokerUnavailable(f"the broker of {PREFIX}CELERY_BROKER {says}{place_of_broker(settings)}") from None
    return "the broker answers"
