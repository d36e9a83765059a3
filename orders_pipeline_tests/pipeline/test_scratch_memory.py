"""How much memory the files of a batch take while it is processed: README says at most how much."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.infrastructure import scratch
from orders_pipeline_tests.support.installation import Installation, prepare

pytestmark = pytest.mark.soak

ROWS = 8_000
TIMES, BYTES_A_ROW = 2.5, 200
PERSONAL = ("customer_name", "customer_name_kana", "email", "phone", "postal_code", "ship_to_address", "note")
SHORTEST = (
    {"customer_code": "C", "payment_method": "invoice", "amount": "1"} | dict.fromkeys(PERSONAL, "1") | {"email": "a@b.cc"}
)
CLIENTS = Clients({"shop": Profile(), "lines": Profile(lines="grouped")})


def as_csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*rows[0]])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def zipped(rows: list[dict[str, str]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("orders.csv", as_csv(rows))
    return packed.getvalue()


def as_json(rows: list[dict[str, str]]) -> bytes:
    return json.dumps(rows).encode()


@pytest.mark.parametrize(
    ("client", "name", "written", "rows_an_order"),
    [
        ("shop", "a.csv", as_csv, 1),
        ("shop", "a.zip", zipped, 1),
        ("shop", "a.json", as_json, 1),
        ("lines", "a.csv", as_csv, 4),
    ],
)
def test_files_in_memory_are_no_more_than_so_many_times_the_text_and_so_many_bytes_a_row(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    client: str,
    name: str,
    written: Callable[[list[dict[str, str]]], bytes],
    rows_an_order: int,
) -> None:
    rows = [
        SHORTEST | {"client_order_ref": f"{client[0]}{name[-2:]}{at // rows_an_order}", "email": "a@b.cc"}
        for at in range(ROWS)
    ]
    path = tmp_path / name
    path.write_bytes(written(rows))
    most = 0
    opened: list[scratch._Memory] = []

    class Counted(scratch._Memory):
        def __init__(self) -> None:
            super().__init__()
            opened.append(self)

        def close(self) -> None:
            nonlocal most
            most = max(most, sum(os.fstat(file).st_size for each in opened for file in each._descriptors.values()))
            opened.remove(self)
            super().close()

    monkeypatch.setattr(scratch, "_Memory", Counted)
    system = replace(installation.system, clients=CLIENTS)
    batch_id = replace(installation, system=system).receive(path, client)
    prepare(system, batch_id)
    assert installation.summary(batch_id)["rows"]["accepted"] == ROWS
    text = len(as_csv(rows)) if written is not as_json else path.stat().st_size
    assert text < most <= TIMES * text + BYTES_A_ROW * ROWS
