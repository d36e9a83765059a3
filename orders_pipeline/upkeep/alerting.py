"""Alerts: a failed run is told to the address that the operator has set, as JSON without anything personal.

Which runs have failed is seen in `orchestration/sensors.py`. Whatever becomes of an alert, nothing waits for it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from pydantic import SecretStr

from orders_pipeline.services.answers import NoAnswer, NotDelivered
from orders_pipeline.services.http_client import post_outside
from orders_pipeline.system.settings import Settings

TIMEOUT_S = 5.0
TRIES = 2
PAUSE_S = 1.0


@dataclass(frozen=True)
class FailedRun:
    """A run that failed for good: of which job and batch, if of one, and why, if that has a code."""

    run_id: str
    job: str
    batch_id: str | None
    code: str | None
    failed_at: str

    def body(self, dagster_url: str | None) -> bytes:
        """Return what is told; `text` is for programs that show a sentence."""
        about = f"batch {self.batch_id}" if self.batch_id else self.job
        link = None if dagster_url is None else f"{dagster_url.rstrip('/')}/runs/{self.run_id}"
        says = {
            "event": "run.failed",
            "text": f"orders-pipeline: {about} failed" + (f": {self.code}" if self.code else ""),
            "job": self.job,
            "batch_id": self.batch_id,
            "code": self.code,
            "run_id": self.run_id,
            "failed_at": self.failed_at,
            "link": link,
        }
        return json.dumps(says).encode()


def alert(settings: Settings, url: SecretStr, failed: FailedRun) -> str | None:
    """Tell of a failed run; return in words what was in the way, None if it was taken."""
    body, trouble = failed.body(settings.dagster_url), None
    for number in range(TRIES):
        time.sleep(PAUSE_S * number)
        trouble = _post(settings, url, body)
        if trouble is None:
            break
    return trouble


def _post(settings: Settings, url: SecretStr, body: bytes) -> str | None:
    headers = {"Content-Type": "application/json"}
    try:
        answer = post_outside(
            url.get_secret_value(),
            body,
            headers,
            timeout_s=TIMEOUT_S,
            may_call=lambda _: True,  # the operator's own address
            ca_file=settings.ca_file,
        )
    except (NotDelivered, NoAnswer) as failure:
        return failure.why
    return None if 200 <= answer.status < 300 else f"it answers {answer.status}"
