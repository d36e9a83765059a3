"""The command line: parse, call a use case, answer in words or JSON, and say by the exit status how it went.

One module for each family of commands. Use cases are imported where they are called, so that `--help` does not wait for
pandas and Dagster.
"""

from orders_pipeline.cli import (  # noqa: F401 - each adds its commands
    audit,
    batches,
    db,
    keys,
    reconcile,
    refund,
    resolve,
    samples,
    status,
    supervised,
    system,
    tokens,
    webhooks,
)
from orders_pipeline.cli.command import main as main
