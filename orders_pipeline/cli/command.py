"""What every command has: the group, the opened system, an answer in words or JSON, errors as codes and exit statuses.

Exit status: 0 completed, 1 stopped (can be resumed) or not possible now, 2 usage, settings or something that is not there,
3 completed with errors, 4 file rejected. With `--json` there is one JSON object on stdout, whatever happens.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NoReturn, ParamSpec

import click
from rich.console import Console
from rich.markup import escape

from orders_pipeline.infrastructure import interrupts
from orders_pipeline.system import errors
from orders_pipeline.system.settings import Settings, SettingsError, about_unknown, load_settings, unknown

if TYPE_CHECKING:
    from orders_pipeline.system.composition import System

EXIT_STATUS = {"completed": 0, "completed_with_errors": 3, "rejected": 4}
STOPPED, USAGE, REJECTED = interrupts.STOPPED, 2, 4
# where another try does not help: somebody has to set, make or name something else. NotThere is another such error
WRONG = {
    "E_ALREADY_UP",
    "E_BATCH_ENDED",
    "E_CLIENTS_FILE",
    "E_USERS_FILE",
    "E_DATABASE_LOGIN",
    "E_DATABASE_POOLED",
    "E_DATABASE_ROLE",
    "E_DATABASE_SESSIONS",
    "E_DATABASE_TLS",
    "E_DATABASE_URL",
    "E_DATABASE_VERSION",
    "E_ENCRYPTION_KEYS",
    "E_KMS_REFUSED",
    "E_MIGRATION",
    "E_NOT_AWAITING_APPROVAL",
    "E_NO_PAYMENT_LIST",
    "E_NOT_STOPPED",
    "E_OWN_BATCH",
    "E_PORT",
    "E_SANDBOX",
    "E_SETTINGS",
    "E_UNKNOWN_TOKEN",
    "E_WORKER_SLOTS",
}
# how `--help` groups the commands; whatever is named nowhere here is for who operates the system
SECTIONS: Mapping[str, Sequence[str]] = {
    "Try it": ("demo", "sample", "template", "profile", "mask", "sandbox"),
    "Every day": ("import", "status", "errors", "rejected", "resume", "approve", "refuse", "cancel"),
    "Money": ("refund", "reconcile", "resolve"),
    "Keys and audit": ("keys", "tokens", "audit"),
}
OTHERS = "Operate"
WHOLE_SENTENCE = 1_000  # characters
AS_JSON, ANSWERED = "orders_pipeline.as_json", "orders_pipeline.answered"  # in click's context
PIPED_WIDTH = 160

P = ParamSpec("P")
for name in ("stdout", "stderr"):
    if getattr(sys, name) is None:  # closed by who calls us
        setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
words = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_WIDTH)
complaints = Console(stderr=True, highlight=False, soft_wrap=True)


class CannotAnswer(Exception):
    """What the answer goes to does not take it."""

    code = "E_OUTPUT"


class Commands(click.Group):
    """A group of commands, each listed with a whole sentence and where it belongs.

    With `--json` what is wrong with how they are called is a JSON object too.
    """

    group_class = type  # of the groups in it

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in sections; groups name theirs."""
        named = [name for names in SECTIONS.values() for name in names]
        others = {OTHERS: [name for name in self.list_commands(ctx) if name not in named]}
        sections = {**SECTIONS, **others} if ctx.parent is None else {"Commands": self.list_commands(ctx)}
        width = max(map(len, self.commands))
        for title, names in sections.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", _listed(self.commands[name])) for name in names])

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - click's own signature
        """Parse, run and exit."""
        arguments = (args[0] if args else kwargs.get("args")) or sys.argv[1:]
        if "--json" not in arguments:
            return super().main(*args, **kwargs)
        try:
            status = super().main(*args, **kwargs | {"standalone_mode": False})
        except click.ClickException as error:
            _answer_error("E_USAGE", error.format_message())
            status = error.exit_code
        except click.Abort:
            _answer_error("E_STOPPED", "stopped")
            status = STOPPED
        sys.exit(status if isinstance(status, int) else 0)


def _listed(command: click.Command) -> str:
    sentence = command.get_short_help_str(WHOLE_SENTENCE)
    return f"{sentence} ({', '.join(command.commands)})" if isinstance(command, click.Group) else sentence


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "-V", "--version", package_name="orders-pipeline")
def main() -> None:
    """Import clients' order files into a platform that takes one order at a time.

    \b
    Examples:
      orders-pipeline demo
      orders-pipeline import orders.csv --client shop --dry-run
      orders-pipeline status --client shop --since 2d
      orders-pipeline rejected 20261130-5a326236d154 -o rejected.csv

    \b
    Exit status:
      0  completed
      1  stopped, to be resumed or tried again; waits for approval; something is not right
      2  usage, settings, or something that is not there
      3  completed, with errors
      4  file rejected

    Each command has a --help of its own, and --json where it answers. Settings are variables that begin with ORDERS_:
    docs/OPERATE.md lists them. The commands complete in a shell: docs/COMMANDS.md says how.
    """  # noqa: D301 - click's mark of lines that stay as they are
    logging.basicConfig(level=logging.ERROR)
    for name in unknown():
        complaints.print(about_unknown(name), markup=False)


