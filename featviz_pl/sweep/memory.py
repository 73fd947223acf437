"""How many pictures of a sweep fit into one batch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

from featviz_pl.engine import Ascent

MOST_ON_CPU, MOST_ON_ACCELERATOR = 8, 64  # more gains little: the device is busy
_PARTS = 4  # a step needs about twice what it keeps for the gradient, and half of the free memory is left to others


def kept_bytes(problem: Ascent) -> int:
    """Take one step and return the bytes that it keeps for the gradient.

    Example:
        >>> from featviz_pl.images import PixelImage
        >>> from featviz_pl.networks import FrozenNetwork
        >>> from featviz_pl.objectives import Channel
        >>> problem = Ascent(PixelImage(8), FrozenNetwork(torch.nn.Conv2d(3, 4, 3)), Channel("output", 1))
        >>> problem.initialize(); problem.prepare()
        >>> kept_bytes(problem) > 8 * 8 * 3 * 4
        True
    """
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        problem.step(0, 1)
    return sum(kept.values())


def largest_batch(bytes_per_picture: int, free: int, most: int) -> int:
    """Return how many pictures fit into free memory, 1 at least and `most` at most.

    Example:
        >>> largest_batch(1000, free=20_000, most=64), largest_batch(1000, free=10, most=64)
        (5, 1)
    """
    return max(1, min(most, free // (_PARTS * max(1, bytes_per_picture))))


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device; of a CPU, those of the machine or of the container, whichever are fewer."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else [4 << 30]
    with suppress(OSError):
        free = [
            int(line.split()[1]) << 10
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("MemAvailable")
        ]
    with suppress(OSError, ValueError):  # no container, or one without a limit
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        free.append(limit - used)
    return max(0, min(free, default=4 << 30))
