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
    """Optimise how opaque each pixel is, beside its color: ``(image(), sigmoid(irfft2(scale * weight) / 4))``.

    Shown on backgrounds that change from view to view, a picture becomes opaque where the unit needs it and stays clear
    elsewhere. The alpha plane is a one-channel `FourierImage`, with the decay of `image` where that has one; at the
    start it is nearly `opacity` everywhere.

    Shape:
        () -> (N, C + 1, H, W), alpha last

    Args:
        size: of the pictures in pixels, one number or (height, width); that of `image` where one is given, else 224
            unless given.
        count: number of pictures; None lets the objective decide.
        channels: of the color picture, without alpha; those of `image` where one is given, else 3 unless given.
        image: the color picture; a `FourierImage` unless given.
        opacity: of the start, from 0.001 to 0.999.

    Raises:
        ValueError: when `image` has another size or number of channels than is asked for, or an alpha channel of its
            own.

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
        channels: int | None = None,
        image: Image | None = None,
        opacity: float = 0.5,
    ) -> None:
        if image is None:
            image = FourierImage(224 if size is None else size, None, 3 if channels is None else channels)
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
        self.plane = FourierImage(image.size, image.count, 1, color="none", decay=getattr(image, "decay", DECAY))
        self.follow_parts()
        self.alpha = True
        if count is not None:
            self.allocate(count)

    @property
    def parts(self) -> list[Image]:
        """The color picture and the alpha plane."""
        return [self.image, self.plane]

    @property
    def count(self) -> int | None:
        """Number of pictures, or None before it is known."""
        return self.image.count

    def allocate(self, count: int) -> None:
        """Make room for `count` pictures; asking again for the same number changes nothing.

        Raises:
            ValueError: when the pictures were allocated with another number.
        """
        self.image.allocate(count)
        self.plane.allocate(count)

    @torch.no_grad()
    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw colors and alpha, each picture's from its own CPU generator."""
        self.image.initialize(len(generators), generators)
        if bool(self.plane.initialized):
            return
        self.plane.initialize(len(generators), generators)
        level = math.log(self.opacity / (1 - self.opacity))
        weight = self.plane.required_weight()
        weight.add_(
            self.plane.encode_latent(torch.full((1, 1, *self.size), level, dtype=weight.dtype, device=weight.device))
        )

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Set the weights so that the pictures are the given ones, opaque where they have no alpha; one picture starts all of them.

        Shape:
            image (C, H, W), (C + 1, H, W), (N, C, H, W) or (N, C + 1, H, W) in [0, 1]

        Raises:
            ValueError: when the picture has another shape than the parameterization.
        """
        pictures = self.fitting(with_alpha(check_pictures("image", image), self.channels))
        self.allocate(self.count or len(pictures))
        self.image.start_from(pictures[:, :-1])
        self.plane.start_from(pictures[:, -1:])
        self.initialized.fill_(True)

    def forward(self) -> Tensor:
        """Decode colors and alpha."""
        return torch.cat([self.image(), self.plane()], dim=1)

    def constructor(self) -> str:
        """Show the color picture and the opacity of the start."""
        return f"image={self.image!r}, opacity={self.opacity:g}"
