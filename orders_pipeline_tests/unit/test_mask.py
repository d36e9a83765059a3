"""Masked files: as good and as bad as the real ones row by row, of the same shape, and with nothing of theirs in them."""

import csv
import io
import json
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders_pipeline.cli import main
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.intake.csv_file import Dialect, Limits, stage
from orders_pipeline.intake.validation import nothing_sealed, validate
from orders_pipeline.records.orders import EXAMPLE, ORDERS
from orders_pipeline.records.record_type import RowContext
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.samples.mask import mask_file
from orders_pipeline.samples.profile_trial import try_profile
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline_tests.support.factories import TODAY, order_row
from orders_pipeline_tests.support.order_file import record
from orders_pipeline_tests.support.soak import first_of


def lines(*rows):
    """Return a file with these orders."""
    made = io.StringIO(newline="")
    writer = csv.DictWriter(made, list(order_row()))
    writer.writeheader()
    writer.writerows(rows)
    return made.getvalue().encode()


@pytest.mark.parametrize(
    ("amounts", "total"),
    first_of([(("1,200", "900", "x"), "2,100"), (("1000", "2500"), "3500"), (("999", "1"), "1000円")]),
)
def test_rows_that_are_no_order_are_none_when_masked(tmp_path, amounts, total):
    orders = [order_row(client_order_ref=f"A-{at}", amount=amount, note="秘密") for at, amount in enumerate(amounts)]
    example = dict.fromkeys(order_row(), "") | dict(EXAMPLE)
    last = dict.fromkeys(order_row(), "") | {"client_order_ref": "合計", "amount": total}
    for rows in ([*orders, last], [*orders, example]):
        data = lines(*rows)
        found = masked(tmp_path, data)
        assert "秘密" not in found.decode()
        codes = verdict(tmp_path, data)
        assert verdict(tmp_path, found) == codes
        assert codes[2][-1][2] == ("R_TOTAL_ROW" if rows[-1] is last else "R_EXAMPLE_ROW")


def test_subtotals_are_those_of_the_masked_orders(tmp_path):
    orders = [order_row(client_order_ref=f"A-{at}", amount=str(yen)) for at, yen in enumerate((800, 700, 12_000))]
    sums = [
        dict.fromkeys(orders[0], "") | {"client_order_ref": "合計", "amount": yen} for yen in ("1500", "12,000円", "13500")
    ]
    data = lines(*orders[:2], sums[0], orders[2], *sums[1:])
    codes = verdict(tmp_path, data)
    assert verdict(tmp_path, masked(tmp_path, data)) == codes
    assert [code for *_, code in codes[2]] == ["R_TOTAL_ROW"] * 3


def test_what_was_typed_into_an_example_or_beside_a_total_is_masked(tmp_path):
    orders = [order_row(client_order_ref="A-1", amount="5000")]
    blank = dict.fromkeys(orders[0], "")
    secrets_ = ("090-8765-4321", "鈴木花子", "tok_real_8812345")
    typed = dict(zip(("phone", "note", "payment_token"), secrets_, strict=True))
    found = masked(tmp_path, lines(*orders, blank | dict(EXAMPLE) | typed)).decode()
    assert not [secret for secret in secrets_ if secret in found]
    assert EXAMPLE["customer_name"] in found
    for header in ("電話番号", "備考"):  # once more, and blank there
        names = [*orders[0], header]
        last = blank | {"client_order_ref": "合計", "amount": "5000"} | typed
        rows = [[*orders[0].values(), ""], [*last.values(), ""]]
        text = io.StringIO()
        csv.writer(text).writerows([names, *rows])
        found = masked(tmp_path, text.getvalue().encode()).decode()
        assert not [secret for secret in secrets_ if secret in found]


cell_texts = st.one_of(
    st.text(st.sampled_from('aZ09-_ ａ９山ア゙ｱﾞ。,"円¥=@\n'), max_size=8),
    st.sampled_from(["1000", "1,000", "R-1", "r-1", "Ｒ-1", "invoice", "INVOICE", "card_on_file", "0", "山田 太郎", ""]),
)


def masked(folder, data, profile=None):
    source, target = folder / "real.csv", folder / "masked.csv"
    source.write_bytes(data)
    mask_file(source, target, profile=profile or Profile(), today=TODAY)
    return target.read_bytes()


