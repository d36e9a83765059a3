"""The commands about encryption keys: a new one, which are in use, and replacing an old one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console

from orders_pipeline.cli.command import STOPPED, answer, answers, main, opened, wants_json, words
from orders_pipeline.cli.console import plain
from orders_pipeline.system.settings import read_settings


@main.group()
def keys() -> None:
    """The keys that personal values are encrypted with."""


@keys.command()
@answers
def new() -> None:
    """Make a key for ORDERS_ENCRYPTION_KEYS, kept nowhere else; AWS KMS encrypts it if ORDERS_KMS_KEY_ID is set."""
    from orders_pipeline.security.encryption import new_key
    from orders_pipeline.system.composition import key_service

    kms = key_service(read_settings())
    answer({"key": new_key(None if kms is None else kms.new_data_key)}, lambda _, made: click.echo(made["key"]))


@keys.command("list")
@answers
def list_() -> None:
    """Say how many orders are encrypted with each key."""
    from orders_pipeline.upkeep.key_rotation import keys_in_use

    with opened() as system:
        in_use = keys_in_use(system.database)
        current, known = system.cipher.current, system.cipher.key_ids
    found = {
        "current": current,
        "keys": {
            key_id: {"orders": in_use.get(key_id, 0), "set": key_id in known}
            for key_id in {**in_use, **dict.fromkeys(known)}
        },
    }
    answer(found, _show_keys)


def _show_keys(console: Console, result: Mapping[str, Any]) -> None:
    for key_id, key in sorted(result["keys"].items()):
        remark = "current" if key_id == result["current"] else "" if key["set"] else "[red]not set[/red]"
        console.print(f"{key_id:<32} {key['orders']:>11,} orders  {remark}")


@keys.command()
@answers
def rotate() -> None:
    """Encrypt everything anew with the first of ORDERS_ENCRYPTION_KEYS; running it again resumes where it stopped.

    Put the new key behind the old one and restart everything, then put it first and restart everything, then rotate.
    """
    from orders_pipeline.cli import progress_bars
    from orders_pipeline.upkeep.key_rotation import rotate as rotate_keys

    with opened() as system, progress_bars.counting(words, "orders encrypted anew", shown=not wants_json()) as progress:
        result = rotate_keys(system.database, system.storage, system.cipher, progress)
    answer(result.as_dict(), _show)
    sys.exit(0 if result.is_done else STOPPED)


def _show(console: Console, result: Mapping[str, Any]) -> None:
    current = result["current"]
    console.print(f"{result['resealed']:,} orders and {result['files']:,} files encrypted anew with {current}")
    if result["done"]:
        removable = ", ".join(result["removable"])
        console.print(f"nothing needs another key: {removable} may be removed" if removable else "there is no other key")
        return
    for key_id, orders in result["orders"].items():
        if key_id != current:
            console.print(f"  [red]{orders:,} orders[/red] are still encrypted with {key_id}: it must not be removed")
    if result["damaged"]["orders"]:
        first = ", ".join(map(str, result["damaged"]["first"]))
        console.print(f"  {result['damaged']['orders']:,} of them cannot be opened with it: order {first}")
    for key, code in result["left"].items():
        console.print(f"  {code}: {plain(key)}")
    if result["left"]:
        console.print("  could not be looked at or encrypted anew: no key may be removed")
    if result["busy_batches"]:
        console.print(f"  being processed: {', '.join(result['busy_batches'])}")
    console.print("once every process runs with this setting, continue with: orders-pipeline keys rotate")
