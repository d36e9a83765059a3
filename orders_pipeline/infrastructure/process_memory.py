"""How this process gets memory of the system, for work on one chunk of a file after another.

What is kept in memory, and how much of it, is the matter of who works on it.
"""

from __future__ import annotations

import ctypes
import functools

# of <malloc.h> and <linux/prctl.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PR_SET_THP_DISABLE = 41
_KEPT_BYTES = 1 << 30
_MOST_OF_OLD = 32 << 20  # what glibc takes for a threshold before 2.35


@functools.cache
def keep_freed_memory() -> None:
    """Let what one chunk needed serve the next one, in pages of the usual size, from now on in this process.

    Else the system takes back each large array that is freed, and clears its pages for the next one; and Arrow's allocator
    asks for pages of 2 MB, which are cleared as a whole however little is put into them: a sixth of the time that a file
    takes. Where the C library or the system has no such setting, nothing changes.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _MOST_OF_OLD)
        library.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    if hasattr(library, "prctl"):
        library.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