def verdict(folder, data, profile=None):
    """Return the codes of each row as the dry run finds them, with the rows accepted and their number of yen's digits."""
    profile = profile or Profile()
    source = folder / "judged.csv"
    source.write_bytes(data)
    try:
        staged = stage(
            source,
            folder / "staged",
            header_names=profile.header_names(),
            required=profile.required_columns(),
            joined=profile.joined_headers(),
            limits=Limits(),
            dialect=Dialect(profile.delimiter, profile.quoting != "none"),
            encoding=profile.encoding,
        )
    except FileRejected as refused:
        return refused.code
    words = {column: each.translate for column, each in profile.columns.items()}
    found = validate(
        folder / "staged",
        folder / "accepted",
        folder / "rejections",
        record_type=ORDERS,
        context=RowContext(TODAY, staged.encoding, profile.notify_channel, words),
        seal=nothing_sealed,
        existing=lambda _: {},
    )
    rejections = pq.read_table(folder / "rejections").select(["import_row_number", "column", "code"]).to_pylist()
    return (
        staged.encoding,
        found.rows_accepted,
        sorted((each["import_row_number"], each["column"] or "", each["code"]) for each in rejections),
    )


def cells(data, codec):
    return list(csv.reader(io.StringIO(data.decode(codec), newline="")))


def kinds(text):
    """Return a text with its letters and digits taken out: what must stay."""
    return "".join("x" if each.isalpha() or each.isdecimal() else each for each in text)


@pytest.mark.parametrize(("codec", "seed"), first_of([("cp932", 2), ("utf-8", 1), ("utf-8-sig", 2), ("utf-16", 3)]))
def test_a_masked_file_gets_the_same_codes_row_by_row(tmp_path, codec, seed):
    write_sample(
        tmp_path / "s.csv", rows=150, seed=seed, bad=0.4, excel=0.2, encoding=codec, today=TODAY, japanese_headers=seed == 2
    )
    data = (tmp_path / "s.csv").read_bytes()
    made = masked(tmp_path, data)
    assert made != data
    assert len(made) == len(data)
    assert kinds(made.decode(codec)) == kinds(data.decode(codec))
    assert verdict(tmp_path, made) == verdict(tmp_path, data)


def test_no_personal_cell_and_no_reference_is_kept(tmp_path):
    write_sample(tmp_path / "s.csv", rows=200, bad=0.2, excel=0.1, today=TODAY)
    data = (tmp_path / "s.csv").read_bytes()
    (header, *real), (_, *made) = cells(data, "utf-8"), cells(masked(tmp_path, data), "utf-8")
    for column in (*ORDERS.personal_columns, "client_order_ref", "customer_code"):
        at = header.index(column)
        values = {row[at] for row in real if len(row[at]) >= 3} - {"#N/A"}  # a spreadsheet's own word
        assert len(values) > 2
        assert values.isdisjoint(row[at] for row in made), column


def test_equal_cells_stay_equal_and_different_ones_different(tmp_path):
    write_sample(tmp_path / "s.csv", rows=150, bad=0.2, today=TODAY)
    data = (tmp_path / "s.csv").read_bytes()
    (header, *real), (_, *made) = cells(data, "utf-8"), cells(masked(tmp_path, data), "utf-8")
    for column in (
        "client_order_ref",
        "customer_code",
        "customer_name",
        "email",
        "phone",
        "ship_to_address",
        "payment_token",
    ):
        at = header.index(column)
        pairs = {(one[at], other[at]) for one, other in zip(real, made, strict=True)}
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}), column


def test_each_run_masks_in_its_own_way(tmp_path):
    data = file(order_row())
    assert masked(tmp_path, data) != masked(tmp_path, data)


def file(*rows, codec="utf-8", header=ORDERS.column_names, end="\r\n"):
    return "".join(line + end for line in (record(header), *(record(list(row.values())) for row in rows))).encode(codec)


