"""Encoding damage: found whatever program read or wrote a text in which wrong encoding, and not in another text."""

import pytest

from orders_pipeline.records.encoding_damage import is_damaged

NAMES = [
    "株式会社みどり",
    "田中商店",
    "髙橋①商店",
    "山田 太郎",
    "あ",
    "ｻﾄｳ",
    "東京都千代田区1-2-3 ビル5F",
    "カブシキガイシャ ミドリ",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("written", "read"),
    [("utf-8", "cp932"), ("utf-8", "cp1252"), ("utf-8", "mac_roman"), ("cp932", "cp1252"), ("cp932", "utf-8")],
)
def test_text_read_in_a_wrong_encoding_is_damaged(name, written, read):
    for errors in ("ignore", "replace") if read != "utf-8" else ("replace",):
        assert is_damaged(name, name.encode(written).decode(read, errors), written)


def test_text_taken_for_cp932_and_saved_as_that_again_is_damaged_though_it_is_utf_8():
    assert is_damaged("株式会社みどり", "株式会社みどめE", "utf-8")
    assert is_damaged("田中商店", bytes.fromhex("e794b0e4b8ade5958145e5ba8145").decode(), "utf-8")
    assert not is_damaged("めEA", "めE", "utf-8")


def test_marks_of_what_was_lost_are_no_way_round():
    assert is_damaged("株式会社みどり", "譬ｪ蠑丈ｼ夂､ｾ縺ｿ縺ｩ繧・", "utf-8")
    assert is_damaged("田中商店", "逕ｰ荳ｭ蝠・蠎・", "utf-8")
    assert is_damaged("𠮷野家", "??野家", "utf-8")
    assert is_damaged("Renée", "Renee", "utf-8")


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("株式会社みどり", "株式会社みどりA"),
        ("株式会社みどり", "(株)みどり"),
        ("髙橋", "高橋"),
        ("𠮷野家", "吉野家"),
        ("ＡＢＣ商店", "ABC商店"),
        ("〜", "～"),
        ("急ぎ", ""),
        ("ABC", "AB"),
        ("東京都", "大阪府"),
    ],
)
@pytest.mark.parametrize("written", ["utf-8", "cp932"])
def test_another_text_is_not_damaged(sent, found, written):
    assert not is_damaged(sent, found, written)
