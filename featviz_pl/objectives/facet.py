"""Favour one of the several meanings of a unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.numerics.activation_axes import unit_axis
from featviz_pl.numerics.checks import finite_number
from featviz_pl.numerics.device_transfer import numbers_on
from featviz_pl.objectives.arguments import Vectors, load_vectors, several
from featviz_pl.objectives.base import Objective, Term
from featviz_pl.objectives.formula import Formula, tensor_formula
from featviz_pl.objectives.protocol import Observation, Setting, Source
from featviz_pl.objectives.target_syntax import Target, parse_objective


class Facet(Term):
    """Favour one facet of what excites a unit, defined by linear probes on earlier layers.

    ``strength / layers * sum over layers of sum(w * a * max(0, d objective / d a))``: a are the activations of a layer,
    w the weights of a probe that tells the facet from others; the gradient is detached, and its positive part selects
    what raises the objective. Added to that objective: ``Neuron(…) + Facet(Neuron(…), …)``.

    Shape:
        activations (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        objective: of the unit, or its target.
        layers: the weights for each layer by its dotted name: a vector with one number for each unit, which counts at
            every position, or a tensor of the layer's whole shape; numbers, a tensor, or a file that ``torch.save`` or
            ``numpy.save`` wrote.
        strength: one number, or one for each picture. The field goes from 0.1 to 5 over a batch of 9.

    Raises:
        ValueError: when weights do not fit their layer.

    Example:
        >>> from featviz_pl.objectives import Channel
        >>> unit = Channel("output", 0)
        >>> term = Facet(unit, {"a": [1.0, 1.0]}, strength=5)
        >>> layer, gradient = Source("a"), Source("a", gradient_of=unit)
        >>> activations = {layer: torch.tensor([[[2.0, 3.0]]]), gradient: torch.tensor([[[1.0, -1.0]]])}
        >>> term(Observation(torch.zeros(1, 3, 4, 4), activations)).item()
        10.0

    Reference:
        Goh, Cammarata, Voss, Carter, Petrov, Schubert, Radford, Olah, "Multimodal Neurons in Artificial Neural
        Networks", Distill, 2021
    """

    has_targets = False  # the objective beside it names them

    def __init__(
        self,
        objective: Objective | Target | str,
        layers: Mapping[str, Vectors],
        strength: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        self.objective = parse_objective("objective", objective)
        if not isinstance(layers, Mapping):
            raise TypeError(f"layers must give weights by the name of a layer, got {type(layers).__name__}")
        if not layers:
            raise ValueError("layers must hold at least one layer")
        self.layers = tuple(layers)
        self._formulas: dict[str, str] = {}
        for index, (layer, value) in enumerate(layers.items()):
            weights = load_vectors(f"layers[{layer!r}]", value, axes=(1, 2, 3))
            self.register_buffer(f"weights_{index}", weights, persistent=False)
            self._formulas[layer] = repr(value) if isinstance(value, str) else tensor_formula(weights)
        self.single = not several(strength)
        numbers: Sequence[Any] = [strength] if self.single else list(strength)  # type: ignore[arg-type]
        if not numbers:
            raise ValueError("strength must hold at least one number")
        self.strengths = tuple(finite_number("strength", number) for number in numbers)
        self.picture_count = None if self.single else len(self.strengths)

    def counts(self) -> dict[int, Objective]:
        return {**self.objective.counts(), **super().counts()}

    def term_sources(self) -> Sequence[Source]:
        gradients = [Source(layer, gradient_of=self.objective) for layer in self.layers]
        return [source for layer, gradient in zip(self.layers, gradients) for source in (Source(layer), gradient)]

    def check_term(self, setting: Setting) -> None:
        self.objective.check(setting)
        for index, layer in enumerate(self.layers):
            shape, weights = tuple(setting.shapes[Source(layer)]), tuple(self.get_buffer(f"weights_{index}").shape)
            if not shape:
                raise ValueError(f"layers: {layer!r} gives one number for each picture and has no units")
            units = shape[unit_axis(shape)]
            if weights not in ((units,), shape):
                raise ValueError(
                    f"layers: the weights for {layer!r} have shape {weights}; they must be ({units},), one for each "
                    f"unit, or {shape}"
                )

    def score(self, observation: Observation) -> Tensor:
        parts: list[Tensor] = []
        for index, (source, gradient) in enumerate(zip(self.term_sources()[::2], self.term_sources()[1::2])):
            activation = observation.activation(source)
            weights = self.get_buffer(f"weights_{index}").to(activation)
            if weights.ndim == 1 and activation.ndim == 5:
                weights = weights[:, None, None]
            parts.append((weights * activation * observation.activation(gradient).clamp_min(0)).flatten(2).sum(2))
        strengths = numbers_on(parts[0].device, self.strengths, parts[0].dtype)[:, None]
        return strengths * torch.stack(parts).mean(0)

    def argument(self, name: str) -> Any:
        if name == "layers":
            return Formula("{" + ", ".join(f"{layer!r}: {text}" for layer, text in self._formulas.items()) + "}")
        if name == "strength":
            return self.strengths[0] if self.single else list(self.strengths)
        return super().argument(name)
