"""The leak detector: values that exist nowhere else are planted, and looked for in whatever is left behind.

A value is found in the encodings that files, logs, URLs and databases write it in, and inside what is packed. `traces`
finds what tells of the inside of the program without being a value: places in code, SQL, paths, hosts, versions.
Where to look, and what may be there, belongs in the tests.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import re
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
KANJI = (
    "亜哀愛悪圧安暗案以位依偉囲委威尉意慰易為異移維緯胃衣違遺医井域育一壱逸稲芋印員因姻引飲院陰隠韻右宇羽雨渦浦運雲営影映栄"
)
KATAKANA = "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワ"
WINDOW = 8  # bytes of a value that are looked for at once; no spelling is shorter
BYTES_AT_ONCE = 1 << 20
DEPTH = 3  # of what is packed in what is packed
PACKED = re.compile(rb"[A-Za-z0-9+/_-]{40,}={0,2}")

TRACES = {
    "stack": rb"Traceback \(most recent|File \"[^\"]{1,200}\", line [0-9]|[\w/]+\.py(?::|\", line )[0-9]+",
    "symbol": rb"\b(?:psycopg2?|sqlalchemy|pandera|pandas|pyarrow|pydantic|botocore|urllib3|requests|builtins)\.\w+",
    "exception": rb"\b(?:ValueError|KeyError|TypeError|RuntimeError|OSError|OperationalError|IntegrityError|SchemaErrors)\b",
    "sql": rb"(?i:\bselect\s.{1,200}\sfrom\s|\binsert\s+into\s|\bupdate\s+\w+\s+set\s|\bdelete\s+from\s|\bfailing row\b)",
    "path": rb"(?<![\w.:/])/(?:home|root|tmp|usr|var|opt|etc|proc|work)/[\w.-]+",
    "host": rb"\blocalhost\b|\b127\.0\.0\.1\b|://[\w.-]+:[0-9]+",
    "version": rb"(?i:\b(?:python|postgresql|psycopg|dagster|pandas|uvicorn|starlette)[ /]v?[0-9]+\.[0-9]+)",
}


class Canaries:
    """Values to plant, by name; each is unlike anything else that is ever written."""

    def __init__(self, seed: str = "") -> None:
        self._chance = random.Random(seed)
        self._needles: dict[int, list[tuple[bytes, str]]] = {}  # by the number that their first eight bytes are
        self.values: dict[str, str] = {}

    def plant(self, name: str, pattern: str = "{}", *, alphabet: str = LETTERS, length: int = 12) -> str:
        """Return a new value for `name`: `pattern` with its braces filled at random; the filling is what is looked for."""
        core = "".join(self._chance.choices(alphabet, k=length))
        self.values[name] = pattern.format(core)
        for needle in set(spellings(core)):
            self._needles.setdefault(int.from_bytes(needle[:WINDOW]), []).append((needle, name))
        return self.values[name]

    def found_in(self, *places: bytes | str) -> set[str]:
        """Return the names of the values that are in any of the places, however written or packed."""
        starts = np.sort(np.fromiter(self._needles, np.uint64, len(self._needles)))
        return {
            name
            for place in places
            for data in unpacked(place.encode("utf-8", "surrogatepass") if isinstance(place, str) else place)
            for position, start in _begun(data, starts)
            for needle, name in self._needles[start]
            if data.startswith(needle, position)
        }


def _begun(data: bytes, starts: npt.NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Yield where in the data, and with which, one of the sorted beginnings is."""
    for base in range(0, len(data) - WINDOW + 1, BYTES_AT_ONCE):
        some = np.frombuffer(data[base : base + BYTES_AT_ONCE + WINDOW - 1], np.uint8).astype(np.uint64)
        windows = np.zeros(len(some) - WINDOW + 1, np.uint64)
        for offset in range(WINDOW):
            windows = windows << np.uint64(8) | some[offset : offset + len(windows)]
        nearest = np.minimum(np.searchsorted(starts, windows), len(starts) - 1)
        for position in np.flatnonzero(starts[nearest] == windows):
            yield base + int(position), int(windows[position])


