"""A correction cannot change which order it corrects: no mixing of corrections and whole files pays a row twice."""

from __future__ import annotations

import csv
import io
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from orders_pipeline.intake import steps
from orders_pipeline.records.judgement import Judge
from orders_pipeline.reports import errors_csv, report_files, summaries
from orders_pipeline_tests.support.client import NAME, STEPS, Client, Rows, order
from orders_pipeline_tests.support.installation import Installation
from orders_pipeline_tests.support.soak import first_of

NUMBERS = itertools.count()


@pytest.fixture
def client(installation: Installation, tmp_path: Path) -> Client:
    return Client(installation.system, tmp_path, f"client-{next(NUMBERS)}")


def codes(summary: dict[str, Any]) -> dict[str, int]:
    return dict(summary["rejections"])


def test_a_reference_that_a_spreadsheet_shortened_is_no_correction_and_the_mended_file_loads_once(client: Client) -> None:
    first = client.send(order("0007001"), order("0007002"), order("0007003", email="bad"))
    (back,) = client.back(first)
    second = client.send(back | {"client_order_ref": "7003", "email": "a@example.com"})
    assert codes(second) == {"R_REF_CHANGED": 1}
    assert second["corrections"] == {"batches": 2, "rows_open": 1, "open_in": [second["batch_id"]]}
    whole = client.send(order("0007001"), order("0007002"), order("0007003"))
    assert codes(whole) == {"R_REF_EXISTS": 2}
    assert client.references() == ["0007001", "0007002", "0007003"]
    (again,) = client.back(second)
    assert codes(client.send(again)) == {"R_REF_CHANGED": 1}
    assert codes(client.send(again | {"client_order_ref": "0007003"})) == {"R_REF_EXISTS_DIFFERS": 1}
    assert client.references() == ["0007001", "0007002", "0007003"]


