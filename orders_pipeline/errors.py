"""The boundary of errors: what leaves a use case is a code and a sentence of ours, never another library's words.

What we did not foresee is a code and a reference, and so is in production what would show our insides; a sentence of ours
that had another library's error behind it ends with a reference there. What is known of the error, values too, is kept
encrypted in the storage under that reference, for `orders-pipeline explain`; `errors.log` in HOME lists the references, and
where nothing could be kept also the places in the code, never what values it happened to. An error that comes again and
again, as with every tick of a sensor, is kept and listed once an hour.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orders_pipeline.settings import Settings

if TYPE_CHECKING:
    from orders_pipeline.system import System

DETAILS = "errors/"
UNEXPECTED = "E_UNEXPECTED"
INSIDES = ("E_CONSTRAINT", "E_DATABASE")  # a rule of the schema, a state of the server: nothing for who is answered
# nothing of use is behind these: a refusal is for the client, and without good settings there is no place for details
SAY_ALL = ("F_", "E_SETTINGS", "E_CLIENTS_FILE", "E_ENCRYPTION_KEYS", "E_UNKNOWN_")
LOG_BYTES = 1 << 20  # errors.log is begun anew then, and the one before is kept
_REFERENCE = re.compile(r"[0-9a-f]{12}")


class NotThere(Exception):
    """What a command is about is not there: whoever named it is told so."""


class UnknownReference(NotThere):
    """Nothing is kept under a reference."""

    code = "E_UNKNOWN_REFERENCE"


def describe(error: BaseException, settings: Settings | None = None, system: System | None = None) -> str:
    """Return what may be shown of an error, and keep the rest of it in the opened system; no settings are the defaults."""
    settings = settings or Settings.model_construct()
    code = _own_code(error)
    text = None if code is None or (settings.is_production and code in INSIDES) else _sentence(code, error)
    if text is not None and not (settings.is_production and _has_more(error)):
        return text
    reference = _reference(error)
    is_kept = system is not None and _keep(system, reference, error)
    with contextlib.suppress(OSError):  # where nothing can be written, the reference alone must do
        _note(settings.home / "errors.log", reference, error, [] if is_kept else _places(error))
    if text is not None:
        return f"{text}; reference {reference}"
    says = "something unforeseen happened; " if code is None else ""
    return f"{code or UNEXPECTED}: {says}reference {reference}"


def read_details(system: System, reference: str) -> str:
    """Return what is kept of an error: its words and causes, which may hold personal values; raise UnknownReference."""
    if not _REFERENCE.fullmatch(reference) or system.storage.head(DETAILS + reference) is None:
        raise UnknownReference(f"{UnknownReference.code}: nothing is kept under this reference; is it in errors.log?")
    with system.storage.local(DETAILS + reference) as path:
        return path.read_text("utf-8", "surrogatepass")


def code_of(error: BaseException) -> str:
    """Return the code that is shown of an error."""
    return _own_code(error) or UNEXPECTED


def _sentence(code: str, error: BaseException) -> str:
    text = str(error)
    return text if text.startswith(code) else f"{code}: {text}"


def _has_more(error: BaseException) -> bool:
    """Tell whether what is kept of an error of ours says more than its sentence does."""
    return not code_of(error).startswith(SAY_ALL) and (error.__cause__ or error.__context__) is not None


def _own_code(error: BaseException) -> str | None:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and type(error).__module__.startswith("orders_pipeline") else None


def _reference(error: BaseException) -> str:
    """Return a reference, the same one for the same error at the same places within an hour."""
    told = (_hour(), code_of(error), type(error).__qualname__, str(error), *_places(error))
    return hashlib.sha256("\n".join(told).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _hour() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H}"


def _keep(system: System, reference: str, error: BaseException) -> bool:
    """Keep the details and say whether that worked: the storage may be what failed."""
    if getattr(error, "is_transient", False):  # comes again with every try, and its code says it all
        return False
    details = "".join(_told(error)).encode("utf-8", "surrogatepass")
    with contextlib.suppress(Exception):
        if system.storage.head(DETAILS + reference) is None:
            system.storage.put(DETAILS + reference, details)
        return True
    return False


def _told(error: BaseException | None) -> Iterator[str]:
    """Yield an error's words and places, and those of what was behind it, also where `from None` hid that."""
    while error is not None:
        yield from traceback.format_exception(error, chain=False)
        error = error.__cause__ or error.__context__


def _places(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"  {frame.filename}:{frame.lineno} {frame.name}\n" for frame in frames]


def _note(log: Path, reference: str, error: BaseException, places: list[str]) -> None:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.touch(mode=0o600)
    if log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
        log.touch(mode=0o600)
    if reference in log.read_text("utf-8"):
        return
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{moment} {reference} {code_of(error)} {kind}\n" + "".join(places))
