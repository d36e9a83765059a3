"""TLS in front of a PostgreSQL server that has none, such as the embedded one, for clients that show a certificate.

The server itself lets everybody in who reaches its socket, so whoever comes without one is turned away here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # PostgreSQL's protocol, "SSLRequest"
WILLING = b"S"
NO_CERTIFICATE = b"SFATAL\0VFATAL\0C28000\0Mconnection requires a valid client certificate\0\0"
BLOCK_BYTES = 1 << 16


@contextlib.asynccontextmanager
async def database_door(
    socket_path: Path, certificate: tuple[Path, Path], ca_file: Path, host: str, port: int
) -> AsyncIterator[None]:
    """Let clients with a certificate of `ca_file` into the server at a socket, over TLS; raise OSError for a taken port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(*certificate)

    async def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError), contextlib.closing(writer):  # whoever goes, goes
            if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                return
            writer.write(WILLING)
            await writer.drain()
            await writer.start_tls(context)
            if not writer.get_extra_info("peercert"):
                await _refuse(reader, writer)
                return
            from_server, to_server = await asyncio.open_unix_connection(socket_path)
            with contextlib.closing(to_server):
                ways = [asyncio.create_task(each) for each in (_pass_on(reader, to_server), _pass_on(from_server, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()

    async with await asyncio.start_server(let_in, host, port):
        yield


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say what PostgreSQL says to who shows no certificate, once they have said what they want."""
    await reader.read(BLOCK_BYTES)
    writer.write(b"E" + (len(NO_CERTIFICATE) + 4).to_bytes(4) + NO_CERTIFICATE)
    await writer.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
