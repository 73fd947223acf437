"""The base class of metrics that give each picture a value, and checks of pictures and targets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from featviz_pl.metrics.row_metric import RowMetric
from featviz_pl.numerics.checks import unknown

REDUCTIONS = ("mean", "none")
Reduction = Literal["mean", "none"]


class PictureMetric(RowMetric):
    """Measure every picture on its own; a subclass implements `measure`.

    The values of all pictures are stored in float64, so the result is exact over batches and processes and does not
    depend on casts of the surrounding module. Where the range is open, the bound is None.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and further inputs of the metric; compute: () or, with ``"none"``, (all
            pictures,)

    Args:
        reduction: ``"mean"`` over all pictures, or ``"none"`` for a value for each, in the order of the updates; of
            several processes, those of the first come first.
        kwargs: of `torchmetrics.Metric`, such as ``sync_on_compute=False`` for a metric that one process computes
            alone.
    """

    higher_is_better: bool | None = None  # type: ignore[assignment]  # the base has no direction, subclasses have
    plot_lower_bound: float | None = None
    plot_upper_bound: float | None = None
    plot_legend_name = "picture"

    values: list[Tensor] | Tensor

    def __init__(self, reduction: Reduction = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if reduction not in REDUCTIONS:
            raise unknown("reduction", "reduction", str(reduction), REDUCTIONS)
        self.reduction = reduction
        self.add_rows("values")

    def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
        """Return one value (N,) for each picture (N, C, H, W)."""
        raise NotImplementedError

    def update(self, pictures: Tensor, *inputs: Any) -> None:
        """Measure further pictures."""
        self.append(values=self.measure(check_pictures(pictures), *inputs).detach().double())

    def compute(self) -> Tensor:
        """Return the mean of the values so far, or all of them.

        Raises:
            ValueError: when there are none yet.
        """
        values = self.rows("values")
        return values.mean() if self.reduction == "mean" else values

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"reduction={self.reduction!r}"

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Return a list for one picture too: torchmetrics makes a scalar of it."""
        wrapped = super()._wrap_compute(compute)

        @functools.wraps(compute)
        def unsqueezed(*args: Any, **kwargs: Any) -> Any:
            result = wrapped(*args, **kwargs)
            scalar = self.reduction == "none" and isinstance(result, Tensor) and not result.ndim
            return result[None] if scalar else result

        return unsqueezed


def check_pictures(pictures: Any) -> Tensor:
    """Return pictures (N, C, H, W) in [0, 1], detached and in float32 at least, or raise."""
    if not isinstance(pictures, Tensor):
        raise TypeError(f"pictures must be a tensor (N, C, H, W) in [0, 1], got {type(pictures).__name__}")
    if not pictures.is_floating_point():
        raise ValueError(f"pictures: {pictures.dtype} holds no values in [0, 1]; divide levels from 0 to 255 by 255")
    if pictures.ndim != 4 or not pictures.numel():
        raise ValueError(f"pictures must be a batch (N, C, H, W), got shape {tuple(pictures.shape)}")
    low, high = (float(bound) for bound in torch.aminmax(pictures.detach()))
    if low != low:  # aminmax gives NaN where there is one
        indices = pictures.detach().isnan().flatten(1).any(1).nonzero().flatten().tolist()
        first = f"the first at index {indices[0]}; they must lie in [0, 1]"
        raise ValueError(f"pictures: NaN in {len(indices)} of {len(pictures)}, {first}")
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"pictures must lie in [0, 1], got values from {low:g} to {high:g}; pass them before they are normalized"
        )
    return pictures.detach() if pictures.dtype == torch.float64 else pictures.detach().float()


def check_targets(targets: Any, count: int) -> list[str]:
    """Return one target for each picture; a single string is that of all."""
    listed = [targets] * count if isinstance(targets, str) else list(targets) if isinstance(targets, Sequence) else None
    if listed is None or not all(isinstance(target, str) for target in listed):
        raise TypeError(f"targets must be a target such as 'features.9:33', or one for each picture, got {targets!r}")
    if len(listed) != count:
        raise ValueError(f"targets: {len(listed)} do not fit {count} pictures; give one, or one for each")
    return listed
