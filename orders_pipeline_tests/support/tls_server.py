"""A real PostgreSQL server and https service that show certificates.

PostgreSQL comes from the system, for the wheel's is built without TLS; where there is none, its tests are skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest

from orders_pipeline_tests.support.commands import wait_for
from orders_pipeline_tests.support.threaded_server import answering


@contextlib.contextmanager
def https_service(shown: Path, secret: Path, newest: ssl.TLSVersion | None = None) -> Iterator[tuple[int, list[str]]]:
    """Serve an empty JSON object over https: (port, the paths that were asked for)."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_DELETE = do_POST = do_GET  # noqa: N815 - the names the base class calls

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            pass  # refused handshakes are what the tests are about

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown, secret)
    if newest is not None:
        context.maximum_version = newest
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with answering(server):
        yield server.server_port, asked


def _binaries() -> Path | None:
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@dataclass(frozen=True)
class TlsPostgres:
    """A PostgreSQL server with TLS, whose settings a test changes; a socket of its own stays open to the test."""

    folder: Path
    port: int

    def url(self, host: str = "localhost", **query: str) -> str:
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        return f"postgresql://orders:planted-secret@{host}:{self.port}/postgres?{asked}"

    def run(self, *statements: str) -> list[tuple[object, ...]]:
        with psycopg.connect(host=str(self.folder), port=self.port, user="postgres", autocommit=True) as connection:
            for statement in statements:
                found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    def change(self, **settings: str | Path) -> None:
        """Change settings and wait until new connections have them."""
        loaded = self.run("SELECT pg_conf_load_time()")
        self.run(*(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()), "SELECT pg_reload_conf()")
        wait_for(lambda: self.run("SELECT pg_conf_load_time()") != loaded, "the settings")

    def show(self, certificate: tuple[Path, Path]) -> None:
        """Show this certificate from now on."""
        for name, source in zip(("server.pem", "server.key"), certificate, strict=True):
            shutil.copyfile(source, self.folder / name)
        self.change(ssl="on")


@contextlib.contextmanager
def tls_postgres(certificate: tuple[Path, Path]) -> Iterator[TlsPostgres]:
    """Start a PostgreSQL server of the system with a certificate and a user `orders`; skip the test without one."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL of the system; the wheel's has no TLS")
    user = {"user": "postgres"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="orders-tls-") as name, socket.create_server(("127.0.0.1", 0)) as free:
        folder, port = Path(name), free.getsockname()[1]
        if user:
            shutil.chown(folder, **user)
        for target, source in zip(("server.pem", "server.key"), certificate, strict=True):
            shutil.copyfile(source, folder / target)
            (folder / target).chmod(0o600)
            if user:
                shutil.chown(folder / target, **user)
        data = folder / "data"
        initdb = [binaries / "initdb", "-D", data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]
        subprocess.run([*initdb, "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/", **user)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "ssl": "on",
        }
        options |= {"ssl_cert_file": folder / "server.pem", "ssl_key_file": folder / "server.key"}
        (data / "postgresql.auto.conf").write_text("".join(f"{key} = '{value}'\n" for key, value in options.items()))
        free.close()
        process = subprocess.Popen([binaries / "postgres", "-D", data], stderr=subprocess.DEVNULL, cwd="/", **user)
        server = TlsPostgres(folder, port)
        try:
            wait_for(lambda: (folder / f".s.PGSQL.{port}").exists() and _answers(server), "PostgreSQL")
            server.run("CREATE ROLE orders LOGIN PASSWORD 'planted-secret'")
            yield server
        finally:
            process.terminate()
            process.wait()


def _answers(server: TlsPostgres) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        server.run("SELECT 1")
        return True
    return False
