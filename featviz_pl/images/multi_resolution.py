"""Pictures that are a sum of one picture at every resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from featviz_pl.images.laplacian import Interpolation, enlarged_sum, split_levels
from featviz_pl.images.latent import LatentImage, unpack
from featviz_pl.numerics.checks import unknown, whole_number


class MultiResolutionImage(LatentImage):
    """Optimize all resolutions at once: ``picture = (1 + tanh(sum_r enlarged(weight_r))) / 2``.

    The parameterization of direct ascent synthesis. Coarse resolutions are shared by many pixels, so the gradient
    itself favors the spectrum of photos. Where colors are mixed, they are mixed inside the tanh. Resolution r has r
    pixels along the longer side of the picture and square pixels, at least 1 along the shorter one.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width).
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        color: see `LatentImage`; the source mixes none.
        deviation: standard deviation of the first weights; the source starts from grey.
        resolutions: pixels along the longer side, each at most the picture's. None takes the powers of two and the
            picture's own, 1, 2, 4, … as a third party's implementation; the authors' blog takes 1, 5, 9, … The inverse
            is exact where the picture's own resolution is among them.
        interpolation: how resolutions are enlarged, ``"bicubic"`` as in the source or ``"bilinear"``.
        contrast: see `LatentImage`.

    Raises:
        ValueError: when a resolution is larger than the picture.

    Example:
        >>> image = MultiResolutionImage(size=(6, 12), count=1)
        >>> image.resolutions, image.level_sizes(), image().unique().tolist()
        ([1, 2, 4, 8, 12], [(1, 1), (1, 2), (2, 4), (4, 8), (6, 12)], [0.5])

    Reference:
        Fort, Whitaker, "Direct Ascent Synthesis: Revealing Hidden Generative Capabilities in Discriminative Models",
        2025
    """

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        count: int | None = None,
        *,
        channels: int = 3,
        color: Any = "none",
        deviation: float = 0.0,
        resolutions: Sequence[int] | None = None,
        interpolation: Interpolation = "bicubic",
        contrast: float | Literal["photos"] | None = None,
    ) -> None:
        super().__init__(size, channels=channels, color=color, deviation=deviation, contrast=contrast)
        longest = max(self.size)
        if resolutions is None:
            resolutions = [*(2**power for power in range((longest - 1).bit_length())), longest]
        if isinstance(resolutions, str) or not isinstance(resolutions, Sequence) or not resolutions:
            raise ValueError(
                f"resolutions must be pixels along the longer side, such as [1, 4, {longest}]: {resolutions!r}"
            )
        self.resolutions = [whole_number("resolutions", resolution) for resolution in resolutions]
        if max(self.resolutions) > longest:
            raise ValueError(f"resolutions must be at most {longest}, the longer side, got {max(self.resolutions)}")
        if interpolation not in ("bilinear", "bicubic"):
            raise unknown("interpolation", "interpolation", str(interpolation), ["bilinear", "bicubic"])
        self.interpolation: Interpolation = interpolation
        if count is not None:
            self.allocate(count)

    def level_sizes(self) -> list[tuple[int, int]]:
        """Return (height, width) of every resolution."""
        height, width = self.size
        shares = [resolution / max(self.size) for resolution in self.resolutions]
        return [(max(1, round(height * share)), max(1, round(width * share))) for share in shares]

    def weight_shape(self) -> tuple[int, ...]:
        """Return (D,): all resolutions in the order given, each (C, h, w)."""
        return (self.channels * sum(height * width for height, width in self.level_sizes()),)

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Enlarge the resolutions and add them up; twice that, since ``(1 + tanh(x)) / 2 = sigmoid(2 x)``."""
        levels = unpack(weight, [(self.channels, *size) for size in self.level_sizes()])
        return 2 * enlarged_sum(levels, self.size, self.interpolation)

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Split the picture into resolutions, the coarsest first."""
        levels = split_levels(latent / 2, self.level_sizes(), self.interpolation)
        return torch.cat([level.flatten(1) for level in levels], 1)

    def extra_repr(self) -> str:
        """Add the resolutions."""
        return f"{super().extra_repr()}, resolutions={self.resolutions}, interpolation={self.interpolation!r}"
