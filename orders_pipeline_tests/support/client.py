"""A client who sends files and corrects what comes back; orders are loaded and not paid, which is quick."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orders_pipeline.intake import file_import, steps
from orders_pipeline.reports import finishing, report_files, summaries
from orders_pipeline.system.composition import System
from orders_pipeline_tests.support.databases import kept_connection
from orders_pipeline_tests.support.factories import order_row

Rows = list[dict[str, str]]
NAME = "株式会社みどり"
STEPS = (steps.stage_batch, steps.validate_batch, steps.load_batch)


@dataclass
class Client:
    """A client who sends files and corrects what comes back; orders are loaded and not paid."""

    system: System
    folder: Path
    code: str
    files: int = field(default=0)

    def write(self, rows: Sequence[dict[str, str]], *, encoding: str = "utf-8", cells: Sequence[str] = ()) -> Path:
        self.files += 1
        path = self.folder / f"orders-{self.files}.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.writer(file)
            writer.writerow(rows[0])
            writer.writerows([*row.values()] for row in rows)
            if cells:
                writer.writerow(cells)
        return path

    def receive(self, path: Path) -> str:
        return file_import.import_file(self.system, path, self.code, again=False)

    def load(self, batch_id: str) -> dict[str, Any]:
        for step in STEPS:
            step(self.system, batch_id)
        finishing.finish_batch(self.system.storage, self.system.database, batch_id)
        return summaries.summarise(self.system, batch_id)

    def send(self, *rows: dict[str, str], encoding: str = "utf-8", cells: Sequence[str] = ()) -> dict[str, Any]:
        return self.load(self.receive(self.write(rows, encoding=encoding, cells=cells)))

    def back(self, summary: dict[str, Any]) -> Rows:
        """Return the rows of a batch's rejected.csv."""
        with report_files.report(self.system.storage, self.system.database, summary["batch_id"], "rejected") as path:
            assert path is not None
            text = path.read_bytes().decode({"cp932": "cp932"}.get(summary["encoding"], "utf-8-sig"))
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def references(self) -> list[str]:
        orders = self.query(f"SELECT client_order_ref FROM orders WHERE client_code = '{self.code}'")
        return sorted(ref for (ref,) in orders)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with kept_connection(self.system.database.url) as connection:
            return connection.execute(statement.encode()).fetchall()


def order(reference: str, **cells: str) -> dict[str, str]:
    return order_row(client_order_ref=reference, customer_name=NAME, **cells)
