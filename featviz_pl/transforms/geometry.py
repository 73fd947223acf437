"""Shift, zoom, turn and border."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from featviz_pl.numerics._checks import finite_number, unknown, whole_number
from featviz_pl.transforms.base import GeometricTransform, identity


def choose(values: Sequence[float], generator: torch.Generator, n: int) -> Tensor:
    """Draw n values uniformly from a list (n,)."""
    return torch.tensor(values, dtype=torch.float32)[torch.randint(len(values), (n,), generator=generator)]


def _choices(argument: str, values: float | Sequence[float], above: float = -math.inf) -> tuple[float, ...]:
    listed = values if isinstance(values, Sequence) else [values]
    if not listed:
        raise ValueError(f"{argument} must hold at least one value")
    return tuple(finite_number(argument, value, above=above) for value in listed)


class Jitter(GeometricTransform):
    """Shift the picture by whole pixels drawn uniformly from -pixels to pixels on each axis.

    What enters comes from the border (see `Pad`): no black bars, and no shift on average. The field's "jitter d", a random crop
    that removes d pixels, has the same range as ``Jitter(d // 2)``.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N, 2), the shift (y, x) in pixels, down and right positive

    Args:
        pixels: the largest shift, 0 or more.

    Example:
        >>> image = torch.arange(3.0).view(1, 1, 1, 3)
        >>> Jitter(1).apply(image, torch.tensor([[0.0, 1.0]])).round(decimals=3).flatten().tolist()
        [0.0, 0.0, 1.0]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = whole_number("pixels", pixels, least=0)

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n shifts."""
        return torch.randint(-self.pixels, self.pixels + 1, (n, 2), generator=generator).to(torch.float32)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Shorten the shift."""
        return parameters * strength

    def matrix(self, parameters: Tensor) -> Tensor:
        """Read from where the shift came."""
        maps = identity(len(parameters), parameters)
        maps[:, 0, 2], maps[:, 1, 2] = -parameters[:, 1], -parameters[:, 0]
        return maps

    def extra_repr(self) -> str:
        """Show the range."""
        return f"{self.pixels}"


class Scale(GeometricTransform):
    """Zoom about the centre by a factor drawn uniformly from a list.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N,)

    Args:
        factors: one or more, above 0; 2 shows everything twice as large.

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> Scale([2.0]).apply(image, torch.tensor([2.0])).round(decimals=3).flatten().tolist()
        [1.75, 2.25, 2.75, 3.25]
    """

    def __init__(self, factors: float | Sequence[float]) -> None:
        super().__init__()
        self.factors = _choices("factors", factors, above=0.0)

    @property
    def largest_shrink(self) -> float:
        """The inverse of the smallest factor."""
        return max(1.0, 1.0 / min(self.factors))

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n factors."""
        return choose(self.factors, generator, n)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Bring the factor nearer to 1, in proportion."""
        return parameters**strength

    def matrix(self, parameters: Tensor) -> Tensor:
        """Read a smaller part for a larger factor."""
        maps = identity(len(parameters), parameters)
        maps[:, 0, 0] = maps[:, 1, 1] = 1.0 / parameters
        return maps

    def extra_repr(self) -> str:
        """Show the factors."""
        return _listed(self.factors)


class Rotate(GeometricTransform):
    """Turn about the centre by an angle drawn uniformly from a list, counter-clockwise as displayed.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N,)

    Args:
        degrees: one or more angles.

    Example:
        >>> image = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
        >>> Rotate([90.0]).apply(image, torch.tensor([90.0])).round(decimals=3).flatten().tolist()
        [1.0, 0.0, 0.0, 0.0]
    """

    def __init__(self, degrees: float | Sequence[float]) -> None:
        super().__init__()
        self.degrees = _choices("degrees", degrees)

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n angles."""
        return choose(self.degrees, generator, n)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Turn less."""
        return parameters * strength

    def matrix(self, parameters: Tensor) -> Tensor:
        """Read from where the turn came."""
        angle = torch.deg2rad(parameters)
        maps = identity(len(parameters), parameters)
        maps[:, 0, 0] = maps[:, 1, 1] = angle.cos()
        maps[:, 0, 1], maps[:, 1, 0] = -angle.sin(), angle.sin()
        return maps

    def extra_repr(self) -> str:
        """Show the angles."""
        return _listed(self.degrees)


class Pad(GeometricTransform):
    """Say what lies outside the picture, and how far it can be seen.

    The picture itself stays where it is and as large as it is: padding only widens the border that the shifts, turns and zooms of
    the same composition can reach. Without a `Pad`, the picture goes on as its mirror image.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N,), the value outside (0.5 and unused for ``"reflect"``)

    Args:
        pixels: how far a mirrored border reaches; beyond it, its last pixel repeats. A constant border goes on for ever.
        mode: ``"reflect"`` mirrors the picture, ``"constant"`` shows `value`, ``"grey"`` a random grey, one for each view.
        value: of the constant border, in [0, 1].

    Example:
        >>> from featviz_pl.transforms import Compose
        >>> padded = Compose([Pad(2, "constant", value=0.25), Jitter(2)])
        >>> padded.apply(torch.ones(1, 1, 1, 3), (torch.tensor([0.25]), torch.tensor([[0.0, 2.0]]))).round(decimals=3).flatten().tolist()
        [0.25, 0.25, 1.0]
    """

    def __init__(self, pixels: int, mode: Literal["reflect", "constant", "grey"] = "reflect", value: float = 0.5) -> None:
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

    def matrix(self, parameters: Tensor) -> Tensor:
        """Move nothing."""
        return identity(len(parameters), parameters)

    def extra_repr(self) -> str:
        """Show the border."""
        return f"{self.pixels}, {self.mode!r}" + (f", value={self.value:g}" if self.mode == "constant" else "")


def _listed(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:g}" for value in (values if len(values) <= 8 else (*values[:3], *values[-3:])))
    return f"[{shown}]" if len(values) <= 8 else f"[{shown}; {len(values)} values]"
