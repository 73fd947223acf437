"""Pictures with transparency."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.images.base import Image, check_pictures
from featviz_pl.images.composite import CompositeImage
from featviz_pl.images.fixed import with_alpha
from featviz_pl.images.fourier import DECAY, FourierImage
from featviz_pl.numerics.checks import finite_number, size_pair, whole_number


class AlphaImage(CompositeImage):
    """Optimize the opacity of each pixel beside its color: ``(image(), sigmoid(irfft2(scale * weight) / 4))``.

    Shown on random backgrounds, a picture becomes opaque where the unit needs it and stays transparent elsewhere. The
    alpha plane is a one-channel `FourierImage`, with the decay of `image` where that has one; at the start it is nearly
    `opacity` everywhere.

    Shape:
        () -> (N, C + 1, H, W), alpha last

    Args:
        size: of the pictures in pixels, one number or (height, width); that of `image`, or 224, unless given.
        count: number of pictures; None lets the objective decide.
        channels: of the color picture, without alpha; those of `image`, or 3, unless given.
        image: the color picture; a `FourierImage` unless given.
        opacity: of the start, from 0.001 to 0.999.

    Raises:
        ValueError: when `image` has another size or number of channels, or an alpha channel.

    Example:
        >>> image = AlphaImage(size=8, count=2)
        >>> image().shape, image.alpha
        (torch.Size([2, 4, 8, 8]), True)

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        count: int | None = None,
        *,
        channels: int | None = None,
        image: Image | None = None,
        opacity: float = 0.5,
    ) -> None:
        if image is None:
            image = FourierImage(224 if size is None else size, channels=3 if channels is None else channels)
        if not isinstance(image, Image):
            raise TypeError(f"image must be an Image, got {type(image).__name__}")
        if image.alpha:
            raise ValueError(f"image: {type(image).__name__} has an alpha channel already")
        if size is not None and size_pair("size", size) != image.size:
            raise ValueError(f"size: {size} differs from that of the image, {image.size}; give one of them")
        if channels is not None and whole_number("channels", channels) != image.channels:
            raise ValueError(f"channels: {channels} differs from that of the image, {image.channels}; give one of them")
        super().__init__(image.size, image.channels + 1)
        self.opacity = finite_number("opacity", opacity, least=0.001, most=0.999)
        self.image = image
        self.plane = FourierImage(
            image.size, image.count, channels=1, color="none", decay=getattr(image, "decay", DECAY)
        )
        self.update_from_parts()
        self.alpha = True
        if count is not None:
            self.allocate(count)

    @property
    def parts(self) -> list[Image]:
        """The color picture and the alpha plane."""
        return [self.image, self.plane]

    @torch.no_grad()
    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw colors and alpha, each picture's from its own CPU generator."""
        self.image.initialize(len(generators), generators)
        if bool(self.plane.initialized):
            return
        self.plane.initialize(len(generators), generators)
        weight = self.plane.required_weight()
        latent = weight.new_full((1, 1, *self.size), math.log(self.opacity / (1 - self.opacity)))
        weight.add_(self.plane.encode_latent(latent))

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Encode pictures ([N,] C or C + 1, H, W) in [0, 1], opaque without alpha; one picture starts all of them."""
        pictures = self.check_start(with_alpha(check_pictures("image", image), self.channels))
        self.allocate(self.count or len(pictures))
        self.image.start_from(pictures[:, :-1])
        self.plane.start_from(pictures[:, -1:])
        self.initialized.fill_(True)

    def forward(self) -> Tensor:
        """Decode colors and alpha."""
        return torch.cat([self.image(), self.plane()], dim=1)

    def extra_repr(self) -> str:
        """Return the color picture and the opacity of the start."""
        return f"image={self.image!r}, opacity={self.opacity:g}"
