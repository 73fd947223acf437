"""Let a process keep the memory that its tensors free, for the next step, or return it, after a run."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_MAPPED = 32 * 2**20  # the most that glibc takes
_NEVER_TRIMMED = 2**31 - 1


def keep_freed_memory() -> None:
    """Tell the C library not to give freed memory back to the system between steps; nothing happens where it is not glibc.

    Every step frees and asks for the same activations. Given back each time, they come as fresh pages that the kernel
    must clear: a thousand page faults in a step of SqueezeNet. For processes whose whole work is rendering, such as the
    commands; a process keeps what its largest step took.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, _LARGEST_MAPPED)
            library.mallopt(_TRIM_THRESHOLD, _NEVER_TRIMMED)


def return_freed_memory() -> None:
    """Give the system what the process has freed, in some milliseconds; nothing happens where the C library is not glibc.

    What a run held lies scattered between what stays, so the library keeps most of it, and a little more after every
    run.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