def spellings(value: str) -> Iterator[bytes]:
    """Yield every way a value may be written: encodings, cases, escapes, hexadecimal, base64 at each position."""
    for text in dict.fromkeys((value, value.lower(), value.upper())):
        for codec in ("utf-8", "cp932", "euc_jp", "utf-16-le", "utf-16-be"):
            encoded = text.encode(codec, "ignore")
            yield encoded
            yield encoded.hex().encode()
            yield encoded.hex().upper().encode()
            yield quote(encoded, safe="").encode()
            yield from _in_base64(encoded)
            if not encoded.isascii():
                yield repr(encoded)[2:-1].encode()
        escaped = json.dumps(text)[1:-1]
        yield escaped.encode()
        yield escaped.replace("\\", "\\\\").encode()
        yield text.encode("ascii", "xmlcharrefreplace")


def _in_base64(data: bytes) -> Iterator[bytes]:
    """Yield what base64 has of the data whatever stands before and after it, for each of three positions."""
    for shift in range(3):
        written = base64.b64encode(b"\0" * shift + data)
        middle = written[(shift * 4 + 2) // 3 : len(written) - 4]
        yield middle
        yield middle.translate(bytes.maketrans(b"+/", b"-_"))


def unpacked(data: bytes, depth: int = DEPTH) -> Iterator[bytes]:
    """Yield the data and what is packed in it: gzip, zlib, zip, Parquet, SQLite and base64 of any of these."""
    yield data
    if depth:
        for inner in _packed_in(data):
            yield from unpacked(inner, depth - 1)


def _packed_in(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"SQLite format 3"):
        yield _sqlite_text(data)
    elif data.startswith(b"PAR1"):
        yield _parquet_text(data)
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    for start in re.finditer(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]", data):
        wbits = 31 if start[0].startswith(b"\x1f") else 15
        try:
            yield zlib.decompressobj(wbits).decompress(data[start.start() :])
        except zlib.error:
            continue
    for run in PACKED.finditer(data):
        text = run[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        decoded = base64.b64decode(text[: len(text) // 4 * 4])
        if decoded.startswith((b"\x1f\x8b", b"\x78", b"PK", b"\x80")):
            yield decoded


def _sqlite_text(data: bytes) -> bytes:
    """Return a database's rows as text: a long value lies in pieces over its pages."""
    with tempfile.NamedTemporaryFile(suffix=".db") as copy:
        copy.write(data)
        copy.flush()
        connection = sqlite3.connect(copy.name)
        try:
            return "\n".join(connection.iterdump()).encode("utf-8", "surrogatepass")
        except sqlite3.Error:
            return b""
        finally:
            connection.close()


def _parquet_text(data: bytes) -> bytes:
    try:
        table = pq.read_table(io.BytesIO(data))
    except pa.ArrowInvalid:
        return b""
    cells = [cell for column in table.columns for cell in column.to_pylist() if cell is not None]
    return b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


def traces(*places: bytes | str) -> dict[str, str]:
    """Return what in the places tells of the inside of the program, by kind, with the first of its words."""
    found: dict[str, str] = {}
    for place in places:
        data = place.encode("utf-8", "surrogatepass") if isinstance(place, str) else place
        for kind, pattern in TRACES.items():
            hit = re.search(pattern, data, re.DOTALL)
            if hit and kind not in found:
                found[kind] = data[max(0, hit.start() - 60) : hit.end() + 60].decode("utf-8", "replace")
    return found


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the relative name and the bytes of every file below a folder; a database with what it has not merged yet."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), path.read_bytes()


def gzipped(text: str) -> bytes:
    """Return text as gzip packs it."""
    return gzip.compress(text.encode())
