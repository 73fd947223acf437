"""The covariance of colors over all pixels of all pictures, and its square root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.color import normalized_color_root
from featviz_pl.statistics.exact_metric import ExactMetric, check_batch, drawing_axis, parts, plain

_SHIFT = 0.5  # the middle of [0, 1]: about it the second moment is at most 1/4, exact enough in float64
_LEAST_VARIANCE = 1e-10  # added to every variance, as published, so that the root can be inverted


class ColorStatistics:
    """Hold mean and covariance of the colors of a set of pictures.

    Parameterizations accept it as ``color``, and read `matrix`.

    Args:
        mean: (C,) of every channel.
        covariance: (C, C) of the channels, divided by the number of pixels.
        count: number of pixels.

    Example:
        >>> grey = ColorStatistics(torch.tensor([0.5, 0.5]), torch.tensor([[0.05, 0.03], [0.03, 0.05]]), 100)
        >>> [[round(value, 3) for value in row] for row in grey.matrix.tolist()]
        [[0.707, 0.354], [0.707, -0.354]]
    """

    def __init__(
        self, mean: Tensor | Sequence[float], covariance: Tensor | Sequence[Sequence[float]], count: int
    ) -> None:
        self.mean = plain(mean)
        self.covariance = plain(covariance)
        self.count = whole_number("count", count)
        channels = len(self.mean) if self.mean.ndim == 1 else 0
        if not channels or self.covariance.shape != (channels, channels):
            shapes = f"{tuple(self.mean.shape)} and {tuple(self.covariance.shape)}"
            raise ValueError(f"covariance: mean and covariance must be (C,) and (C, C), got {shapes}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

    @property
    def matrix(self) -> Tensor:
        """The matrix from decorrelated to picture channels: ``U sqrt(S + 1e-10)`` divided by its largest column norm.

        ``covariance = U S Uᵀ`` with the largest variance first. The sign of a column is free; the first entry of each
        that is not nearly zero is positive, as in the matrix that Lucid publishes for ImageNet.

        Shape:
            () -> (C, C), float64

        Reference:
            Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
        """
        variances, directions = torch.linalg.eigh(self.covariance)
        variances, directions = variances.flip(0), directions.flip(1)
        first = (directions.abs() > 1e-6).to(torch.int8).argmax(0)
        signs = directions.gather(0, first[None]).sign()
        return normalized_color_root(directions * signs * (variances.clamp_min(0.0) + _LEAST_VARIANCE).sqrt())

    def __repr__(self) -> str:
        return f"ColorStatistics(mean={self.mean.tolist()}, covariance={self.covariance.tolist()}, count={self.count})"


def pixel_moments(images: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return number, sum and sum of outer products of all pixels, each less 0.5, in float64.

    Shape:
        (N, C, H, W) -> (), (C,), (C, C)

    Example:
        >>> pixel_moments(torch.ones(2, 1, 3, 3))
        (18, tensor([9.], dtype=torch.float64), tensor([[4.5000]], dtype=torch.float64))
    """
    channels = images.shape[1]
    total = torch.zeros(channels, dtype=torch.float64, device=images.device)
    outer = torch.zeros(channels, channels, dtype=torch.float64, device=images.device)
    for part in parts(images):
        pixels = part.to(torch.float64).flatten(2) - _SHIFT
        total = total + pixels.sum((0, 2))
        outer = outer + torch.bmm(pixels, pixels.mT).sum(0)
    return images.numel() // channels, total, outer


def from_moments(count: int, total: Tensor, outer: Tensor) -> ColorStatistics:
    """Return mean and covariance from the sums of `pixel_moments`."""
    offset = total / count
    covariance = outer / count - torch.outer(offset, offset)
    return ColorStatistics(offset + _SHIFT, (covariance + covariance.mT) / 2, count)


class ColorCovariance(ExactMetric):
    """Measure the covariance of colors: ``Σ (x - mean)(x - mean)ᵀ / pixels``, over all pixels of all pictures.

    Each pixel is a vector of its channels; the mean is that of all pixels, not of each picture. The states are float64
    sums of ``x - 0.5`` over batches and processes: after a billion pixels the covariance is right to about 1e-12.

    Args:
        channels: of the pictures.
        kwargs: of `torchmetrics.Metric`.

    Example:
        >>> covariance = ColorCovariance(channels=2)
        >>> covariance.update(torch.tensor([[[[0.0, 1.0]], [[0.5, 0.5]]]]))
        >>> colors = covariance.compute()
        >>> colors.mean.tolist(), colors.covariance.tolist(), colors.count
        ([0.5, 0.5], [[0.25, 0.0], [0.0, 0.0]], 2)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, channels: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = whole_number("channels", channels)
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(self.channels, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(self.channels, self.channels, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, images: Tensor) -> None:
        """Add pictures.

        Shape:
            (N, C, H, W) in [0, 1]; batches may differ in size

        Raises:
            TypeError: when the pictures are no tensor.
            ValueError: when they are no floats in [0, 1], or have another number of channels.
        """
        count, total, outer = pixel_moments(check_batch(images, self.channels).detach())
        self.count, self.total, self.outer = self.count + count, self.total + total, self.outer + outer

    def compute(self) -> ColorStatistics:
        """Return mean, covariance, matrix and number of pixels.

        Raises:
            ValueError: before the first picture.
        """
        if not int(self.count):
            raise ValueError("ColorCovariance has seen no pictures yet; call update(images) first")
        return from_moments(int(self.count), self.total, self.outer)

    def plot(self, val: ColorStatistics | None = None, ax: Any = None) -> tuple[Any, Any]:
        """Draw the covariance as a table of shades and numbers.

        Args:
            val: what to draw; `compute()` unless given.
            ax: a matplotlib axis; a new figure unless given.

        Returns:
            Figure and axis.
        """
        colors = self.compute() if val is None else val
        figure, axis = drawing_axis(ax)
        axis.imshow(colors.covariance.numpy())
        for row in range(colors.channels):
            for column in range(colors.channels):
                axis.text(column, row, f"{float(colors.covariance[row, column]):.4f}", ha="center", va="center")
        axis.set_title("Covariance of channels")
        axis.set_xticks(range(colors.channels))
        axis.set_yticks(range(colors.channels))
        return figure, axis

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"channels={self.channels}"
