"""What `cancel` says before it asks: what stays paid, and how many notifications are never sent."""

from __future__ import annotations

import io
from types import SimpleNamespace

import click
import pytest

from orders_pipeline.cli import batches


@pytest.mark.parametrize("unsent", [0, 1474])
def test_who_cancels_is_told_what_stays_paid_and_what_nobody_is_notified_of(monkeypatch, capsys, unsent):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr(click, "confirm", lambda *_, **__: False)
    sent = {"notifications_sent": 26, "notifications_failed": 0, "notifications_cancelled": 0}
    batch = SimpleNamespace(batch_id="B", orders_paid=589, notifications_planned=26 + unsent, **sent)
    assert not batches._agreed(batch, "why", "who", yes=False)
    said = "".join(capsys.readouterr())
    assert "589 orders are paid so far" in said
    assert ("at most 1,474 notifications are never sent" in said) == bool(unsent)
