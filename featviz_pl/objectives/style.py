"""The style of pictures: which units of a layer are active together, at any position."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.numerics.checks import finite_number
from featviz_pl.numerics.random import mix
from featviz_pl.objectives.arguments import layer_names, layers_argument
from featviz_pl.objectives.picture_arguments import PictureArgument, load_pictures
from featviz_pl.objectives.protocol import Observation, Reference, Setting, Source
from featviz_pl.objectives.reference import units_and_positions
from featviz_pl.objectives.running_term import RunningTerm


class StatisticTerm(RunningTerm):
    """Compare a statistic of several layers with that of a set of reference pictures.

    Args:
        layers: one dotted module name, or several.
        pictures: of the set; of any sizes.
        argument: the name of the argument that holds the pictures.
        weights: one for each layer, 0 or more; 1 each by default.
    """

    def __init__(
        self, layers: str | Sequence[str], pictures: PictureArgument, argument: str, weights: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.layers = layer_names(layers)
        self._pictures_argument = argument
        self.pictures = load_pictures(argument, pictures)
        # The activations of one reference are one tensor, so there is one for each size.
        self.references = [Reference(group, together=True) for group in self.pictures.by_shape()]
        numbers = [1.0] * len(self.layers) if weights is None else weights
        self.weights = tuple(finite_number("weights", weight, least=0.0) for weight in numbers)
        if len(self.weights) != len(self.layers):
            raise ValueError(
                f"weights: {len(self.weights)} weights do not fit {len(self.layers)} layers; give one for each"
            )
        self._means: dict[str, tuple[list[weakref.ref[Tensor]], Tensor]] = {}

    def term_sources(self) -> Sequence[Source]:
        return [source for layer in self.layers for source in (Source(layer), *self.reference_sources(layer))]

    def reference_sources(self, layer: str) -> list[Source]:
        """Return one layer for the references of each size."""
        return [Source(layer, reference=reference) for reference in self.references]

    def mean_over_references(
        self, observation: Observation, layer: str, statistic: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the mean of a statistic (1, 1, …) over all references, cached for the same activation tensors."""
        sources = self.reference_sources(layer)
        activations = [observation.activations[source] for source in sources]
        cached, mean = self._means.get(layer, ([], torch.empty(0)))
        if len(cached) == len(activations) and all(weak() is tensor for weak, tensor in zip(cached, activations)):
            return mean
        with torch.inference_mode(False), torch.no_grad():
            total = sum(statistic(observation.activation(source)).sum(1, keepdim=True) for source in sources)
            mean = torch.as_tensor(total) / len(self.pictures)
        self._means[layer] = ([weakref.ref(activation) for activation in activations], mean)
        return mean

    def target_names(self, count: int) -> list[str]:
        """Return the formula with a hash of the references instead of their paths."""
        names = self.pictures.names
        pictures = names[0] if len(names) == 1 else f"<{len(names)} pictures {mix(*names):016x}>"
        return [self.formula_with(**{self._pictures_argument: pictures})] * count

    def argument(self, name: str) -> Any:
        if name == self._pictures_argument:
            return self.pictures
        if name == "layers":
            return layers_argument(self.layers)
        if name == "weights":
            return None if all(weight == 1 for weight in self.weights) else list(self.weights)
        return super().argument(name)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the cached means."""
        return {**self.__dict__, "_means": {}}


class Style(StatisticTerm):
    """Match the style of other pictures.

    ``-sum over layers of weight * mean |G - G_ref|`` with the Gram matrix
    ``G = sum over positions of a a^T / positions`` of the activation vectors. Positions do not matter, so the style
    pictures may have any size; they are read without views, and the matrices of several are averaged.

    With `average`, the matrices of a step's views are averaged into one, and that with the earlier steps' into
    ``average * old + (1 - average) * G``: a style that no single view needs to have. The gradient is that of G alone.
    Outside of an optimization the picture is scored by its own matrix.

    Shape:
        activations (N, V, C, H, W) or (N, V, T, F) -> (N, V), or (N, 1) with `average`

    Args:
        layers: one dotted module name, or several.
        image: the style: a tensor (C, H, W) or (R, C, H, W) in [0, 1], the path of a picture or of a folder, or a list
            of these.
        weights: one for each layer, 0 or more; 1 each by default.
        average: momentum of the running average, in [0, 1). The field's is 0.95.

    Raises:
        ValueError: when a layer gives vectors, which have no positions.

    Example:
        >>> term = Style("a", torch.zeros(3, 4, 4))
        >>> source, reference = term.term_sources()
        >>> activations = {source: torch.ones(1, 1, 2, 3, 3), reference: torch.zeros(1, 1, 2, 5, 5)}
        >>> term(Observation(torch.zeros(1, 3, 4, 4), activations)).item()
        -1.0

    Reference:
        Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", 2016; Mordvintsev, Pezzotti,
        Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018
    """

    def __init__(
        self,
        layers: str | Sequence[str],
        image: PictureArgument,
        *,
        weights: Sequence[float] | None = None,
        average: float = 0.0,
    ) -> None:
        super().__init__(layers, image, "image", weights)
        self.average = finite_number("average", average, least=0.0)
        if self.average >= 1:
            raise ValueError(f"average must be below 1, or the style would never change, got {average!r}")
        self.joint_views = self.average > 0
        if self.average:
            for index in range(len(self.layers)):
                self.add_state(f"gram_{index}")

    def check_term(self, setting: Setting) -> None:
        for layer in self.layers:
            shape = setting.shapes[Source(layer)]
            if len(shape) < 2:
                raise ValueError(
                    f"layers: {layer!r} gives a vector {shape}, which has no positions; choose a map or tokens"
                )

    def score(self, observation: Observation) -> Tensor:
        scores: list[Tensor] = []
        for index, (layer, weight) in enumerate(zip(self.layers, self.weights)):
            matrix = gram(observation.activation(Source(layer)))
            if self.average:
                matrix = self._averaged(f"gram_{index}", matrix.mean(1, keepdim=True), observation.step)
            reference = self.mean_over_references(observation, layer, gram)
            scores.append(-weight * (matrix - reference).abs().mean((2, 3)))
        return torch.stack(scores).sum(0)

    def _averaged(self, name: str, new: Tensor, step: int | None) -> Tensor:
        """Update the running average, and return it with the gradient of the new matrix."""
        if step is None:
            return new
        old = self.state(name, step, len(new))
        mixed = new.detach() if old is None else self.average * old + (1 - self.average) * new.detach()
        setattr(self, name, mixed.clone())
        return new + (mixed - new.detach())


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
