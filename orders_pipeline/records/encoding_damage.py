"""Encoding damage: whether a text is what another one becomes when a program reads or writes it in the wrong encoding.

A spreadsheet opens UTF-8 as CP932 or a western encoding, or the other way round, and saves what it took it for; what the
encoding cannot hold becomes a mark or a similar letter. Two texts in, yes or no out; where they come from is no matter here.
"""

from __future__ import annotations

import re
import unicodedata

READ_AS = ("cp932", "cp1252", "latin-1", "mac_roman", "euc_jp")
SAVED_AS = ("cp932", "cp1252")
_LOST = "\ufffd"
_MARK = "・"  # what Japanese Windows puts where bytes are no character
_LEAST = 0.5  # share of the bytes beyond ASCII that must be there: the rest may be lost


def is_damaged(original: str, received: str, written_in: str) -> bool:
    """Return whether `received` is what became of `original`, a cell of a file in the encoding `written_in`."""
    if original.isascii() or received == original:
        return False
    if _LOST in received and _LOST not in original:
        return True
    return (
        _is_misread(original, received, written_in)
        or _is_marked(original.encode(written_in, "ignore"), received.encode(written_in, "ignore"))
        or any(_is_saved_lossily(original, received, codec) for codec in SAVED_AS)
    )


def _is_misread(original: str, received: str, written_in: str) -> bool:
    """Return whether the original's bytes, read in another encoding, are `received`; some bytes may be lost on the way."""
    sent = _beyond_ascii(original.encode(written_in, "ignore"))
    for codec in READ_AS:
        taken = _beyond_ascii(_bytes_of(received, codec))
        if codec != written_in and len(taken) >= _LEAST * len(sent) and taken and _is_part_of(taken, sent):
            return True
    return False


def _is_marked(sent: bytes, received: bytes) -> bool:
    """Return whether the bytes are those sent, read as CP932 and saved as that again: with marks where some were none."""
    mark = _MARK.encode("cp932")
    if received.count(mark) <= sent.count(mark):
        return False
    kept, all_sent = _beyond_ascii(received.replace(mark, b"")), _beyond_ascii(sent)
    return len(kept) >= _LEAST * len(all_sent) and _is_part_of(kept, all_sent)


def _bytes_of(text: str, codec: str) -> bytes:
    """Encode what can be; Windows reads bytes that cp1252 has no character for as control characters."""
    text = text.replace(_MARK, "")
    if codec != "cp1252":
        return text.encode(codec, "ignore")
    return b"".join(character.encode(codec, "ignore") or character.encode("latin-1", "ignore") for character in text)


def _beyond_ascii(data: bytes) -> bytes:
    return bytes(byte for byte in data if byte > 0x7F)


def _is_part_of(part: bytes, whole: bytes) -> bool:
    """Return whether all bytes of `part` stand in `whole`, in this order."""
    rest = iter(whole)
    return all(byte in rest for byte in part)


def _is_saved_lossily(original: str, received: str, codec: str) -> bool:
    """Return whether `received` has a mark, or a letter without its accent, for every character the encoding has not."""
    pattern, lossy = [], False
    for character in original:
        if character.encode(codec, "ignore"):
            pattern.append(re.escape(character))
            continue
        lossy = True
        letter = unicodedata.normalize("NFD", character)[0]
        pattern.append(f"(?:[?{_MARK}_]{{1,2}}|{letter})" if letter.isascii() else f"[?{_MARK}_]{{1,2}}")
    return lossy and re.fullmatch("".join(pattern), received) is not None
