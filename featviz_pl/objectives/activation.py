"""Objectives on the activations of one layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.numerics._checks import unknown, whole_number
from featviz_pl.numerics.axes import unit_axis
from featviz_pl.objectives.base import Term
from featviz_pl.objectives.needs import Observation, Setting, Source


class LayerTerm(Term):
    """Read one layer of the run's network.

    Args:
        layer: dotted module name, or ``"output"``.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        if not isinstance(layer, str) or not layer:
            raise TypeError(f"layer must be a module name such as 'features.9', got {layer!r}")
        self.layer = layer

    def term_sources(self) -> Sequence[Source]:
        """Return the one layer."""
        return (Source(self.layer),)

    def read(self, seen: Observation) -> Tensor:
        """Return the activation (N, V, …)."""
        return seen.activation(Source(self.layer))

    def target_names(self, count: int) -> list[str]:
        """Return the bare layer, which is its own shorthand."""
        return [self.layer] * count

    def formula(self) -> str:
        """Return the constructor."""
        return f"{type(self).__name__}({self.layer!r})"


class Layer(LayerTerm):
    """Maximise the mean of a whole layer.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.

    Example:
        >>> seen = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.full((1, 2, 8, 4, 4), 3.0)})
        >>> Layer("a")(seen).tolist()
        [[3.0, 3.0]]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def score(self, seen: Observation) -> Tensor:
        """Average over everything but pictures and views."""
        activation = self.read(seen)
        return activation.reshape(*activation.shape[:2], -1).mean(2)


class DeepDream(LayerTerm):
    """Maximise the mean square of a whole layer: more of whatever it sees.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.

    Example:
        >>> seen = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.full((1, 1, 8, 4, 4), -3.0)})
        >>> DeepDream("a")(seen).tolist()
        [[9.0]]

    Reference:
        Mordvintsev, Olah, Tyka, "Inceptionism: Going Deeper into Neural Networks", 2015
    """

    def score(self, seen: Observation) -> Tensor:
        """Average the squares over everything but pictures and views."""
        activation = self.read(seen)
        return activation.reshape(*activation.shape[:2], -1).square().mean(2)


class Channel(LayerTerm):
    """Maximise the mean of one channel over all positions: a unit for all pictures, or one of its own for each.

    The units are channels of (C, H, W), features of tokens (T, F), or entries of a vector.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        units: one number for every picture, or several: picture i looks for unit i. 0 or more.

    Raises:
        ValueError: when a unit is negative or, once the network is known, beyond the layer.

    Example:
        >>> activation = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(2, 1, 3, 4, 4)
        >>> seen = Observation(torch.zeros(2, 3, 4, 4), {Source("a"): activation})
        >>> Channel("a", [0, 2])(seen).flatten().tolist()
        [0.0, 2.0]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(self, layer: str, units: int | Sequence[int]) -> None:
        super().__init__(layer)
        self.single = not isinstance(units, (Sequence, Tensor))
        listed: Sequence[int] = [units] if not isinstance(units, (Sequence, Tensor)) else list(units)
        if not listed:
            raise ValueError("units must hold at least one unit")
        self.units = tuple(whole_number("unit", unit, least=0) for unit in listed)

    def term_count(self) -> int | None:
        """Return one picture for each unit, or any number for a single one."""
        return None if self.single else len(self.units)

    def check_term(self, setting: Setting) -> None:
        """Refuse units beyond the layer."""
        shape = setting.shapes[Source(self.layer)]
        if not shape:
            raise ValueError(f"layer: {self.layer!r} gives one number for each picture and has no units")
        available = shape[unit_axis(shape)]
        for unit in self.units:
            if unit >= available:
                raise ValueError(f"unit: {self.layer!r} has {available} units, 0 to {available - 1}; there is no {unit}")

    def unit_activation(self, seen: Observation) -> Tensor:
        """Return each picture's own unit (N, V, positions…)."""
        activation = self.read(seen)
        moved = activation.movedim(2 + unit_axis(activation.shape[2:]), 1)
        if len(self.units) == 1:
            return moved[:, self.units[0]]
        chosen = torch.tensor(self.units, device=activation.device)
        return moved[torch.arange(len(chosen), device=activation.device), chosen]

    def score(self, seen: Observation) -> Tensor:
        """Average over positions."""
        own = self.unit_activation(seen)
        return own if own.ndim == 2 else own.flatten(2).mean(2)

    def target_names(self, count: int) -> list[str]:
        """Return ``layer:unit``."""
        return [f"{self.layer}:{unit}" for unit in (self.units if not self.single else self.units * count)]

    def formula(self) -> str:
        """Return the constructor; a run of units as a range."""
        return f"{type(self).__name__}({self.layer!r}, {self._units_formula()})"

    def _units_formula(self) -> str:
        first, last = self.units[0], self.units[-1]
        if self.single:
            return str(first)
        if len(self.units) > 2 and self.units == tuple(range(first, last + 1)):
            return f"range({first}, {last + 1})" if first else f"range({last + 1})"
        return str(list(self.units))


