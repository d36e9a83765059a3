"""The audit benchmark: what a file's load costs with the audit's triggers, against the same load with them switched off.

    python -m orders_pipeline_tests.benchmarks.audit --rows 10000 --rounds 7
    python -m orders_pipeline_tests.benchmarks.audit --rows 1000000 --rounds 1 --warm-ups 0 --intake-only

Both take turns in fresh databases on one server, and what is compared is their medians: of COPY into `orders`
alone, and of the whole intake. Also a seal, a verification, and an update of every row. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from pydantic import SecretStr

from orders_pipeline.audit.sealing import seal
from orders_pipeline.audit.verifying import verify
from orders_pipeline.infrastructure.database import Database
from orders_pipeline_tests.benchmarks.contestants import STEPS, Contest, opened_batch
from orders_pipeline_tests.benchmarks.intake import Server, started_server, write_file

TABLES = ("batches", "orders", "rejections", "corrections")
UPDATE = "UPDATE orders SET status = 'paying', status_changed_at = clock_timestamp()"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(server: Server, source: Path, *, audited: bool, intake_only: bool) -> dict[str, float]:
    """Take a file in, update all its orders, seal and verify; return the seconds of each."""
    with server.clone() as name:
        if not audited:
            for table in TABLES:
                for event in ("insert", "update", "delete"):
                    server.run(name, f"ALTER TABLE {table} DISABLE TRIGGER audit_{event}")
        seconds = {}
        with opened_batch(Contest(str(source), "", server.named(name))) as (system, batch_id):
            for step, work in STEPS.items():
                seconds[step] = timed(partial(work, system, batch_id))
            seconds["whole intake"] = sum(seconds.values())
            if intake_only:
                return seconds
            seconds["update of every order"] = timed(lambda: server.run(name, UPDATE))
            if audited:
                with contextlib.closing(Database(SecretStr(server.named(name)))) as database:
                    seconds["seal"] = timed(lambda: seal(database))
                    seconds["verify"] = timed(lambda: verify(database, system.storage))
        return seconds


def main(rows: Sequence[int], rounds: int, warm_ups: int, *, intake_only: bool) -> None:
    """Print a table for each number of rows."""
    with tempfile.TemporaryDirectory(prefix="audit-benchmark-") as home, started_server(Path(home)) as server:
        for count in rows:
            source = Path(home) / "orders.csv"
            write_file(source, count, 0.01)
            found: dict[bool, dict[str, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
            for number in range(rounds + warm_ups):
                for audited in (True, False) if number % 2 else (False, True):
                    for name, seconds in measure(server, source, audited=audited, intake_only=intake_only).items():
                        if number >= warm_ups:
                            found[audited][name].append(seconds)
            say(f"\n{count:,} rows, median of {rounds}\n\n| | without | with | ratio |\n|---|---|---|---|")
            for name, seconds in found[True].items():
                without, audited_s = median(found[False].get(name, [0.0])), median(seconds)
                ratio = f"{audited_s / without:.2f}" if without else ""
                say(f"| {name} | {without:.3f} s | {audited_s:.3f} s | {ratio} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm-ups", type=int, default=1)
    parser.add_argument("--intake-only", action="store_true")
    arguments = parser.parse_args()
    main(arguments.rows, arguments.rounds, arguments.warm_ups, intake_only=arguments.intake_only)
