"""What the processes of one run tell one another; every process must call each of these at the same place."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def mean_over_ranks(values: Tensor, ranks: int) -> Tensor:
    """Return the mean of what `ranks` processes hold; of one, what it holds.

    Example:
        >>> mean_over_ranks(torch.tensor([1.0, 2.0]), 1)
        tensor([1., 2.])
    """
    if ranks == 1:
        return values
    summed = values.detach().clone()
    distributed.all_reduce(summed)
    return summed / ranks


def highest_over_ranks(number: int, ranks: int, device: torch.device | str) -> int:
    """Return the highest of the numbers that `ranks` processes hold.

    Example:
        >>> highest_over_ranks(3, 1, "cpu")
        3
    """
    if ranks == 1:
        return number
    found = torch.tensor(number, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


def holds_in_all(holds: Tensor) -> Tensor:
    """Return where truth values hold in all processes, of which there are several."""
    found = holds.to(torch.int32)
    distributed.all_reduce(found, distributed.ReduceOp.MIN)
    return found.bool()
