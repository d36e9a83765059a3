"""Manifests: read strictly, and binding in each of what they say."""

from __future__ import annotations

import json

import pytest

from orders_pipeline.intake.manifest import Manifest, manifest_names, read_manifest
from orders_pipeline.records.rejections import HINTS, FileRejected

SHA256 = "ab" * 32


def refusal(act, *arguments) -> tuple[str, dict[str, str]]:
    with pytest.raises(FileRejected) as refused:
        act(*arguments)
    return refused.value.code, refused.value.detail


@pytest.mark.parametrize(
    ("name", "own", "shared"),
    [
        ("orders.csv", "orders.csv.manifest.json", "orders.manifest.json"),
        ("acme/2026.04.01.csv", "acme/2026.04.01.csv.manifest.json", "acme/2026.04.01.manifest.json"),
        ("orders.xlsx", "orders.xlsx.manifest.json", "orders.manifest.json"),
        ("orders", "orders.manifest.json", "orders.manifest.json"),
    ],
)
def test_a_manifest_has_the_name_of_its_file(name, own, shared):
    assert manifest_names(name) == (own, shared)


def test_a_manifest_holds_all_that_fits_and_nothing_else():
    content = {"sha256": SHA256.upper(), "row_count": 3, "amount_total": 4500, "made_by": "shop 4.1"}
    found = read_manifest(b"\xef\xbb\xbf" + json.dumps(content).encode())
    found.check_bytes(SHA256)
    found.check_totals(3, 4500, unreadable=0, has_total_row=False)
    assert "shop" not in found.model_dump_json()


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "not_json"),
        (b"[1]", "says_nothing"),
        (b"{}", "says_nothing"),
        (b'{"made_by": "planted"}', "says_nothing"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"sha256": "planted"}', "sha256"),
        (b'{"row_count": "3"}', "row_count"),
        (b'{"row_count": 3.0}', "row_count"),
        (b'{"row_count": true}', "row_count"),
        (b'{"row_count": -1}', "row_count"),
        (b'{"amount_total": 1e3}', "amount_total"),
    ],
)
def test_what_is_no_manifest_is_refused_by_field_without_its_value(content, wrong):
    code, detail = refusal(read_manifest, content)
    assert code == "F_MANIFEST"
    assert detail == {"hint" if wrong in HINTS else "field": wrong}


def totals_refused(manifest, rows, amount, *, unreadable=0, has_total_row=False):
    return refusal(
        lambda: manifest.check_totals(rows, amount, unreadable=unreadable, has_total_row=has_total_row),
    )


def test_each_control_total_is_binding():
    manifest = Manifest(sha256=SHA256, row_count=3, amount_total=4500)
    assert refusal(manifest.check_bytes, "cd" * 32) == ("F_CONTROL_TOTAL", {"field": "sha256"})
    expected = {"field": "row_count", "expected": "3", "found": "2"}
    assert totals_refused(manifest, 2, 4500) == ("F_CONTROL_TOTAL", expected)
    assert totals_refused(manifest, 2, 4500, has_total_row=True) == ("F_CONTROL_TOTAL", expected | {"hint": "total_row"})
    expected = {"field": "amount_total", "expected": "4500", "found": "4499"}
    assert totals_refused(manifest, 3, 4499) == ("F_CONTROL_TOTAL", expected)


def test_a_sum_that_cannot_be_known_is_not_the_manifests():
    assert totals_refused(Manifest(amount_total=4500), 3, 4500, unreadable=1)[0] == "F_CONTROL_TOTAL"


def test_what_a_manifest_does_not_say_is_not_checked():
    manifest = Manifest(row_count=3)
    manifest.check_bytes("cd" * 32)
    manifest.check_totals(3, 1, unreadable=7, has_total_row=False)