class ClientCode(click.ParamType[str]):
    """A client's code, as the clients file and folders of the landing have it."""

    name = "code"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the code; what can be none is a usage error."""
        from orders_pipeline.clients.profiles import CLIENT_CODE

        if not CLIENT_CODE.fullmatch(value):
            self.fail("a client code is 1 to 32 of the characters A-Z a-z 0-9 _ -", param, ctx)
        return value


def answers(command: Callable[P, None]) -> Callable[P, None]:
    """Add `--json` to a command, and turn what goes wrong in it into a code, a sentence and an exit status."""

    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")
    @functools.wraps(command)
    def answering(*args: P.args, **kwargs: P.kwargs) -> None:
        click.get_current_context().meta[AS_JSON] = kwargs.pop("as_json")
        try:
            command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt as interruption:
            _stopped(str(interruption) or "nothing was changed after that")
        except Exception as error:  # noqa: BLE001 - the boundary
            _complain(error)

    return answering


def stoppable(command: Callable[P, None]) -> Callable[P, None]:
    """Hand a command the interrupts that are `heard` while it runs: no Ctrl-C is lost, and a second one ends the process."""

    @functools.wraps(command)
    def listening(*args: P.args, **kwargs: P.kwargs) -> None:
        with interrupts.listening() as heard:
            kwargs["heard"] = heard
            command(*args, **kwargs)

    return listening


def wants_json() -> bool:
    """Return whether the command is to answer with one JSON object."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(AS_JSON))


def decline() -> NoReturn:
    """End a command whose question was answered with no."""
    if wants_json():
        _answer_error("E_STOPPED", "nothing was changed")
    else:
        complaints.print("nothing was changed")
    sys.exit(STOPPED)


def agreed(question: str) -> bool:
    """Ask somebody, and return whether the answer is yes."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # Ctrl-C is no yes
        return False


def _stopped(how: str) -> NoReturn:
    if not (wants_json() and _answer_error("E_STOPPED", f"stopped; {how}")):
        complaints.print(f"\nstopped; {how}")
    sys.exit(STOPPED)


def _complain(error: Exception) -> NoReturn:
    from orders_pipeline.records.rejections import SETTINGS, FileRejected
    from orders_pipeline.samples.mask import MaskFailed

    if isinstance(error, CannotAnswer):
        complaints.print(str(error), markup=False)
        sys.exit(STOPPED)
    settings = None
    with contextlib.suppress(SettingsError):
        settings = load_settings()
    system = click.get_current_context().obj
    text = errors.describe(error, settings, system and system.storage)
    code, _, sentence = text.partition(": ")
    detail = error.detail if isinstance(error, FileRejected) else {}
    if not (wants_json() and _answer_error(code, sentence, detail)):
        complaints.print(f"[red]{code}[/red]: {escape(sentence)}")
        if isinstance(error, FileRejected) and code in SETTINGS:
            complaints.print(f"in the client's profile, {SETTINGS[code]}", markup=False)
        if "batch_id" in detail:
            complaints.print(f"how that stands: orders-pipeline status {detail['batch_id']}")
    if isinstance(error, FileRejected | MaskFailed):
        sys.exit(REJECTED)
    sys.exit(USAGE if isinstance(error, errors.NotThere) or code in WRONG else STOPPED)


def _answer_error(code: str, message: str, detail: Mapping[str, str] | None = None) -> bool:
    """Print what is wrong as the one JSON object; return False where the command has answered already."""
    context = click.get_current_context(silent=True)
    if context is not None and context.meta.get(ANSWERED):
        return False
    click.echo(json.dumps({"error": {"code": code, "message": message, "detail": detail or {}}}, ensure_ascii=False))
    return True


@contextlib.contextmanager
def opened(settings: Settings | None = None, require: Callable[[System], None] = lambda _: None) -> Iterator[System]:
    """Open the system for one command, unless what it `require`s of it is not so.

    A terminal shows that this is under way, as what is embedded may have to start.
    """
    settings = settings or load_settings()
    origin = click.get_current_context().command_path
    with contextlib.ExitStack() as stack:
        with complaints.status("opening the system") if complaints.is_terminal else contextlib.nullcontext():
            from orders_pipeline.audit import recording
            from orders_pipeline.system.composition import join_endpoints, open_system

            endpoints = stack.enter_context(join_endpoints(settings))
            system = stack.enter_context(open_system(settings, endpoints, origin))
        click.get_current_context().obj = system  # what goes wrong from here on can be kept there
        require(system)
        recording.sign_in(system.database, system.clients, system.cipher)
        recording.catch_up(system.database, settings.home)
        try:
            yield system
        except Exception as error:
            recording.failed(system.database, error)
            raise


@contextlib.contextmanager
def answering_to() -> Iterator[IO[bytes]]:
    """Give the stream that an answer is written to as bytes; raise CannotAnswer where it does not take them all.

    A reader that has closed the pipe, as `head` does, gets no complaint.
    """
    try:
        yield sys.stdout.buffer
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is written at the end of the process
        if isinstance(error, BrokenPipeError):
            sys.exit(STOPPED)
        raise CannotAnswer(f"{CannotAnswer.code}: the answer cannot be written: {os.strerror(error.errno or 0)}") from None
    click.get_current_context().meta[ANSWERED] = True


def answer_in_pieces(pieces: Iterable[bytes]) -> None:
    """Print one JSON object that is too large to be one piece."""
    with answering_to() as output:
        output.writelines(pieces)


def answer(result: dict[str, Any], show: Callable[[Console, dict[str, Any]], None]) -> None:
    """Print a result as one JSON object, or in words."""
    with answering_to():
        if wants_json():
            click.echo(json.dumps(result, ensure_ascii=False, default=str))
        else:
            show(words, result)
