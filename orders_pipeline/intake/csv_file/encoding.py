"""Which encoding a file is in, by a strict ladder and never by a guess: BOM, UTF-16, UTF-8, CP932.

Files that are no text, hold control characters, or can be read in two ways (`ambiguity`) are refused here, with the
offset of the first bad byte. How the text is cut into lines and rows is in `physical_lines` and `records`.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from orders_pipeline.intake.csv_file.ambiguity import (
    NOT_CP932,
    first_high_byte,
    is_shaped_like_euc,
    other_reading,
    utf8_instead,
)
from orders_pipeline.intake.csv_file.dialect import Dialect
from orders_pipeline.intake.csv_file.physical_lines import TextSpan, locate, read_raw, unit_of
from orders_pipeline.records.rejections import FileRejected

_HEAD_BYTES = 64 << 10
_CTRL_Z = 0x1A
_LF, _CR = 10, 13
# tab, LF, VT, FF and CR are left to the row rules; every other C0 character is never part of an order file
_CONTROLS = frozenset(range(0x20)) - frozenset(range(0x09, 0x0E))
_ALL_BUT_CONTROLS = bytes(sorted(set(range(0x100)) - _CONTROLS))
_HIGH_BYTES = bytes(range(0x80, 0x100))
_MAGIC = (
    (b"PK\x03\x04", "ZIP or Excel (.xlsx)"),
    (b"PK\x05\x06", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"%PDF", "PDF"),
    (b"\xd0\xcf\x11\xe0", "Excel (.xls)"),
    (b"7z\xbc\xaf", "7z"),
    (b"Rar!", "RAR"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
)
_LEGACY = frozenset({"cp932", "euc_jp", "cp1252"})
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# four Japanese characters of UTF-8 in a row, or a pair of surrogates: chance makes neither out of CP932
_UTF8_RUN = re.compile(rb"[\xe3-\xe9][\x80-\xbf]{2}(?:[\xe3-\xe9][\x80-\xbf]{2}){3}")
_SURROGATE_PAIR = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")


def detect_text(
    source: Path,
    dialect: Dialect = Dialect(),  # noqa: B008 - it is frozen
    encoding: str | None = None,
    *,
    with_controls: bool = False,
) -> TextSpan:
    """Return the encoding of a file and where its text begins and ends, or raise FileRejected.

    The file is read in blocks, in constant memory, once for each step of the ladder; `dialect` serves to count rows.
    Control characters are let pass `with_controls` only. With an `encoding` (utf-8, cp932, cp1252, euc_jp or utf-16) there
    is no ladder: the text is that, or the file is refused.
    """
    size = source.stat().st_size
    with source.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, size - 2))
        tail = file.read()
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            raise FileRejected("F_NOT_CSV", {"kind": kind})
    span = _assume(head, tail, size) if encoding is None else _agreed(encoding, head, tail, size)
    if not with_controls and (control := _first_control(source, span)) is not None:
        raise FileRejected("F_CONTROL_CHARS", locate(source, span, control, dialect))
    invalid = _first_invalid(source, span, span.codec)
    if encoding is None and span.encoding == "utf-8":
        if invalid is not None:
            span = replace(span, encoding="cp932")
            invalid = _cp932_fault(source, span, invalid)
        if invalid is None:
            _check_doubt(source, span, dialect)
    elif encoding is not None and invalid is None and span.encoding in _LEGACY:
        invalid = utf8_instead(source, span)
    if invalid is None:
        return span
    agreed = {} if encoding is None else {"agreed": encoding}
    raise FileRejected("F_ENCODING", locate(source, span, invalid, dialect) | agreed)


def _check_doubt(source: Path, span: TextSpan, dialect: Dialect) -> None:
    """Refuse a text that may as well be in another encoding."""
    if (other := other_reading(source, span)) is not None:
        where = locate(source, span, first_high_byte(source, span) or 0, dialect)
        readings = {"readings": f"{span.encoding.upper()}, {other}"}
        raise FileRejected("F_ENCODING_AMBIGUOUS", where | readings)


def _assume(head: bytes, tail: bytes, size: int) -> TextSpan:
    """Return what BOM, NUL pattern and last character say; without any of them UTF-8, still to be proven."""
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return _without_ctrl_z(TextSpan(encoding, has_bom=True, start=len(bom), end=size), tail)
    encoding = _utf16_by_pattern(head, size) or "utf-8"
    return _without_ctrl_z(TextSpan(encoding, has_bom=False, start=0, end=size), tail)


def _agreed(encoding: str, head: bytes, tail: bytes, size: int) -> TextSpan:
    """Return the span of a text whose encoding was agreed on; a BOM only says where it begins, and which UTF-16 it is."""
    assumed = _assume(head, tail, size)
    if encoding == "utf-16":
        if not assumed.encoding.startswith("utf-16"):
            raise FileRejected("F_ENCODING", {"agreed": encoding})
        return assumed
    if encoding == "utf-8" and assumed.encoding == "utf-8-sig":
        return assumed
    return _without_ctrl_z(TextSpan(encoding, has_bom=False, start=0, end=size), tail)


def _without_ctrl_z(span: TextSpan, tail: bytes) -> TextSpan:
    """Leave out a Ctrl-Z if it is the last character: old editors' end-of-file mark."""
    width = span.unit.itemsize
    if span.end - span.start < width or np.frombuffer(tail[-width:], span.unit)[0] != _CTRL_Z:
        return span
    return replace(span, end=span.end - width)


