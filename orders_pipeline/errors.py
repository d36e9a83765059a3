"""The boundary of errors: what leaves a use case is a code and a sentence of ours, never another library's words.

Known errors carry a `code`; anything else becomes E_UNEXPECTED with a reference, and where it happened (never what values
it happened to) is kept under that reference in a file that only its owner reads.
"""

from __future__ import annotations

import contextlib
import traceback
import uuid
from pathlib import Path

UNEXPECTED = "E_UNEXPECTED"


def describe(error: BaseException, home: Path) -> str:
    """Return what may be shown of an error: its own text when it is ours, a reference otherwise."""
    if isinstance(getattr(error, "code", None), str) and type(error).__module__.startswith("orders_pipeline"):
        text = str(error)
        return text if text.startswith(error.code) else f"{error.code}: {text}"  # type: ignore[attr-defined]
    reference = uuid.uuid4().hex[:12]
    with contextlib.suppress(OSError):  # where nothing can be written, the reference alone must do
        _keep(error, reference, home / "errors.log")
    return f"{UNEXPECTED}: something unforeseen happened; reference {reference}"


def _keep(error: BaseException, reference: str, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    frames = traceback.extract_tb(error.__traceback__)
    places = "".join(f"  {frame.filename}:{frame.lineno} {frame.name}\n" for frame in frames)
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as log:
        log.write(f"{reference} {type(error).__module__}.{type(error).__qualname__}\n{places}")
