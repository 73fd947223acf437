"""The memory of the machine: how much there is, and whether the C library keeps what is freed or returns it."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

BYTES_PER_WEIGHT = 16  # a weight, its gradient and two states of an optimizer in float32


@cache
def total_memory() -> int:
    """Return the bytes of memory of the machine, or of its container; 1 TiB where the system does not say."""
    sizes = [2**40]
    with suppress(AttributeError, ValueError, OSError):  # no POSIX
        sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError, ValueError):  # no container, or one without a limit
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes)


def require_memory(argument: str, what: str, size: int) -> None:
    """Refuse what takes more bytes than the machine has.

    Raises:
        ValueError: saying how much it takes.

    Example:
        >>> require_memory("size", "8 x 8 pixels", 1024)
    """
    if size > total_memory():
        needed, available = (f"{value / 2**30:,.0f} GiB" for value in (size, total_memory()))
        raise ValueError(f"{argument}: {what} take at least {needed} of memory, and this machine has {available}")


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
