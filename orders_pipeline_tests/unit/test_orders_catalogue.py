"""What the catalogue of orders accepts and refuses, cell by cell; numbers are those of the list of inputs."""

import time

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orders_pipeline.records import rules
from orders_pipeline.records.orders import ORDERS
from orders_pipeline_tests.support.factories import accepted, judge_cells, judge_rows, order_row, refused, row_context

CARD = "4111111111111111"


# References and codes


def test_input_046_a_cell_longer_than_its_column_is_too_long():
    rows = [order_row(**{column.name: "x" * (column.max_length + 1)}) for column in ORDERS.columns]
    for column, found in zip(ORDERS.columns, judge_rows(rows).found, strict=True):
        assert (column.name, "R_TOO_LONG") in found
        assert [name for name, _ in found].count(column.name) == 1


def test_input_048_leading_zeros_of_a_reference_are_kept():
    assert accepted("client_order_ref", ["000123"]) == ["000123"]
    assert accepted("customer_code", ["000123"]) == ["000123"]


def test_input_049_references_that_look_like_other_things_are_text():
    references = ["1E5", "NA", "null", "TRUE", "nan", "None"]
    assert accepted("client_order_ref", references) == references


def test_input_050_outer_spaces_and_full_width_letters_of_a_reference_are_normalised():
    assert accepted("client_order_ref", [" ORD-1 ", "ＯＲＤ－１", "\u3000ORD-1\u00a0"]) == ["ORD-1"] * 3


def test_input_051_an_empty_reference_is_a_missing_value():
    refused("client_order_ref", ["", "  ", "\u3000"], "R_REQUIRED")


def test_input_052_a_reference_with_look_alikes_or_invisible_characters_is_refused():
    refused("client_order_ref", ["ОRD-1", "ORD\u200b1", "ORD😀", "ORD 1", "ORD\n1", "注文1"], "R_REF_FORMAT")


def test_a_trailing_line_break_does_not_slip_past_an_expression():
    refused("client_order_ref", ["ORD-1\v", "ORD-1\u2028"], "R_REF_FORMAT")


def test_customer_codes_have_a_narrower_alphabet():
    assert accepted("customer_code", ["C_1-a"]) == ["C_1-a"]
    refused("customer_code", ["C/1", "C.1", "得意先"], "R_CUSTOMER_CODE")


@pytest.mark.parametrize("column", ORDERS.required_columns)
def test_every_required_column_must_be_filled_in(column):
    assert (column, "R_REQUIRED") in judge_cells(column, [""]).found[0]


def test_input_032_a_total_row_lacks_what_an_order_needs():
    row = dict.fromkeys(ORDERS.column_names, "") | {"customer_name": "合計", "amount": "12000"}
    assert ("client_order_ref", "R_REQUIRED") in judge_rows([row]).found[0]


# Text


def test_input_057_names_that_look_like_missing_values_are_names():
    assert accepted("customer_name", ["None", "NA", "Null", "nan"]) == ["None", "NA", "Null", "nan"]


def test_input_058_text_is_composed_and_otherwise_left_alone():
    text = ["㈱見本", "①号店", "髙橋", "東京～大阪", "ﾐﾎﾝ ｼｮｳｶｲ"]
    assert accepted("customer_name", text) == text
    assert accepted("customer_name", ["カ\u3099"]) == ["ガ"]


def test_input_059_joined_emoji_and_rare_characters_are_text():
    text = ["👩‍👩‍👧‍👦の店", "𠮷野家", "葛\U000e0100"]
    assert accepted("customer_name", text) == text


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\v", "\f", "\x1b", "\x7f", "\x85", "\ufeff", "\ufffd"])
def test_input_009_and_013_control_and_damaged_characters_in_text_are_refused(character):
    refused("customer_name", [f"見本{character}商店"], "R_CHARS")


def test_input_014_line_breaks_and_tabs_are_text():
    assert accepted("note", ["1行目\r\n2行目\t続き"]) == ["1行目\r\n2行目\t続き"]


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\u200f", "\ue000", "\U000f0000", "\uf8ff"])
def test_input_061_bidirectional_and_private_use_characters_are_refused(character):
    refused("note", [f"見本{character}"], "R_CHARS")


def test_characters_that_are_looked_for_by_their_first_byte_are_all_found():
    characters = pa.array([chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000])
    forbidden = characters.filter(pc.match_substring_regex(characters, rules.PRINTABLE.pattern)).to_pylist()
    assert len(forbidden) > 137_000
    assert {each.encode()[:1] for each in forbidden} <= set(rules.PRINTABLE.marks)