def test_rejected_rows_are_looked_up_all_at_once_however_many_are_corrected(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: list[int] = []
    valid_cells = Judge.valid_cells
    monkeypatch.setattr(Judge, "valid_cells", lambda *given: lookups.append(len(given[2])) or valid_cells(*given))

    def lookups_of(rows: int) -> int:
        back = client.back(client.send(*(order(f"{rows}-{at}", email="bad") for at in range(rows))))
        lookups.clear()
        assert codes(client.send(*(row | {"email": "a@example.com"} for row in back))) == {}
        return len(lookups)

    assert lookups_of(3) == lookups_of(40) > 0


def test_a_whole_file_that_a_spreadsheet_took_the_zeros_of_loads_nothing_twice(client: Client) -> None:
    sent = [order(f"00070{n:02}", customer_code=f"00{n}", amount=f"{n + 1}000") for n in range(30)]
    first = client.send(*sent, order("0007099", email="bad"))
    again = [
        row | {name: row[name].lstrip("0") or "0" for name in ("client_order_ref", "customer_code")}
        for row in (*sent, order("0007099"), order("7098"))
    ]
    second = client.send(*again[:3], again[3] | {"amount": "1"}, *again[4:])
    assert codes(second) == {"R_REF_EXISTS": 29, "R_REF_EXISTS_DIFFERS": 1}
    assert second["rows"]["accepted"] == 2
    with report_files.report(client.system.storage, client.system.database, second["batch_id"], "errors") as errors:
        assert errors is not None
        assert f"received before as 0007000 in batch {first['batch_id']}" in errors.read_text("utf-8")
    # others of the same numbers, without zeros in front, are orders of their own
    assert codes(client.send(*(row | {"amount": "99"} for row in again[:3]))) == {}


def test_a_code_that_a_spreadsheet_shortened_is_no_correction_either(client: Client) -> None:
    item = {"item_code": "0012", "quantity": "1", "unit_price": "1000"}
    first = client.send(order("A-1", customer_code="0012", email="bad"), order("A-2", customer_code="00.12", **item))
    one, other = client.back(first)
    one, other = one | {"customer_code": "12", "email": "a@example.com"}, other | {"customer_code": "0.12"}
    assert codes(client.send(one, other | {"item_code": "12"})) == {"R_CODE_CHANGED": 2, "R_CUSTOMER_CODE": 1}
    second = client.send(one | {"customer_code": "0012"}, other | {"customer_code": "12"})
    assert (codes(second), client.references()) == ({}, ["A-1", "A-2"])


@pytest.mark.parametrize("written", first_of(["7003", "0007001", "", "7.003E+03", "注文7003", "0007004"], 3))
def test_a_reference_stays_whatever_became_of_it_and_through_all_corrections(client: Client, written: str) -> None:
    first = client.send(order("0007001"), order("0007003", email="bad"))
    (back,) = client.back(first)
    second = client.send(back | {"client_order_ref": written, "email": "a@example.com"})
    assert "R_REF_CHANGED" in codes(second)
    (back,) = client.back(second)
    assert "R_REF_CHANGED" in codes(client.send(back | {"client_order_ref": "A-9"}))
    third = client.send(back | {"client_order_ref": "0007003", "email": "b@example.com"})
    assert (codes(third), client.references()) == ({}, ["0007001", "0007003"])


@pytest.mark.parametrize(
    ("rows", "code"),
    first_of(
        [
            ((order(""),), "R_REQUIRED"),
            ((order("A-3"), order("A-3", amount="2000")), "R_REF_CONFLICT"),
            ((order("A-3"), order("A-3")), "R_REF_DUP_IN_FILE"),
            ((order("A 3"),), "R_REF_FORMAT"),
            ((order("x" * 65),), "R_TOO_LONG"),
        ],
        3,
    ),
)
def test_a_reference_that_was_rejected_itself_is_replaced_and_given_up(
    client: Client, rows: tuple[dict[str, str], ...], code: str
) -> None:
    first = client.send(*rows)
    assert set(codes(first)) == {code}
    back = client.back(first)[-1]
    second = client.send(back | {"client_order_ref": "A-30"})
    assert (codes(second), second["rows"]["accepted"]) == ({}, 1)
    before = client.references()
    assert codes(client.send(back | {"client_order_ref": "A-31"})) == {"R_CORRECTED_BEFORE": 1}
    again = client.send(*(row | {"note": "mended"} for row in rows[-1:]))
    assert again["rows"]["accepted"] == 0
    assert client.references() == before


def test_a_given_up_reference_is_no_other_order_but_stays_with_the_row_that_has_it(client: Client) -> None:
    first = client.send(order("A-3"), order("A-3", amount="2000"))
    one, other = client.back(first)
    client.send(other | {"client_order_ref": "A-30"})
    whole = client.send(order("A-3x"), order("A-3", amount="2000"))
    assert codes(whole) == {"R_REF_SPENT": 1}
    assert "R_REF_CHANGED" in codes(client.send(client.back(whole)[0] | {"client_order_ref": "A-3y"}))
    assert codes(client.send(one)) == {}
    assert client.references() == ["A-3", "A-30", "A-3x"]


def test_both_rows_of_a_conflict_are_corrected_in_one_file(client: Client) -> None:
    one, other = client.back(client.send(order("A-3"), order("A-3", amount="2000")))
    assert codes(client.send(one, other | {"client_order_ref": "A-30"})) == {}
    assert client.references() == ["A-3", "A-30"]


def test_a_row_is_not_received_under_another_reference_once_its_own_came_with_the_whole_file(client: Client) -> None:
    first = client.send(order("A-3"), order("A-3", amount="2000"))
    client.send(order("A-3x"), order("A-3", amount="2000"))
    other = client.back(first)[1]
    assert codes(client.send(other | {"client_order_ref": "A-30"})) == {"R_CORRECTED_BEFORE": 1}
    assert client.references() == ["A-3", "A-3x"]


@pytest.mark.parametrize(("reference", "written"), first_of([("0007001", "A-9"), ("0007001", "7001")]))
def test_an_order_that_came_again_is_no_new_one_under_another_reference(
    client: Client, reference: str, written: str
) -> None:
    client.send(order(reference))
    again = client.send(order(reference), order("B-1"))
    (back,) = client.back(again)
    assert codes(client.send(back | {"client_order_ref": written})) == {"R_REF_CHANGED": 1}
    assert client.references() == [reference, "B-1"]


@pytest.mark.parametrize(
    ("reference", "written", "code"),
    first_of(
        [
            ("0007001", "7001", "R_REF_CHANGED"),
            ("1-2", "2-Jan", "R_REF_CHANGED"),
            ("0007001", "0007009", None),
            ("12345678901234567", "12345678901234500", "R_REF_CHANGED"),
            ("MAR1", "1-Mar", "R_REF_CHANGED"),
            ("2026-1-2", "2026/1/2", "R_REF_CHANGED"),
        ],
        3,
    ),
)
def test_a_rejected_reference_is_not_replaced_by_what_a_spreadsheet_made_of_it(
    client: Client, reference: str, written: str, code: str | None
) -> None:
    client.send(order(reference))
    (back,) = client.back(client.send(order(reference, amount="2000")))
    assert back["_codes"] == "R_REF_EXISTS_DIFFERS"
    assert codes(client.send(back | {"client_order_ref": written})) == ({} if code is None else {code: 1})


@pytest.mark.parametrize("cells", [[*order("0007003").values(), "extra"], [*order("0007003").values()][:-2]])
def test_a_row_of_the_wrong_shape_keeps_the_reference_it_seems_to_have(client: Client, cells: list[str]) -> None:
    first = client.send(order("0007001"), cells=cells)
    ours = {"_batch": first["batch_id"], "_row": "2", "_line": "3", "_codes": "R_COLUMNS"}
    assert codes(client.send(order("7003") | ours)) == {"R_REF_CHANGED": 1}
    assert codes(client.send(order("0007003") | ours)) == {}
    assert client.references() == ["0007001", "0007003"]


@pytest.mark.parametrize("number", first_of(["1", "99", "", "3", "x", "0"], 3))
def test_a_row_that_names_none_that_was_rejected_says_so(client: Client, number: str) -> None:
    first = client.send(order("A-1"), order("A-2", email="bad"), order("A-3"))
    (back,) = client.back(first)
    second = client.send(back | {"email": "a@example.com", "_row": number})
    assert codes(second) == {"R_CORRECTED_ROW": 1}
    assert second["corrections"] == {"batches": 2, "rows_open": 1, "open_in": [first["batch_id"]]}
    (wrong,) = client.back(second)
    assert codes(client.send(wrong | {"client_order_ref": "A-9"})) == {"R_CORRECTED_ROW": 1}
    assert codes(client.send(back | {"email": "b@example.com"})) == {}
    assert client.references() == ["A-1", "A-2", "A-3"]


def test_rows_that_name_the_same_row_differently_all_come_back_and_a_row_pasted_twice_is_one(client: Client) -> None:
    first = client.send(order("A-1", amount="1600000"), order("A 2"))
    over, shape = client.back(first)
    halves = [over | {"client_order_ref": ref, "amount": "800000"} for ref in ("A-1a", "A-1b")]
    names = [shape | {"client_order_ref": ref} for ref in ("A-2a", "A-2b")]
    second = client.send(*halves, *names)
    assert codes(second) == {"R_CORRECTED_ROW": 4}
    assert second["corrections"]["rows_open"] == 2
    right = over | {"amount": "800000"}
    assert codes(client.send(right, right)) == {"R_REF_DUP_IN_FILE": 1}
    assert client.references() == ["A-1"]


def test_rows_added_to_a_correction_are_orders_of_their_own(client: Client) -> None:
    (back,) = client.back(client.send(order("A-1", email="bad")))
    added = order("A-2") | {"_batch": "", "_row": "", "_line": "", "_codes": ""}
    assert codes(client.send(back | {"email": "a@example.com"}, added)) == {}
    assert client.references() == ["A-1", "A-2"]


def test_a_file_that_names_a_batch_and_no_rows_comes_back(client: Client) -> None:
    first = client.send(order("0007001", email="bad"))
    assert codes(client.send(order("7001") | {"_batch": first["batch_id"]})) == {"R_CORRECTED_ROW": 1}


def test_the_batch_column_says_which_row_names_another_batch_or_none(client: Client) -> None:
    first = client.send(order("A-1", email="bad"), order("A-2", email="bad"), order("A-3", email="bad"))
    other = client.send(order("B-1", email="bad"))
    rows = client.back(first)
    for named, hint in ((other["batch_id"], "another_batch"), ("A-2", "another_batch")):
        refused = client.send(rows[0], rows[1], rows[2] | {"_batch": named})
        assert refused["status_code"] == "F_BATCH_COLUMN"
        (detail,) = client.query(f"SELECT detail FROM rejections WHERE batch_id = '{refused['batch_id']}'")[0]
        assert (detail["row"], detail["line"], detail["hint"]) == ("3", "4", hint)
    client.code += "-other"
    theirs = client.send(order("C-1") | dict.fromkeys(("_batch", "_row", "_line", "_codes"), ""), *rows[1:])
    (detail,) = client.query(f"SELECT detail FROM rejections WHERE batch_id = '{theirs['batch_id']}'")[0]
    assert (detail["row"], detail["hint"]) == ("2", "no_batch")


def test_what_is_still_to_correct_is_counted_once_however_a_spreadsheet_pads_the_rows(client: Client) -> None:
    rows = [order(f"A-{n}", email="bad") for n in range(6)]
    first = client.load(client.receive(_with_extra_cells(client, rows)))
    assert first["corrections"] == {"batches": 1, "rows_open": 8, "open_in": [first["batch_id"]]}
    with report_files.report(client.system.storage, client.system.database, first["batch_id"], "rejected") as path:
        assert path is not None
        grid = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    width = max(map(len, grid))
    padded = [
        [*("a@example.com" if cell == "bad" else cell for cell in cells), *[""] * (width - len(cells))] for cells in grid
    ]
    saved = client.folder / "saved.csv"
    with saved.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(padded)
    second = client.load(client.receive(saved))
    assert (second["rows"]["accepted"], codes(second)) == (6, {"R_COLUMNS": 2})
    expected = {"batches": 2, "rows_open": 2, "open_in": [second["batch_id"]]}
    assert (second["corrections"], summaries.summarise(client.system, first["batch_id"])["corrections"]) == (
        expected,
        expected,
    )


def _with_extra_cells(client: Client, rows: Rows) -> Path:
    path = client.write(rows)
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*order(f"A-{n}").values(), "余分"] for n in (8, 9)])
    return path


