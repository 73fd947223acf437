"""Contract cases of the metrics that ask another network, and a judge whose logits have a closed form."""

from __future__ import annotations

from typing import Any

import torch
from metric_case import MetricCase
from torch import Tensor, nn

from featviz_pl.metrics import TransferProbability, TransferRank
from featviz_pl.networks import FrozenNetwork

COLORS = ("red", "green", "blue", "bright yellow, sun")


class ColorJudge(nn.Module):
    """Answer with ten times the mean of each channel, and ten times the lesser one of red and green."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3))
        return 10 * torch.cat([mean, mean[:, :2].amin(1, keepdim=True)], 1)


def color_judge(size: int | tuple[int, int] | None = None) -> FrozenNetwork:
    """Build a judge of colors."""
    return FrozenNetwork(ColorJudge(), size=size, classes=COLORS, name="colors")


def pictures(count: int) -> Tensor:
    """Return noise on a color for each picture, the same for the same index."""
    generators = (torch.Generator().manual_seed(index) for index in range(count))
    return torch.stack([torch.rand(3, 7, 9, generator=g) ** (1 + index % 3) for index, g in enumerate(generators)])


def inputs(count: int) -> tuple[Any, ...]:
    """Return pictures and their classes."""
    return pictures(count), [COLORS[index % 3] for index in range(count)]


def probability(**arguments: Any) -> TransferProbability:
    """Build the metric with a judge of one size."""
    return TransferProbability(color_judge(8), **arguments)


def rank(**arguments: Any) -> TransferRank:
    """Build the metric with a judge of one size."""
    return TransferRank(color_judge(8), **arguments)


UNKNOWN = "class: unknown class of the judge 'blu'; did you mean 'blue'"
CASES = [
    MetricCase(
        *("TransferProbability", probability, inputs, 0.0, 1.0, True),
        mistakes=[
            (lambda: probability().update(pictures(1), "blu"), UNKNOWN),
            (lambda: TransferProbability(color_judge(), ["red", "gren"]), "'gren'; did you mean 'green'"),
            (lambda: probability().update(pictures(2), ["red"]), "classes: 1 do not fit 2 pictures"),
            (lambda: probability().update(pictures(1), 4), "has 4 classes, 0 to 3; there is no 4"),
        ],
    ),
    MetricCase(
        *("TransferRank", rank, inputs, 1.0, None, False),
        mistakes=[(lambda: rank().update(pictures(1), "blu"), UNKNOWN)],
    ),
]
