"""How the C library treats freed memory: kept for the next step, or returned to the system after a run."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def keep_freed_memory() -> None:
    """Tell glibc to keep memory that is freed between steps; no effect with other C libraries.

    Every step allocates the same activations. Returned each time, they come back as pages that the kernel must clear,
    about a thousand page faults in a step of SqueezeNet: up to 12 % of its time. For processes that only render, such as
    the commands, since the process keeps what its largest step needed.
    """
    _call_glibc("mallopt", -3, 32 * 2**20)  # M_MMAP_THRESHOLD: the most that glibc accepts
    _call_glibc("mallopt", -1, 2**31 - 1)  # M_TRIM_THRESHOLD: never


def return_freed_memory() -> None:
    """Return freed memory to the system in some milliseconds; no effect with other C libraries than glibc.

    What a run freed is scattered, so that the library would keep most of it, and more after every run.
    """
    _call_glibc("malloc_trim", 0)


def _call_glibc(function: str, *arguments: int) -> None:
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            getattr(ctypes.CDLL(None), function)(*arguments)