def _utf16_by_pattern(head: bytes, size: int) -> str | None:
    """Return the byte order in which a head with NULs reads as text: a tenth of ASCII characters, no U+0000.

    Where it does so in both, spaces (U+3000) reading as zeros (U+0030), the one with line ends and more of ASCII counts.
    """
    if size % 2 or b"\0" not in head:
        return None
    found: dict[str, tuple[bool, int]] = {}
    for encoding in ("utf-16-le", "utf-16-be"):
        units = np.frombuffer(head, unit_of(encoding), count=len(head) // 2)
        ascii_units = int(np.count_nonzero((units >= 0x09) & (units < 0x7F)))
        if ascii_units * 10 >= len(units) and not (units == 0).any():
            found[encoding] = bool(np.isin(units, (_LF, _CR)).any()), ascii_units
    return max(found, key=lambda encoding: found[encoding], default=None)


def _first_control(source: Path, span: TextSpan) -> int | None:
    """Return the offset of the first control character that no text has."""
    controls = np.array(sorted(_CONTROLS), span.unit)
    for offset, data in read_raw(source, span.start, span.end):
        if span.unit.itemsize == 1 and not data.translate(None, _ALL_BUT_CONTROLS):
            continue
        units = np.frombuffer(data, span.unit, count=len(data) // span.unit.itemsize)
        found = np.flatnonzero(np.isin(units, controls))
        if len(found):
            return offset + int(found[0]) * span.unit.itemsize
    return None


def _first_invalid(source: Path, span: TextSpan, codec: str) -> int | None:
    """Return the offset of the first byte that is not valid in `codec`."""
    decoder = codecs.getincrementaldecoder(codec)()
    for offset, data in read_raw(source, span.start, span.end):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=offset + len(data) >= span.end)
        except UnicodeDecodeError as error:
            return offset - pending + error.start
        if codec == "cp932" and (places := [text.index(letter) for letter in NOT_CP932 if letter in text]):
            return offset - pending + len(text[: min(places)].encode(codec))
    return None


def _cp932_fault(source: Path, span: TextSpan, bad_utf8: int) -> int | None:
    """Return the offset of the byte that makes CP932 wrong or doubtful, None when the text is CP932.

    A text that is mostly UTF-8 was UTF-8 and got damaged, though CP932 may take its bytes; a text that may be EUC-JP
    as well, and in CP932 mostly half-width kana, could be either, and nobody should guess names.
    """
    if _looks_like_utf8(source, span):
        return bad_utf8
    if (invalid := _first_invalid(source, span, "cp932")) is not None:
        return invalid
    if is_shaped_like_euc(source, span) and _is_half_width(source, span):
        return bad_utf8
    return None


def _is_half_width(source: Path, span: TextSpan) -> bool:
    """Return whether over half of the Japanese characters, read as CP932, are half-width kana."""
    decoder = codecs.getincrementaldecoder("cp932")("replace")
    japanese = kana = 0
    for _, data in read_raw(source, span.start, span.end):
        units = np.frombuffer(decoder.decode(data).encode("utf-16-le"), np.dtype("<u2"))
        japanese += int(np.count_nonzero(units > 0x7F))
        kana += int(np.count_nonzero((units >= 0xFF61) & (units <= 0xFF9F)))
    return kana * 2 > japanese


def _looks_like_utf8(source: Path, span: TextSpan) -> bool:
    """Return whether over half of the bytes above 0x7F, or any longer stretch of them, form characters of UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    high = in_characters = 0
    for offset, data in read_raw(source, span.start, span.end):
        if _UTF8_RUN.search(data) or _SURROGATE_PAIR.search(data):
            return True
        high += len(data) - len(data.translate(None, _HIGH_BYTES))
        valid = decoder.decode(data, final=offset + len(data) >= span.end).encode()
        in_characters += len(valid) - len(valid.translate(None, _HIGH_BYTES))
        in_characters += sum(map(len, _SURROGATE.findall(data)))
    return in_characters * 2 > high
