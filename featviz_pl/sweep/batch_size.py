"""How many pictures of a sweep are rendered together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from featviz_pl.engine import Ascent
from featviz_pl.numerics.host_memory import total_memory

# On CPUs, sizes of 1 to 8 measured within 4 % of each other: benchmarks/SPEED.md. On accelerators memory decides.
CPU_BATCH_SIZE, MAX_BATCH_SIZE = 4, 64
_MEMORY_SHARES = 4  # a step needs about twice what it saves for the gradient, and half of the free memory is left


def automatic_batch_size(
    make: Callable[[str, Sequence[int]], Ascent], units: Mapping[str, Sequence[int]], device: torch.device, ranks: int
) -> int:
    """Return the batch size of a sweep: 4 on a CPU, as many as fit into memory, up to 64, on an accelerator.

    No batch is larger than the largest layer, or than the share of a process.

    Args:
        make: makes the ascent of a batch of units of a layer.
        units: of each layer that is swept.
        device: where the sweep takes place.
        ranks: processes of the sweep.
    """
    share = -(-sum(map(len, units.values())) // ranks)
    useful = min(share, max(map(len, units.values())))
    if device.type == "cpu":
        return min(CPU_BATCH_SIZE, useful)
    layer, indices = list(units.items())[-1]  # the deepest layer needs most
    return largest_fitting(saved_bytes(make(layer, indices[:1])), free_memory(device), min(MAX_BATCH_SIZE, useful))


def saved_bytes(ascent: Ascent) -> int:
    """Take one step and return the bytes that it saves for the gradient.

    Example:
        >>> from featviz_pl.images import PixelImage
        >>> from featviz_pl.networks import FrozenNetwork
        >>> from featviz_pl.objectives import Channel
        >>> ascent = Ascent(PixelImage(8), FrozenNetwork(torch.nn.Conv2d(3, 4, 3)), Channel("output", 1))
        >>> ascent.initialize(); ascent.prepare()
        >>> saved_bytes(ascent) > 8 * 8 * 3 * 4
        True
    """
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ascent.step(0, 1)
    return sum(saved.values())


def largest_fitting(bytes_per_picture: int, free: int, most: int) -> int:
    """Return how many pictures fit into free memory, 1 at least and `most` at most.

    Example:
        >>> largest_fitting(1000, free=20_000, most=64), largest_fitting(1000, free=10, most=64)
        (5, 1)
    """
    return max(1, min(most, free // (_MEMORY_SHARES * max(1, bytes_per_picture))))


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a GPU; of a device that shares the memory of the machine, all of that."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else total_memory()
