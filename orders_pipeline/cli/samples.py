"""The commands that write files to try with: a sample, a template, a masked file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orders_pipeline.cli.command import ClientCode, answer, answers, main
from orders_pipeline.cli.output_files import output, written
from orders_pipeline.system.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console


ENCODINGS = ["utf-8", "utf-8-sig", "cp932", "utf-16", "euc_jp"]


def _rate(written: str) -> tuple[str, float]:
    """Read a code and its share; what is not written like R_EMAIL=0.01 is a ValueError."""
    code, _, rate = written.partition("=")
    return code, float(rate)


@main.command()
@click.option("--rows", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same file.")
@click.option(
    "--bad", type=click.FloatRange(0, 1), help="Share of bad rows, of every kind.  [default: 0.01, or 0 with --reject]"
)
@click.option("--reject", multiple=True, type=_rate, metavar="CODE=RATE", help="Share of rows that get this code.")
@click.option("--excel", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Share of rows Excel spoilt.")
@click.option("--encoding", default="utf-8", show_default=True, type=click.Choice(ENCODINGS))
@output("The file to write.", required=True)
@answers
def sample(
    rows: int,
    seed: int,
    bad: float | None,
    reject: tuple[tuple[str, float], ...],
    excel: float,
    encoding: str,
    output: Path,
    *,
    force: bool,
) -> None:
    """Write a synthetic order file to try the system with."""
    from orders_pipeline.samples.synthetic import RatesError, write_sample

    share = bad if bad is not None else 0.0 if reject else 0.01
    damage: dict[str, Any] = {"bad": share, "reject": dict(reject), "excel": excel}
    try:
        with written(output, force=force) as path:
            made = write_sample(path, rows=rows, seed=seed, encoding=encoding, **damage)
    except RatesError as error:
        raise click.UsageError(str(error)) from None
    result = {"file": str(output), "rows": made.rows, "bad": dict(made.bad), "excel": dict(made.excel)}
    answer(result | {"amount_jpy": made.amount}, _show_sample)


def _show_sample(console: Console, result: dict[str, Any]) -> None:
    rows, bad, amount = result["rows"], sum(result["bad"].values()), result["amount_jpy"]
    console.print(
        f"{result['file']}: {rows:,} rows, {bad:,} of them bad on purpose, {amount:,} yen in the good ones",
        markup=False,
    )
    for name, rows in sorted([*result["bad"].items(), *result["excel"].items()]):
        console.print(f"  {rows:>9,} x {name}", markup=False)


@main.command()
@output("The file to write.", required=True)
@answers
def template(output: Path, *, force: bool) -> None:
    """Write an empty order file with every column and one example row, which is rejected if it is sent as it is."""
    from orders_pipeline.samples.synthetic import write_template

    with written(output, force=force) as path:
        write_template(path)
    answer({"file": str(output)}, lambda console, _: console.print(f"{output} written", markup=False))


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@output("The file to write.", required=True)
@click.option("--client", "client_code", type=ClientCode(), help="The client whose columns and words the file has.")
@answers
def mask(file: Path, output: Path, client_code: str | None, *, force: bool) -> None:
    """Turn a real file into one to share: same shape, duplicates and errors, no value kept."""
    from orders_pipeline.clients.profiles import Profile, read_clients
    from orders_pipeline.samples.mask import mask_file

    if output.exists() and output.samefile(file):
        raise click.UsageError("the masked file cannot be the file itself")
    clients = read_clients(load_settings().clients_file)
    with written(output, force=force) as path:
        masked = mask_file(file, path, profile=clients.profile(client_code) if client_code else Profile())
    result = {"file": str(output), "encoding": masked.encoding, "rows": masked.rows, "cells": masked.cells}
    says = f"{output}: {masked.rows:,} rows, {masked.cells:,} cells masked"
    answer(result, lambda console, _: console.print(says, markup=False))


@main.group()
def profile() -> None:
    """What a client's files need to be told of them: profiles."""


@profile.command("try")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--client", "client_code", type=ClientCode(), help="Begin with this client's profile.")
@answers
def try_(file: Path, client_code: str | None) -> None:
    """Show how a file is read, and a profile to begin with; nothing is kept. It shows the first rows, which are personal."""
    from orders_pipeline.clients.profiles import Profile, read_clients
    from orders_pipeline.intake.file_staging import limits_of
    from orders_pipeline.samples.profile_trial import try_profile

    settings = load_settings()
    clients = read_clients(settings.clients_file)
    chosen = clients.profile(client_code) if client_code else Profile()
    is_added = client_code in clients.profiles
    found = try_profile(file, limits_of(settings, chosen), chosen, client_code, in_file=is_added)
    answer(found, partial(_show_trial, is_added=is_added))


def _show_trial(console: Console, found: dict[str, Any], *, is_added: bool) -> None:
    from orders_pipeline.cli.console import plain

    def say(name: str, text: str) -> None:
        console.print(f"  {name:<17} {plain(text)}", highlight=False, soft_wrap=True)

    console.print(plain(found["file"]), style="bold", highlight=False)
    say("encoding", str(found["encoding"] or "unknown"))
    say("delimiter", {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}[found["delimiter"]])
    say("header", f"line {found['header_line']}")
    for each in found["columns"]:
        guess = "  (a guess)" if each["column"] in found["guessed"] else ""
        say(each["column"], " + ".join(each["headers"]) + guess if each["headers"] else "is needed, and nowhere")
    if found["rows_chosen_by"]:
        _say_choices(say, found)
    if found["not_used"]:
        say("not used", ", ".join(found["not_used"]))
    if "error" in found:
        say("refused", f"{found['error']['code']}: {found['error']['message']}")
        if found["error"]["settings"]:
            say("", f"in the profile, {found['error']['settings']}")
    for number, row in enumerate(found["rows"], 1):
        say(f"row {number}", ", ".join(f"{column}={cell}" for column, cell in row.items()))
    if found["outcome"]:
        _say_outcome(say, found)
    add = "To be added to ORDERS_CLIENTS_FILE" if is_added else "A table of ORDERS_CLIENTS_FILE to begin with"
    console.print(f"\n{add}:\n" if found["profile"] else "\nNothing is to be added.", highlight=False)
    for line in found["profile"].splitlines():
        console.print(plain(line), highlight=False, soft_wrap=True)


def _say_choices(say: Callable[[str, str], None], found: dict[str, Any]) -> None:
    say("skip and reject", "by " + ", ".join(found["rows_chosen_by"]))
    for each in found["unmet"]:
        instead = f"; the column has {', '.join(each['instead'])}" if each["instead"] else ""
        say(each["setting"], f"no row has {each['word']} in {each['header']}{instead}")


def _say_outcome(say: Callable[[str, str], None], found: dict[str, Any]) -> None:
    from orders_pipeline.cli.console import counted

    outcome = found["outcome"]
    rows, orders, yen = outcome["rows"], outcome["orders"]["accepted"], outcome["amount_jpy"]["accepted"]
    guesses = ", with these guesses" if found["guessed"] else ""
    say("would be charged", f"{yen:,} yen for {counted(orders, 'order')} not received before{guesses}")
    counts = ", ".join(f"{rows[name]:,} {name}" for name in ("accepted", "rejected", "blank", "skipped"))
    say("of its rows", f"{rows['total']:,}: {counts}")
    if found["skipped"]:
        say("skipped", found["skipped"])
    for code, count in outcome["rejections"].items():
        say("rejected", f"{count:,} x {code}")
