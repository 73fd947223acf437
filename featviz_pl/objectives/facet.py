"""Steer which of a unit's several meanings is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from featviz_pl.numerics.activation_axes import unit_axis
from featviz_pl.numerics.checks import finite_number
from featviz_pl.numerics.device_transfer import numbers_on
from featviz_pl.objectives.base import Objective, Term, number_formula
from featviz_pl.objectives.protocol import Observation, Setting, Source
from featviz_pl.objectives.reference import checked_objective
from featviz_pl.objectives.vector_arguments import Vectors, load_vectors, spelled


class Facet(Term):
    """Favour one facet of what excites a unit, told by linear probes on earlier layers.

    ``strength / layers * sum over layers of sum(w * a * max(0, d objective / d a))``: a are the activations of a layer,
    w the weights of a probe that tells the facet from others, and the gradient, held fixed, keeps what helps the
    objective. Added to that objective: ``Neuron(…) + Facet(Neuron(…), …)``.

    Shape:
        activations (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        objective: what the picture is of.
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
        >>> own, gradient = Source("a"), Source("a", gradient_of=unit)
        >>> read = {own: torch.tensor([[[2.0, 3.0]]]), gradient: torch.tensor([[[1.0, -1.0]]])}
        >>> term(Observation(torch.zeros(1, 3, 4, 4), read)).item()
        10.0

    Reference:
        Goh, Cammarata, Voss, Carter, Petrov, Schubert, Radford, Olah, "Multimodal Neurons in Artificial Neural
        Networks", Distill, 2021
    """

    def __init__(
        self, objective: Objective, layers: Mapping[str, Vectors], strength: float | Sequence[float] = 1.0
    ) -> None:
        super().__init__()
        self.objective = checked_objective("objective", objective)
        if not isinstance(layers, Mapping):
            raise TypeError(f"layers must give weights by the name of a layer, got {type(layers).__name__}")
        if not layers:
            raise ValueError("layers must hold at least one layer")
        self.layers = tuple(layers)
        self._spelled = {name: repr(given) if isinstance(given, str) else "" for name, given in layers.items()}
        for index, (name, given) in enumerate(layers.items()):
            weights = load_vectors(f"layers[{name!r}]", given, axes=(1, 2, 3))
            self.register_buffer(f"weights_{index}", weights, persistent=False)
            self._spelled[name] = self._spelled[name] or spelled(weights)
        self.single = not isinstance(strength, (Sequence, Tensor))
        listed = [strength] if not isinstance(strength, (Sequence, Tensor)) else list(strength)
        if not listed:
            raise ValueError("strength must hold at least one number")
        self.strengths = tuple(finite_number("strength", one) for one in listed)

    def counts(self) -> dict[int, Objective]:
        """Return the numbers of pictures asked for, here and by the objective."""
        return {**self.objective.counts(), **super().counts()}

    def term_count(self) -> int | None:
        """Return one picture for each strength, or any number for a single one."""
        return None if self.single else len(self.strengths)

    def term_sources(self) -> Sequence[Source]:
        """Return every layer and the gradient of the objective there."""
        gradients = [Source(layer, gradient_of=self.objective) for layer in self.layers]
        return [source for layer, gradient in zip(self.layers, gradients) for source in (Source(layer), gradient)]

    def check_term(self, setting: Setting) -> None:
        """Refuse weights that do not fit their layer, and an objective that cannot work."""
        self.objective.check(setting)
        for index, layer in enumerate(self.layers):
            shape, given = tuple(setting.shapes[Source(layer)]), tuple(self.get_buffer(f"weights_{index}").shape)
            if not shape:
                raise ValueError(f"layers: {layer!r} gives one number for each picture and has no units")
            units = shape[unit_axis(shape)]
            if given not in ((units,), shape):
                raise ValueError(
                    f"layers: the weights for {layer!r} are {given}; they must be ({units},), one for each unit, or {shape}"
                )

    def score(self, observation: Observation) -> Tensor:
        """Add the layers."""
        parts: list[Tensor] = []
        for index, (own, helping) in enumerate(zip(self.term_sources()[::2], self.term_sources()[1::2])):
            activation = observation.activation(own)
            weights = self.get_buffer(f"weights_{index}").to(activation)
            if weights.ndim == 1 and activation.ndim == 5:
                weights = weights[:, None, None]
            parts.append((weights * activation * observation.activation(helping).clamp_min(0)).flatten(2).sum(2))
        strengths = numbers_on(parts[0].device, self.strengths, parts[0].dtype)[:, None]
        return strengths * torch.stack(parts).mean(0)

    def named_targets(self, count: int) -> list[list[str]]:
        """Return nothing: the objective that is steered says what a picture looks for."""
        return []

    def name(self) -> str:
        """Return the name under which the score is logged."""
        return ".".join(["Facet", *self.layers])

    def formula(self) -> str:
        """Return the constructor."""
        layers = ", ".join(f"{name!r}: {self._spelled[name]}" for name in self.layers)
        listed = [number_formula(one) for one in self.strengths]
        strength = (
            f", strength={listed[0] if self.single else '[' + ', '.join(listed) + ']'}"
            if self.strengths != (1.0,)
            else ""
        )
        return f"Facet({self.objective.formula()}, {{{layers}}}{strength})"