# Text that a wrong encoding broke


@pytest.mark.parametrize("encoding", first_of(["utf-8", "cp932", "utf-8-sig"], 2))
def test_utf_8_always_comes_back_with_a_mark_that_says_so(client: Client, encoding: str) -> None:
    first = client.send(order("A-1", email="bad"), encoding=encoding)
    with report_files.report(client.system.storage, client.system.database, first["batch_id"], "rejected") as path:
        assert path is not None
        assert path.read_bytes().startswith(b"\xef\xbb\xbf") == (encoding != "cp932")


@pytest.mark.parametrize(
    ("sent_as", "broken"),
    first_of(
        [
            ("utf-8", NAME.encode().decode("cp932", "ignore")),
            ("cp932", NAME.encode("cp932").decode("utf-8", "replace")),
            ("utf-8", "????????"),
            ("utf-8", "譬ｪ蠑丈ｼ夂､ｾ縺ｿ縺ｩ繧・"),
            ("utf-8", NAME.encode().decode("latin-1").translate(dict.fromkeys(range(128, 160)))),
            ("utf-8", NAME.encode().decode("mac_roman")),
            ("cp932", NAME.encode("cp932").decode("cp1252", "ignore")),
            ("utf-8", "株式会社みどめE"),
        ],
        3,
    ),
)
def test_text_that_a_wrong_encoding_broke_is_not_taken_until_it_is_right_again(
    client: Client, sent_as: str, broken: str
) -> None:
    first = client.send(order("A-1", email="bad"), encoding=sent_as)
    (back,) = client.back(first)
    broken = broken[:8] if set(broken) == {"?"} else broken
    second = client.send(back | {"email": "a@example.com", "customer_name": broken})
    assert codes(second)["R_ENCODING_DAMAGE"] == 1
    (again,) = client.back(second)
    assert again["customer_name"] == broken
    assert codes(client.send(again | {"note": "unchanged"}))["R_ENCODING_DAMAGE"] == 1
    assert codes(client.send(again | {"customer_name": "株式会社あおば"})) == {}


