"""Objectives on the activations of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from featviz_pl.numerics.activation_axes import position_axes, unit_axis, units_last
from featviz_pl.objectives.arguments import check_units, layer_name, listed_units, select_units, units_argument
from featviz_pl.objectives.base import Term
from featviz_pl.objectives.positions import (
    Tokens,
    check_position,
    check_tokens,
    layer_label,
    listed_position,
    position_argument,
    position_indices,
    position_label,
    select_tokens,
    shape_of_tokens,
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
        self.layer = layer_name(layer)
        self.tokens = check_tokens(tokens)

    def term_sources(self) -> Sequence[Source]:
        return (Source(self.layer),)

    def check_term(self, setting: Setting) -> None:
        self.shape(setting)

    def shape(self, setting: Setting) -> tuple[int, ...]:
        """Return the shape of what `read` returns, without pictures and views."""
        return shape_of_tokens(self.layer, setting.shapes[Source(self.layer)], self.tokens)

    def width(self, setting: Setting) -> int:
        """Return the number of units."""
        shape = self.shape(setting)
        if not shape:
            raise ValueError(f"layer: {self.layer!r} gives one number for each picture and has no units")
        return shape[unit_axis(shape)]

    def read(self, observation: Observation) -> Tensor:
        """Return the activation (N, V, …), of the selected tokens."""
        return select_tokens(observation.activation(Source(self.layer)), self.tokens)

    def target_names(self, count: int) -> list[str]:
        return [self.label()] * count

    def label(self) -> str:
        """Return the layer, with its tokens where some are selected."""
        return layer_label(self.layer, self.tokens)


class Layer(LayerTerm):
    """Maximise the mean of a whole layer.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Example:
        >>> import torch
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.full((1, 2, 8, 4, 4), 3.0)})
        >>> Layer("a")(observation).tolist()
        [[3.0, 3.0]]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def score(self, observation: Observation) -> Tensor:
        activation = self.read(observation)
        return activation.reshape(*activation.shape[:2], -1).mean(2)


class DeepDream(LayerTerm):
    """Maximise the mean square of a whole layer, DeepDream's objective.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Example:
        >>> import torch
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.full((1, 1, 8, 4, 4), -3.0)})
        >>> DeepDream("a")(observation).tolist()
        [[9.0]]

    Reference:
        Mordvintsev, Olah, Tyka, "Inceptionism: Going Deeper into Neural Networks", 2015
    """

    def score(self, observation: Observation) -> Tensor:
        activation = self.read(observation)
        return activation.reshape(*activation.shape[:2], -1).square().mean(2)


class Channel(LayerTerm):
    """Maximise the mean of one channel over all positions: the same unit for all pictures, or one for each.

    The units are channels of (C, H, W), features of tokens (T, F), or entries of a vector.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        units: one number for every picture, or several: unit i for picture i. 0 or more.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when a unit is negative or, once the network is known, beyond the layer.

    Example:
        >>> import torch
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
        self.picture_count = None if self.single else len(self.units)

    def check_term(self, setting: Setting) -> None:
        check_units(repr(self.layer), self.units, self.width(setting))

    def unit_activation(self, observation: Observation) -> Tensor:
        """Return the unit of each picture (N, V, positions…)."""
        return select_units(units_last(self.read(observation)), self.units)

    def score(self, observation: Observation) -> Tensor:
        activation = self.unit_activation(observation)
        return activation if activation.ndim == 2 else activation.flatten(2).mean(2)

    def target_names(self, count: int) -> list[str]:
        return [f"{self.label()}:{unit}" for unit in (self.units * count if self.single else self.units)]

    def argument(self, name: str) -> Any:
        return units_argument(self.single, self.units) if name in ("unit", "units") else super().argument(name)


class Neuron(Channel):
    """Maximise one unit at one position, the centre by default.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        unit: one number for every picture, or several, one for each.
        position: (y, x) on the map, the index of a token among the selected ones, or None for the centre,
            ``shape // 2`` on each axis. Where the selected tokens are patches and their number is a square, (y, x) and
            the centre are those of the square.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when the unit or the position lies outside the layer.

    Example:
        >>> import torch
        >>> activation = torch.arange(12.0).view(1, 1, 1, 3, 4)
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): activation})
        >>> Neuron("a", 0)(observation).item(), Neuron("a", 0, (0, 1))(observation).item()
        (6.0, 1.0)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    positional = ("position",)

    def __init__(
        self, layer: str, unit: int | Sequence[int], position: int | Sequence[int] | None = None, tokens: Tokens = "all"
    ) -> None:
        super().__init__(layer, unit, tokens)
        self.position = listed_position(position)

    def check_term(self, setting: Setting) -> None:
        super().check_term(setting)
        check_position(self.layer, self.position, position_axes(self.shape(setting)), self.tokens)

    def score(self, observation: Observation) -> Tensor:
        activation = self.unit_activation(observation)
        for index in position_indices(self.position, tuple(activation.shape[2:]), self.tokens):
            activation = activation[:, :, index]
        return activation

    def target_names(self, count: int) -> list[str]:
        return [name + position_label(self.position) for name in super().target_names(count)]

    def argument(self, name: str) -> Any:
        return position_argument(self.position) if name == "position" else super().argument(name)
