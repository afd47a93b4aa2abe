"""What a fit asks of the memory allocator."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE = 32 << 20


def keep_freed_memory() -> None:
    """Let this process keep memory that it has freed, for the next step to use.

    By default the C library of Linux gives it back, and a step gets it anew, page by page, each filled with zeros by
    the kernel: a tenth of a step's time on a CPU. Elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:  # musl has none
        set_option(_TRIM_THRESHOLD, 2**31 - 1)
        set_option(_MMAP_THRESHOLD, _LARGE)
