"""Files that commands write: where they may be, who may read them, and that no file is replaced without `--force`.

`-o FILE` and `--force` of all commands. What is written belongs in the commands.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from orders_pipeline.infrastructure.scratch import scratch_files

FOR_OWNER, FOR_ALL = 0o600, 0o666

Command = TypeVar("Command", bound=Callable[..., Any])


class NewFile(click.Path):
    """A file to be written, in a folder that is there."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; a folder that is missing or no folder is a usage error."""
        path = Path(str(value))
        super().convert(path, param, ctx)
        try:
            if not path.parent.is_dir():
                self.fail(f"the folder {str(path.parent)!r} does not exist", param, ctx)
            os.path.lexists(path)
        except (OSError, ValueError):
            self.fail("no file can have this name", param, ctx)
        return path


def output(help_: str, *, required: bool = False) -> Callable[[Command], Command]:
    """Add `-o FILE` and `--force` to a command."""

    def add(command: Command) -> Command:
        command = click.option("--force", is_flag=True, help="Replace the file if it is there.")(command)
        return click.option("-o", "--output", required=required, type=NewFile(), help=help_)(command)

    return add


@contextlib.contextmanager
def written(target: Path, *, force: bool, mode: int = FOR_ALL) -> Iterator[Path]:
    """Give a path to write to; what is written there becomes `target` when the block ends well, whole or not at all.

    A file that is there is replaced with `force` only; into a device or pipe the whole is copied. Raises UsageError.
    """
    if target.exists() and not target.is_file():
        with scratch_files() as folder:
            yield folder / target.name
            with (folder / target.name).open("rb") as source, target.open("wb") as device:
                shutil.copyfileobj(source, device)
        return
    target = Path(os.path.realpath(target))  # where a link leads to
    if target.exists() and not force:
        _refuse_existing(target)
    part = target.with_name(f".orders-{secrets.token_hex(8)}.part")  # nobody else's, who could read it
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    except OSError as error:
        raise click.UsageError(f"{str(target)!r} cannot be written: {os.strerror(error.errno or 0)}") from None
    try:
        yield part
        _publish(part, target, force=force)
    finally:
        part.unlink(missing_ok=True)


def _publish(part: Path, target: Path, *, force: bool) -> None:
    try:
        if force:
            part.replace(target)
        else:
            os.link(part, target)
    except FileExistsError:
        _refuse_existing(target)
    except OSError as error:
        if force or target.exists():
            raise click.UsageError(f"{str(target)!r} cannot be written: {os.strerror(error.errno or 0)}") from None
        part.replace(target)  # a file system without links


def _refuse_existing(target: Path) -> NoReturn:
    raise click.UsageError(f"{str(target)!r} is there already; --force replaces it")
