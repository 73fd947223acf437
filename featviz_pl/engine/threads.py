"""How many threads a process computes with where several share the cores of a machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

_CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Return how many cores this process may use: of its affinity and its container's limit the smaller one.

    Example:
        >>> 1 <= available_cores() <= (os.cpu_count() or 1)
        True
    """
    return max(1, math.ceil(min(_affinity(), _container_limit())))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _container_limit() -> float:
    """Return the cores that the control group of a container allows, of version 2 or 1; infinite without a limit."""
    with suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota_us = int((_CGROUP / "cpu" / "cpu.cfs_quota_us").read_text())
        return math.inf if quota_us < 0 else quota_us / int((_CGROUP / "cpu" / "cpu.cfs_period_us").read_text())
    return math.inf


def local_processes(trainer: Any) -> int:
    """Return how many processes of a Trainer's run share this machine; without a Trainer, one."""
    return int(trainer.num_devices) if trainer is not None and trainer.world_size > 1 else 1


def fair_threads(processes: int) -> int:
    """Return the number of threads for each of so many processes of this machine: never more than it has now.

    Threads that outnumber the cores wait for one another at the end of every operation, which was measured to cost ten
    times the time. ``OMP_NUM_THREADS`` is respected, except where Lightning has set it for the processes that it
    starts: it does not know the limit of a container.

    Args:
        processes: of this run on this machine, 1 or more.

    Example:
        >>> fair_threads(1) <= torch.get_num_threads(), fair_threads(10_000)
        (True, 1)
    """
    present, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    if variable is not None and (processes == 1 or variable != str(max(1, _affinity() // processes))):
        return present
    return min(present, max(1, available_cores() // processes))


@contextmanager
def fewer_threads(processes: int) -> Iterator[None]:
    """Compute with `fair_threads` inside this context.

    Example:
        >>> with fewer_threads(10_000):
        ...     torch.get_num_threads()
        1
    """
    before, threads = torch.get_num_threads(), fair_threads(processes)
    if threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads != before:
            torch.set_num_threads(before)
