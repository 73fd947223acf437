"""Read the outputs of layers while a network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featviz_pl.networks.layer_address import first_tensor
from featviz_pl.networks.layouts import Layout
from featviz_pl.numerics.activation_axes import at_positions, position_axes

Reduction = Literal["mean", "max"]


@dataclass(frozen=True)
class LayerOutputs:
    """Scores and peaks of the units of a layer on one batch.

    Args:
        scores: (N, units).
        peaks: (N, units), the highest activations.
        positions: (N, units), where the peaks are, as indices into the flattened spatial axes.
        spatial_shape: lengths of the layer's spatial axes.
    """

    scores: Tensor
    peaks: Tensor
    positions: Tensor
    spatial_shape: tuple[int, ...]

    def numpy(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return scores, peaks and positions as arrays (units, N)."""
        scores, peaks, positions = (value.T.cpu().numpy() for value in (self.scores, self.peaks, self.positions))
        return scores, peaks, positions


class LayerReader:
    """Forward hook that reduces a layer's output to numbers per unit, before a later layer can overwrite it.

    Args:
        layer: name, for messages.
        units: indices of the units; None for all.
        reduction: over positions, for the score.
    """

    def __init__(self, layer: str, units: Sequence[int] | None, reduction: Reduction) -> None:
        self.layer, self.reduction = layer, reduction
        self.units = None if units is None else torch.tensor(units)
        self.layout: Layout | None = None  # of the layer's result, once it is known
        self.outputs: LayerOutputs | None = None

    @torch.no_grad()
    def __call__(self, module: nn.Module, inputs: Any, result: Any) -> None:
        """Store the scores of the layer's output."""
        value = first_tensor(result)
        if value is None or value.ndim < 2:
            raise ValueError(
                f"targets: the output of {self.layer!r} holds no tensor (N, units, …); choose another layer"
            )
        value = value.detach()
        if self.layout is not None and self.layout.batch_axis < value.ndim:
            standard = self.layout.standardized(value, value.shape[self.layout.batch_axis])
            value = value if standard is None else standard
        activations = at_positions((value if value.dtype == torch.float64 else value.float())[:, None])[:, 0]
        if self.units is not None:
            count = activations.shape[-1]
            if beyond := [unit for unit in self.units.tolist() if unit >= count]:
                raise ValueError(
                    f"targets: {self.layer!r} has {count} units, 0 to {count - 1}; there is no {beyond[0]}"
                )
            activations = activations.index_select(-1, self.units.to(value.device))
        peaks, positions = activations.max(1)
        scores = activations.mean(1) if self.reduction == "mean" else peaks
        self.outputs = LayerOutputs(scores, peaks, positions, position_axes(value.shape[1:]))

    def pop(self, batch_size: int) -> LayerOutputs:
        """Return the outputs for the latest batch and forget them.

        Raises:
            ValueError: when the layer did not run, or gave another number of results than `batch_size`.
        """
        outputs, self.outputs = self.outputs, None
        if outputs is None:
            raise ValueError(f"targets: the step of the module did not run {self.layer!r}; choose a layer that it runs")
        if len(outputs.scores) != batch_size:
            raise ValueError(
                f"targets: {self.layer!r} gave {len(outputs.scores)} results for a batch of {batch_size} pictures; "
                "choose a layer that gives one for each"
            )
        return outputs
