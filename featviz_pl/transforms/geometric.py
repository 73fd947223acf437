"""Shift, zoom, turn, flip and border."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from featviz_pl.numerics.checks import finite_number, unknown, whole_number
from featviz_pl.transforms.base import GeometricTransform
from featviz_pl.transforms.ranges import (
    Choice,
    Pair,
    Range,
    WholeRange,
    describe,
    draw,
    extent,
    is_list,
    parse_range,
    parse_whole_range,
)
from featviz_pl.transforms.warp import Border, identity


class Jitter(GeometricTransform):
    """Shift the picture by a number of pixels drawn for each axis, whole ones unless a distribution says otherwise.

    What enters comes from the border (see `Pad`): no black bars, and no shift on average. The field's "jitter d", a
    random crop that removes d pixels, has the same range as ``Jitter(d // 2)``.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N, 2), the shift (y, x) in pixels, down and right positive

    Args:
        pixels: n draws whole shifts from -n to n; a pair (low, high) draws whole shifts from low to high; a `Choice` or
            a distribution draws its own, whole or not.

    Example:
        >>> image = torch.arange(3.0).view(1, 1, 1, 3)
        >>> Jitter(1).apply(image, torch.tensor([[0.0, 1.0]])).round(decimals=3).flatten().tolist()
        [0.0, 0.0, 1.0]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(self, pixels: WholeRange) -> None:
        super().__init__()
        self.pixels = parse_whole_range("pixels", pixels)

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n shifts."""
        return draw(self.pixels, generator, 2 * n).view(n, 2)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Shorten the shift."""
        return parameters * strength

    def matrix(self, parameters: Tensor, size: tuple[int, int]) -> Tensor:
        """Read from where the shift came."""
        maps = identity(len(parameters), parameters)
        maps[:, 0, 2], maps[:, 1, 2] = -parameters[:, 1], -parameters[:, 0]
        return maps

    def extra_repr(self) -> str:
        """Show the range."""
        return describe(self.pixels)


class Scale(GeometricTransform):
    """Zoom about the centre by a random factor.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N,)

    Args:
        factors: a pair (low, high) draws uniformly between them, as ``scale`` of torchvision's and kornia's
            ``RandomAffine``; or a `Choice`, or a distribution. A factor is above 0; 2 shows everything twice as large.
            A distribution without a smallest number is cut off at the smallest of 1,000 draws: the blur before a shrink
            has to know how much it can be.

    Raises:
        ValueError: when a factor can be 0 or less.
        TypeError: when `factors` is one number: ``Choice([2.0])`` always zooms by it.

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> Scale((1.0, 2.0)).apply(image, torch.tensor([2.0])).round(decimals=3).flatten().tolist()
        [1.75, 2.25, 2.75, 3.25]
    """

    def __init__(self, factors: Pair | Choice | Distribution) -> None:
        super().__init__()
        if not is_list(factors) and not isinstance(factors, (Choice, Distribution)):
            raise TypeError(f"factors must be a pair (low, high) such as (0.9, 1.1), got {factors!r}; or Choice([...])")
        self.factors = parse_range("factors", factors, above=0.0)
        self._smallest = extent(self.factors)[0]
        if self._smallest <= 0:
            raise ValueError(
                f"factors must be above 0, and {describe(self.factors)} reaches down to {self._smallest:.3g}; "
                "use a pair, such as (0.9, 1.1), or a distribution that stays above 0"
            )

    @property
    def largest_shrink(self) -> float:
        """The inverse of the smallest factor."""
        return max(1.0, 1.0 / self._smallest)

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n factors."""
        return draw(self.factors, generator, n).clamp_min(self._smallest)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Bring the factor nearer to 1, in proportion."""
        return parameters**strength

    def matrix(self, parameters: Tensor, size: tuple[int, int]) -> Tensor:
        """Read a smaller part for a larger factor."""
        maps = identity(len(parameters), parameters)
        maps[:, 0, 0] = maps[:, 1, 1] = 1.0 / parameters
        return maps

    def extra_repr(self) -> str:
        """Show the factors."""
        return describe(self.factors)


class Rotate(GeometricTransform):
    """Turn about the centre by a random angle, counter-clockwise as displayed.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N,)

    Args:
        degrees: a number d draws uniformly from -d to d, a pair (low, high) uniformly between them, as torchvision's
            ``RandomRotation``; or a `Choice`, or a distribution.

    Example:
        >>> image = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
        >>> Rotate(90.0).apply(image, torch.tensor([90.0])).round(decimals=3).flatten().tolist()
        [1.0, 0.0, 0.0, 0.0]
    """

    def __init__(self, degrees: Range) -> None:
        super().__init__()
        self.degrees = parse_range("degrees", degrees, symmetric=True)

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n angles."""
        return draw(self.degrees, generator, n)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Turn less."""
        return parameters * strength

    def matrix(self, parameters: Tensor, size: tuple[int, int]) -> Tensor:
        """Read from where the turn came."""
        angle = torch.deg2rad(parameters)
        maps = identity(len(parameters), parameters)
        maps[:, 0, 0] = maps[:, 1, 1] = angle.cos()
        maps[:, 0, 1], maps[:, 1, 0] = -angle.sin(), angle.sin()
        return maps

    def extra_repr(self) -> str:
        """Show the angles."""
        return describe(self.degrees)


class Flip(GeometricTransform):
    """Show the mirror image, left and right exchanged, with a probability.

    Weakened views are flipped less often.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N,), a number from [0, 1): the view is flipped where it is below the
        probability

    Args:
        probability: in [0, 1].

    Example:
        >>> image = torch.arange(3.0).view(1, 1, 1, 3)
        >>> Flip().apply(image, torch.tensor([0.2])).round(decimals=3).flatten().tolist()
        [2.0, 1.0, 0.0]
    """

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        self.probability = finite_number("probability", probability, least=0.0, most=1.0)

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n numbers from [0, 1)."""
        return torch.rand(n, generator=generator, dtype=torch.float32)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Flip a share of those that were."""
        return parameters / strength if strength > 0 else torch.ones_like(parameters)

    def matrix(self, parameters: Tensor, size: tuple[int, int]) -> Tensor:
        """Read from the other side."""
        maps = identity(len(parameters), parameters)
        maps[:, 0, 0] = torch.where(parameters < self.probability, -1.0, 1.0)
        return maps

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"{self.probability:g}"


class Pad(GeometricTransform):
    """Say what lies outside the picture, and how far it can be seen.

    The picture itself stays where it is and as large as it is: padding only widens the border that the shifts, turns
    and zooms of the same composition can reach. Without a `Pad`, the picture goes on as its mirror image.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N,), the value outside (0.5 and unused for ``"reflect"``)

    Args:
        pixels: how far a mirrored border reaches; beyond it, its last pixel repeats. A constant border goes on for
            ever.
        mode: ``"reflect"`` mirrors the picture, ``"constant"`` shows `value`, ``"grey"`` a random grey, one for each
            view.
        value: of the constant border, in [0, 1].

    Example:
        >>> from featviz_pl.transforms import Compose
        >>> padded = Compose([Pad(2, "constant", value=0.25), Jitter(2)])
        >>> view = padded.apply(torch.ones(1, 1, 1, 3), (torch.tensor([0.25]), torch.tensor([[0.0, 2.0]])))
        >>> view.round(decimals=3).flatten().tolist()
        [0.25, 0.25, 1.0]
    """

    def __init__(
        self, pixels: int, mode: Literal["reflect", "constant", "grey"] = "reflect", *, value: float = 0.5
    ) -> None:
        super().__init__()
        self.pixels = whole_number("pixels", pixels, least=0)
        if mode not in ("reflect", "constant", "grey"):
            raise unknown("mode", "border", str(mode), ["reflect", "constant", "grey"])
        self.mode = mode
        self.value = finite_number("value", value, least=0.0, most=1.0)

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n greys, or repeat the value."""
        if self.mode == "grey":
            return torch.rand(n, generator=generator, dtype=torch.float32)
        return torch.full((n,), self.value, dtype=torch.float32)

    def matrix(self, parameters: Tensor, size: tuple[int, int]) -> Tensor:
        """Move nothing."""
        return identity(len(parameters), parameters)

    def border(self, parameters: Tensor) -> Border:
        """Return the border that is drawn."""
        return Border("reflect" if self.mode == "reflect" else "constant", self.pixels, parameters)

    def extra_repr(self) -> str:
        """Show the border."""
        return f"{self.pixels}, {self.mode!r}" + (f", value={self.value:g}" if self.mode == "constant" else "")
