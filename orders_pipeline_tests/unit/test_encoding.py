"""The encoding ladder: what is taken, what is refused, and where the first bad byte is said to be."""

from __future__ import annotations

import codecs
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders_pipeline.intake.csv_file.encoding import detect_text
from orders_pipeline.records.rejections import FileRejected

HEADER = "client_order_ref,customer_name,amount\r\n"
ROWS = "A-1,山田 太郎,1000\r\nA-2,髙橋㈱,2000\r\n"
TEXT = HEADER + ROWS


@pytest.fixture
def source(tmp_path):
    return tmp_path / "orders.csv"


def detect(source: Path, data: bytes):
    source.write_bytes(data)
    return detect_text(source)


def refusal(source: Path, data: bytes) -> FileRejected:
    with pytest.raises(FileRejected) as caught:
        detect(source, data)
    return caught.value


@pytest.mark.parametrize(
    ("encoding", "bom"),
    [
        ("utf-8", b""),
        ("utf-8-sig", codecs.BOM_UTF8),
        ("cp932", b""),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
    ],
)
def test_input_003_every_encoding_of_the_ladder_is_recognised(source, encoding, bom):
    body = TEXT.encode("utf-8" if encoding == "utf-8-sig" else encoding)
    span = detect(source, bom + body)
    assert (span.encoding, span.has_bom, span.start, span.end) == (encoding, bool(bom), len(bom), len(bom + body))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_input_003_utf_16_without_bom_is_recognised_by_a_japanese_header_too(source, encoding):
    text = "注文番号,得意先コード,得意先名,請求金額,支払方法\r\nA-1,C1,一一一\u3000一郎,1000,invoice\r\n"
    assert detect(source, text.encode(encoding)).encoding == encoding


def test_plain_ascii_is_utf_8(source):
    assert detect(source, HEADER.encode()).encoding == "utf-8"


@pytest.mark.parametrize("text", [TEXT, "注文番号,得意先名\r\n1,山田\r\n", HEADER + "A-1,曳,1000\r\n"])
def test_input_004_euc_jp_is_refused(source, text):
    text = text.replace("髙", "高").replace("㈱", "社")
    assert refusal(source, text.encode("euc_jp")).code == "F_ENCODING"


@pytest.mark.parametrize("name", [b"\xad\xea\xa5\xdf\xa5\xc9\xa5\xea", b"\xad\xa1", "山田".encode("euc_jp") + b"\xad\xb5"])
def test_euc_jp_with_characters_of_a_vendor_is_refused(source, name):
    data = named("NAME").encode().replace(b"NAME", name)  # ㈱ミドリ, ① and 山田Ⅰ
    with pytest.raises(UnicodeDecodeError):
        data.decode("euc_jp")
    assert refusal(source, data).code == "F_ENCODING"


@pytest.mark.parametrize("text", ["£100", "100 ©", "§5"])
def test_a_sign_of_western_text_alone_is_not_read_as_japanese(source, text):
    assert refusal(source, named(text).encode("cp1252")).code == "F_ENCODING_AMBIGUOUS"


def test_half_width_kana_in_cp932_is_not_taken_for_euc_jp(source):
    data = (HEADER + "A-1,ﾔﾏﾀﾞ ﾀﾛｳ,1000\r\nA-2,ｽｽﾞｷ ｼﾞﾛｳ,10\r\n").encode("cp932")
    assert detect(source, data).encoding == "cp932"


def test_a_rare_kanji_alone_in_cp932_is_not_taken_for_euc_jp(source):
    data = (HEADER + "A-1,髙,1000\r\n").encode("cp932")
    data.decode("euc_jp")  # it could be
    assert detect(source, data).encoding == "cp932"


def test_input_005_iso_2022_jp_is_refused_for_its_escapes(source):
    refused = refusal(source, (HEADER + "A-1,山田,1\r\n").encode("iso2022_jp"))
    assert refused.code == "F_CONTROL_CHARS"
    assert refused.detail == {"offset": str(len(HEADER) + 4), "row": "1", "line": "2"}


def test_input_006_utf_8_rows_followed_by_cp932_rows_name_the_first_bad_byte_and_row(source):
    good = (HEADER + 'A-1,"山田\r\n太郎",1000\r\n\r\n').encode()
    refused = refusal(source, good + "A-2,鈴木,1000\r\n".encode("cp932"))
    assert refused.code == "F_ENCODING"
    assert refused.detail == {"offset": str(len(good) + 4), "row": "3", "line": "5"}


