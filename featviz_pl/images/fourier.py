"""Pictures whose weights are their spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from featviz_pl.images.latent import LatentImage
from featviz_pl.numerics.checks import finite_number
from featviz_pl.numerics.fourier import spectrum_scale

DECAY = 1.3  # that of the default recipe, benchmarks/QUALITY.md
_CONTRAST = 4.0  # Lucid divides the decoded picture by 4: with it, lr = 0.05 takes the published step


class FourierImage(LatentImage):
    """Optimize the spectrum, scaled so that all frequencies have the energy that they have in photos.

    ``picture = sigmoid(color @ irfft2(scale * weight) / 4)`` with
    ``scale = 1 / max(f, 1 / max(height, width)) ** decay`` and the orthonormal transform. Steepest ascent in this basis
    moves low frequencies furthest: a change of metric, not a penalty. The weights are stored as real pairs, which
    survive every cast.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width); odd ones are fine.
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        color: see `LatentImage`.
        deviation: standard deviation of the first weights, real and imaginary part each.
        decay: exponent of the frequency; 1 is the spectrum of photos and Lucid's, more makes smoother pictures. The
            default is that of the default recipe, see `featviz_pl.presets.featviz`.
        squash: see `LatentImage`.
        contrast: see `LatentImage`.

    Example:
        >>> image = FourierImage.from_image(torch.full((3, 5, 7), 0.25))
        >>> image().shape, round(float(image().detach().mean()), 3)
        (torch.Size([1, 3, 5, 7]), 0.25)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    scale: Tensor

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        count: int | None = None,
        *,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 0.01,
        decay: float = DECAY,
        squash: Literal["sigmoid", "clip"] = "sigmoid",
        contrast: float | Literal["photos"] | None = None,
    ) -> None:
        super().__init__(size, channels=channels, color=color, deviation=deviation, squash=squash, contrast=contrast)
        self.decay = finite_number("decay", decay)
        with torch.inference_mode(False):
            self.register_buffer("scale", spectrum_scale(self.size, self.decay) / _CONTRAST, persistent=False)
        if count is not None:
            self.allocate(count)

    def weight_shape(self) -> tuple[int, ...]:
        """Return (C, H, W // 2 + 1, 2): real and imaginary part of the half spectrum."""
        return (self.channels, self.size[0], self.size[1] // 2 + 1, 2)

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Transform the scaled spectrum back to space."""
        spectrum = torch.view_as_complex(weight) * self.scale.to(weight.dtype)
        latent: Tensor = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return latent

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Transform to the spectrum and undo the scale."""
        return torch.view_as_real(torch.fft.rfft2(latent, norm="ortho") / self.scale.to(latent))

    def extra_repr(self) -> str:
        """Add the decay."""
        return f"{super().extra_repr()}, decay={self.decay:g}"
