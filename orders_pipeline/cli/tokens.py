"""The commands about tokens of the batch API: a new one, which there are, and taking one back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console

from orders_pipeline.cli.command import ClientCode, answer, answers, main, opened
from orders_pipeline.cli.console import plain
from orders_pipeline.clients.api_tokens import METRICS, MOST_DAYS, OPERATOR, PAGE, SCOPES, USUAL_DAYS, USUAL_SCOPES, owner

MOST_NAME_CHARS = 100


@main.group()
def tokens() -> None:
    """What clients' programs are known by at the batch API."""


@tokens.command()
@click.option("--client", "client_code", type=ClientCode(), help="Whose batches it is for.")
@click.option("--operator", is_flag=True, help="It is an operator's, for the batches of all clients.")
@click.option("--metrics", is_flag=True, help="It reads the numbers of the whole system, and nothing else.")
@click.option("--name", required=True, help="What it is called in lists.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help=f"[default: {', '.join(USUAL_SCOPES)}]")
@click.option("--page", is_flag=True, help="A person may sign in to the page with it.")
@click.option("--expires", "days", default=USUAL_DAYS, show_default=True, type=click.IntRange(1, MOST_DAYS), help="Days.")
@answers
def new(
    client_code: str | None,
    name: str,
    scopes: tuple[str, ...],
    days: int,
    *,
    operator: bool,
    metrics: bool,
    page: bool,
) -> None:
    """Make a token for a client, for an operator or for metrics; it is shown once and kept nowhere."""
    from orders_pipeline.audit.recording import os_user
    from orders_pipeline.clients import api_tokens

    if not 0 < len(name) <= MOST_NAME_CHARS:
        raise click.UsageError(f"a token's name has 1 to {MOST_NAME_CHARS} characters")
    if (client_code is not None) + operator + metrics != 1 or (scopes and not client_code) or (page and metrics):
        raise click.UsageError(
            "a token is for one client (--client), an operator's (--operator), who has all scopes, or for --metrics alone"
        )
    own = (OPERATOR,) if operator else (METRICS,) if metrics else scopes or USUAL_SCOPES
    with opened() as system:
        if client_code is not None:
            system.clients.profile(client_code)  # of a client that there is
        made = api_tokens.new(system.database, client_code, name, (*own, PAGE) if page else own, days, os_user())
    result = {"token": made.text, "token_id": made.token_id, "client_code": client_code, "expires_at": made.expires_at}
    answer(result, lambda _, each: click.echo(each["token"]))


@tokens.command("list")
@answers
def list_() -> None:
    """List all tokens."""
    from orders_pipeline.clients import api_tokens

    with opened() as system:
        found = [_shown(row._asdict()) for row in api_tokens.listed(system.database)]
    answer({"tokens": found}, _show)


def _shown(token: Mapping[str, Any]) -> dict[str, Any]:
    times = {
        name: None if moment is None else moment.isoformat(timespec="seconds")
        for name, moment in token.items()
        if name.endswith("_at")
    }
    state = "valid" if token["is_valid"] else "expired" if token["revoked_at"] is None else "revoked"
    texts = {name: token[name] for name in ("token_id", "client_code", "name", "created_by")}
    return texts | {"scopes": list(token["scopes"]), "state": state} | times


def _show(console: Console, found: Mapping[str, Any]) -> None:
    for each in found["tokens"]:
        used = f"last used {each['last_used_at']}" if each["last_used_at"] else "never used"
        whose = owner(each["client_code"], each["scopes"])
        what = f"{each['token_id']}  {whose}  {each['state']}, until {each['expires_at']}, {used}"
        console.print(f"{what}  {' '.join(each['scopes'])}  {plain(each['name'])}")


@tokens.command()
@click.argument("token_id", metavar="TOKEN-ID")
@answers
def revoke(token_id: str) -> None:
    """Let a token be worth nothing from now on; `tokens list` shows the ids."""
    from orders_pipeline.clients import api_tokens

    with opened() as system:
        revoked = api_tokens.revoke(system.database, token_id)
    result = {
        "token_id": token_id,
        "client_code": revoked.client_code,
        "revoked_at": revoked.revoked_at.isoformat(timespec="seconds"),
    }
    answer(result, lambda console, each: console.print(f"{each['token_id']} is revoked", markup=False))