ITEM = {"item_code": "A-1"}
CELLS = [
    *({"order_date": cell} for cell in ("2026/7/1", "20260630", "2026年6月3日", "令和8年4月1日", "R8.4.1")),
    *({"order_date": cell} for cell in ("2026-02-30", "46113", "04/01/2026", "4月1日", "1899-01-01", "9999-12-31", "today")),
    *({"amount": cell} for cell in ("1", "1000000", "1,000", "１，０００", "¥1000", "1000円", "JPY 1000")),
    *({"amount": cell} for cell in ("0001000", "1000.00")),
    *({"amount": cell} for cell in ("0", "-1", "▲1000", "1000001", "9" * 30, "1e3", "1_000", "千", "#REF!", "10,00", "")),
    ITEM | {"quantity": "3", "unit_price": "100", "amount": "300"},
    ITEM | {"quantity": "９", "unit_price": "9円", "amount": "¥81"},
    ITEM | {"quantity": "1", "unit_price": "1000000", "amount": "1000000"},
    ITEM | {"quantity": "3", "unit_price": "100", "amount": "299"},
    ITEM | {"quantity": "3", "unit_price": "", "amount": "300"},
    ITEM | {"quantity": "0", "unit_price": "100", "amount": "300"},
    *({"phone": cell} for cell in ("09012345678", "03-1234-5678", "+81 90-1234-5678", "12345", "090-1234-567a")),
    *({"email": cell} for cell in ("a.b@example.co.jp", "ａ＠example.com", "a@b", "a@b.com,c@d.com", "x" * 300 + "@a.jp")),
    *({"note": cell} for cell in ("4111 1111 1111 1111", "5555-5555-5555-4444 山田", "=cmd|' /C calc'!A0")),
    *({"note": cell} for cell in ("\u202e山", "㈱①髙", "𠮷野")),
    *({"note": cell} for cell in ('"引用"', "一行\n二行", "ｶﾞｷﾞ ﾔﾏﾀﾞ", "Müller Łukasz", "ひらがな", "長" * 501)),
    *({"client_order_ref": cell} for cell in ("ＡＢＣ－１", "注文1", "-", "x" * 65, "a b")),
    {"payment_method": "INVOICE"}, {"payment_method": "cash"}, {"currency": "jpy"}, {"currency": "USD"},
    {"notify_channel": "sms"}, {"notify_channel": "fax"}, {"payment_token": "tok_12345678"}, {"payment_token": "短い"},
    {"customer_name": " "}, {"customer_code": "得意先1"},
]  # fmt: skip


def test_every_way_to_write_a_cell_stays_as_good_or_bad_as_it_was(tmp_path):
    rows = [order_row(**({"client_order_ref": f"R-{number:03d}"} | cell)) for number, cell in enumerate(CELLS)]
    data = file(*rows)
    made = masked(tmp_path, data)
    assert verdict(tmp_path, made) == verdict(tmp_path, data)
    assert [list(map(len, row)) for row in cells(made, "utf-8")] == [list(map(len, row)) for row in cells(data, "utf-8")]


def test_references_that_mean_the_same_still_conflict_and_repeat(tmp_path):
    rows = [order_row(client_order_ref=ref) for ref in ("Ab-1", "ab-1", "ＡＢ-1", "Ab-2")]
    rows += [order_row(client_order_ref="Zz-9", amount="1000"), order_row(client_order_ref="Zz-9", amount="1,000")]
    data = file(*rows)
    codes = Counter(code for _, _, code in verdict(tmp_path, data)[2])
    assert codes == {"R_REF_CONFLICT": 3, "R_REF_DUP_IN_FILE": 1}
    assert verdict(tmp_path, masked(tmp_path, data)) == verdict(tmp_path, data)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("見本商店", '"見本'),
        lambda text: text.replace("client_order_ref", "見積番号"),
        lambda text: text.partition("\r\n")[2],
        lambda text: text.replace(",", ";"),
        lambda text: text + text,
        lambda text: text.replace("\r\n", ",余分\r\n", 2).replace(",余分", "", 1) + "\r\n" + ",,,\r\n",
        lambda text: text.replace("\r\n", "\r"),
        lambda text: "\r\n\r\n" + text.rstrip(),
        lambda text: text.partition("\r\n")[0] + "\r\n",
    ],
    ids=["quote", "header", "no header", "semicolons", "twice", "columns", "CR", "blank", "no rows"],
)
@pytest.mark.parametrize("codec", first_of(["cp932", "utf-8"]))
def test_a_file_that_is_rejected_whole_or_is_odd_stays_so(tmp_path, change, codec):
    data = change(file(*(order_row(client_order_ref=f"R-{number}") for number in range(5))).decode()).encode(codec)
    made = masked(tmp_path, data)
    assert verdict(tmp_path, made) == verdict(tmp_path, data)
    assert "見本商店" not in made.decode(codec)
    assert "orders@example.com" not in made.decode(codec)


