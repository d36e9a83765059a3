"""What all commands share: the group, answers in words or JSON, errors as codes and exit statuses, the opened system.

Exit status: 0 completed, 1 stopped (can be resumed) or not possible now, 2 usage, settings or something that is not there,
3 completed with errors, 4 file given back.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import click
from rich.console import Console

from orders_pipeline import errors, interrupts
from orders_pipeline.settings import Settings, SettingsError, load_settings, unknown

if TYPE_CHECKING:
    from orders_pipeline.system import System

EXIT_STATUS = {"completed": 0, "completed_with_errors": 3, "rejected": 4}
STOPPED, USAGE, GIVEN_BACK = interrupts.STOPPED, 2, 4
PIPED_WIDTH = 160

P = ParamSpec("P")
words = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_WIDTH)
complaints = Console(stderr=True, highlight=False, soft_wrap=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="orders-pipeline")
def main() -> None:
    """Takes clients' order files to a platform that knows one order at a time."""
    logging.basicConfig(level=logging.ERROR)
    for sentence in unknown():
        complaints.print(sentence, markup=False)


class ClientCode(click.ParamType[str]):
    """A client's code, as the clients file and folders of the landing have it."""

    name = "code"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the code; what can be none is a usage error."""
        from orders_pipeline.clients import CLIENT_CODE

        if not CLIENT_CODE.fullmatch(value):
            self.fail("a client code is 1 to 32 of the characters A-Z a-z 0-9 _ -", param, ctx)
        return value


def answers(command: Callable[P, None]) -> Callable[P, None]:
    """Add `--json` to a command, and turn what goes wrong in it into a code, a sentence and an exit status."""

    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")
    @functools.wraps(command)
    def answering(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt as interruption:
            _stopped(str(interruption) or "nothing was changed after that", as_json=bool(kwargs.get("as_json")))
        except Exception as error:  # noqa: BLE001 - the boundary
            _complain(error, as_json=bool(kwargs.get("as_json")))

    return answering


def stoppable(command: Callable[P, None]) -> Callable[P, None]:
    """Give a command what was `heard` while it runs: no Ctrl-C is lost then, and a second one ends the process."""

    @functools.wraps(command)
    def listening(*args: P.args, **kwargs: P.kwargs) -> None:
        with interrupts.listening() as heard:
            kwargs["heard"] = heard
            command(*args, **kwargs)

    return listening


def _stopped(how: str, *, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"error": {"code": "E_STOPPED", "message": f"stopped; {how}", "detail": {}}}))
    else:
        complaints.print(f"\nstopped; {how}")
    sys.exit(STOPPED)


def _complain(error: Exception, *, as_json: bool) -> None:
    from orders_pipeline.batches import BatchEnded
    from orders_pipeline.clients import ClientsError
    from orders_pipeline.encryption import EncryptionKeysError
    from orders_pipeline.rejections import FileRejected

    settings = None
    with contextlib.suppress(SettingsError):
        settings = load_settings()
    system = click.get_current_context().obj
    text = errors.describe(error, settings, system and system.storage)
    code, _, sentence = text.partition(": ")
    detail = error.detail if isinstance(error, FileRejected) else {}
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "message": sentence, "detail": detail}}, ensure_ascii=False))
    else:
        complaints.print(f"[red]{code}[/red]: {sentence}")
        if "batch_id" in detail:
            complaints.print(f"how that stands: orders-pipeline status {detail['batch_id']}")
    is_usage = isinstance(error, SettingsError | ClientsError | EncryptionKeysError | BatchEnded | errors.NotThere)
    sys.exit(GIVEN_BACK if isinstance(error, FileRejected) else USAGE if is_usage else STOPPED)


@contextlib.contextmanager
def opened(settings: Settings | None = None) -> Iterator[System]:
    """Open the system for one command."""
    from orders_pipeline.audit import recording
    from orders_pipeline.system import join_endpoints, open_system

    settings = settings or load_settings()
    origin = click.get_current_context().command_path
    with join_endpoints(settings) as endpoints, open_system(settings, endpoints, origin) as system:
        click.get_current_context().obj = system  # what goes wrong from here on can be kept there
        recording.sign_in(system.database, system.clients, system.cipher)
        recording.catch_up(system.database, settings.home)
        try:
            yield system
        except Exception as error:
            recording.failed(system.database, error)
            raise


def answer(result: dict[str, Any], show: Callable[[Console, dict[str, Any]], None], *, as_json: bool) -> None:
    """Print a result as one JSON object, or in words."""
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False, default=str))
    else:
        show(words, result)
