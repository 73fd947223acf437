"""Several transforms as one; successive geometric ones as one sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.numerics._checks import size_pair
from featviz_pl.numerics.resampling import affine_sample, antialias
from featviz_pl.transforms.base import GeometricTransform, Transform, identity
from featviz_pl.transforms.geometry import Pad


class Compose(Transform):
    """Apply transforms in order; each run of geometric ones is one affine sampling to a fixed size.

    Where the ranges can shrink the picture, it is blurred first, always by what the largest shrink needs, so that the blur does
    not tell the draws apart. The last `Pad` of a run decides its border.

    Shape:
        (N, C, H, W) -> (N, C, h, w)

    Args:
        transforms: in the order in which they happen to the picture.
        size: of the result, one number or (height, width); None keeps the picture's own.

    Example:
        >>> from featviz_pl.transforms import Jitter, Rotate
        >>> views = Compose([Pad(4), Jitter(2), Rotate([-5.0, 0.0, 5.0])], size=8)
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

    def weaken(self, parameters: tuple[Any, ...], strength: float) -> tuple[Any, ...]:
        """Weaken each."""
        return tuple(transform.weaken(own, strength) for transform, own in zip(self.listed(), parameters))

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the fixed size where there is one."""
        return self.size or size

    def apply(self, image: Tensor, parameters: tuple[Any, ...]) -> Tensor:  # type: ignore[override]
        """Apply each transform with its own parameters; resize in the first sampling.

        Where there are several draws for each picture, they follow one another, and the picture is repeated as late as can be.
        """
        steps = list(self._flat(parameters))
        draws = _length(steps[0][1]) if steps else len(image)
        size = self.output_size((int(image.shape[-2]), int(image.shape[-1])))
        for geometric, group in groupby(steps, key=lambda step: isinstance(step[0], GeometricTransform)):
            if geometric:
                image = self._warp(image, list(group), size, draws)
            else:
                image = _repeated(image, draws)
                for transform, own in group:
                    image = transform.apply(image, own)
        return image if tuple(image.shape[-2:]) == size else self._warp(image, [], size, draws)

    def _flat(self, parameters: tuple[Any, ...]) -> Iterator[tuple[Transform, Any]]:
        """Yield every transform with its parameters; those of an inner composition join the same sampling."""
        for transform, own in zip(self.listed(), parameters):
            if isinstance(transform, Compose) and transform.size is None:
                yield from transform._flat(own)
            else:
                yield transform, own

    def listed(self) -> list[Transform]:
        """Return the transforms in their order."""
        return [transform for transform in self.transforms if isinstance(transform, Transform)]

    def __repr__(self) -> str:
        """Return the constructor, in one line."""
        size = "" if self.size is None else f", size={self.size}"
        return f"Compose([{', '.join(map(repr, self.transforms))}]{size})"

    @staticmethod
    def _warp(image: Tensor, steps: list[tuple[Transform, Any]], size: tuple[int, int], draws: int) -> Tensor:
        zoom_y, zoom_x = image.shape[-2] / size[0], image.shape[-1] / size[1]
        # Coordinates need float32, and `affine_sample` takes the picture's precision: views are seen in float32 at least.
        precision = torch.promote_types(image.dtype, torch.float32)
        image = image.to(precision)
        total = identity(draws, torch.empty((), dtype=precision))
        shrink, pad, fill = max(zoom_x, zoom_y), None, None
        for transform, own in steps:
            assert isinstance(transform, GeometricTransform)
            if isinstance(transform, Pad):
                pad, fill = transform, own
                continue
            total = total @ transform.matrix(own.to("cpu", precision))
            shrink *= transform.largest_shrink
        total = (total * total.new_tensor([zoom_x, zoom_y, 1.0])).to(image.device)
        image = _repeated(antialias(image, max(1.0, shrink)), draws)
        if pad is None:
            return affine_sample(image, total, size)
        if pad.mode == "reflect":
            return affine_sample(image, total, size, reach=pad.pixels)
        return affine_sample(image, total, size, "constant", fill)


def _repeated(image: Tensor, draws: int) -> Tensor:
    return image if len(image) == draws else image.repeat_interleave(draws // len(image), dim=0)


def _length(parameters: Any) -> int:
    return _length(parameters[0]) if isinstance(parameters, tuple) else len(parameters)