@pytest.mark.parametrize("name", first_of(["㈱みどり", "株式会社みどり商店", "みどり", "Midori", "カブシキガイシャミドリ"]))
def test_another_text_is_a_correction(client: Client, name: str) -> None:
    (back,) = client.back(client.send(order("A-1", email="bad")))
    assert codes(client.send(back | {"email": "a@example.com", "customer_name": name})) == {}


def test_a_workbook_of_the_rejected_rows_is_a_correction(client: Client) -> None:
    (back,) = client.back(client.send(order("0007003", email="bad")))
    book = Workbook()
    book.active.append(list(back))
    book.active.append([*(back | {"email": "a@example.com"}).values()])
    for cell in book.active[2]:
        if cell.column_letter in ("A", "M") and str(cell.value).isdigit():
            cell.value = int(cell.value)
    path = client.folder / "saved.xlsx"
    book.save(path)
    assert codes(client.load(client.receive(path))) == {"R_REF_CHANGED": 1}
    book.active["A2"] = "0007003"
    book.save(path)
    assert codes(client.load(client.receive(path))) == {}


# Orders that came before


def test_an_order_that_came_before_with_other_content_names_the_columns_that_differ(client: Client) -> None:
    client.send(order("A-1", amount="1000", note="急ぎ"), order("A-2"))
    again = client.send(order("a-1", amount="9000", note="急がない", phone="0312345678"), order("A-2"))
    assert codes(again) == {"R_REF_EXISTS": 1, "R_REF_EXISTS_DIFFERS": 1}
    (found,) = [
        each for each in errors_csv.errors_of(client.system.database, again["batch_id"]) if each["code"].endswith("DIFFERS")
    ]
    assert found["message"].endswith("not the same: phone, amount, note.")
    read = client.query("SELECT rows FROM audit_events WHERE entity = 'orders.personal' ORDER BY event_id DESC LIMIT 1")
    assert read == [(2,)]


