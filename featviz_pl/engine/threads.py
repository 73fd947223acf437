"""How many threads a process should compute with where several share the cores of a machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Return how many cores this process may use: those of its affinity, or what its container is allowed, whichever is less.

    Example:
        >>> 1 <= available_cores() <= (os.cpu_count() or 1)
        True
    """
    return max(1, math.ceil(min(_affinity(), _quota())))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float:
    """Return the cores that the control groups of this process allow, infinite where they do not say."""
    least = math.inf
    with suppress(OSError):
        for line in _OWN_GROUP.read_text().splitlines():
            number, kinds, name = line.split(":", 2)
            place = _GROUPS if number == "0" else _GROUPS / "cpu"
            if number == "0" or "cpu" in kinds.split(","):
                own = place / name.lstrip("/")
                for group in {place, *(folder for folder in (own, *own.parents) if folder.is_relative_to(place))}:
                    least = min(least, _limit(group))
    return least


def _limit(group: Path) -> float:
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        allowed = int((group / "cpu.cfs_quota_us").read_text())
        return math.inf if allowed < 0 else allowed / int((group / "cpu.cfs_period_us").read_text())
    return math.inf


def processes_here(trainer: Any) -> int:
    """Return how many processes of a Trainer's run share this machine; without a Trainer, one."""
    return int(trainer.num_devices) if trainer is not None and trainer.world_size > 1 else 1


def fair_threads(processes: int) -> int:
    """Return with how many threads each of so many processes of this machine should compute: never more than it does now.

    Threads that outnumber the cores wait for one another at the end of every operation, which was seen to cost ten
    times the time. An ``OMP_NUM_THREADS`` of the user is respected; that which Lightning sets for the processes that it
    starts knows nothing of what a container is allowed.

    Args:
        processes: of this run on this machine, 1 or more.

    Example:
        >>> fair_threads(1) <= torch.get_num_threads(), fair_threads(10_000)
        (True, 1)
    """
    present, asked = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    if asked is not None and (processes == 1 or asked != str(max(1, _affinity() // processes))):
        return present
    return min(present, max(1, available_cores() // processes))


@contextmanager
def fewer_threads(processes: int) -> Iterator[int]:
    """Compute with `fair_threads` inside this context, and give their number.

    Example:
        >>> before = torch.get_num_threads()
        >>> with fewer_threads(1) as threads:
        ...     torch.get_num_threads() == threads
        True
        >>> torch.get_num_threads() == before
        True
    """
    before, threads = torch.get_num_threads(), fair_threads(processes)
    if threads != before:
        torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        if threads != before:
            torch.set_num_threads(before)
