"""What production needs, made up on this machine: PostgreSQL and both services over TLS, a key, and the settings for them.

Who rehearses calls the commands of production with these settings, in another terminal. What the parts do belongs in
`sandbox/` and `system/embedded.py`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from anyio.from_thread import start_blocking_portal

from orders_pipeline.sandbox import SandboxError, SandboxServer
from orders_pipeline.sandbox.certificates import Authority
from orders_pipeline.sandbox.database_door import database_door
from orders_pipeline.security.encryption import new_key
from orders_pipeline.system import embedded

HOST, ADDRESS = "localhost", "127.0.0.1"
SETTINGS = "production.env"
VALID = timedelta(days=90)
USER, SOCKET = "postgres", ".s.PGSQL.5432"  # of the embedded server


@contextlib.contextmanager
def rehearsing(folder: Path, port: int) -> Iterator[dict[str, str]]:
    """Run the parts for a block, the services at the port and the database at the next; all is kept in the folder.

    Settings that are there already stay as they are, and with them the ports; certificates are new each time. Raises
    SandboxError.
    """
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority(folder / "certificates", "A rehearsal", VALID)
    certificate, client = (authority.issue(name, HOST, until=VALID) for name in ("server", "client"))
    settings = folder / SETTINGS
    if not settings.exists():
        settings.touch(mode=0o600)
        settings.write_text(_written(_settings(folder, port, authority.ca_file, client)))
    values = _read(settings)
    services, database = (urlsplit(values[f"ORDERS_{name}_URL"]) for name in ("PAYMENT", "DATABASE"))
    with contextlib.ExitStack() as stack:
        sandbox = SandboxServer(
            folder / "services.sqlite",
            host=ADDRESS,
            port=services.port or 0,
            token=values["ORDERS_PAYMENT_TOKEN"],
            tls=certificate,
        )
        stack.enter_context(sandbox)
        stack.callback(embedded.wait_until_gone, folder)
        postgres = stack.enter_context(contextlib.closing(embedded.join(folder, "postgres")))
        socket_path = Path(parse_qs(urlsplit(postgres.url).query)["host"][0]) / SOCKET
        door = database_door(socket_path, certificate, authority.ca_file, ADDRESS, database.port or 0)
        try:
            stack.enter_context(stack.enter_context(start_blocking_portal()).wrap_async_context_manager(door))
        except OSError:
            raise SandboxError(f"port {database.port} is in use; choose another with --port, in another folder") from None
        yield {
            "settings": str(settings),
            "services": f"https://{HOST}:{services.port}",
            "database": f"{HOST}:{database.port}",
        }


def _settings(folder: Path, port: int, ca_file: Path, client: tuple[Path, Path]) -> dict[str, str]:
    """Return the settings of production."""
    services, token = f"https://{HOST}:{port}", secrets.token_urlsafe(24)
    shown = urlencode({"sslcert": client[0], "sslkey": client[1]})
    values = {
        "ENV": "production",
        "HOME": str(folder / "home"),
        "DATABASE_URL": f"postgresql://{USER}@{HOST}:{port + 1}/{USER}?{shown}",
        "STORAGE_URL": str(folder / "storage"),
        "PAYMENT_URL": services,
        "PAYMENT_TOKEN": token,
        "NOTIFICATION_URL": services,
        "NOTIFICATION_TOKEN": token,
        "ENCRYPTION_KEYS": new_key(),
        "CA_FILE": str(ca_file),
    }
    return {f"ORDERS_{name}": value for name, value in values.items()}


def _written(values: dict[str, str]) -> str:
    """Return settings as a shell and systemd read them."""
    return "".join(f"{name}='{value}'\n" for name, value in values.items())


def _read(settings: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in settings.read_text().splitlines())
    return {name: value.strip("'\"") for name, _, value in lines}
