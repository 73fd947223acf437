"""Contract cases of the metrics of the picture alone."""

from __future__ import annotations

from typing import Any

import torch
from metric_case import MetricCase
from torch import Tensor

from featviz_pl.metrics import ClippedShare, ColorDistance, HighFrequencyShare, SpectrumSlope, VariationPerPixel
from featviz_pl.statistics import ColorStatistics

GREY = ColorStatistics([0.5], [[0.04]], 100)


def pictures(count: int) -> Tensor:
    """Return noise of different contrast and smoothness, the same for the same index."""
    drawn = []
    for index in range(count):
        noise = torch.rand(3, 36, 40, generator=torch.Generator().manual_seed(index))
        if index % 2:
            noise = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
        drawn.append(noise ** (1 + index % 3))
    return torch.stack(drawn)


def inputs(count: int) -> tuple[Any, ...]:
    """Return pictures."""
    return (pictures(count),)


CASES = [
    MetricCase(
        *("ClippedShare", ClippedShare, inputs, 0.0, 1.0, False),
        mistakes=[
            (lambda: ClippedShare(-0.1), "level must be at least 0, got -0.1"),
            (lambda: ClippedShare(0.5), "level must be below 0.5"),
            (lambda: ClippedShare(float("nan")), "level must be at least 0, got nan"),
        ],
    ),
    MetricCase(
        *("ColorDistance", ColorDistance, inputs, 0.0, None, False),
        mistakes=[
            (
                lambda: ColorDistance(GREY).update(pictures(1)),
                "pictures: 3 channels do not fit the 1 of the statistics",
            ),
            (lambda: ColorDistance().update(pictures(1)[:, :1]), "pictures: 1 channels do not fit the 3"),
            (lambda: ColorDistance("nowhere.pt"), "statistics: there is no file 'nowhere.pt'"),
            (lambda: ColorDistance(3), "statistics must be measured statistics or the path of their file, got int"),  # type: ignore[arg-type]
        ],
    ),
    MetricCase(
        *("SpectrumSlope", SpectrumSlope, inputs, None, None, None),
        mistakes=[(lambda: SpectrumSlope().update(pictures(1)[..., :31]), "pictures: 36 x 31 pixels are too few")],
    ),
    MetricCase(
        *("VariationPerPixel", VariationPerPixel, inputs, 0.0, 2.0, None),
        mistakes=[(lambda: VariationPerPixel().update(pictures(1)[..., :1]), "pictures: 36 x 1 pixels are too few")],
    ),
    MetricCase(
        *("HighFrequencyShare", HighFrequencyShare, inputs, 0.0, 1.0, None),
        mistakes=[
            (lambda: HighFrequencyShare(0.0), "cutoff must be above 0, got 0"),
            (lambda: HighFrequencyShare(0.5), "cutoff must be below 0.5"),
        ],
    ),
]