def test_input_006_a_few_utf_8_rows_before_many_cp932_rows_are_not_read_as_nonsense(source):
    good = (HEADER + "A-1,東京都千代田区丸の内,1000\r\n").encode()
    refused = refusal(source, good + "A-2,鈴木 一郎,1000\r\n".encode("cp932") * 200)
    assert refused.code == "F_ENCODING"
    assert refused.detail["row"] == "2"


@pytest.mark.parametrize("damage", [b"", b"\x80", b"A", b"\xff"])
@pytest.mark.parametrize("place", range(0, 21, 3))
def test_input_007_utf_8_with_one_damaged_byte_is_refused(source, damage, place):
    data = TEXT.encode()
    start = data.index("山".encode())
    at = [i for i in range(start, len(data)) if data[i] >= 0x80][place]
    damaged = data[:at] + damage + data[at + 1 :]
    refused = refusal(source, damaged)
    assert refused.code == "F_ENCODING"
    assert abs(int(refused.detail["offset"]) - at) <= 2


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le", "utf-32-be"])
def test_input_008_utf_32_is_refused(source, encoding):
    assert refusal(source, TEXT.encode(encoding)).code == "F_CONTROL_CHARS"


@pytest.mark.parametrize("encoding", ["hz", "utf-7"])
def test_input_008_hz_and_utf_7_are_ascii_and_left_to_the_row_rules(source, encoding):
    assert detect(source, (HEADER + "A-1,山田,1\r\n").encode(encoding)).encoding == "utf-8"


@pytest.mark.parametrize("data", [b"A-1,a\0b,1\r\n", b"A-1,a,1\r\n" + bytes(512), b"A-1,a,1\r\n" + bytes(511)])
def test_input_010_nul_is_refused(source, data):
    refused = refusal(source, HEADER.encode() + data)
    assert refused.code == "F_CONTROL_CHARS"
    assert int(refused.detail["offset"]) == len(HEADER) + data.index(b"\0")


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "utf-16-le", "utf-16-be"])
def test_input_011_ctrl_z_is_left_out_as_last_character_only(source, encoding):
    span = detect(source, (TEXT + "\x1a").encode(encoding))
    assert (span.encoding, span.end) == (encoding, len(TEXT.encode(encoding)))
    refused = refusal(source, (TEXT + "\x1a\r\n").encode(encoding))
    assert refused.code == "F_CONTROL_CHARS"
    assert refused.detail == {"offset": str(len(TEXT.encode(encoding))), "row": "3", "line": "4"}


def test_input_013_vertical_tab_form_feed_and_line_separator_are_left_to_the_row_rules(source):
    assert detect(source, (HEADER + "A-1,a\x0b\x0c\u2028b,1\r\n").encode()).encoding == "utf-8"


@pytest.mark.parametrize(
    "magic",
    [b"PK\x03\x04\x14\0", b"PK\x05\x06", b"\x1f\x8b\x08", b"%PDF-1.7\n", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"],
)
def test_input_041_and_042_archives_workbooks_and_pdf_are_refused_by_their_first_bytes(source, magic):
    assert refusal(source, magic + bytes(100)).code == "F_NOT_CSV"


@pytest.mark.parametrize(
    "name",
    [b"\xed\xa0\xbd\xed\xb8\x80", b"\xed\xa0\xbd\xed\xb8\x8aA", b"\xed\xa0\xbd", b"\xed\xa0\x80", b"\xed\xb0\xb1"],
)
def test_input_060_surrogates_in_utf_8_are_refused(source, name):
    refused = refusal(source, HEADER.encode() + b"A-1," + name + b",1\r\n")
    assert refused.code == "F_ENCODING"
    assert refused.detail["offset"] == str(len(HEADER) + 4)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_input_060_a_lone_surrogate_in_utf_16_is_refused(source, encoding):
    data = (TEXT + "A-3,\ud800,1\r\n").encode(encoding, "surrogatepass")
    refused = refusal(source, data)
    assert refused.code == "F_ENCODING"
    assert refused.detail == {"offset": str(len(TEXT.encode(encoding)) + 8), "row": "3", "line": "4"}


def test_utf_16_with_half_a_character_at_its_end_is_refused(source):
    data = codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le") + b"A"
    refused = refusal(source, data)
    assert (refused.code, refused.detail["offset"]) == ("F_ENCODING", str(len(data) - 1))


def test_utf_8_with_bom_is_not_tried_as_cp932(source):
    assert refusal(source, codecs.BOM_UTF8 + TEXT.encode("cp932")).code == "F_ENCODING"


@pytest.mark.parametrize("byte", [0x80, 0xA0, 0xFD, 0xFE, 0xFF])
def test_bytes_no_cp932_writer_makes_are_refused_where_they_stand(source, byte):
    data = TEXT.encode("cp932") + b"A-3," + bytes([byte]) + b",1\r\n"
    refused = refusal(source, data)
    assert refused.code == "F_ENCODING"
    assert refused.detail == {"offset": str(len(TEXT.encode("cp932")) + 4), "row": "3", "line": "4"}


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "utf-16-le"])
@pytest.mark.parametrize("shift", range(4))
def test_characters_that_lie_across_the_blocks_of_reading_are_read_whole(source, encoding, shift):
    text = HEADER + "A" * shift + "," + "山田太郎,\r\n" * 200_000
    assert len(text.encode(encoding)) > 2 << 20
    assert detect(source, text.encode(encoding)).encoding == encoding


