"""A part of the picture as the whole view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.numerics.checks import finite_number, size_pair, unknown
from featviz_pl.numerics.device_transfer import to_device
from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.transforms.base import GeometricTransform, Transform
from featviz_pl.transforms.ranges import Range, Source, describe, draw, draw_seeds, extent, normal, parse_range
from featviz_pl.transforms.warp import at_least_float32, identity, sizes

SMALLEST_SIDE = 0.05


class Crop(GeometricTransform):
    """Show a random part of the picture, of the picture's shape, as the whole view.

    A crop of side s enlarges by 1 / s. With ``Compose(size=…)`` the views of a large picture are crops at the network's
    size, read in one sampling. Sides are kept in [0.05, 1] and crops inside the picture.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N, 5): the centre (y, x), the side, the side at the end of the run,
        and the largest side that any draw has now, all as shares of the picture

    Args:
        center: of the crop on each axis, as a share of the picture: one number is always used, a pair (low, high) draws
            uniformly between them; or a `Choice`, or a distribution, ``Normal(0.5, 0.15)`` unless given.
            ``"anywhere"`` draws uniformly from all places where the crop fits.
        side: as a share of the picture's, likewise.
        end: range of the side at the end of the run, reached linearly; None keeps `side`. Both are drawn with the same
            seed: with ``side=Normal(0.5, 0.05), end=Normal(0.05, 0.05)`` the mean moves and the deviation stays.

    Example:
        >>> from featviz_pl.transforms import Compose
        >>> image = torch.arange(8.0).view(1, 1, 1, 8)
        >>> quarter = Compose([Crop(center=0.5, side=0.25)], size=(1, 2))
        >>> quarter(image, torch.Generator()).round(decimals=3).flatten().tolist()
        [3.0, 4.0]

    Reference:
        Fel, Boissin, Boutin and others, "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
        Optimization", 2023
    """

    def __init__(
        self,
        center: Range | Literal["anywhere"] | None = None,
        side: Range = (0.2, 0.25),
        *,
        end: Range | None = None,
    ) -> None:
        super().__init__()
        self.center: Source | None = None
        if isinstance(center, str):
            if center != "anywhere":
                raise unknown("center", "place", center, ["anywhere"])
        else:
            self.center = parse_range("center", normal(0.5, 0.15) if center is None else center, least=0.0, most=1.0)
        self.side = parse_range("side", side, above=0.0, most=1.0)
        self.end = None if end is None else parse_range("end", end, above=0.0, most=1.0)
        self._largest = _largest_side(self.side), _largest_side(self.side if self.end is None else self.end)

    @property
    def largest_shrink(self) -> float:
        """The largest side, at most 1: crops enlarge."""
        return max(self._largest)

    def shrink(self, parameters: Tensor) -> float:
        """Return the largest side now."""
        return float(parameters[:, 4].max())

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n centres and sides."""
        if self.center is None:
            center = torch.rand(n, 2, generator=generator, dtype=torch.float32)
        else:
            center = draw(self.center, generator, 2 * n).view(n, 2)
        seed = int(draw_seeds(generator, 1))
        side = draw(self.side, torch.Generator().manual_seed(seed), n)
        end = side if self.end is None else draw(self.end, torch.Generator().manual_seed(seed), n)
        return torch.cat([center, torch.stack([side, end, torch.full_like(side, self._largest[0])], 1)], 1)

    def at(self, parameters: Tensor, progress: float) -> Tensor:
        """Move the side, and the largest of all."""
        side = torch.lerp(parameters[:, 2], parameters[:, 3], progress)
        largest = torch.full_like(side, self._largest[0] + (self._largest[1] - self._largest[0]) * progress)
        return torch.cat([parameters[:, :2], torch.stack([side, parameters[:, 3], largest], 1)], 1)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Bring the crop nearer to the whole picture."""
        return torch.lerp(parameters.new_tensor([0.5, 0.5, 1.0, 1.0, 1.0]).expand_as(parameters), parameters, strength)

    def matrix(self, parameters: Tensor, size: tuple[int, int]) -> Tensor:
        """Read the crop only."""
        side = parameters[:, 2:3].clamp(SMALLEST_SIDE, 1.0)
        if self.center is None:
            center = side / 2 + parameters[:, :2] * (1 - side)
        else:
            center = torch.maximum(torch.minimum(parameters[:, :2], 1 - side / 2), side / 2)
        maps = identity(len(parameters), parameters)
        maps[:, 0, 0] = maps[:, 1, 1] = side[:, 0]
        maps[:, 0, 2], maps[:, 1, 2] = (center[:, 1] - 0.5) * size[1], (center[:, 0] - 0.5) * size[0]
        return maps

    def extra_repr(self) -> str:
        """Show the ranges."""
        end = "" if self.end is None else f", end={describe(self.end)}"
        center = "'anywhere'" if self.center is None else describe(self.center)
        return f"center={center}, side={describe(self.side)}{end}"


def _largest_side(side: Source) -> float:
    return min(1.0, max(SMALLEST_SIDE, extent(side)[1]))


class CropOrPad(Transform):
    """Cut the middle out of the picture, or surround it with a value, so that it has exactly a size.

    Where the difference is odd, the pixel more that is cut, or that is added, is at the bottom or on the right.

    Shape:
        (N, C, H, W) -> (N, C, h, w); parameters (N,), the value around the picture

    Args:
        size: of the result, one number or (height, width).
        value: around the picture, in [0, 1].

    Example:
        >>> image = torch.arange(1.0, 4.0).view(1, 1, 1, 3)
        >>> CropOrPad((1, 6), value=0.0)(image, torch.Generator()).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0, 0.0, 0.0]
        >>> CropOrPad((1, 2))(image, torch.Generator()).flatten().tolist()
        [1.0, 2.0]
    """

    def __init__(self, size: int | Sequence[int], value: float = 0.5) -> None:
        super().__init__()
        self.size = size_pair("size", size)
        self.value = finite_number("value", value, least=0.0, most=1.0)

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Repeat the value: nothing is random."""
        return torch.full((n,), self.value, dtype=torch.float32)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the fixed size."""
        return self.size

    def apply(self, image: Tensor, parameters: Tensor) -> Tensor:  # type: ignore[override]
        """Cut and surround."""
        image = at_least_float32(image)
        with untraced():
            margins: list[int] = []
            for target, length in zip(self.size[::-1], sizes(image)[:0:-1]):
                first = (target - length) // 2 if target >= length else -((length - target) // 2)
                margins += [first, target - length - first]
            value = to_device(parameters.to(image.dtype), image.device).view(-1, 1, 1, 1)
        return functional.pad(image - value, margins) + value

    def extra_repr(self) -> str:
        """Show size and value."""
        return f"{self.size}, value={self.value:g}"
