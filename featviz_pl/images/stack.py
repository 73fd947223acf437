"""Several images as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from featviz_pl.images.base import Image
from featviz_pl.images.composite import CompositeImage
from featviz_pl.images.fixed import FixedImage
from featviz_pl.numerics.checks import whole_number


class StackImage(CompositeImage):
    """Train several images of one size as one batch, in order; some may be fixed.

    Objectives that compare pictures, such as diversity or alignment, see fixed and optimized ones together, and the
    pictures of one run can have different parameterizations.

    The number of pictures is the sum over the images. A single image without a count holds the remaining pictures of
    the objective; several such images hold one each.

    Shape:
        () -> (N, C, H, W)

    Args:
        images: one or more, of one size and number of channels.

    Raises:
        ValueError: when sizes or channels differ, or some have an alpha channel and others have none.

    Example:
        >>> from featviz_pl.images import FourierImage
        >>> stack = StackImage([FixedImage(torch.zeros(3, 8, 8)), FourierImage(8)])
        >>> stack.allocate(3)
        >>> [image.count for image in stack.images]
        [1, 2]
    """

    def __init__(self, images: Sequence[Image]) -> None:
        images = list(images)
        if not images or not all(isinstance(image, Image) for image in images):
            raise TypeError(f"images must be one Image or more, got {images!r}")
        first = images[0]
        for index, image in enumerate(images):
            if (image.channels, *image.size) != (first.channels, *first.size) or image.alpha != first.alpha:
                raise ValueError(
                    f"images: {_describe(image)} at index {index} does not fit {_describe(first)} at index 0"
                )
        super().__init__(first.size, first.channels)
        self.images = nn.ModuleList(images)
        self.update_from_parts()

    @property
    def parts(self) -> list[Image]:
        """The images, in order."""
        return cast("list[Image]", list(self.images))

    @property
    def count(self) -> int | None:
        """Number of pictures, or None before it is known."""
        counts = [part.count for part in self.parts]
        return None if counts.count(None) == 1 else sum(1 if count is None else count for count in counts)

    def allocate(self, count: int) -> None:
        """Divide `count` pictures over the images; raise ValueError where their counts do not add up to it."""
        count = whole_number("count", count)
        unallocated = [part for part in self.parts if part.count is None]
        remaining = count - sum(part.count or 0 for part in self.parts)
        share = remaining if len(unallocated) == 1 else 1
        if share < 1 or share * len(unallocated) != remaining:
            default = "at least 1" if len(unallocated) == 1 else 1
            counts = ", ".join(f"{type(part).__name__} {part.count or default}" for part in self.parts)
            raise ValueError(f"count: {count} pictures do not fit the images, {counts}; give each its count")
        for part in unallocated:
            part.allocate(share)

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Divide the generators over the images, in order."""
        generators = list(generators)
        for part in self.parts:
            assert part.count is not None
            part.initialize(part.count, generators[: part.count])
            generators = generators[part.count :]

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Start each image from its pictures; one picture starts all, and fixed ones do not change."""
        pictures = self.check_start(image)
        count = cast("int", self.count)
        self.allocate(count)
        shares = pictures.expand(count, -1, -1, -1).split([cast("int", part.count) for part in self.parts])
        for part, share in zip(self.parts, shares):
            if not isinstance(part, FixedImage):
                part.start_from(share)
        self.initialized.fill_(True)

    def forward(self) -> Tensor:
        """Decode all images."""
        return torch.cat([part() for part in self.parts])

    def extra_repr(self) -> str:
        """Return the images."""
        return f"images={self.parts!r}"


def _describe(image: Image) -> str:
    shape = (image.channels, *image.size)
    return f"{type(image).__name__} of shape {shape}{' with' if image.alpha else ' without'} alpha"
