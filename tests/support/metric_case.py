"""One row of the contract table of metrics (tests/metrics/test_contract.py), and how the rows are read."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

Mistake = tuple[Callable[[], Any], str]  # what a user may do wrong, and a pattern of the message


@dataclass(frozen=True)
class MetricCase:
    """Say how to build a metric and feed it, and what it promises.

    `make` takes further keyword arguments of the constructor (such as ``reduction``); `inputs(n)` returns the
    positional arguments of `update` for n pictures, always the same for the same n, and those for n begin with those
    for fewer.
    """

    name: str  # of the class, as exported
    make: Callable[..., Metric]
    inputs: Callable[[int], tuple[Any, ...]]
    lower: float | None  # bound of the value; None is open
    upper: float | None
    higher_is_better: bool | None
    per_picture: bool = True  # one value for each picture, or one for the set
    mistakes: list[Mistake] = field(default_factory=list)

    def part(self, first: int, last: int) -> tuple[Any, ...]:
        """Return the arguments of `update` for the pictures from the first to before the last."""
        return tuple(
            argument[first:last] if isinstance(argument, (Tensor, list, tuple)) and len(argument) == last else argument
            for argument in self.inputs(last)
        )


def all_cases() -> list[MetricCase]:
    """Return the rows of all modules ``metric_cases_*`` beside this one."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("metric_cases_*.py"))
    return [case for name in names for case in importlib.import_module(name).CASES]


def numbers(result: Any) -> Tensor:
    """Return everything that a metric computed as one vector in float64."""
    if isinstance(result, Mapping):
        result = list(result.values())
    if isinstance(result, Iterable) and not isinstance(result, Tensor):
        return torch.cat([numbers(value) for value in result])
    return torch.as_tensor(result).detach().double().flatten()
