"""Read the activations of layers while a network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featviz_pl.networks.reader import first_tensor
from featviz_pl.numerics.activation_axes import at_positions, position_axes

Reduction = Literal["mean", "max"]


@dataclass(frozen=True)
class Said:
    """Hold what one layer said of one batch.

    Args:
        scores: (N, units).
        peaks: (N, units), the highest activations.
        places: (N, units), at which position these are, all axes in one.
        positions: lengths of the layer's axes of space.
    """

    scores: Tensor
    peaks: Tensor
    places: Tensor
    positions: tuple[int, ...]

    def numbers(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return scores, peaks and places as arrays, units first."""
        scores, peaks, places = (value.T.cpu().numpy() for value in (self.scores, self.peaks, self.places))
        return scores, peaks, places


class LayerReader:
    """Read one layer by a hook: only numbers for each unit are kept, made before the next layer can overwrite the activation.

    Args:
        layer: name, for messages.
        units: of it; None for all.
        reduction: of positions, for the score.
    """

    def __init__(self, layer: str, units: Sequence[int] | None, reduction: Reduction) -> None:
        self.layer, self.reduction = layer, reduction
        self.units = None if units is None else torch.tensor(units)
        self.channels_last = False
        self.said: Said | None = None

    @torch.no_grad()
    def __call__(self, module: nn.Module, inputs: Any, result: Any) -> None:
        """Take the result of the layer."""
        value = first_tensor(result)
        if value is None or value.ndim < 2:
            raise ValueError(
                f"targets: the output of {self.layer!r} holds no tensor (N, units, …); choose another layer"
            )
        value = value.detach().movedim(3, 1) if self.channels_last and value.ndim == 4 else value.detach()
        if value.dtype != torch.float64:
            value = value.float()
        lined_up = at_positions(value[:, None])[:, 0]
        if self.units is not None:
            self._check_units(lined_up.shape[-1])
            lined_up = lined_up.index_select(-1, self.units.to(value.device))
        peaks, places = lined_up.max(1)
        scores = lined_up.mean(1) if self.reduction == "mean" else peaks
        self.said = Said(scores, peaks, places, position_axes(value.shape[1:]))

    def _check_units(self, width: int) -> None:
        assert self.units is not None
        beyond = [unit for unit in self.units.tolist() if unit >= width]
        if beyond:
            raise ValueError(f"targets: {self.layer!r} has {width} units, 0 to {width - 1}; there is no {beyond[0]}")

    def take(self, pictures: int) -> Said:
        """Return what was said of a batch of that many pictures.

        Raises:
            ValueError: when the layer did not run, or for another number of pictures.
        """
        said, self.said = self.said, None
        if said is None:
            raise ValueError(f"targets: the step of the module did not run {self.layer!r}; choose a layer that it runs")
        if len(said.scores) != pictures:
            raise ValueError(
                f"targets: {self.layer!r} gave {len(said.scores)} results for a batch of {pictures} pictures; choose a layer that gives "
                "one for each"
            )
        return said
