"""Pictures whose weights are their pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from featviz_pl.images.latent import LatentImage


class PixelImage(LatentImage):
    """Optimize the pixels themselves: ``picture = sigmoid(color @ weight)``.

    The naive parameterization: all frequencies move equally fast, so high ones dominate and the picture becomes noisy.
    Useful as a baseline, and where every pixel must be free.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width).
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        color: see `LatentImage`.
        deviation: standard deviation of the first weights.
        squash: see `LatentImage`.
        contrast: see `LatentImage`.

    Example:
        >>> PixelImage(size=(4, 6), count=2)().shape
        torch.Size([2, 3, 4, 6])

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def weight_shape(self) -> tuple[int, ...]:
        """Return (C, H, W)."""
        return (self.channels, *self.size)

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Return the weights as they are."""
        return weight

    @torch.no_grad()
    def advance(self, step: int, steps: int) -> None:
        """Project clipped pixels onto [0, 1], where they have a gradient; see `LatentImage` for the contrast."""
        super().advance(step, steps)
        if self.squash == "clip":
            weight = self.required_weight()
            weight.copy_(self.from_rgb(self.to_rgb(weight)))

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Return the picture as it is."""
        return latent
