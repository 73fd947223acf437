"""Contract cases of the metrics that ask another network, and a judge whose answers can be worked out by hand."""

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
    return torch.stack(
        [
            torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(index)) ** (1 + index % 3)
            for index in range(count)
        ]
    )


def inputs(count: int) -> tuple[Any, ...]:
    """Return pictures and their classes."""
    return pictures(count), [COLORS[index % 3] for index in range(count)]


def _of_unknown_class(kind: type[TransferProbability | TransferRank]) -> None:
    kind(color_judge()).update(pictures(1), "blu")


CASES = [
    MetricCase(
        "TransferProbability",
        lambda **arguments: TransferProbability(color_judge(8), **arguments),
        inputs,
        lower=0.0,
        upper=1.0,
        higher_is_better=True,
        bad=[
            (
                lambda: _of_unknown_class(TransferProbability),
                "class: unknown class of the judge 'blu'; did you mean 'blue'",
            ),
            (
                lambda: TransferProbability(color_judge(), ["red", "gren"]),
                "unknown class of the judge 'gren'; did you mean 'green'",
            ),
            (
                lambda: TransferProbability(color_judge()).update(pictures(1) * torch.nan, "red"),
                "pictures: NaN in 1 of 1",
            ),
            (
                lambda: TransferProbability(color_judge()).update(pictures(2), ["red"]),
                "classes: 1 do not fit 2 pictures",
            ),
            (lambda: TransferProbability(color_judge()).update(pictures(1), 4), "has 4 classes, 0 to 3; there is no 4"),
        ],
    ),
    MetricCase(
        "TransferRank",
        lambda **arguments: TransferRank(color_judge(8), **arguments),
        inputs,
        lower=1.0,
        upper=None,
        higher_is_better=False,
        bad=[(lambda: _of_unknown_class(TransferRank), "class: unknown class of the judge 'blu'; did you mean 'blue'")],
    ),
]
