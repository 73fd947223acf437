"""The style of pictures: which units of a layer fire together, wherever that is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.numerics.checks import finite_number
from featviz_pl.numerics.random import mix
from featviz_pl.objectives.base import number_formula
from featviz_pl.objectives.picture_arguments import PictureArgument, given_pictures
from featviz_pl.objectives.protocol import Observation, Reference, Setting, Source
from featviz_pl.objectives.reference import call_formula, units_and_positions
from featviz_pl.objectives.running_term import RunningTerm


class StatisticTerm(RunningTerm):
    """Compare a statistic of several layers with that of a set of reference pictures.

    Args:
        layers: one dotted module name, or several.
        pictures: of the set; of any sizes.
        argument: the name under which the pictures were given.
        weights: one for each layer, 0 or more; 1 each unless given.
    """

    def __init__(
        self, layers: str | Sequence[str], pictures: PictureArgument, argument: str, weights: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.layers = _layer_names(layers)
        self.pictures = given_pictures(argument, pictures)
        # The activations of one reference are one tensor, so there is one for each size.
        self.references = [Reference(group, together=True) for group in self.pictures.of_each_shape()]
        listed = (
            [1.0] * len(self.layers)
            if weights is None
            else [finite_number("weights", weight, least=0.0) for weight in weights]
        )
        if len(listed) != len(self.layers):
            raise ValueError(f"weights: {len(listed)} weights do not fit {len(self.layers)} layers; give one for each")
        self.weights = tuple(listed)
        self._known: dict[str, tuple[list[weakref.ref[Tensor]], Tensor]] = {}

    def term_sources(self) -> Sequence[Source]:
        """Return every layer, for the picture and for the references."""
        return [source for layer in self.layers for source in (Source(layer), *self.reference_sources(layer))]

    def reference_sources(self, layer: str) -> list[Source]:
        """Return one layer for the references of each size."""
        return [Source(layer, reference=reference) for reference in self.references]

    def mean_over_references(
        self, observation: Observation, layer: str, statistic: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the mean of a statistic (1, 1, …) over all references; computed once for activations that stay the same."""
        sources = self.reference_sources(layer)
        given = [observation.activations[source] for source in sources]
        held, known = self._known.get(layer, ([], torch.empty(0)))
        if len(held) == len(given) and all(one() is other for one, other in zip(held, given)):
            return known
        with torch.inference_mode(False), torch.no_grad():
            total = sum(statistic(observation.activation(source)).sum(1, keepdim=True) for source in sources)
            mean = torch.as_tensor(total) / len(self.pictures.each)
        self._known[layer] = ([weakref.ref(activation) for activation in given], mean)
        return mean

    def formula(self) -> str:
        """Return the constructor."""
        layers = repr(self.layers[0] if len(self.layers) == 1 else list(self.layers))
        return call_formula(type(self).__name__, layers, self.pictures.formula, *self.options())

    def target_names(self, count: int) -> list[str]:
        """Return the formula with the content of the references, wherever they lie."""
        names = self.pictures.names
        pictures = names[0] if len(names) == 1 else f"<{len(names)} pictures {mix(*names):016x}>"
        layers = repr(self.layers[0] if len(self.layers) == 1 else list(self.layers))
        return [call_formula(type(self).__name__, layers, pictures, *self.options())] * count

    def options(self) -> list[str]:
        """Return the arguments that differ from their defaults, as a formula has them."""
        if all(weight == 1 for weight in self.weights):
            return []
        return [f"weights=[{', '.join(number_formula(weight) for weight in self.weights)}]"]

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what is computed anew."""
        return {**self.__dict__, "_known": {}}


class Style(StatisticTerm):
    """Give the picture the style of other pictures.

    ``-sum over layers of weight * mean |G - G_ref|`` with the Gram matrix
    ``G = sum over positions of a a^T / positions`` of the activation vectors. Positions do not matter, so the style
    pictures may have any size; they are read as they are, and several count by the mean of their matrices.

    With `average`, the matrices of a step's views are averaged into one, and that with the earlier steps' into
    ``average * old + (1 - average) * G``: a style that no single view needs to have. The gradient goes through G as if
    it were alone. Where nothing is optimised the picture is scored by its own matrix.

    Shape:
        activations (N, V, C, H, W) or (N, V, T, F) -> (N, V), or (N, 1) with `average`

    Args:
        layers: one dotted module name, or several.
        image: the style: a tensor (C, H, W) or (R, C, H, W) in [0, 1], the path of a picture or of a folder, or a list
            of these.
        weights: one for each layer, 0 or more; 1 each unless given.
        average: how much of the running average stays in each step, in [0, 1). The field's is 0.95.

    Raises:
        ValueError: when a layer gives vectors, which have no positions.

    Example:
        >>> term = Style("a", torch.zeros(3, 4, 4))
        >>> own, wanted = term.term_sources()
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {own: torch.ones(1, 1, 2, 3, 3), wanted: torch.zeros(1, 1, 2, 5, 5)})
        >>> term(observation).item()
        -1.0

    Reference:
        Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", 2016; Mordvintsev, Pezzotti,
        Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018
    """

    def __init__(
        self,
        layers: str | Sequence[str],
        image: PictureArgument,
        weights: Sequence[float] | None = None,
        average: float = 0.0,
    ) -> None:
        super().__init__(layers, image, "image", weights)
        self.average = finite_number("average", average, least=0.0)
        if self.average >= 1:
            raise ValueError(f"average must be below 1, or nothing new would count, got {average!r}")
        self.joint_views = self.average > 0
        if self.average:
            for index in range(len(self.layers)):
                self.add_state(f"gram_{index}")

    def check_term(self, setting: Setting) -> None:
        """Refuse layers without positions."""
        for layer in self.layers:
            shape = setting.shapes[Source(layer)]
            if len(shape) < 2:
                raise ValueError(
                    f"layers: {layer!r} gives a vector {shape}, which has no positions; choose a map or tokens"
                )

    def score(self, observation: Observation) -> Tensor:
        """Add the distances of the layers."""
        scores: list[Tensor] = []
        for index, (layer, weight) in enumerate(zip(self.layers, self.weights)):
            own = gram(observation.activation(Source(layer)))
            if self.average:
                own = self._averaged(f"gram_{index}", own.mean(1, keepdim=True), observation.step)
            wanted = self.mean_over_references(observation, layer, gram)
            scores.append(-weight * (own - wanted).abs().mean((2, 3)))
        return torch.stack(scores).sum(0)

    def _averaged(self, name: str, new: Tensor, step: int | None) -> Tensor:
        """Return the running average with the gradient of the new matrix, and remember it."""
        if step is None:
            return new
        old = self.state(name, step, len(new))
        mixed = new.detach() if old is None else self.average * old + (1 - self.average) * new.detach()
        setattr(self, name, mixed.clone())
        return new + (mixed - new.detach())

    def options(self) -> list[str]:
        """Return the arguments that differ from their defaults, as a formula has them."""
        return [*super().options(), *([f"average={number_formula(self.average)}"] if self.average else [])]


def gram(activation: Tensor) -> Tensor:
    """Return the mean over positions of the products of all pairs of units.

    Shape:
        (N, V, C, H, W) or (N, V, T, F) -> (N, V, C, C)

    Example:
        >>> gram(torch.tensor([1.0, 2.0]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 4, 4)).tolist()
        [[[[1.0, 2.0], [2.0, 4.0]]]]
    """
    units = units_and_positions(activation)
    return units @ units.transpose(2, 3) / units.shape[3]


def _layer_names(layers: str | Sequence[str]) -> tuple[str, ...]:
    listed = [layers] if isinstance(layers, str) else list(layers) if isinstance(layers, Sequence) else [layers]
    if not listed:
        raise ValueError("layers must hold at least one layer")
    for layer in listed:
        if not isinstance(layer, str) or not layer:
            raise TypeError(f"layers must be module names such as 'features.9', got {layer!r}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"layers: each may be named once, got {listed}")
    return tuple(listed)