class Neuron(Channel):
    """Maximise one unit at one position, the centre unless given.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        unit: one number for every picture, or several, one for each.
        position: (y, x) on the map, a token index, or None for the centre, ``shape // 2`` on each axis.

    Raises:
        ValueError: when the unit or the position lies outside the layer.

    Example:
        >>> activation = torch.arange(12.0).view(1, 1, 1, 3, 4)
        >>> seen = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): activation})
        >>> Neuron("a", 0)(seen).item(), Neuron("a", 0, (0, 1))(seen).item()
        (6.0, 1.0)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(self, layer: str, unit: int | Sequence[int], position: int | Sequence[int] | None = None) -> None:
        super().__init__(layer, unit)
        listed = () if position is None else tuple(position) if isinstance(position, Sequence) else (position,)
        self.position = None if position is None else tuple(whole_number("position", at, least=0) for at in listed)

    def check_term(self, setting: Setting) -> None:
        """Refuse units and positions beyond the layer."""
        super().check_term(setting)
        shape = list(setting.shapes[Source(self.layer)])
        del shape[unit_axis(shape)]
        if self.position is None:
            return
        if len(self.position) != len(shape):
            raise ValueError(f"position: {self.layer!r} has {len(shape)} axes of positions {tuple(shape)}, got {self.position}")
        if any(at >= length for at, length in zip(self.position, shape)):
            raise ValueError(f"position: {self.position} lies outside the map of {self.layer!r}, which is {tuple(shape)}")

    def score(self, seen: Observation) -> Tensor:
        """Pick the position."""
        own = self.unit_activation(seen)
        at = self.position if self.position is not None else tuple(length // 2 for length in own.shape[2:])
        for index in at:
            own = own[:, :, index]
        return own

    def target_names(self, count: int) -> list[str]:
        """Return ``layer:unit@y,x``, or ``layer:unit@`` for the centre."""
        where = "" if self.position is None else ",".join(map(str, self.position))
        return [f"{name}@{where}" for name in super().target_names(count)]

    def formula(self) -> str:
        """Return the constructor."""
        where = "" if self.position is None else f", {self.position if len(self.position) != 1 else self.position[0]}"
        return f"{type(self).__name__}({self.layer!r}, {self._units_formula()}{where})"


class ClassLogit(Term):
    """Maximise a class's logit: an entry of the network's result, before any softmax.

    Shape:
        output (N, V, classes) -> (N, V)

    Args:
        classes: an index or a name for every picture, or several, one for each.

    Raises:
        ValueError: when an index or a name is not among the classes.

    Example:
        >>> seen = Observation(torch.zeros(1, 3, 4, 4), {Source("output"): torch.tensor([[[1.0, 5.0]]])}, ("cat", "dog"))
        >>> ClassLogit("dog")(seen).item()
        5.0

    Reference:
        Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2013
    """

    def __init__(self, classes: int | str | Sequence[int | str]) -> None:
        super().__init__()
        self.single = isinstance(classes, str) or not isinstance(classes, Sequence)
        listed = [classes] if isinstance(classes, str) or not isinstance(classes, Sequence) else list(classes)
        if not listed:
            raise ValueError("classes must hold at least one class")
        self.classes = tuple(one if isinstance(one, str) else whole_number("class", one, least=0) for one in listed)

    def term_sources(self) -> Sequence[Source]:
        """Return the network's result."""
        return (Source("output"),)

    def term_count(self) -> int | None:
        """Return one picture for each class, or any number for a single one."""
        return None if self.single else len(self.classes)

    def check_term(self, setting: Setting) -> None:
        """Refuse classes that the network does not have."""
        shape = setting.shapes[Source("output")]
        if len(shape) != 1:
            raise ValueError(f"classes: the network's output has shape {shape} for each picture, not (classes,); use Channel('output', …)")
        for index in self._indices(setting.class_names):
            if index >= shape[0]:
                raise ValueError(f"class: the network has {shape[0]} classes, 0 to {shape[0] - 1}; there is no {index}")

    def _indices(self, names: tuple[str, ...]) -> list[int]:
        indices: list[int] = []
        for one in self.classes:
            if isinstance(one, int):
                indices.append(one)
            elif not names:
                raise ValueError(
                    f"class: the network has no class names, so {one!r} means nothing; give an index, or FrozenNetwork(classes=…)"
                )
            elif one not in names:
                raise unknown("class", "class", one, names)
            else:
                indices.append(names.index(one))
        return indices

    def own_entry(self, seen: Observation, values: Tensor) -> Tensor:
        """Return each picture's own class (N, V) of values (N, V, classes)."""
        indices = self._indices(seen.class_names)
        if len(indices) == 1:
            return values[:, :, indices[0]]
        chosen = torch.tensor(indices, device=values.device)
        return values[torch.arange(len(chosen), device=values.device), :, chosen]

    def score(self, seen: Observation) -> Tensor:
        """Pick the logit."""
        return self.own_entry(seen, seen.activation(Source("output")))

    def target_names(self, count: int) -> list[str]:
        """Return ``output:class``."""
        return [f"output:{one}" for one in (self.classes if not self.single else self.classes * count)]

    def formula(self) -> str:
        """Return the constructor."""
        return f"{type(self).__name__}({self.classes[0] if self.single else list(self.classes)!r})"


class ClassProbability(ClassLogit):
    """Maximise a class's probability, the softmax of the network's result.

    Unlike the logit it can also rise by lowering the other classes, which often makes a poorer picture.

    Shape:
        output (N, V, classes) -> (N, V) in [0, 1]

    Args:
        classes: an index or a name for every picture, or several, one for each.

    Raises:
        ValueError: when an index or a name is not among the classes.

    Example:
        >>> seen = Observation(torch.zeros(1, 3, 4, 4), {Source("output"): torch.zeros(1, 1, 4)})
        >>> ClassProbability(3)(seen).item()
        0.25

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def score(self, seen: Observation) -> Tensor:
        """Pick the probability."""
        return self.own_entry(seen, seen.activation(Source("output")).softmax(2))
