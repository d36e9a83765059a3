"""The catalogue of codes: complete, in both languages, and safe to show whatever detail is given."""

import json
import pickle
import re
from pathlib import Path

import pyarrow as pa
import pytest

import orders_pipeline
from orders_pipeline.clients.column_sources import ColumnSource
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.records.rejections import CODES, HINTS, REJECTIONS_SCHEMA, SETTINGS, FileRejected, Language, message

LANGUAGES: tuple[Language, ...] = ("en", "ja")
PARAMETER = re.compile(r"\{(\w+)\}")


def parameters(template: str) -> set[str]:
    return set(PARAMETER.findall(template))


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_sentence_in_both_languages(code):
    assert message(code, "en").endswith((".", "?"))
    assert message(code, "ja").endswith("。")
    assert re.search(r"[ぁ-んァ-ン]", message(code, "ja"))


@pytest.mark.parametrize("code", CODES)
def test_both_languages_say_the_same_details(code):
    assert parameters(CODES[code].english) == parameters(CODES[code].japanese)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_missing_detail_leaves_no_trace_in_the_sentence(code, language):
    assert not re.search(r"[{}\[\]]|\(\)|None", message(code, language))


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_detail_given_is_shown(code, language):
    names = parameters(CODES[code].english)
    sentence = message(code, language, {name: f"<{name}>" for name in names})
    assert all(f"<{name}>" in sentence for name in names)
    assert not re.search(r"[{}\[\]]", sentence)


def test_settings_of_a_profile_are_named_to_who_keeps_them_and_to_nobody_else():
    names = set(Profile.model_fields) | {field.alias or name for name, field in ColumnSource.model_fields.items()}
    for code, says in SETTINGS.items():
        assert code in CODES
        assert {word.partition(" ")[0] for word in re.findall("`([^`]+)`", says)} <= names, code
    for sentence in (message(code, language, {"hint": hint}) for code in CODES for language in LANGUAGES for hint in HINTS):
        assert "`" not in sentence
        assert not re.search(r"\b(?:header_line|occurrence|delimiter|footer_lines|same_bytes)\b", sentence)


def test_details_the_sentence_has_no_place_for_are_left_out():
    assert message("F_EMPTY", "en", {"columns": "email"}) == message("F_EMPTY", "en")


def test_braces_and_brackets_in_a_detail_are_shown_as_they_are():
    assert "[{limit}]" in message("F_HEADER_MISSING", "en", {"columns": "[{limit}]"})


@pytest.mark.parametrize("hint", HINTS)
def test_a_hint_is_told_in_the_language_of_the_sentence(hint):
    english, japanese = HINTS[hint]
    assert english in message("F_HEADER_MISSING", "en", {"hint": hint})
    assert japanese in message("F_HEADER_MISSING", "ja", {"hint": hint})


def test_columns_are_named_as_who_reads_the_sentence_calls_them():
    detail = {"columns": "client_order_ref, payment_method, 状況"}
    assert "client_order_ref, payment_method, 状況" in message("F_HEADER_MISSING", "en", detail)
    assert "注文番号, 支払方法, 状況" in message("F_HEADER_MISSING", "ja", detail)
    assert "メールアドレス" in message("R_REQUIRED", "ja", {"column": "email"})


def test_an_unknown_code_is_shown_as_itself():
    assert message("R_FROM_A_LATER_VERSION", "ja") == "R_FROM_A_LATER_VERSION"


def test_a_rejected_file_says_its_code_and_why_in_english():
    error = FileRejected("F_TOO_MANY_ROWS", {"limit": "10000"})
    assert str(error) == "F_TOO_MANY_ROWS: The file has too many rows; at most 10000."
    assert error.detail == {"limit": "10000"}


def test_a_rejected_file_survives_pickling():
    error = pickle.loads(pickle.dumps(FileRejected("F_QUOTE", {"row": "3"})))
    assert (error.code, error.detail) == ("F_QUOTE", {"row": "3"})


def test_every_code_the_program_uses_is_in_the_catalogue():
    sources = Path(orders_pipeline.__file__).parent.rglob("*.py")
    used = {code for source in sources for code in re.findall(r'"([FRW]_[A-Z_]+)"', source.read_text("utf-8"))}
    assert used <= CODES.keys()


def test_rejections_fit_their_file():
    row = {"import_row_number": 1, "line": 2, "column": "amount", "code": "R_AMOUNT_RANGE", "detail": json.dumps({})}
    assert pa.Table.from_pylist([row], schema=REJECTIONS_SCHEMA).to_pylist() == [row]
