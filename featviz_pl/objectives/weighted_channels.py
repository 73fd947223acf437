"""Weighted channels, over a whole layer or a patch of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from featviz_pl.numerics.activation_axes import at_positions
from featviz_pl.numerics.checks import finite_number, whole_number
from featviz_pl.numerics.device_transfer import numbers_on
from featviz_pl.objectives.activation import LayerTerm
from featviz_pl.objectives.arguments import Vectors, check_units, check_width, load_vectors, rows_like
from featviz_pl.objectives.formula import Formula, content_hash, number_formula
from featviz_pl.objectives.positions import Tokens
from featviz_pl.objectives.protocol import Observation, Setting

_MAX_NAMED_UNITS = 4  # of a mapping that is its own target


class WeightedChannels(LayerTerm):
    """Maximise a weighted sum of channels, ``sum over c of w_c * mean over positions of a_c``.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        weights: ``{unit: weight}``, or a weight for every unit: (F,) for all pictures or (N, F), one row for each; a
            tensor, numbers, or a file (.pt, .npy).
        patch: (y, x, height, width) of the map in which positions count; all by default.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when a unit or the patch lies outside the layer.

    Example:
        >>> import torch
        >>> from featviz_pl.objectives import Source
        >>> activation = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1).expand(1, 1, 3, 4, 4)
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): activation})
        >>> WeightedChannels("a", {0: 1, 2: -0.5})(observation).item()
        -0.5
        >>> WeightedChannels("a", [1, 0, -0.5], patch=(1, 1, 2, 2))(observation).item()
        -0.5
    """

    weights: Tensor
    positional = ("patch",)

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
            by_unit = {_unit(unit): finite_number("weight", weight) for unit, weight in weights.items()}
            if len(by_unit) != len(weights):
                raise ValueError(f"weights: a unit stands twice in {dict(weights)}")
            self.units, weights = tuple(by_unit), list(by_unit.values())
        self.register_buffer("weights", load_vectors("weights", weights), persistent=False)
        self.single = self.weights.ndim == 1
        self.picture_count = None if self.single else len(self.weights)
        self._hashes = [content_hash(row) for row in self.weights.reshape(-1, self.weights.shape[-1])]
        self.patch = None if patch is None else _checked_patch(patch)

    def check_term(self, setting: Setting) -> None:
        available, shape = self.width(setting), self.shape(setting)
        if self.units is None:
            check_width("weights", self.layer, available, self.weights.shape[-1])
        check_units(repr(self.layer), self.units or (), available)
        if self.patch is not None:
            y, x, height, width = self.patch
            if len(shape) != 3:
                raise ValueError(f"patch: {self.layer!r} gives {shape}, not a map (C, H, W) with patches")
            if y + height > shape[1] or x + width > shape[2]:
                raise ValueError(
                    f"patch: {self.patch} (y, x, height, width) leaves the map of {self.layer!r}, which is {shape[1:]}"
                )

    def score(self, observation: Observation) -> Tensor:
        activation = self.read(observation)
        if self.patch is not None:
            y, x, height, width = self.patch
            activation = activation[..., y : y + height, x : x + width]
        means = at_positions(activation).mean(2)
        if self.units is not None:
            means = means[..., numbers_on(means.device, self.units)]
        return (means * rows_like(self.weights, means)[:, None]).sum(2)

    def target_names(self, count: int) -> list[str]:
        if self.units is not None and len(self.units) <= _MAX_NAMED_UNITS:
            return [f"{self.label()}:{self.argument('weights')}"] * count
        hashes = self._hashes * count if self.single else self._hashes
        return [f"{self.label()}:{type(self).__name__}-{digits}" for digits in hashes]

    def argument(self, name: str) -> Any:
        if name != "weights" or self.units is None:
            return super().argument(name)
        pairs = zip(self.units, self.weights.cpu().numpy())
        weights = ", ".join(f"{unit}: {number_formula(float(str(weight)))}" for unit, weight in pairs)
        return Formula(f"{{{weights}}}")


def _unit(value: int | str) -> int:
    """Return the unit of a key; keys of a configuration may be digits."""
    return whole_number("unit", int(value) if isinstance(value, str) and value.isdecimal() else value, least=0)


def _checked_patch(value: Sequence[int]) -> tuple[int, int, int, int]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 4:
        raise ValueError(f"patch must be (y, x, height, width), got {value!r}")
    y, x = (whole_number("patch", at, least=0) for at in value[:2])
    height, width = (whole_number("patch", length) for length in value[2:])
    return y, x, height, width