def test_what_is_not_text_is_not_masked(tmp_path):
    with pytest.raises(FileRejected, match="F_ENCODING"):
        masked(tmp_path, file(order_row()) + b"\xff\xff")


def test_a_clients_own_columns_and_words_are_understood(tmp_path):
    profile = Profile.model_validate(
        {
            "columns": {
                "client_order_ref": "受注番号",
                "order_date": {"header": "受注日時", "until": " "},
                "customer_name": {"join": ["姓", "名"]},
                "payment_method": {"header": "支払方法", "values": {"請求書払い": "invoice"}},
            }
        }
    )
    header = ["受注番号", "受注日時", "得意先コード", "姓", "名", "金額", "支払方法", "メモ"]
    lines = [["A-1", "2026-06-30 12:34", "C1", "山田", "太郎", "1,200", "請求書払い", "秘密の話"]]
    lines += [["A-2", "2026-02-30 12:34", "C1", "山田", "太郎", "1,200", "現金", "秘密の話"]]
    data = "".join(record(line) + "\r\n" for line in (header, *lines)).encode("cp932")
    made = masked(tmp_path, data, profile)
    assert verdict(tmp_path, made, profile) == verdict(tmp_path, data, profile)
    text = made.decode("cp932")
    assert text.count("請求書払い") == 1
    assert not any(word in text.partition("\r\n")[2] for word in ("山田", "太郎", "秘密の話", "A-1", "現金"))
    assert cells(made, "cp932")[1][3:5] == cells(made, "cp932")[2][3:5]


def test_rows_that_a_profile_skips_and_rejects_are_so_in_the_masked_file_too(tmp_path):
    choices = {
        "skip": [{"header": "状況", "values": ["取消"]}, {"header": "取消日", "except": []}],
        "reject": [{"header": "状況", "except": ["受付済み"]}, {"header": "返金額", "except": ["0"]}],
    }
    profile = Profile.model_validate(choices)
    header = "注文番号,得意先コード,得意先名,金額,支払方法,状況,取消日,返金額"
    states = ["受付済み,,0.00", "受付済み,,0", "取消,,0", "受付済み,2026-11-28,0", "一部返金,,304050", "受付済み,,304050"]
    rows = [f"A-{at},C1,見本商店,100{at},invoice,{state}" for at, state in enumerate(states, 1)]
    data = "\r\n".join([header, *rows, ""]).encode()
    found = []
    for name, content in (("real.csv", data), ("masked.csv", masked(tmp_path, data, profile))):
        (tmp_path / name).write_bytes(content)
        tried = try_profile(tmp_path / name, Limits(), profile)
        found.append((tried["outcome"]["rows"], tried["outcome"]["rejections"], tried["skipped"]))
    assert found[0] == found[1]
    assert (found[0][0]["accepted"], found[0][0]["skipped"], found[0][1]) == (2, 2, {"R_TO_DECIDE": 2})
    text = (tmp_path / "masked.csv").read_text("utf-8")
    assert (text.count("受付済み"), text.count("取消,"), "一部返金" in text, ",304050" in text) == (4, 1, False, False)


def test_the_command_masks_a_file_and_never_onto_itself(tmp_path):
    real, made = tmp_path / "real.csv", tmp_path / "masked.csv"
    write_sample(real, rows=20, bad=0)
    said = json.loads(CliRunner().invoke(main, ["mask", str(real), "-o", str(made), "--json"]).stdout)
    assert (said["rows"], said["encoding"]) == (20, "utf-8")
    assert made.stat().st_size == real.stat().st_size
    before = real.read_bytes()
    assert CliRunner().invoke(main, ["mask", str(real), "-o", str(real)]).exit_code == 2
    assert real.read_bytes() == before


@given(st.lists(st.lists(cell_texts, min_size=5, max_size=5), min_size=1, max_size=6), st.sampled_from(["utf-8", "utf-16"]))
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_masked_into_one_of_the_same_shape_with_the_same_codes(rows, codec):
    header = ["client_order_ref", "customer_code", "customer_name", "amount", "payment_method"]
    data = "".join(record(row) + "\n" for row in (header, *rows)).encode(codec)
    with tempfile.TemporaryDirectory() as folder:
        made = masked(Path(folder), data)
        assert len(made) == len(data)
        assert verdict(Path(folder), made) == verdict(Path(folder), data)
