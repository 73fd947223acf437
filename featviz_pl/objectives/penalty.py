"""Penalties on the picture itself: sums over pixels and channels, positive, named for a defect, subtracted by the user."""

from __future__ import annotations

from torch import Tensor

from featviz_pl.numerics._checks import finite_number
from featviz_pl.objectives.base import Term, number_formula
from featviz_pl.objectives.needs import Observation


class TotalVariation(Term):
    """Sum the differences of neighbouring pixels: ``sum |dy|^power + sum |dx|^power``.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        power: 1 is the field's, 2 the article's. Above 0.

    Example:
        >>> import torch
        >>> picture = torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]])
        >>> TotalVariation()(Observation(picture, {})).item(), TotalVariation(power=2)(Observation(picture, {})).item()
        (2.0, 1.5)

    Reference:
        Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal algorithms", 1992
    """

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = finite_number("power", power, above=0.0)

    def score(self, seen: Observation) -> Tensor:
        """Sum over both axes."""
        vertical = seen.pictures.diff(dim=2).flatten(1).abs()
        horizontal = seen.pictures.diff(dim=3).flatten(1).abs()
        if self.power != 1:
            vertical, horizontal = vertical**self.power, horizontal**self.power
        return (vertical.sum(1) + horizontal.sum(1))[:, None]

    def formula(self) -> str:
        """Return the constructor."""
        return "TotalVariation()" if self.power == 1 else f"TotalVariation(power={number_formula(self.power)})"


class L1(Term):
    """Sum the distances of all values from one value: ``sum |x - center|``.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        center: in [0, 1]; the field penalises distance from 0 or from grey, 0.5.

    Example:
        >>> import torch
        >>> L1(0.5)(Observation(torch.tensor([[[[0.0, 1.0]]]]), {})).item()
        1.0
    """

    def __init__(self, center: float = 0.0) -> None:
        super().__init__()
        self.center = finite_number("center", center)

    def score(self, seen: Observation) -> Tensor:
        """Sum the distances."""
        return (seen.pictures - self.center).flatten(1).abs().sum(1, keepdim=True)

    def formula(self) -> str:
        """Return the constructor."""
        return f"{type(self).__name__}({number_formula(self.center)})" if self.center else f"{type(self).__name__}()"


class L2(L1):
    """Measure the Euclidean distance of the picture from one value: ``sqrt(1e-6 + sum (x - center)^2)``.

    The small number keeps the gradient finite where the picture is flat, as in Lucid.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        center: in [0, 1]; the field penalises distance from 0 or from grey, 0.5.

    Example:
        >>> import torch
        >>> round(L2()(Observation(torch.tensor([[[[3.0, 4.0]]]]), {})).item(), 4)
        5.0
    """

    def score(self, seen: Observation) -> Tensor:
        """Take the root of the sum of squares."""
        return (1e-6 + (seen.pictures - self.center).flatten(1).square().sum(1, keepdim=True)).sqrt()
