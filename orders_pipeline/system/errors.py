"""The boundary of errors: what leaves a use case is a code and a sentence of ours, never another library's words.

What we did not foresee is a code and a reference, and so is in production what would show our insides; a sentence of ours
that had another library's error behind it ends with a reference there. What is known of the error, values too, is kept
encrypted in the storage under that reference, for `orders-pipeline explain`; `errors.log` in HOME lists the references with
what was said, and where nothing could be kept also the places in the code, never what values it happened to. An error that
comes again and again, as with every tick of a sensor, is kept and listed once an hour.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orders_pipeline.system.settings import Settings

if TYPE_CHECKING:
    from orders_pipeline.infrastructure.storage import Storage

DETAILS = "errors/"
UNEXPECTED = "E_UNEXPECTED"
INSIDES = ("E_CONSTRAINT", "E_DATABASE")  # a rule of the schema, a state of the server: nothing for who is answered
# nothing of use is behind these: a refusal is for the client, and without good settings there is no place for details
SAY_ALL = ("F_", "E_SETTINGS", "E_CLIENTS_FILE", "E_USERS_FILE", "E_ENCRYPTION_KEYS", "E_UNKNOWN_")
LOG = "errors.log"
LOG_BYTES = 1 << 20  # errors.log is begun anew then, and the one before is kept
_REFERENCE = re.compile(r"[0-9a-f]{12}")
_NAMED = re.compile(rf"reference ({_REFERENCE.pattern})\b")


class NotThere(Exception):
    """What a command is about is not there: whoever named it is answered so."""


class UnknownReference(NotThere):
    """Nothing is kept under a reference."""

    code = "E_UNKNOWN_REFERENCE"


@dataclass(frozen=True)
class ErrorReport:
    """What may be shown of an error, the reference under which it is listed and kept, and whether it was not before."""

    text: str
    reference: str
    is_new: bool = True


@dataclass(frozen=True)
class Explained:
    """What is known of a reference: lines of errors.log, which name no values, and what was kept, which may."""

    listed: list[str]
    details: str | None


def describe(error: BaseException, settings: Settings | None = None, storage: Storage | None = None) -> str:
    """Return what may be shown of an error, and keep the rest of it; no settings are the defaults."""
    return report(error, settings, storage).text


def report(
    error: BaseException, settings: Settings | None = None, storage: Storage | None = None, *, listed: bool = False
) -> ErrorReport:
    """Return what may be shown of an error; keep and list it where that does not say all, or if it is to be `listed`."""
    settings = settings or Settings.model_construct()
    code, reference = _own_code(error), _reference(error)
    text = None if code is None or (settings.is_production and code in INSIDES) else _sentence(code, error)
    says_all = text is not None and not (settings.is_production and _has_more(error))
    if says_all and not listed:
        return ErrorReport(text or "", reference)
    is_kept = storage is not None and _keep(storage, reference, error)
    says = text or f"{code or UNEXPECTED}: " + ("something unforeseen happened" if code is None else "")
    is_new = note(settings, reference, f"{_kind(error)} {says}", [] if is_kept else _places(error))
    if not says_all:
        says += ("reference " if says.endswith(": ") else "; reference ") + reference
    return ErrorReport(says, reference, is_new)


def explain(reference: str, settings: Settings, storage: Callable[[], Storage]) -> Explained:
    """Return what is known of a reference, ours or an id of Dagster's, without the database; raise UnknownReference.

    A storage that cannot be opened or read is said so, if errors.log has something to say.
    """
    listed = list(_listed(settings, reference))
    named = [reference, *(found for line in listed for found in _NAMED.findall(line))]
    details = []
    try:
        for each in dict.fromkeys(named):
            with contextlib.suppress(UnknownReference):
                details.append(read_details(storage(), each))
    except Exception as error:  # whatever keeps us from it
        if not listed:
            raise
        listed.append(f"what was kept of it cannot be read now: {describe(error, settings)}")
    if not listed and not details:
        raise UnknownReference(f"{UnknownReference.code}: nothing is kept under this reference; is it in errors.log?")
    return Explained(listed, "\n".join(details) or None)


def read_details(storage: Storage, reference: str) -> str:
    """Return what is kept of an error: its words and causes, which may hold personal values; raise UnknownReference."""
    if not _REFERENCE.fullmatch(reference) or storage.head(DETAILS + reference) is None:
        raise UnknownReference(f"{UnknownReference.code}: nothing is kept under this reference; is it in errors.log?")
    with storage.local(DETAILS + reference) as path:
        return path.read_text("utf-8", "surrogatepass")


def code_of(error: BaseException) -> str:
    """Return the code that is shown of an error."""
    return _own_code(error) or UNEXPECTED


def _sentence(code: str, error: BaseException) -> str:
    text = str(error)
    return text if text.startswith(code) else f"{code}: {text}"


def _has_more(error: BaseException) -> bool:
    """Return whether what is kept of an error of ours says more than its sentence does."""
    return not code_of(error).startswith(SAY_ALL) and (error.__cause__ or error.__context__) is not None


def _own_code(error: BaseException) -> str | None:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and type(error).__module__.startswith("orders_pipeline") else None


def _reference(error: BaseException) -> str:
    """Return a reference, the same one for the same error at the same places within an hour."""
    same = (_hour(), code_of(error), type(error).__qualname__, str(error), *_places(error))
    return hashlib.sha256("\n".join(same).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _hour() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H}"


def _keep(storage: Storage, reference: str, error: BaseException) -> bool:
    """Keep the details and return whether that worked: the storage may be what failed."""
    if getattr(error, "is_transient", False):  # comes again with every try, and its code says it all
        return False
    details = "".join(_words_and_places(error)).encode("utf-8", "surrogatepass")
    with contextlib.suppress(Exception):
        if storage.head(DETAILS + reference) is None:
            storage.put(DETAILS + reference, details)
        return True
    return False


def _words_and_places(error: BaseException | None) -> Iterator[str]:
    """Yield an error's words and places, and those of what was behind it, also where `from None` hid that."""
    while error is not None:
        yield from traceback.format_exception(error, chain=False)
        error = error.__cause__ or error.__context__


