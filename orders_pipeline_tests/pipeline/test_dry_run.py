"""The dry run says what importing says: the same checks, the same verdict, the same errors.csv."""

from __future__ import annotations

from pathlib import Path

import pytest

from orders_pipeline.batches.artifacts import STAGED, artifact
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.reports import errors_csv, preview
from orders_pipeline_tests.support.client import Client
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.order_file import OrderFile


def of_orders(*rows: dict[str, str]) -> str:
    made = OrderFile("utf-8")
    for row in rows:
        made.add(row)
    return made.text


SAME_SAID = {
    "good": of_orders(order_row(client_order_ref="P-1")),
    "some bad": of_orders(order_row(client_order_ref="P-2"), order_row(client_order_ref="P-3", email="bad", amount="x")),
    "all bad": of_orders(order_row(client_order_ref="P-4", email="bad")),
    "came before": of_orders(order_row(client_order_ref="BEFORE-1", amount="9"), order_row(client_order_ref="BEFORE-2")),
    "another batch": of_orders(order_row(client_order_ref="P-5"))
    .replace("\r\n", ",_batch\r\n", 1)
    .replace("invoice,,,", "invoice,,,,20260401-000000000000"),
    "a correction": "",
    "a correction of what is gone": "",
    "not even orders": "a,b\r\n1,2\r\n",
    "unknown columns": of_orders(order_row(client_order_ref="P-6"))
    .replace("\r\n", ",見知らぬ列\r\n", 1)
    .replace("invoice,,,", "invoice,,,,x"),
    "other totals": of_orders(order_row(client_order_ref="P-7")),
    "other bytes": of_orders(order_row(client_order_ref="P-8")),
    "no manifest": of_orders(order_row(client_order_ref="P-9")),
    "same bytes": "",
}
MANIFESTS = {"other totals": '{"amount_total": 5}', "other bytes": '{"sha256": "%s"}' % ("0" * 64), "no manifest": "{"}


def test_codes_are_in_the_same_order_each_time_the_most_frequent_first(installation: Installation, tmp_path: Path) -> None:
    wrong = (
        {"email": "x"},
        {"amount": "x"},
        {"order_date": "x"},
        {"currency": "USD"},
        {"customer_code": "?"},
        {"quantity": "x"},
    )
    rows = [order_row(client_order_ref=f"C-{at}", **cells) for at, cells in enumerate((*wrong, {"currency": "EUR"}))]
    path = tmp_path / "orders.csv"
    path.write_text(of_orders(*rows), "utf-8", newline="")
    found = preview.preview(installation.system, path, "codes", again=False)["rejections"]
    assert list(found.items()) == sorted(found.items(), key=lambda each: (-each[1], each[0]))
    assert (len(found) >= len(wrong), next(iter(found.values()))) == (True, 2)


@pytest.mark.parametrize("kind", SAME_SAID)
def test_a_dry_run_says_what_importing_says(installation: Installation, kind: str, tmp_path: Path) -> None:
    client = Client(installation.system, tmp_path, f"same-{[*SAME_SAID].index(kind)}")
    before = tmp_path / "before.csv"
    bad = (order_row(client_order_ref=f"BEFORE-{n}", email="bad") for n in (3, 4))
    before.write_text(of_orders(*(order_row(client_order_ref=f"BEFORE-{n}") for n in (1, 2)), *bad), "utf-8", newline="")
    earlier = client.load(client.receive(before))
    path = tmp_path / "orders.csv"
    path.write_text(SAME_SAID[kind], "utf-8", newline="")
    if kind.startswith("a correction"):
        lines = (installation.report(earlier["batch_id"], "rejected") or b"").replace(b",bad,", b",a@example.com,")
        path.write_bytes(lines.replace(b"BEFORE-3", b"BEFORE-9"))
    if kind == "a correction of what is gone":
        installation.system.storage.delete(artifact(earlier["batch_id"], STAGED))
    if kind == "same bytes":
        path.write_bytes(before.read_bytes())
    if kind in MANIFESTS:
        (tmp_path / "orders.manifest.json").write_text(MANIFESTS[kind])
    errors = tmp_path / "errors.csv"
    if kind in ("same bytes", "no manifest"):
        with pytest.raises(FileRejected) as refused:
            client.receive(path)
        with pytest.raises(FileRejected) as foretold:
            preview.preview(installation.system, path, client.code, again=False, errors=errors)
        assert str(foretold.value) == str(refused.value)
        return
    found = preview.preview(installation.system, path, client.code, again=False, errors=errors)
    batch_id = client.receive(path)
    loaded = client.load(batch_id)
    for name in ("client_code", "csv_source", "encoding", "rows", "rejections"):
        assert found[name] == loaded[name], name
    if loaded["status"] == "rejected":
        assert (found["status"], found["status_code"]) == ("rejected", loaded["status_code"])
    else:
        assert found["status"] == ("completed_with_errors" if loaded["rows"]["rejected"] else "completed")
    assert found["amount_jpy"]["accepted"] == (loaded["amount_jpy"]["accepted"] or 0)
    assert errors.read_bytes() == installation.report(batch_id, "errors")
    for mine, theirs in zip(found["errors"], errors_csv.errors_of(installation.system.database, batch_id), strict=True):
        assert mine.items() >= theirs.items()
