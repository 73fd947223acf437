"""Reductions over the processes of a run; every process must call each of them at the same point."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def mean_over_ranks(values: Tensor, ranks: int) -> Tensor:
    """Return the mean of the values of `ranks` processes.

    Example:
        >>> mean_over_ranks(torch.tensor([1.0, 2.0]), 1)
        tensor([1., 2.])
    """
    if ranks == 1:
        return values
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total / ranks


def max_over_ranks(number: int, ranks: int, device: torch.device | str) -> int:
    """Return the largest of the numbers of `ranks` processes.

    Example:
        >>> max_over_ranks(3, 1, "cpu")
        3
    """
    if ranks == 1:
        return number
    largest = torch.tensor(number, device=device)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)


def all_over_ranks(condition: Tensor) -> Tensor:
    """Return where a condition holds in all processes, of which there are several."""
    minimum = condition.to(torch.int32)
    distributed.all_reduce(minimum, distributed.ReduceOp.MIN)
    return minimum.bool()
