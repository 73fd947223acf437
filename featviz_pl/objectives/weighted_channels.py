"""Weighted channels, over a whole layer or a patch of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from featviz_pl.numerics.activation_axes import at_positions
from featviz_pl.numerics.checks import finite_number, whole_number
from featviz_pl.numerics.device_transfer import numbers_on
from featviz_pl.objectives.activation import LayerTerm
from featviz_pl.objectives.base import number_formula
from featviz_pl.objectives.positions import Tokens
from featviz_pl.objectives.protocol import Observation, Setting
from featviz_pl.objectives.vector_arguments import Vectors, content, load_vectors, require_width, rows_of, spelled


class WeightedChannels(LayerTerm):
    """Maximise a weighted sum of channels, ``sum over c of w_c * mean over positions of a_c``.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        weights: ``{unit: weight}``, or a weight for every unit: (F,) for all pictures or (N, F), one row for each; a
            tensor, numbers, or a file (.pt, .npy).
        patch: (y, x, height, width) of the map in which positions count; all unless given.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when a unit or the patch lies outside the layer.

    Example:
        >>> import torch
        >>> from featviz_pl.objectives import Source
        >>> activation = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1).expand(1, 1, 3, 4, 4)
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): activation})
        >>> WeightedChannels("a", {0: 1, 2: -0.5})(observation).item(), WeightedChannels("a", [1, 0, -0.5], (1, 1, 2, 2))(observation).item()
        (-0.5, -0.5)
    """

    weights: Tensor

    def __init__(
        self,
        layer: str,
        weights: Mapping[int, float] | Vectors,
        patch: Sequence[int] | None = None,
        tokens: Tokens = "all",
    ) -> None:
        super().__init__(layer, tokens)
        self.units: tuple[int, ...] | None = None
        if isinstance(weights, Mapping):
            if not weights:
                raise ValueError("weights must hold at least one unit")
            chosen = {_unit(unit): finite_number("weight", weight) for unit, weight in weights.items()}
            if len(chosen) != len(weights):
                raise ValueError(f"weights: a unit stands twice in {dict(weights)}")
            self.units, weights = tuple(chosen), list(chosen.values())
        self.register_buffer("weights", load_vectors("weights", weights), persistent=False)
        self._names = [content(row) for row in self.weights.reshape(-1, self.weights.shape[-1])]
        self.patch = None if patch is None else _checked_patch(patch)

    def term_count(self) -> int | None:
        """Return one picture for each row of weights, or any number for a single one."""
        return None if self.weights.ndim == 1 else len(self.weights)

    def check_term(self, setting: Setting) -> None:
        """Refuse units and patches beyond the layer."""
        available, shape = self.width(setting), self.shape(setting)
        if self.units is None:
            require_width("weights", self.layer, available, self.weights.shape[-1])
        for unit in self.units or ():
            if unit >= available:
                raise ValueError(
                    f"unit: {self.layer!r} has {available} units, 0 to {available - 1}; there is no {unit}"
                )
        if self.patch is not None:
            y, x, height, width = self.patch
            if len(shape) != 3:
                raise ValueError(f"patch: {self.layer!r} gives {shape}, not a map (C, H, W) with patches")
            if y + height > shape[1] or x + width > shape[2]:
                raise ValueError(
                    f"patch: {self.patch} (y, x, height, width) leaves the map of {self.layer!r}, which is {shape[1:]}"
                )

    def score(self, observation: Observation) -> Tensor:
        """Average over positions, and weigh the channels."""
        activation = self.read(observation)
        if self.patch is not None:
            y, x, height, width = self.patch
            activation = activation[..., y : y + height, x : x + width]
        means = at_positions(activation).mean(2)
        if self.units is not None:
            means = means[..., numbers_on(means.device, self.units)]
        return (means * rows_of(self.weights, means)[:, None]).sum(2)

    def target_names(self, count: int) -> list[str]:
        """Return the layer and what tells the weights from others."""
        if self.units is not None and len(self.units) <= 4:
            return [f"{self.place()}:{self._mapping()}"] * count
        names = self._names * count if self.weights.ndim == 1 else self._names
        return [f"{self.place()}:{type(self).__name__}-{name}" for name in names]

    def arguments(self) -> list[str]:
        """Return the weights, and the patch where there is one."""
        weights = spelled(self.weights) if self.units is None else self._mapping()
        return [weights, *([] if self.patch is None else [str(self.patch)])]

    def _mapping(self) -> str:
        pairs = zip(self.units or (), self.weights.cpu().numpy())
        return "{" + ", ".join(f"{unit}: {number_formula(float(str(weight)))}" for unit, weight in pairs) + "}"


def _unit(value: int | str) -> int:
    """Return the unit that a key names; keys of a configuration may be digits."""
    return whole_number("unit", int(value) if isinstance(value, str) and value.isdecimal() else value, least=0)


def _checked_patch(value: Sequence[int]) -> tuple[int, int, int, int]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 4:
        raise ValueError(f"patch must be (y, x, height, width), got {value!r}")
    y, x = (whole_number("patch", at, least=0) for at in value[:2])
    height, width = (whole_number("patch", length) for length in value[2:])
    return y, x, height, width