@pytest.mark.parametrize("shift", range(2))
def test_a_bad_byte_in_a_later_block_is_found_at_its_offset(source, shift):
    good = (HEADER + "A" * shift + "," + "髙山\r\n" * 400_000).encode("cp932")
    assert len(good) > 2 << 20
    refused = refusal(source, good + b"A-1,\x81\x0a")
    assert (refused.code, refused.detail["offset"]) == ("F_ENCODING", str(len(good) + 4))


def test_the_refusal_names_no_value_of_the_file(source):
    refused = refusal(source, HEADER.encode() + b"A-1,SECRETNAME\xff,1\r\n")
    assert "SECRET" not in str(refused) + repr(refused) + repr(refused.__cause__) + str(refused.detail)
    assert refused.__suppress_context__ or refused.__context__ is None


# What can be read in two ways


def span_or_none(source, data):
    try:
        return detect(source, data)
    except FileRejected as refused:
        if refused.code not in {"F_ENCODING", "F_ENCODING_AMBIGUOUS"}:
            raise
        return None


def test_a_text_of_few_breaks_is_looked_through_once(source):
    text = named("Ren\u00e9e") + "x" * 100_000 + "\r\n"
    began = time.process_time()
    assert refusal(source, text.encode("cp1252")).code == "F_ENCODING_AMBIGUOUS"
    assert time.process_time() - began < 2


def named(name: str) -> str:
    return HEADER + f"A-1,{name},1000\r\n"


@pytest.mark.parametrize("name", ["ﾏｷ ﾘｴ", "ﾏｷ", "ﾃｨ", "ﾃア", "ﾔ機", "螟ァ"])
def test_cp932_that_is_utf_8_by_chance_is_refused_by_name(source, name):
    data = named(name).encode("cp932")
    found = data.decode("utf-8", "replace")
    if "\ufffd" in found:
        assert detect(source, data).encoding == "cp932"
        return
    refused = refusal(source, data)
    assert refused.code == "F_ENCODING_AMBIGUOUS"
    assert refused.detail == {"readings": "UTF-8, CP932", "offset": str(len(HEADER) + 4), "row": "1", "line": "2"}
    assert detect_text(source, encoding="cp932").encoding == "cp932"


@pytest.mark.parametrize("name", ["佐藤", "Café 東京都", "Müller 株式会社", "😀", "𠮷野", "山田", "×印 5×3"])
def test_utf_8_with_a_little_japanese_is_no_doubt(source, name):
    assert detect(source, named(name).encode()).encoding == "utf-8"


@pytest.mark.parametrize(
    "name", ["Renée", "Mme Hélène", "Jörg", "MÜLLER", "Straße", "L’Oréal", "Škoda", "cœur", "À LA CARTE", "Jean–Pierre"]
)
def test_western_text_is_not_read_as_japanese(source, name):
    refused = refusal(source, named(name).encode("cp1252"))
    assert refused.code in {"F_ENCODING_AMBIGUOUS", "F_ENCODING"}
    assert detect_text(source, encoding="cp1252").encoding == "cp1252"


def test_western_text_that_cp932_can_read_is_refused_by_name(source):
    refused = refusal(source, named("Renée Dupont").encode("cp1252"))
    assert refused.code == "F_ENCODING_AMBIGUOUS"
    assert refused.detail == {"readings": "CP932, cp1252", "offset": str(len(HEADER) + 7), "row": "1", "line": "2"}


@pytest.mark.parametrize("name", ["Paweł Szmagaj", "Kołaczek", "Łukasz", "Jiří", "Dvořák", "Szőke"])
def test_central_european_text_is_not_read_as_japanese(source, name):
    refused = refusal(source, named(name).encode("cp1250"))
    assert refused.code == "F_ENCODING" or refused.detail["readings"] in {"CP932, cp1250", "CP932, cp1252"}


