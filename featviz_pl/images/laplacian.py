"""Pictures that are a sum of levels, each with half the pixels of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.images.latent import LatentImage, unpack
from featviz_pl.numerics.checks import whole_number

Interpolation = Literal["bilinear", "bicubic"]


class LaplacianPyramidImage(LatentImage):
    """Optimize a pyramid: ``sigmoid(color @ sum_n enlarged(weight_n))``, level n of ``size // 2 ** n`` pixels.

    A step moves every level, so low frequencies move further than high ones: milder than `FourierImage`, and local.
    Levels are enlarged bilinearly about the centres of their pixels, where Lucid's old TensorFlow aligned upper left
    corners.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width).
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        color: see `LatentImage`.
        deviation: standard deviation of the first weights of every level.
        levels: number of levels, 1 or more; a level has at least one pixel.
        squash: see `LatentImage`.
        contrast: see `LatentImage`.

    Example:
        >>> image = LaplacianPyramidImage(size=(9, 16), levels=3)
        >>> image.level_sizes()
        [(9, 16), (4, 8), (2, 4)]

    Reference:
        Lucid, optvis/param/images.py: laplacian_pyramid_image
    """

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        count: int | None = None,
        *,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 0.01,
        levels: int = 4,
        squash: Literal["sigmoid", "clip"] = "sigmoid",
        contrast: float | Literal["photos"] | None = None,
    ) -> None:
        super().__init__(size, channels=channels, color=color, deviation=deviation, squash=squash, contrast=contrast)
        self.levels = whole_number("levels", levels)
        if count is not None:
            self.allocate(count)

    def level_sizes(self) -> list[tuple[int, int]]:
        """Return (height, width) of every level, the finest first."""
        return halved_sizes(self.size, [2**level for level in range(self.levels)])

    def weight_shape(self) -> tuple[int, ...]:
        """Return (D,): all levels, the finest first, each (C, h, w)."""
        return (self.channels * sum(height * width for height, width in self.level_sizes()),)

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Enlarge the levels and add them up."""
        levels = unpack(weight, [(self.channels, *size) for size in self.level_sizes()])
        return enlarged_sum(levels, self.size)

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Split the picture into a Laplacian pyramid."""
        return torch.cat([level.flatten(1) for level in split_levels(latent, self.level_sizes())], 1)

    def extra_repr(self) -> str:
        """Add the levels."""
        return f"{super().extra_repr()}, levels={self.levels}"


def halved_sizes(size: tuple[int, int], divisors: Sequence[int]) -> list[tuple[int, int]]:
    """Return ``size // divisor`` for each divisor, at least one pixel.

    Example:
        >>> halved_sizes((9, 3), [1, 2, 4])
        [(9, 3), (4, 1), (2, 1)]
    """
    return [(max(1, size[0] // divisor), max(1, size[1] // divisor)) for divisor in divisors]


def enlarged_sum(levels: Sequence[Tensor], size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
    """Enlarge pictures about the centres of their pixels and add them up.

    Shape:
        (N, C, h, w) each -> (N, C, H, W)

    Example:
        >>> enlarged_sum([torch.ones(1, 1, 1, 1), torch.tensor([[[[0.0, 4.0]]]])], (1, 4)).flatten().tolist()
        [1.0, 2.0, 4.0, 5.0]
    """
    first, *finer = (_enlarged(level, size, interpolation) for level in levels)
    return sum(finer, first)


def _enlarged(level: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    if tuple(level.shape[-2:]) == size:
        return level
    return functional.interpolate(level, size, mode=interpolation, align_corners=False)


def split_levels(
    picture: Tensor, sizes: Sequence[tuple[int, int]], interpolation: Interpolation = "bilinear"
) -> list[Tensor]:
    """Invert `enlarged_sum`: from the coarsest level on, each is the average of the remaining difference.

    Exact where the finest level has as many pixels as the picture.

    Shape:
        (N, C, H, W) -> (N, C, h, w) for each size
    """
    levels: dict[int, Tensor] = {}
    difference = picture
    for index in sorted(range(len(sizes)), key=lambda index: sizes[index]):
        levels[index] = functional.adaptive_avg_pool2d(difference, sizes[index])
        difference = difference - _enlarged(levels[index], (picture.shape[-2], picture.shape[-1]), interpolation)
    return [levels[index] for index in range(len(sizes))]
