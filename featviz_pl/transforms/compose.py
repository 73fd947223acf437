"""Several transforms as one; successive geometric ones as one sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.numerics.checks import size_pair
from featviz_pl.transforms.base import GeometricTransform, Transform
from featviz_pl.transforms.warp import draw_count, repeated, sizes, warp


class Compose(Transform):
    """Apply transforms in order; each run of geometric ones is one affine sampling to a fixed size.

    Where the ranges can shrink the picture, it is blurred first, always by what the largest shrink needs, so that the
    blur does not tell the draws apart. The last `Pad` of a run decides its border.

    Shape:
        (N, C, H, W) -> (N, C, h, w)

    Args:
        transforms: in the order in which they happen to the picture.
        size: of the result, one number or (height, width); None keeps the picture's own.

    Example:
        >>> from featviz_pl.transforms import Jitter, Pad, Rotate
        >>> views = Compose([Pad(4), Jitter(2), Rotate(5.0)], size=8)
        >>> views(torch.rand(2, 3, 16, 16), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, transforms: Sequence[Transform], size: int | Sequence[int] | None = None) -> None:
        super().__init__()
        for transform in transforms:
            if not isinstance(transform, Transform):
                raise TypeError(f"transforms must hold featviz_pl transforms, got {type(transform).__name__}")
        self.transforms = nn.ModuleList(transforms)
        self.size = None if size is None else size_pair("size", size)

    def sample(self, generator: torch.Generator, n: int) -> tuple[Any, ...]:
        """Draw for each transform in turn."""
        return tuple(transform.sample(generator, n) for transform in self.listed())

    def at(self, parameters: tuple[Any, ...], progress: float) -> tuple[Any, ...]:
        """Move each to this point of the run."""
        return tuple(transform.at(each, progress) for transform, each in zip(self.listed(), parameters))

    def weaken(self, parameters: tuple[Any, ...], strength: float) -> tuple[Any, ...]:
        """Weaken each."""
        return tuple(transform.weaken(each, strength) for transform, each in zip(self.listed(), parameters))

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the fixed size where there is one, and else what the transforms make of this one, in order."""
        if self.size is not None:
            return self.size
        for transform in self.listed():
            size = transform.output_size(size)
        return size

    def apply(self, image: Tensor, parameters: tuple[Any, ...]) -> Tensor:  # type: ignore[override]
        """Apply each transform with its parameters; resize in the last sampling only.

        Where there are several draws for each picture, they follow one another, and the picture is repeated as late as
        can be.
        """
        steps = list(self._flat(parameters))
        draws = next((count for _, each in steps if (count := draw_count(each))), sizes(image)[0])
        groups = [
            (geometric, list(group))
            for geometric, group in groupby(steps, key=lambda step: isinstance(step[0], GeometricTransform))
        ]
        last = max((index for index, (geometric, _) in enumerate(groups) if geometric), default=-1)
        for index, (geometric, group) in enumerate(groups):
            if geometric:
                following = [transform for _, later in groups[index + 1 :] for transform, _ in later]
                maps = [(transform, each) for transform, each in group if isinstance(transform, GeometricTransform)]
                image = warp(image, maps, self._sampled_size(image, index == last, following), draws)
            else:
                image = repeated(image, draws)
                for transform, each in group:
                    image = transform.apply(image, each)
        size = self.size or sizes(image)[1:]
        return image if sizes(image)[1:] == size else warp(image, [], size, draws)

    def _sampled_size(self, image: Tensor, last: bool, following: list[Transform]) -> tuple[int, int]:
        """Return the size after a sampling: the fixed size after the last, unless a later transform sets one."""
        size = sizes(image)[1:]
        if self.size is None or not last or any(transform.output_size(size) != size for transform in following):
            return size
        return self.size

    def _flat(self, parameters: tuple[Any, ...]) -> Iterator[tuple[Transform, Any]]:
        """Yield every transform with its parameters; those of an inner composition join the same sampling."""
        for transform, each in zip(self.listed(), parameters):
            if isinstance(transform, Compose) and transform.size is None:
                yield from transform._flat(each)
            else:
                yield transform, each

    def listed(self) -> list[Transform]:
        """Return the transforms in their order."""
        return [transform for transform in self.transforms if isinstance(transform, Transform)]

    def __repr__(self) -> str:
        """Return the constructor, in one line."""
        size = "" if self.size is None else f", size={self.size}"
        return f"Compose([{', '.join(map(repr, self.transforms))}]{size})"
