"""How natural the values, colors and neighboring pixels of a picture are; no network takes part.

What the docstrings report of photos are mean and standard deviation over the central 224 x 224 pixels of 934 photos of
ImageNet, each of another class, measured by ``python benchmarks/natural.py imagenet-samples``.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from featviz_pl.metrics.base import PictureMetric, Reduction
from featviz_pl.numerics.checks import finite_number
from featviz_pl.statistics import ColorStatistics, Statistics, load_statistics, natural_statistics

_ROUNDING = 1e-6  # 254 / 255 in float32 is not quite 1 - 1 / 255


class ClippedShare(PictureMetric):
    """Measure the share of values next to black or white: ``mean(x <= level or x >= 1 - level)`` over pixels and channels.

    Both bounds are included: at the default level the values 0, 1, 254 and 255 of 256 count as clipped. Photos have
    0.034 ± 0.072, half of them less than 0.012. For pictures that end in a sigmoid, which never equals 0
    or 1, ``level=4 / 255`` detects saturated pictures better; photos have about 0.06 then.

    Range: [0, 1]; lower is better.

    Shape:
        update: pictures (N, C, H, W) in [0, 1]; compute: () or, with ``"none"``, (all pictures,)

    Args:
        level: largest distance from 0 or 1 that counts, in [0, 0.5).
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when `level` is out of range, or pictures are not in [0, 1].

    Example:
        >>> clipped = ClippedShare()
        >>> clipped.update(torch.tensor([0.0, 1.0, 2.0, 100.0, 254.0]).view(1, 1, 1, 5) / 255)
        >>> round(clipped.compute().item(), 3)
        0.6

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017: the sigmoid that keeps pictures within the
        range
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, level: float = 1 / 255, *, reduction: Reduction = "mean", **kwargs: Any) -> None:
        super().__init__(reduction, **kwargs)
        self.level = finite_number("level", level, least=0.0)
        if self.level >= 0.5:
            raise ValueError(f"level must be below 0.5, where every value would count, got {level!r}")

    def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
        """Return the share of clipped values of each picture."""
        distance = torch.minimum(pictures, 1 - pictures)
        return (distance <= self.level + _ROUNDING).double().flatten(1).mean(1)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"level={self.level!r}, {super().extra_repr()}"


class ColorDistance(PictureMetric):
    """Measure how far a picture's colors are from those of photos: the Fréchet distance of their Gaussians.

    ``sqrt(|m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁^½ C₂ C₁^½)^½))`` with mean and covariance over the picture's pixels and over
    all pixels of all photos. In units of color: two grey levels that differ by 0.1 in every one of three channels are
    0.1 √3 apart. A single photo has fewer colors than all together: photos have 0.254 ± 0.127, and most are below 0.5.

    Range: [0, ∞); lower is better, down to that of photos.

    Shape:
        update: pictures (N, C, H, W) in [0, 1]; compute: () or, with ``"none"``, (all pictures,)

    Args:
        statistics: of photos of as many channels: measured, or the file that ``featviz stats`` wrote; those of the
            library unless given.
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when the file cannot be read, or the channels of statistics and pictures differ.

    Example:
        >>> photos = ColorStatistics([0.5], [[0.04]], 100)  # mean 0.5, deviation 0.2
        >>> distance = ColorDistance(photos)
        >>> distance.update(torch.tensor([0.7, 0.9]).view(1, 1, 1, 2))  # mean 0.8, deviation 0.1
        >>> round(distance.compute().item(), 4), round((0.3**2 + 0.1**2) ** 0.5, 4)
        (0.3162, 0.3162)

    Reference:
        Dowson, Landau, "The Fréchet distance between multivariate normal distributions", Journal of Multivariate
        Analysis, 1982
    """

    higher_is_better = False
    plot_lower_bound = 0.0

    natural_mean: Tensor
    natural_covariance: Tensor

    def __init__(
        self,
        statistics: Statistics | ColorStatistics | str | None = None,
        *,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(reduction, **kwargs)
        color = _color_statistics(statistics)
        self.statistics = statistics if statistics is None or isinstance(statistics, str) else color
        self.register_buffer("natural_mean", color.mean, persistent=False)
        self.register_buffer("natural_covariance", color.covariance, persistent=False)

    def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
        """Return the distance of each picture."""
        channels = len(self.natural_mean)
        if pictures.shape[1] != channels:
            raise ValueError(
                f"pictures: {pictures.shape[1]} channels do not fit the {channels} of the statistics; "
                "give statistics of such photos, from featviz stats"
            )
        pixels = pictures.double().flatten(2)
        mean = pixels.mean(2)
        centered = pixels - mean[:, :, None]
        covariance = centered @ centered.mT / pixels.shape[2]
        root = _root(self.natural_covariance)
        common = torch.linalg.eigvalsh(root @ covariance @ root).clamp_min(0.0).sqrt().sum(1)
        traces = self.natural_covariance.trace() + covariance.diagonal(dim1=1, dim2=2).sum(1)
        squared: Tensor = (mean - self.natural_mean).square().sum(1) + traces - 2 * common
        return squared.clamp_min(0.0).sqrt()

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"statistics={self.statistics!r}, {super().extra_repr()}"


def _color_statistics(statistics: Any) -> ColorStatistics:
    """Return the color statistics of the argument: the library's for None, measured ones, or those of a file."""
    if statistics is None:
        return natural_statistics().color
    if isinstance(statistics, (str, os.PathLike)):
        return load_statistics(statistics, argument="statistics").color
    if not isinstance(statistics, (Statistics, ColorStatistics)):
        name = type(statistics).__name__
        raise TypeError(f"statistics must be measured statistics or the path of their file, got {name}")
    return statistics.color if isinstance(statistics, Statistics) else statistics


def _root(covariance: Tensor) -> Tensor:
    """Return the symmetric square root."""
    variances, directions = torch.linalg.eigh(covariance)
    root: Tensor = directions * variances.clamp_min(0.0).sqrt() @ directions.mT
    return root


class VariationPerPixel(PictureMetric):
    """Measure how much neighboring pixels differ: ``mean|x[i+1, j] - x[i, j]| + mean|x[i, j+1] - x[i, j]|``, over pairs and channels.

    It is a mean, so pictures of different sizes can be compared, unlike by the sum that penalties take. Photos have 0.087 ±
    0.047, noise that is uniform over the range has 0.667, blurred pictures have less.

    Range: [0, 2]; neither end is better, near that of photos is.

    Shape:
        update: pictures (N, C, H, W) in [0, 1]; compute: () or, with ``"none"``, (all pictures,)

    Args:
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when pictures have fewer than 2 x 2 pixels.

    Example:
        >>> variation = VariationPerPixel()
        >>> variation.update(torch.tensor([[0.0, 0.5], [0.25, 0.5]]).view(1, 1, 2, 2))
        >>> variation.compute().item()  # (0.25 + 0) / 2 down, (0.5 + 0.25) / 2 across
        0.5

    Reference:
        Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D, 1992
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 2.0

    def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
        """Return the variation of each picture."""
        height, width = pictures.shape[-2:]
        if min(height, width) < 2:
            raise ValueError(f"pictures: {height} x {width} pixels are too few; at least 2 x 2 are needed")
        down, across = (pictures.diff(dim=dimension).abs().flatten(1).double().mean(1) for dimension in (-2, -1))
        return down + across