# At the same time


def test_a_correction_and_the_whole_file_at_the_same_time_are_one_order(client: Client) -> None:
    """Each is validated before the other is loaded; whichever is loaded first, the row is one order."""
    for number, turn in enumerate(((0, 1), (1, 0), None)):
        reference = f"R-{number}"
        first = client.send(order(reference), order(reference, amount="2000"))
        other = client.back(first)[1]
        both = [
            client.receive(client.write([other | {"client_order_ref": f"{reference}-other"}])),
            client.receive(client.write([order(reference, amount="2000")])),
        ]
        for batch_id in both:
            for step in STEPS[:2]:
                step(client.system, batch_id)
        if turn is None:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda batch_id: steps.load_batch(client.system, batch_id), both))
        else:
            for at in turn:
                steps.load_batch(client.system, both[at])
        loaded = [ref for ref in client.references() if ref.startswith(reference)]
        assert len(loaded) == 1, turn
        rejected = client.query(f"SELECT code FROM rejections WHERE batch_id IN ('{both[0]}', '{both[1]}')")
        assert rejected in ([("R_REF_SPENT",)], [("R_CORRECTED_BEFORE",)])


def test_two_corrections_of_one_row_at_the_same_time_are_one_order(client: Client) -> None:
    (back,) = client.back(client.send(order("A 1")))
    both = [client.receive(client.write([back | {"client_order_ref": f"A-{n}"}])) for n in (1, 2)]
    for step in STEPS:
        for batch_id in both:
            step(client.system, batch_id)
    assert len(client.references()) == 1


def test_a_file_of_another_clients_batch_is_refused(client: Client) -> None:
    (back,) = client.back(client.send(order("A-1", email="bad")))
    client.code += "-other"
    assert client.send(back)["status_code"] == "F_BATCH_COLUMN"
