"""The detector finds a value however it is written or packed, and nothing where nothing was planted."""

import base64
import io
import json
import pickle
import sqlite3
import zipfile
import zlib
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orders_pipeline_tests.leaks.detector import KANJI, Canaries, gzipped, traces


def zipped(text: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sheet.xml", text)
    return target.getvalue()


def in_parquet(text: str) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table({"cell": [text]}), target, compression="zstd")
    return target.getvalue()


def in_sqlite(text: str) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE logs (event TEXT)")
    connection.execute("INSERT INTO logs VALUES (?)", ["x" * 5_000 + text])
    connection.commit()
    return connection.serialize()


WRITTEN = {
    "utf-8": lambda text: text.encode(),
    "cp932": lambda text: text.encode("cp932"),
    "euc_jp": lambda text: text.encode("euc_jp"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "upper case": lambda text: text.upper().encode(),
    "hex": lambda text: text.encode().hex().encode(),
    "percent": lambda text: quote(text).encode(),
    "percent of cp932": lambda text: quote(text.encode("cp932")).encode(),
    "json": lambda text: json.dumps({"a": text}).encode(),
    "json in json": lambda text: json.dumps(json.dumps(text)).encode(),
    "repr of bytes": lambda text: repr(text.encode()).encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64, one further": lambda text: base64.b64encode(b"a" + text.encode() + b"b"),
    "base64, two further": lambda text: base64.b64encode(b"ab" + text.encode() + b"c"),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()),
    "pickle": lambda text: pickle.dumps({"row": [text]}),
    "gzip": gzipped,
    "gzip within": lambda text: b"head" + gzipped(text),
    "gzip in base64": lambda text: b'{"a":"' + base64.b64encode(gzipped(text)) + b'"}',
    "pickle in gzip": lambda text: zlib.compress(pickle.dumps(text)),
    "zip": zipped,
    "parquet": in_parquet,
    "sqlite": in_sqlite,
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("alphabet", ["abcdefghijk", KANJI], ids=["ascii", "kanji"])
def test_a_value_is_found_however_it_is_written(written, alphabet):
    canaries = Canaries()
    value = canaries.plant("planted", "<{}>", alphabet=alphabet)
    canaries.plant("not there")
    assert canaries.found_in(b"nothing", WRITTEN[written](f"before {value} after")) == {"planted"}


def test_nothing_is_found_where_nothing_was_planted():
    canaries, others = Canaries("one"), Canaries("other")
    canaries.plant("ours")
    value = others.plant("theirs")
    assert canaries.found_in(*(write(value) for write in WRITTEN.values())) == set()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("stack", 'File "/opt/app/x.py", line 3'),
        ("symbol", "psycopg.errors.UniqueViolation"),
        ("exception", "ValueError: no"),
        ("sql", "[SQL: insert into orders values (1)]"),
        ("path", "cannot open /var/lib/data"),
        ("host", "connection to http://db:5432 refused"),
        ("version", "Server: PostgreSQL 16.3"),
    ],
)
def test_what_tells_of_the_inside_is_found(kind, text):
    assert kind in traces(f"so: {text}")


def test_a_code_and_a_reference_tell_nothing():
    assert traces("E_DATABASE_UNAVAILABLE: reference 0123456789ab; see `orders-pipeline error`") == {}