@pytest.mark.parametrize(
    ("name", "codec"),
    [("Renée", "cp850"), ("Jürgen Müller", "cp852"), ("Peña", "cp437"), ("São Paulo", "mac_roman"), ("Žižek", "iso8859_15")],
)
def test_text_of_dos_the_macintosh_or_unix_is_not_read_as_japanese(source, name, codec):
    assert refusal(source, named(name).encode(codec)).code == "F_ENCODING_AMBIGUOUS"


@pytest.mark.parametrize(
    "name", ["Tｼｬﾂ", "Y’s", "M&Aの", "ＡBC", "㈱ABC", "①A", "山田", "山本", "ABC商店", "K's 髙島", "CD－ROM"]
)
def test_japanese_beside_latin_letters_stays_japanese(source, name):
    assert detect(source, named(name).encode("cp932")).encoding == "cp932"


WESTERN = ["Renée", "Hélène", "Zoë", "Noël", "Jörg", "Müller", "MÜLLER", "Straße", "L’Oréal", "Škoda", "cœur", "à la", "là"]
WESTERN += ["ça va", "où", "Ö", "Öl", "Éric", "ÉCOLE", "España", "José", "Peña", "Ñandú", "São", "Åse", "Bjørn", "Dupont"]
JAPANESE = st.one_of(
    st.text(st.characters(min_codepoint=0x3041, max_codepoint=0x3093), min_size=1, max_size=5),
    st.text(st.characters(min_codepoint=0x30A1, max_codepoint=0x30F6), min_size=1, max_size=5),
    st.text(st.characters(min_codepoint=0xFF66, max_codepoint=0xFF9F), min_size=1, max_size=6),
    st.text(st.sampled_from("山田佐藤鈴木高橋株式会社見本商店東京都者市子社齋邊惠龍 ABCﾏｷア"), min_size=1, max_size=6),
    st.text(st.characters(codec="euc_jp", min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=1, max_size=4),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JAPANESE, min_size=1, max_size=2), st.sampled_from(["utf-8", "cp932", "euc_jp", "utf-16-le", "utf-16-be"]))
def test_a_short_japanese_file_is_read_as_what_it_is_or_not_at_all(source, names, encoding):
    text = HEADER + "".join(f"A-{row},{name},1000\r\n" for row, name in enumerate(names))
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        return
    span = span_or_none(source, data)
    assert span is None or data[span.start : span.end].decode(span.codec) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(WESTERN), min_size=1, max_size=4))
def test_a_western_file_is_read_as_what_it_is_or_not_at_all(source, names):
    text = HEADER + "".join(f"A-{row},{name},1000\r\n" for row, name in enumerate(names))
    assert span_or_none(source, text.encode("cp1252")) is None or text.isascii()


# What was agreed on


@pytest.mark.parametrize("encoding", ["cp932", "cp1252", "euc_jp"])
def test_utf_8_is_not_read_as_the_encoding_that_was_agreed_on(source, encoding):
    data = TEXT.encode()
    source.write_bytes(data)
    with pytest.raises(FileRejected) as caught:
        detect_text(source, encoding=encoding)
    assert caught.value.code == "F_ENCODING"
    assert caught.value.detail["agreed"] == encoding
    assert (caught.value.detail["row"], caught.value.detail["line"]) == ("1", "2")
    assert (
        f"not throughout {encoding}, which the client's profile says it is; the first byte that does not fit is at offset"
        in str(caught.value)
    )


def test_utf_8_that_cp932_could_read_is_not_read_so_though_it_was_agreed_on(source):
    data = named("佐藤").encode()
    data.decode("cp932")
    source.write_bytes(data)
    with pytest.raises(FileRejected) as caught:
        detect_text(source, encoding="cp932")
    assert caught.value.detail == {"agreed": "cp932", "offset": str(len(HEADER) + 4), "row": "1", "line": "2"}


def test_what_is_no_utf_16_says_what_was_agreed_on(source):
    source.write_bytes(TEXT.encode())
    with pytest.raises(FileRejected) as caught:
        detect_text(source, encoding="utf-16")
    assert (caught.value.code, caught.value.detail) == ("F_ENCODING", {"agreed": "utf-16"})


def test_utf_16_of_many_ideographic_spaces_is_read_in_its_own_order(source):
    text = HEADER + "A-1,見本" + "\u3000" * 300 + "一,1000\r\n"
    assert detect(source, text.encode("utf-16-be")).encoding == "utf-16-be"
    assert detect(source, text.encode("utf-16-le")).encoding == "utf-16-le"
