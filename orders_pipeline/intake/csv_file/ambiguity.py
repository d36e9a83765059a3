"""Ambiguous encodings: texts whose bytes are valid in one encoding and may be a text in another as well.

A longer Japanese text is valid in one encoding only; a short one, or a Western one, may be valid in two by chance. Names
are never guessed: where both readings are possible, the file is refused. Which encodings are tried, and in what order, is
in `encoding`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from unicodedata import name

from orders_pipeline.intake.csv_file.physical_lines import TextSpan, read_blocks, read_raw

# single bytes no CP932 writer makes, which Python's codec lets through as these characters
NOT_CP932 = "\x80\xa0\uf8f0\uf8f1\uf8f2\uf8f3"

_NOT_ASCII = re.compile("[^\x00-\x7f]")
_HIGH_BYTE = re.compile(rb"[\x80-\xff]")
_NO_TEXT_IN_CP932 = re.compile(f"[\ue000-\uf8ff{NOT_CP932}]")  # an order with characters of a client's own is never taken
# kanji of names that CP932 has beside JIS X 0208: far more common than what their bytes are in EUC-JP
_KANJI_OF_NAMES = frozenset("髙﨑")
_BESIDE_LATIN = frozenset("’・－")  # Y’s
_LATIN = frozenset("ŠŒŽšœžŸªº·‘’“”–—…¢£§©®" + "".join(map(chr, range(0xC0, 0x100)))) - frozenset("×÷")
_CENTRAL = frozenset(filter(str.isalpha, bytes(range(0x80, 0x100)).decode("cp1250", "ignore"))) | set("’“”–—…")
# of DOS ("CSV (MS-DOS)" in a spreadsheet), the Macintosh and Unix: single letters in words that are written as words are
_OTHERS = {
    codec: frozenset(each for each in bytes(range(0x80, 0x100)).decode(codec, "ignore") if "LATIN" in name(each, ""))
    for codec in ("cp850", "cp852", "mac_roman", "iso8859_15", "iso8859_2")
}
_WESTERN = {"cp1252": _LATIN, "cp1250": _CENTRAL, **_OTHERS}
_WORD = re.compile("[A-Za-z\u00aa-\u024f]+")
_NO_WORD = re.compile(r"[^\x00-\x7f](?:[^\x00-\x7f]|[@\[\\\]^_`{|}~])")  # as kanji and signs beside Latin letters would be
_APART = re.compile("(?<![A-Za-z])[^\x00-\x7f]{2,}(?![A-Za-z])")  # a word of Japanese, without Latin letters beside it
_CHARACTERS_AHEAD = 2
# also with characters that one program or another has added to EUC-JP, and in EUC-KR and GB2312
_SHAPED_LIKE_EUC = re.compile(rb"(?:[\x00-\x7f]|[\xa1-\xfe]{2}|\x8e[\xa1-\xdf]|\x8f[\xa1-\xfe]{2})*+")


def other_reading(source: Path, span: TextSpan) -> str | None:
    """Return the encoding that a valid UTF-8 or CP932 text may be in as well, None where there is no doubt."""
    if span.encoding == "utf-8":
        return None if _is_clearly_utf8(source, span, or_not_cp932=True) else "CP932"
    if _may_be_euc_jp(source, span):
        return "EUC-JP"
    return _western_reading(source, span)


def utf8_instead(source: Path, span: TextSpan) -> int | None:
    """Return the offset of the first high byte of a text that is UTF-8, though it is valid in another encoding too.

    Western texts are never UTF-8 by chance, but half-width kana may be.
    """
    first = first_high_byte(source, span)
    if first is None or any(_read(data, "utf-8") is None for data in _high_lines(source, span)):
        return None
    return first if span.encoding == "cp1252" or _is_clearly_utf8(source, span, or_not_cp932=False) else None


def is_shaped_like_euc(source: Path, span: TextSpan) -> bool:
    """Return whether all high bytes come in the pairs of EUC-JP, whatever they mean there."""
    return all(_SHAPED_LIKE_EUC.fullmatch(data) for data in _high_lines(source, span))


def first_high_byte(source: Path, span: TextSpan) -> int | None:
    """Return the offset of the first byte that is not ASCII."""
    for offset, data in read_raw(source, span.start, span.end):
        if not data.isascii() and (found := _HIGH_BYTE.search(data)):
            return offset + found.start()
    return None


def _high_lines(source: Path, span: TextSpan) -> Iterator[bytes]:
    """Read the text in blocks of whole lines, without those that are ASCII only."""
    return (block.data for block in read_blocks(source, span) if not block.data.isascii())


def _read(data: bytes, codec: str) -> str | None:
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        return None
    return None if codec == "cp932" and _NO_TEXT_IN_CP932.search(text) else text


def _is_clearly_utf8(source: Path, span: TextSpan, *, or_not_cp932: bool) -> bool:
    """Return whether a valid UTF-8 text holds more Japanese than chance makes of CP932, or else is not valid CP932.

    What is UTF-8 by chance has mostly characters that no Japanese text has: of half-width kana come Greek and Arabic.
    """
    usual = unusual = 0
    for data in _high_lines(source, span):
        if or_not_cp932 and _read(data, "cp932") is None:
            return True
        for character in _NOT_ASCII.findall(data.decode()):
            if "\u2000" <= character <= "\u206f":  # quotation marks and dashes of any language
                usual += _CHARACTERS_AHEAD
            elif character > "\u07ff" and _is_japanese(character):
                usual += 1
            else:
                unusual += 1
    return not usual + unusual or usual >= unusual + _CHARACTERS_AHEAD


def _is_japanese(character: str) -> bool:
    try:
        character.encode("cp932")
    except UnicodeEncodeError:
        return False
    return True


def _may_be_euc_jp(source: Path, span: TextSpan) -> bool:
    """Return whether a CP932 text is valid EUC-JP too: one of rare kanji and half-width kana only."""
    found: set[str] = set()
    for data in _high_lines(source, span):
        if _read(data, "euc_jp") is None:
            return False
        found.update(_NOT_ASCII.findall(data.decode("cp932")))
    return not found <= _KANJI_OF_NAMES


def _western_reading(source: Path, span: TextSpan) -> str | None:
    """Return in which encoding a CP932 text is Latin text, if it holds no word of Japanese that stands by itself: Ren馥."""
    found: set[str] = set()
    possible = dict(_WESTERN)
    for data in _high_lines(source, span):
        japanese = data.decode("cp932")
        for codec, letters in _WESTERN.items():
            western = _read(data, codec)
            if western is None or not letters.issuperset(_NOT_ASCII.findall(western)) or not _is_worded(codec, western):
                possible.pop(codec, None)
        if not possible or _APART.search(japanese):
            return None
        found.update(_NOT_ASCII.findall(japanese))
    return None if found <= _KANJI_OF_NAMES | _BESIDE_LATIN else next(iter(possible))


def _is_worded(codec: str, text: str) -> bool:
    """Return whether words have single accents in them, and capitals at their beginning or all over only."""
    if codec not in _OTHERS:
        return True
    words = (word for word in _WORD.findall(text) if not word.isascii())
    return not _NO_WORD.search(text) and all(word[1:].islower() or word.isupper() for word in words)
