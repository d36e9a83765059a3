"""A harness to stage order files at: writes bytes to a folder of its own, stages them, and shows what came of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orders_pipeline.intake.csv_file import Dialect, Limits, StagedFile, read_records, stage
from orders_pipeline.records.rejections import FileRejected

NAMES = {
    "client_order_ref": "client_order_ref",
    "注文番号": "client_order_ref",
    "customer_name": "customer_name",
    "得意先名": "customer_name",
    "email": "email",
    "amount": "amount",
    "金額": "amount",
}
REQUIRED = ("client_order_ref", "customer_name", "amount")
HEADER = "client_order_ref,customer_name,amount\r\n"
ROWS = "A-1,山田,1000\r\nA-2,鈴木,2000\r\n"
LIMITS = Limits()


class Harness:
    """Stages texts and bytes in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "orders.csv"
        self.staged = folder / "staged.parquet"

    def stage(
        self,
        data: bytes | str,
        limits: Limits = LIMITS,
        delimiter: str = ",",
        amount: str | None = None,
        *,
        has_quotes: bool = True,
    ) -> StagedFile:
        self.source.write_bytes(data.encode() if isinstance(data, str) else data)
        return stage(
            self.source,
            self.staged,
            header_names=NAMES,
            required=REQUIRED,
            limits=limits,
            dialect=Dialect(delimiter, has_quotes),
            amount=amount,
        )

    def refusal(
        self, data: bytes | str, limits: Limits = LIMITS, delimiter: str = ",", amount: str | None = None
    ) -> FileRejected:
        with pytest.raises(FileRejected) as caught:
            self.stage(data, limits, delimiter, amount)
        assert not self.staged.exists()
        assert sorted(path.name for path in self.source.parent.iterdir()) == ["orders.csv"]
        return caught.value

    def rows(self) -> list[dict[str, object]]:
        return pq.read_table(self.staged).to_pylist()

    def column(self, name: str) -> list[object]:
        return [row[name] for row in self.rows()]

    def records(self) -> list[bytes]:
        return list(read_records(self.source, [(row["offset"], row["length"]) for row in self.rows()]))
