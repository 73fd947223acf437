"""Contract cases of the metrics of the picture alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from metric_case import MetricCase
from torch import Tensor

from featviz_pl.metrics import ClippedShare, ColorDistance, HighFrequencyShare, SpectrumSlope, VariationPerPixel
from featviz_pl.statistics import ColorStatistics

GREY = ColorStatistics([0.5], [[0.04]], 100)


def pictures(count: int) -> Tensor:
    """Return noise of different contrast and smoothness, the same for the same index."""
    made = []
    for index in range(count):
        noise = torch.rand(3, 36, 40, generator=torch.Generator().manual_seed(index))
        if index % 2:
            noise = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
        made.append(noise ** (1 + index % 3))
    return torch.stack(made)


def inputs(count: int) -> tuple[Any, ...]:
    """Return pictures."""
    return (pictures(count),)


def _bad_pictures(make: Callable[..., Any]) -> list[tuple[Callable[[], Any], str]]:
    def nan_in_the_second() -> None:
        spoiled = pictures(3)
        spoiled[1, 0, 0, 0] = torch.nan
        make().update(spoiled)

    return [
        (nan_in_the_second, "pictures: NaN in 1 of 3, the first at index 1"),
        (
            lambda: make().update(pictures(1) * 2),
            r"pictures must lie in \[0, 1\], got values from .* to .*; pass them before",
        ),
        (lambda: make().update(pictures(1) - 1), r"pictures must lie in \[0, 1\], got values from -"),
        (lambda: make().update(pictures(1)[0]), r"pictures must be a batch \(N, C, H, W\), got shape \(3, 36, 40\)"),
        (
            lambda: make().update(pictures(1)[:0]),
            r"pictures must be a batch \(N, C, H, W\), got shape \(0, 3, 36, 40\)",
        ),
        (lambda: make().update((pictures(1) * 255).to(torch.uint8)), "pictures: torch.uint8 holds no values"),
        (lambda: make().update([[0.5]]), "pictures must be a tensor"),
        (lambda: make(reduction="man"), "reduction: unknown reduction 'man'; did you mean 'mean'"),
        (lambda: make().compute(), "there are no pictures yet; update it first"),
    ]


CASES = [
    MetricCase(
        "ClippedShare",
        ClippedShare,
        inputs,
        lower=0.0,
        upper=1.0,
        higher_is_better=False,
        bad=[
            *_bad_pictures(ClippedShare),
            (lambda: ClippedShare(-0.1), "level must be at least 0, got -0.1"),
            (lambda: ClippedShare(0.5), "level must be below 0.5"),
            (lambda: ClippedShare(float("nan")), "level must be at least 0, got nan"),
        ],
    ),
    MetricCase(
        "ColorDistance",
        ColorDistance,
        inputs,
        lower=0.0,
        upper=None,
        higher_is_better=False,
        bad=[
            *_bad_pictures(ColorDistance),
            (
                lambda: ColorDistance(GREY).update(pictures(1)),
                "pictures: 3 channels do not fit the 1 of the statistics",
            ),
            (
                lambda: ColorDistance().update(pictures(1)[:, :1]),
                "pictures: 1 channels do not fit the 3 of the statistics",
            ),
            (lambda: ColorDistance("nowhere.pt"), "statistics: there is no file 'nowhere.pt'"),
            (lambda: ColorDistance(3), "statistics must be measured statistics or the path of their file, got int"),  # type: ignore[arg-type]
        ],
    ),
    MetricCase(
        "SpectrumSlope",
        SpectrumSlope,
        inputs,
        lower=None,
        upper=None,
        higher_is_better=None,
        bad=[
            *_bad_pictures(SpectrumSlope),
            (
                lambda: SpectrumSlope().update(pictures(1)[..., :31]),
                "pictures: 36 x 31 pixels are too few for a slope; each side needs",
            ),
        ],
    ),
    MetricCase(
        "VariationPerPixel",
        VariationPerPixel,
        inputs,
        lower=0.0,
        upper=2.0,
        higher_is_better=None,
        bad=[
            *_bad_pictures(VariationPerPixel),
            (lambda: VariationPerPixel().update(pictures(1)[..., :1]), "pictures: 36 x 1 pixels are too few"),
        ],
    ),
    MetricCase(
        "HighFrequencyShare",
        HighFrequencyShare,
        inputs,
        lower=0.0,
        upper=1.0,
        higher_is_better=None,
        bad=[
            *_bad_pictures(HighFrequencyShare),
            (lambda: HighFrequencyShare(0.0), "cutoff must be above 0, got 0"),
            (lambda: HighFrequencyShare(0.5), "cutoff must be below 0.5"),
        ],
    ),
]