def _kind(error: BaseException) -> str:
    """Return what kind of error it is, and the system's or the database's own word for it, which names nothing."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    word = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else getattr(error, "condition", "")
    return f"{kind} ({word})" if word and (isinstance(error, OSError) or _own_code(error)) else kind


def _places(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"  {frame.filename}:{frame.lineno} {frame.name}\n" for frame in frames]


def note(settings: Settings, reference: str, says: str, places: list[str] | None = None) -> bool:
    """Write into errors.log what was said of an error, once under each reference; return whether it was not there."""
    with contextlib.suppress(OSError):  # where nothing can be written, the reference alone must do
        log = settings.home / LOG
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        log.touch(mode=0o600)
        if log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
            log.touch(mode=0o600)
        if reference in log.read_text("utf-8"):
            return False
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        # made anew where another process has just put it aside: then too for its owner alone
        with open(log, "a", encoding="utf-8", opener=functools.partial(os.open, mode=0o600)) as file:
            file.write(f"{moment} {reference} {says.replace(chr(10), ' ')}\n" + "".join(places or []))
    return True


def _listed(settings: Settings, reference: str) -> Iterator[str]:
    """Yield the lines of errors.log, and of the one before, that are about a reference."""
    log = settings.home / LOG
    for path in (log.with_suffix(".log.1"), log):
        is_about = False
        with contextlib.suppress(OSError), path.open(encoding="utf-8") as lines:
            for line in lines:
                is_about = is_about if line.startswith(" ") else line.split(" ", 2)[1:2] == [reference]
                if is_about:
                    yield line.rstrip("\n")
