"""Objectives on the activations of one layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.numerics.activation_axes import position_axes, unit_axis, units_last
from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.device_transfer import numbers_on
from featviz_pl.objectives.base import Term
from featviz_pl.objectives.positions import (
    Tokens,
    check_position,
    check_tokens,
    chosen_shape,
    chosen_tokens,
    fit_position,
    located,
    place,
)
from featviz_pl.objectives.protocol import Observation, Setting, Source


class LayerTerm(Term):
    """Read one layer of the run's network.

    Args:
        layer: dotted module name, or ``"output"``.
        tokens: of a transformer's layer (T, F): ``"all"``, ``"patches"`` (without token 0), ``"class"`` (token 0
            alone), or a number: without that many first ones, the class token and registers. Maps and vectors have no
            tokens.

    Raises:
        ValueError: when there are no such tokens, once the network is known.
    """

    def __init__(self, layer: str, tokens: Tokens = "all") -> None:
        super().__init__()
        if not isinstance(layer, str) or not layer:
            raise TypeError(f"layer must be a module name such as 'features.9', got {layer!r}")
        self.layer = layer
        self.tokens = check_tokens(tokens)

    def term_sources(self) -> Sequence[Source]:
        """Return the one layer."""
        return (Source(self.layer),)

    def check_term(self, setting: Setting) -> None:
        """Refuse a choice of tokens that the layer does not have."""
        self.shape(setting)

    def shape(self, setting: Setting) -> tuple[int, ...]:
        """Return the shape of what `read` gives, without pictures and views."""
        return chosen_shape(self.layer, setting.shapes[Source(self.layer)], self.tokens)

    def width(self, setting: Setting) -> int:
        """Return the number of units."""
        shape = self.shape(setting)
        if not shape:
            raise ValueError(f"layer: {self.layer!r} gives one number for each picture and has no units")
        return shape[unit_axis(shape)]

    def read(self, observation: Observation) -> Tensor:
        """Return the activation (N, V, …), of the chosen tokens."""
        return chosen_tokens(observation.activation(Source(self.layer)), self.tokens)

    def target_names(self, count: int) -> list[str]:
        """Return the bare layer, which is its own shorthand."""
        return [self.place()] * count

    def place(self) -> str:
        """Return the layer and, where they are chosen, its tokens."""
        return place(self.layer, self.tokens)

    def formula(self) -> str:
        """Return the constructor."""
        chosen = [] if self.tokens == "all" else [f"tokens={self.tokens!r}"]
        return f"{type(self).__name__}({', '.join([repr(self.layer), *self.arguments(), *chosen])})"

    def arguments(self) -> list[str]:
        """Return the constructor's arguments between layer and tokens, as they are written."""
        return []


class Layer(LayerTerm):
    """Maximise the mean of a whole layer.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Example:
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.full((1, 2, 8, 4, 4), 3.0)})
        >>> Layer("a")(observation).tolist()
        [[3.0, 3.0]]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def score(self, observation: Observation) -> Tensor:
        """Average over everything but pictures and views."""
        activation = self.read(observation)
        return activation.reshape(*activation.shape[:2], -1).mean(2)


class DeepDream(LayerTerm):
    """Maximise the mean square of a whole layer: more of whatever it sees.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Example:
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.full((1, 1, 8, 4, 4), -3.0)})
        >>> DeepDream("a")(observation).tolist()
        [[9.0]]

    Reference:
        Mordvintsev, Olah, Tyka, "Inceptionism: Going Deeper into Neural Networks", 2015
    """

    def score(self, observation: Observation) -> Tensor:
        """Average the squares over everything but pictures and views."""
        activation = self.read(observation)
        return activation.reshape(*activation.shape[:2], -1).square().mean(2)


class Channel(LayerTerm):
    """Maximise the mean of one channel over all positions: a unit for all pictures, or one of its own for each.

    The units are channels of (C, H, W), features of tokens (T, F), or entries of a vector.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        units: one number for every picture, or several: picture i looks for unit i. 0 or more.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when a unit is negative or, once the network is known, beyond the layer.

    Example:
        >>> activation = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(2, 1, 3, 4, 4)
        >>> observation = Observation(torch.zeros(2, 3, 4, 4), {Source("a"): activation})
        >>> Channel("a", [0, 2])(observation).flatten().tolist()
        [0.0, 2.0]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(self, layer: str, units: int | Sequence[int], tokens: Tokens = "all") -> None:
        super().__init__(layer, tokens)
        self.single, self.units = listed_units(units)

    def term_count(self) -> int | None:
        """Return one picture for each unit, or any number for a single one."""
        return None if self.single else len(self.units)

    def check_term(self, setting: Setting) -> None:
        """Refuse units beyond the layer."""
        available = self.width(setting)
        for unit in self.units:
            if unit >= available:
                raise ValueError(
                    f"unit: {self.layer!r} has {available} units, 0 to {available - 1}; there is no {unit}"
                )

    def unit_activation(self, observation: Observation) -> Tensor:
        """Return each picture's own unit (N, V, positions…)."""
        activation = units_last(self.read(observation))
        if len(self.units) == 1:
            return activation[..., self.units[0]]
        chosen = numbers_on(activation.device, self.units)
        return activation.movedim(-1, 1)[torch.arange(len(chosen), device=activation.device), chosen]

    def score(self, observation: Observation) -> Tensor:
        """Average over positions."""
        own = self.unit_activation(observation)
        return own if own.ndim == 2 else own.flatten(2).mean(2)

    def target_names(self, count: int) -> list[str]:
        """Return ``layer:unit``."""
        return [f"{self.place()}:{unit}" for unit in (self.units if not self.single else self.units * count)]

    def arguments(self) -> list[str]:
        """Return the units, a run of them as a range."""
        return [units_formula(self.single, self.units)]


