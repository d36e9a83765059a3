"""Clients' profiles: read strictly, and what is wrong is named without what stands there."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from orders_pipeline.clients.profiles import Clients, ClientsError, Profile, read_clients
from orders_pipeline.records.rejections import FileRejected

CONFIGURED = """
[acme]
name = "Acme"
delimiter = "\\t"
notify_channel = "email"
payments = "per_order"
notifications = "per_order"

[other]
"""


@pytest.fixture
def write(tmp_path):
    def written(text: str | bytes):
        path = tmp_path / "clients.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return written


def test_without_a_clients_file_every_client_has_the_default_profile():
    assert read_clients(None).profile("anybody") == Profile()


def test_the_default_profile_aggregates_and_notifies_nobody():
    profile = Profile()
    assert (profile.delimiter, profile.payments, profile.notifications, profile.notify_channel) == (
        ",",
        "aggregated",
        "digest",
        "none",
    )


def test_a_profile_says_what_the_file_says(write):
    assert read_clients(write(CONFIGURED)).profile("acme") == Profile(
        name="Acme", delimiter="\t", notify_channel="email", payments="per_order", notifications="per_order"
    )


def test_what_a_profile_leaves_out_is_the_default(write):
    assert read_clients(write(CONFIGURED)).profile("other") == Profile()


@pytest.mark.parametrize("code", ["nobody", "ACME", "acme ", ""])
def test_with_a_clients_file_a_client_that_is_not_in_it_is_refused(write, code):
    with pytest.raises(FileRejected) as refused:
        read_clients(write(CONFIGURED)).profile(code)
    assert refused.value.code == "F_UNKNOWN_CLIENT"


def test_an_empty_clients_file_knows_no_client(write):
    with pytest.raises(FileRejected):
        read_clients(write("")).profile("acme")


@pytest.mark.parametrize("code", ["", "a b", "../acme", "c" * 33, "acme/x", "取引先", "acme\n"])
def test_what_is_no_client_code_is_refused_even_when_any_client_may_come(code):
    with pytest.raises(FileRejected) as refused:
        Clients().profile(code)
    assert refused.value.code == "F_UNKNOWN_CLIENT"
    assert refused.value.detail == {}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[acme]\ndelimiter = "planted"', "acme.delimiter"),
        ('[acme]\npayments = "planted"', "acme.payments"),
        ('[acme]\nnotifications = "planted"', "acme.notifications"),
        ('[acme]\nnotify_channel = "planted"', "acme.notify_channel"),
        ("[acme]\nname = 5", "acme.name"),
        (f'[acme]\nname = "{"planted" * 20}"', "acme.name"),
        ('[acme]\nsurprise = "planted"', "acme.surprise"),
        ('acme = "planted"', "acme"),
    ],
)
def test_a_wrong_setting_is_named_with_its_client_and_without_its_value(write, text, where):
    with pytest.raises(ClientsError) as refused:
        read_clients(write(text))
    assert f"ORDERS_CLIENTS_FILE: {where}: " in str(refused.value)
    assert "planted" not in str(refused.value)


def test_all_that_is_wrong_is_said_at_once_and_what_may_be_meant(write):
    text = """
    [shop]
    encodng = "cp932"
    amount = "planted"
    customer_cod = "planted"
    aproval = "always"
    delimiter = "planted"
    skip = [{ heder = "planted" }]
    reject = [{ header = "x", exept = ["planted"] }]
    [shop.columns]
    amount = { headr = "planted" }
    [mart]
    delimiter = "planted"
    [mart.columns]
    nosuch = "planted"
    [mart.columns.amount]
    header = "x"
    zzz = "planted"
    """
    with pytest.raises(ClientsError) as refused:
        read_clients(write(text))
    said = str(refused.value)
    assert "shop.encodng: this is no setting of a profile; is encoding meant?" in said
    assert "shop.amount: this is no setting of a profile; is amount in [shop.columns] meant?" in said
    assert "shop.customer_cod: this is no setting of a profile; is customer_code in [shop.columns] meant?" in said
    assert "shop.aproval: this is no setting of a profile; is approval meant?" in said
    assert "shop.columns.amount.headr: this is no setting of a column; is header meant?" in said
    assert "shop.skip.0.heder: this is no setting of skip; is header meant?" in said
    assert "shop.reject.0.exept: this is no setting of reject; is except meant?" in said
    assert "planted" not in said
    assert "mart.columns.amount.zzz: this is no setting of a column; docs/FILES.md has them all" in said
    assert said.count(".delimiter: this must be ',', ") == 2
    with pytest.raises(ClientsError) as refused:
        read_clients(write('[mart]\ndelimiter = "planted"\n[mart.columns]\nnosuch = "x"\n'))
    assert "mart.delimiter: " in str(refused.value)
    assert "mart.columns: there is no column nosuch, only client_order_ref, " in str(refused.value)


def test_a_table_that_is_no_client_code_is_named(write):
    with pytest.raises(ClientsError, match="is not a client code"):
        read_clients(write('["a b"]'))


def test_a_file_that_is_not_toml_is_refused_by_line_and_column(write):
    with pytest.raises(ClientsError, match="line 2") as refused:
        read_clients(write("[acme]\nname = planted"))
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file or directory"), (b"\xff\xfe\x00", "it is no text in UTF-8")]
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, write, content, why):
    path = tmp_path / "missing.toml" if content is None else write(content)
    with pytest.raises(ClientsError) as refused:
        read_clients(path)
    assert str(refused.value) == f"ORDERS_CLIENTS_FILE cannot be read: {path}: {why}"


def test_what_must_be_there_is_said_in_our_words(write):
    text = """
    [shop]
    max_rows = "planted"
    header_rows = 4
    header_line = "planted"
    footer_lines = -1
    refuse_above_percent = 101
    comment = "planted"
    ignore = "planted"
    skip = [{ header = "" }]
    columns = "planted"
    """
    with pytest.raises(ClientsError) as refused:
        read_clients(write(text))
    assert str(refused.value).removeprefix("ORDERS_CLIENTS_FILE: ").split("; ") == [
        "shop.header_line: this must be a whole number or 'find'",
        "shop.header_rows: this must be 3 or less",
        "shop.comment: this must have 5 characters or fewer",
        "shop.footer_lines: this must be 0 or more",
        "shop.skip.0.header: this must have 1 characters or more",
        "shop.ignore: this must be a list",
        "shop.columns: this must be a table",
        "shop.max_rows: this must be a whole number",
        "shop.refuse_above_percent: this must be 100 or less",
    ]


@pytest.mark.parametrize(
    ("given", "rows", "most"),
    [
        ({}, 100, 100),
        ({"bad_rows": "refuse_file"}, 100, 0),
        ({"refuse_above_rows": 5}, 100, 5),
        ({"refuse_above_percent": 2.5}, 100, 2),
        ({"refuse_above_rows": 1, "refuse_above_percent": 50}, 100, 1),
        ({"refuse_above_rows": 500}, 100, 100),
    ],
)
def test_a_profile_says_how_many_rows_may_be_bad(given, rows, most):
    assert Profile(**given).most_bad_rows(rows) == most


def test_two_ways_to_refuse_a_file_exclude_each_other():
    with pytest.raises(ValidationError, match="leaves nothing"):
        Profile(bad_rows="refuse_file", refuse_above_rows=3)


@pytest.mark.parametrize(
    ("given", "yen"), [({}, None), ({"approval": "always"}, 0), ({"approval_above": 5_000_000}, 5_000_000)]
)
def test_a_profile_says_above_how_many_yen_somebody_must_approve_a_batch(given, yen):
    assert Profile(**given).approved_up_to == yen


@pytest.mark.parametrize(
    "given", [{"approval": "never"}, {"approval_above": 0}, {"approval": "always", "approval_above": 5_000_000}]
)
def test_a_profile_says_in_one_way_what_must_be_approved(given):
    with pytest.raises(ValidationError):
        Profile(**given)


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValidationError):
        Profile().payments = "per_order"
