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
    """Train several images of one size as one batch, in order; fixed ones may stand among them.

    Objectives that compare pictures, such as diversity or alignment, so see fixed and optimised ones together, and
    pictures of one run can have different parameterizations.

    The number of pictures is the sum over the images. An image without a count holds the rest of what the objective
    asks for when it is the only such one, and one picture otherwise.

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
        given = list(images)
        if not given or not all(isinstance(image, Image) for image in given):
            raise TypeError(f"images must be one Image or more, got {images!r}")
        first = given[0]
        for place, image in enumerate(given):
            if (image.channels, *image.size) != (first.channels, *first.size) or image.alpha != first.alpha:
                raise ValueError(
                    f"images: {_described(image)} at place {place} does not fit {_described(first)} at place 0"
                )
        super().__init__(first.size, first.channels)
        self.images = nn.ModuleList(given)
        self.follow_parts()

    @property
    def parts(self) -> list[Image]:
        """The images, in order."""
        return cast("list[Image]", list(self.images))

    @property
    def count(self) -> int | None:
        """Number of pictures, or None while one image awaits the rest."""
        held = [part.count for part in self.parts]
        return None if held.count(None) == 1 else sum(1 if own is None else own for own in held)

    def allocate(self, count: int) -> None:
        """Make room for `count` pictures, divided over the images.

        Raises:
            ValueError: when the images cannot hold so many together.
        """
        count = whole_number("count", count)
        waiting = [part for part in self.parts if part.count is None]
        rest = count - sum(part.count or 0 for part in self.parts)
        share = rest if len(waiting) == 1 else 1
        if share < 1 or share * len(waiting) != rest:
            held = ", ".join(
                f"{type(part).__name__} {part.count or 'at least 1' if len(waiting) == 1 else part.count or 1}"
                for part in self.parts
            )
            raise ValueError(f"count: {count} pictures are asked for, but the images hold {held}; give each its count")
        for part in waiting:
            part.allocate(share)

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Deal the generators out in order."""
        dealt = list(generators)
        for part in self.parts:
            assert part.count is not None
            part.initialize(part.count, dealt[: part.count])
            dealt = dealt[part.count :]

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Start the images from their share of the pictures; one picture starts all, and fixed ones keep theirs.

        Shape:
            image (C, H, W) or (N, C, H, W) in [0, 1]

        Raises:
            ValueError: when the picture has another shape than the images.
        """
        pictures = self.fitting(image)
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

    def constructor(self) -> str:
        """Show the images."""
        return f"images={self.parts!r}"


def _described(image: Image) -> str:
    shape = (image.channels, *image.size)
    return f"{type(image).__name__} of shape {shape}{' with' if image.alpha else ' without'} alpha"