class Neuron(Channel):
    """Maximise one unit at one position, the centre unless given.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        unit: one number for every picture, or several, one for each.
        position: (y, x) on the map, the index of a token among the chosen ones, or None for the centre, ``shape // 2``
            on each axis. Where the chosen tokens are patches and their number is a square, (y, x) and the centre are
            those of the square.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when the unit or the position lies outside the layer.

    Example:
        >>> activation = torch.arange(12.0).view(1, 1, 1, 3, 4)
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): activation})
        >>> Neuron("a", 0)(observation).item(), Neuron("a", 0, (0, 1))(observation).item()
        (6.0, 1.0)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(
        self, layer: str, unit: int | Sequence[int], position: int | Sequence[int] | None = None, tokens: Tokens = "all"
    ) -> None:
        super().__init__(layer, unit, tokens)
        self.position = check_position(position)

    def check_term(self, setting: Setting) -> None:
        """Refuse units and positions beyond the layer."""
        super().check_term(setting)
        fit_position(self.layer, self.position, position_axes(self.shape(setting)), self.tokens)

    def score(self, observation: Observation) -> Tensor:
        """Pick the position."""
        own = self.unit_activation(observation)
        for index in located(self.position, tuple(own.shape[2:]), self.tokens):
            own = own[:, :, index]
        return own

    def target_names(self, count: int) -> list[str]:
        """Return ``layer:unit@y,x``, or ``layer:unit@`` for the centre."""
        where = "" if self.position is None else ",".join(map(str, self.position))
        return [f"{name}@{where}" for name in super().target_names(count)]

    def arguments(self) -> list[str]:
        """Return the units and the position."""
        return [*super().arguments(), *position_formula(self.position)]


def listed_units(units: int | Sequence[int]) -> tuple[bool, tuple[int, ...]]:
    """Return whether one unit serves all pictures, and the units.

    Raises:
        ValueError: when there is none, or one is negative.
    """
    listed: Sequence[int] = list(units) if isinstance(units, (Sequence, Tensor)) else [units]
    if not listed:
        raise ValueError("units must hold at least one unit")
    return not isinstance(units, (Sequence, Tensor)), tuple(whole_number("unit", unit, least=0) for unit in listed)


def units_formula(single: bool, units: tuple[int, ...]) -> str:
    """Write units as they were given, a run of them as a range."""
    first, last = units[0], units[-1]
    if single:
        return str(first)
    if len(units) > 2 and units == tuple(range(first, last + 1)):
        return f"range({first}, {last + 1})" if first else f"range({last + 1})"
    return str(list(units))


def position_formula(position: tuple[int, ...] | None) -> list[str]:
    """Write a position as an argument, none for the centre."""
    return [] if position is None else [str(position if len(position) != 1 else position[0])]