def test_input_062_text_that_looks_like_a_formula_is_stored_as_it_is():
    text = ["=cmd|' /C calc'!A0", "+81-3", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\u00a0=1", "＝1", "一\n=1"]
    assert accepted("note", text) == text


def test_input_091_markup_and_statements_in_text_are_data():
    text = ["'; DROP TABLE orders; --", "{{7*7}}", "${jndi:ldap://x}", "<script>alert(1)</script>"]
    assert accepted("note", text) == text
    assert accepted("customer_name", text) == text


def test_input_092_a_card_number_is_refused_wherever_text_is_free():
    for column in ("note", "customer_name", "ship_to_address"):
        refused(column, [f"カード{CARD}", "4111 1111-1111 1111です", "４１１１１１１１１１１１１１１１"], "R_FORBIDDEN_DATA")
    refused("payment_token", [CARD, "378282246310005", "3530111333300000"], "R_FORBIDDEN_DATA")


def test_numbers_that_are_no_card_numbers_are_text():
    assert accepted("note", ["4111111111111112", "お届け番号 1234-5678-9012", "4901234567894", "0" * 40])
    assert accepted("payment_token", ["tok_4111111111111112"])


def test_input_099_a_cell_of_spaces_is_too_long():
    for column in ("client_order_ref", "customer_name", "note", "amount", "order_date", "phone"):
        refused(column, [" " * 1_000_000], "R_TOO_LONG")


# Contact


def test_input_089_e_mail_addresses_that_could_do_harm_are_refused():
    long = "a" * 60 + "@" + ".".join(["b" * 60] * 4) + ".example"
    cells = ["a@example.com\r\nBcc: b@example.com", "a@example.com,b@example.com", "example.com", "a@b", long]
    refused("email", [*cells, "a@@example.com", "a b@example.com", "名前@example.com", "a@-b.com"], "R_EMAIL")


def test_input_089_a_full_width_at_sign_is_normalised():
    assert accepted("email", ["orders＠example.com", " orders@example.com\n"]) == ["orders@example.com"] * 2


def test_old_mobile_addresses_with_odd_dots_are_accepted():
    assert accepted("email", ["a..b.@example.ne.jp"]) == ["a..b.@example.ne.jp"]


def test_input_090_crafted_cells_cost_next_to_nothing():
    crafted = "a@" + "a." * 30_000 + "!" + "@" * 5_000
    started = time.process_time()
    refused("email", [crafted] * 50, "R_TOO_LONG")
    refused("customer_name", ["1 " * 32_000] * 50, "R_TOO_LONG")
    assert (time.process_time() - started) / 100 < 0.01


def test_what_guards_a_code_from_a_spreadsheet_is_no_part_of_it():
    for column in ("client_order_ref", "customer_code", "phone", "postal_code", "item_code"):
        others = {"quantity": "1", "unit_price": "1000"} if column == "item_code" else {}
        cells = ['="0901234567"', "'0901234567", '="\'0901234567"', '="0901234567" ']
        assert accepted(column, cells, **others) == ["0901234567"] * 4
    assert accepted("amount", ['="1000"', "'1,000", '="１０００"']) == ["1000"] * 3
    assert accepted("order_date", ['="20260401"', "'2026/4/1"]) == ["2026-04-01"] * 2
    assert accepted("customer_name", ['="見本"', "'見本", '="見"本"', "=1+1"]) == ["見本", "'見本", '="見"本"', "=1+1"]
    assert accepted("email", ["'a@example.com", '="a@example.com"']) == ["'a@example.com", "a@example.com"]
    assert accepted("payment_token", ["'token-1234"]) == ["'token-1234"]
    refused("customer_code", ["''C1", '="C1""'], "R_CUSTOMER_CODE")
    refused("amount", ["'-1", '="-1"'], "R_AMOUNT_RANGE")


def test_phone_numbers_are_reduced_to_domestic_digits():
    cells = ["090-1234-5678", "０９０−１２３４−５６７８", "+81 90 1234 5678", "(090)12345678"]
    assert accepted("phone", cells) == ["09012345678"] * len(cells)
    refused("phone", ["9012345678", "090-1234-567a", "03-1234", "090123456789"], "R_PHONE", notify_channel="sms")


def test_a_number_that_nobody_will_send_to_is_kept_as_it_was_sent():
    cells = ["9012345678", "+1 (212) 555-0100", "03-1234-5678 内線12", "０３", "なし"]
    assert accepted("phone", [*cells, "\u202a+81 90-1234-5678\u202c"]) == [*cells[:3], "03", "なし", "09012345678"]
    refused("phone", ["090\x07", "\ue000"], "R_CHARS")
    refused("phone", [CARD], "R_FORBIDDEN_DATA")


@pytest.mark.parametrize(("column", "channel"), [("email", "email"), ("phone", "sms")])
def test_the_channel_says_which_contact_is_needed(column, channel):
    refused(column, [""], "R_REQUIRED", notify_channel=channel)
    assert accepted(column, [""], notify_channel="none") == [""]


def test_the_default_channel_of_the_profile_counts_where_none_is_given():
    context = row_context(default_notify_channel="sms")
    refused("phone", [""], "R_REQUIRED", context=context)
    assert judge_rows([order_row(phone="0312345678")], context).text[0]["notify_channel"] == "sms"


def test_an_unknown_channel_says_nothing_about_contacts():
    judged = judge_rows([order_row(notify_channel="fax", email="", phone="")])
    assert judged.found == [[("notify_channel", "R_NOTIFY_CHANNEL")]]


def test_people_write_channels_in_words():
    assert accepted("notify_channel", ["メール", "ＳＭＳ", "なし"], phone="09012345678") == ["email", "sms", "none"]


def test_a_bad_contact_is_refused_once():
    refused("email", ["nobody"], "R_EMAIL", notify_channel="email")


# Payment


def test_payment_methods_are_known_words():
    assert accepted("payment_method", ["invoice", "INVOICE", "ｂａｎｋ＿ｔｒａｎｓｆｅｒ", "請求書払い", " 銀行振込"]) == [
        *("invoice", "invoice", "bank_transfer", "invoice", "bank_transfer")
    ]
    assert accepted("payment_method", ["クレジットカード"], payment_token="tok_12345678") == ["card_on_file"]
    refused("payment_method", ["代金引換", "請求書かカード"], "R_PAYMENT_METHOD")
    refused("payment_method", ["cash", "代引き"], "R_PAYMENT_METHOD")


def test_a_card_on_file_needs_its_token():
    refused("payment_token", [""], "R_REQUIRED", payment_method="card_on_file")
    assert accepted("payment_token", ["tok_1234"], payment_method="card_on_file") == ["tok_1234"]


def test_a_token_is_8_to_128_printable_characters():
    refused("payment_token", ["tok_123", "tok 12345", "トークン12345"], "R_PAYMENT_TOKEN")
    assert accepted("payment_token", ["t" * 8, "t" * 128]) == ["t" * 8, "t" * 128]


# The catalogue itself


def test_japanese_headers_mean_their_columns():
    names = ORDERS.header_names()
    assert names["注文番号"] == names["店舗伝票番号"] == names["client_order_ref"] == "client_order_ref"
    assert names["請求金額"] == "amount"
    assert set(names.values()) == set(ORDERS.column_names)


def test_personal_and_secret_columns_are_never_kept_in_clear():
    stored = {column.name for column in ORDERS.stored_columns}
    assert stored.isdisjoint(ORDERS.personal_columns)
    assert {"customer_name", "email", "phone", "note", "payment_token"} <= set(ORDERS.personal_columns)


def test_every_error_of_a_row_is_found_at_once():
    row = order_row(client_order_ref="", amount="abc", order_date="46113", email="x", payment_method="cash", currency="$")
    assert judge_rows([row]).codes == [
        ["R_REQUIRED", "R_DATE_FORMAT", "R_EMAIL", "R_AMOUNT_FORMAT", "R_CURRENCY", "R_PAYMENT_METHOD"]
    ]


def test_one_unreadable_cell_hides_nothing_in_other_rows():
    judged = judge_cells("amount", ["abc", "2000000", "0", "1000"])
    assert judged.codes == [["R_AMOUNT_FORMAT"], ["R_AMOUNT_OVER_LIMIT"], ["R_AMOUNT_RANGE"], []]


@given(st.dictionaries(st.sampled_from(ORDERS.column_names), st.text(max_size=40), max_size=6))
@settings(max_examples=25, deadline=None)
def test_no_text_whatever_breaks_judging_or_gets_two_codes_in_one_cell(cells):
    found = judge_rows([order_row(**cells)]).found[0]
    assert len({column for column, _ in found}) == len(found)


@given(st.sampled_from(ORDERS.columns), st.lists(st.text(max_size=60), min_size=1, max_size=20))
@example(ORDERS.by_name["customer_code"], [" '0001", "''0001", ' ="0001"'])
@settings(max_examples=60, deadline=None)
def test_normalising_twice_changes_nothing(column, cells):
    """What guards a cell where no spreadsheet puts it stays, as it would not by itself; where it matters it is refused."""
    once = column.normalised(pa.array(cells, pa.string()), row_context())
    misplaced = pc.match_substring_regex(once, """^('|=")""")
    settled = once.filter(pc.invert(misplaced))
    assert column.normalised(settled, row_context()).to_pylist() == settled.to_pylist()
    if column.required and column.kind != "text":
        assert all(judge_cells(column.name, pa.array(cells, pa.string()).filter(misplaced).to_pylist()).found)
