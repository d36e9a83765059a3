"""Which rows of a file a profile means, and what is said of those that are skipped."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from orders_pipeline.clients.profiles import Profile
from orders_pipeline.clients.row_choices import RowChoice
from orders_pipeline.intake.csv_file import Limits
from orders_pipeline.intake.file_staging import stage_file
from orders_pipeline.records.rejections import FileRejected, message

HEADER = "client_order_ref,customer_code,customer_name,amount,payment_method"


def meant(choice: dict[str, Any], *cells: str | None) -> list[str | None]:
    return list(RowChoice.model_validate({"header": "H"} | choice).matches(pa.array(cells, pa.string())).to_pylist())


def test_values_are_compared_as_words_and_as_numbers() -> None:
    cells = ["取消", " 取消 ", "取消し", "0", "0.00", "¥0", "０", "00", "", None]
    zero = "H = 0"
    assert meant({"values": ["取消", "0"]}, *cells) == [
        "H = 取消",
        "H = 取消",
        None,
        zero,
        zero,
        zero,
        zero,
        None,
        None,
        None,
    ]
    assert meant({"values": ["1,000"]}, "1000", "1000.00", "1.000", "01000") == ["H = 1,000", "H = 1,000", None, None]
    assert meant({"values": ["001"]}, "001", "1") == ["H = 001", None]
    assert meant({"values": [""]}, " ", "x") == ["H = ", None]


def test_all_filled_cells_are_meant_but_those_that_are_excepted() -> None:
    assert meant({"except": []}, "2026-11-28", "0", " ", "", None) == ["H", "H", None, None, None]
    assert meant({"except": ["0", "paid"]}, "0.00", "paid", "Paid", "-5", "") == [None, None, "H", "H", None]


@pytest.mark.parametrize("choice", [{}, {"values": ["a"], "except": ["b"]}, {"values": []}])
def test_a_choice_says_in_one_way_which_cells_are_meant(choice: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RowChoice.model_validate({"header": "H"} | choice)


def stage(tmp_path, settings: dict[str, Any], *rows: str, more: str = "状況,取消日"):
    path = tmp_path / "orders.csv"
    path.write_text("\n".join([f"{HEADER},{more}", *rows, ""]), "utf-8")
    return stage_file(Limits(), Profile.model_validate(settings), path, path.name, tmp_path)


SKIP = {"skip": [{"header": "状況", "values": ["取消", "見本"]}, {"header": "取消日", "except": []}]}


def test_it_is_said_what_skipped_rows_are_how_many_and_where_the_first_stand(tmp_path) -> None:
    states = ["済,", "取消,", "見本,11/28", "済,11/28", *["取消,"] * 6, "済,"]
    rows = [f"A-{at},C1,見本,1000,invoice,{state}" for at, state in enumerate(states, 1)]
    staged = stage(tmp_path, SKIP, *rows)
    (warning,) = staged.warnings
    assert (warning.code, warning.detail["count"], staged.rows_skipped) == ("W_ROWS_SKIPPED", "9", 9)
    assert warning.detail["by"] == "状況 = 取消: 7 (#2, #5, #6, #7, #8, ...), 状況 = 見本: 1 (#3), 取消日: 1 (#4)"
    assert message("W_ROWS_SKIPPED", "en", warning.detail).endswith(f": 9; {warning.detail['by']}.")


def test_of_a_file_in_which_every_row_is_skipped_it_is_said_that_they_are(tmp_path) -> None:
    with pytest.raises(FileRejected) as refused:
        stage(tmp_path, SKIP, *(f"A-{at},C1,見本,1000,invoice,取消," for at in (1, 2)))
    assert "2 rows were skipped, as the client's profile says; 状況 = 取消: 2 (#1, #2)" in str(refused.value)


def test_headers_that_a_profile_looks_at_are_not_said_to_be_ignored_and_more_than_are_shown_are_counted(tmp_path) -> None:
    others = ",".join(f"x{letter}" for letter in "abcdefghijkl")
    settings = SKIP | {"reject": [{"header": "返金額", "except": ["0"]}]}
    row = f"A-1,C1,見本,1000,invoice,済,,0{',' * 12}"
    (warning,) = stage(tmp_path, settings, row, more=f"状況,取消日,返金額,{others}").warnings
    assert (warning.code, warning.detail["count"], warning.detail["more"]) == ("W_UNKNOWN_COLUMN", "12", "2")
    assert message(warning.code, "en", warning.detail) == (
        "Columns that are not known were ignored (12): xa, xb, xc, xd, xe, xf, xg, xh, xi, xj and 2 more."
    )


def test_only_a_choice_that_is_optional_may_lack_its_header(tmp_path) -> None:
    choice = {"header": "返金額", "except": ["0"]}
    row = "A-1,C1,見本,1000,invoice,済,"
    for setting in ("skip", "reject"):
        with pytest.raises(FileRejected) as refused:
            stage(tmp_path, {setting: [choice]}, row)
        assert (refused.value.code, refused.value.detail["columns"]) == ("F_HEADER_MISSING", "返金額")
        assert stage(tmp_path, {setting: [choice | {"optional": True}]}, row).rows_skipped == 0
