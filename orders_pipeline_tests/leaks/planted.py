"""An order file with a planted value in every cell, header and name, and an installation with planted secrets and paths."""

from __future__ import annotations

import contextlib
import csv
import io
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import make_url

from orders_pipeline.records.orders import ORDERS
from orders_pipeline_tests.leaks.detector import KANJI, KATAKANA, Canaries
from orders_pipeline_tests.support.factories import order_row
from orders_pipeline_tests.support.installation import Installation, open_installation

SECRETS = (
    "payment service token",
    "notification service token",
    "database password",
    "encryption key",
    "webhook secret",
    "home",
)
PATTERNS = {
    "client_order_ref": ("R-{}", None),
    "customer_code": ("C{}", None),
    "customer_name": ("{}商店", KANJI),
    "customer_name_kana": ("{}", KATAKANA),
    "email": ("{}@example.com", None),
    "phone": ("090{}", string.digits),
    "postal_code": ("{}", None),
    "ship_to_address": ("東京都{}", KANJI),
    "item_code": ("I-{}", None),
    "payment_token": ("tok_{}", None),
    "note": ("{}", KANJI),
}
# columns in which any word is wrong: the row is given back
WRONG = ("order_date", "quantity", "unit_price", "amount", "currency", "payment_method", "notify_channel")
# what a client says of its orders that names nobody: kept in clear, and shown to who may see a batch
IN_CLEAR = {"client_order_ref", "customer_code", "item_code"}


def planted_row(canaries: Canaries, place: str, **cells: str) -> dict[str, str]:
    """Return a good order with a value of its own in each column that takes text; names begin with `place`."""
    row = order_row(payment_method="card_on_file", notify_channel="email", quantity="1", unit_price="1000", amount="1000")
    for column, (pattern, alphabet) in PATTERNS.items():
        more = {} if alphabet is None else {"alphabet": alphabet, "length": 8}
        row[column] = canaries.plant(f"{place}: {column}", pattern, **more)
    return row | cells


def planted_file(canaries: Canaries, folder: Path, place: str) -> Path:
    """Write two good orders and one that is wrong for each column in `WRONG`, each cell planted, and return the path."""
    header = [*ORDERS.column_names, canaries.plant(f"{place}: header", "{}欄", alphabet=KANJI, length=8)]
    rows = [planted_row(canaries, f"{place} good") for _ in range(2)]
    rows += [planted_row(canaries, f"{place} bad") | {column: _word(canaries, place, column)} for column in WRONG]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows([*row.values(), canaries.plant(f"{place}: unknown column")] for row in rows)
    path = folder / canaries.plant(f"{place}: file name", "{}.csv")
    path.write_bytes(text.getvalue().encode("cp932"))
    return path


def _word(canaries: Canaries, place: str, column: str) -> str:
    return canaries.plant(f"{place}: wrong {column}")


@dataclass(frozen=True)
class PlantedHouse:
    """An installation, the values planted in and around it, and everything that was ever said there."""

    installation: Installation
    canaries: Canaries
    said: list[str]
    log: list[str]
    reported: list[str]  # in reports made for the client

    def settings(self) -> dict[str, str]:
        """Return the installation's settings as variables for commands."""
        values = self.canaries.values
        return self.installation.environment(
            ORDERS_PAYMENT_TOKEN=values["payment service token"],
            ORDERS_NOTIFICATION_TOKEN=values["notification service token"],
            ORDERS_ENCRYPTION_KEYS=values["encryption key"],
            ORDERS_CLIENTS_FILE=str(self.installation.system.settings.clients_file),
        )

    def everything_planted(self) -> str:
        """Return all values as one text, for an error to carry."""
        return " ".join(self.canaries.values.values())


@contextlib.contextmanager
def open_planted_installation(server_url: str, template: str, folder: Path) -> Iterator[PlantedHouse]:
    """Open an installation whose tokens, password, key and folder are planted."""
    canaries = Canaries()
    home = folder / canaries.plant("home")
    home.mkdir()
    url = make_url(server_url).set(password=canaries.plant("database password"))
    key = canaries.plant("encryption key", "k1:{}=", alphabet=string.ascii_letters + string.digits, length=43)
    secret = canaries.plant("webhook secret", "whsec_{}=", alphabet=string.ascii_letters + string.digits, length=43)
    clients = folder / "clients.toml"
    clients.write_text(f'[shop]\nwebhook_url = "https://localhost:9/hooks"\nwebhook_secret = "{secret}"\n')
    with open_installation(
        url.render_as_string(hide_password=False),
        template,
        home,
        payment_token=SecretStr(canaries.plant("payment service token")),
        notification_token=SecretStr(canaries.plant("notification service token")),
        encryption_keys=SecretStr(key),
        clients_file=clients,
        payment_timeout_s=1.0,
        notification_timeout_s=1.0,
    ) as installation:
        yield PlantedHouse(installation, canaries, [], [], [])
