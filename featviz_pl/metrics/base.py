"""What all metrics of pictures share: range, direction, states that are exact over processes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from featviz_pl.numerics.checks import unknown
from featviz_pl.statistics.exact_metric import ExactMetric

REDUCTIONS = ("mean", "none")


class PictureMetric(ExactMetric):
    """Measure every picture for itself; a subclass says how in `measure`.

    The values of all pictures are kept in float64, so the result is exact over batches and over processes, and a table
    can have a row for each; casts of the program around it do not reach them. Where the range is open, the bound is
    None.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and what else the metric asks for; compute: () or, with ``"none"``, (all
            pictures,)

    Args:
        reduction: ``"mean"`` over all pictures, or ``"none"`` for a value for each, in the order in which they came; of
            several processes, those of the first come first.
        kwargs: of `torchmetrics.Metric`, such as ``sync_on_compute=False`` for a metric that one process computes
            alone.
    """

    higher_is_better: bool | None = None  # type: ignore[assignment]  # the base has no direction, subclasses have
    plot_lower_bound: float | None = None
    plot_upper_bound: float | None = None
    plot_legend_name = "picture"

    values: list[Tensor] | Tensor

    def __init__(self, reduction: Literal["mean", "none"] = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if reduction not in REDUCTIONS:
            raise unknown("reduction", "reduction", str(reduction), REDUCTIONS)
        self.reduction = reduction
        self.add_state("values", [], dist_reduce_fx="cat")

    def measure(self, pictures: Tensor, *others: Any) -> Tensor:
        """Return one value (N,) for each picture (N, C, H, W)."""
        raise NotImplementedError

    def update(self, pictures: Tensor, *others: Any) -> None:
        """Measure further pictures."""
        assert isinstance(self.values, list)
        self.values.append(self.measure(check_pictures(pictures), *others).detach().double())

    def compute(self) -> Tensor:
        """Return the mean of the values so far, or all of them.

        Raises:
            ValueError: when there are none yet.
        """
        held = (
            self.values
            if isinstance(self.values, Tensor)
            else torch.cat(self.values)
            if self.values
            else torch.empty(0)
        )
        if not held.numel():
            raise ValueError(f"{type(self).__name__}: there are no pictures yet; update it first")
        return held.mean() if self.reduction == "mean" else held

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Draw the value, those of all pictures, or several results one after the other, with the bounds of the range.

        Args:
            val: one result of `compute` or `forward`, or a list of them; `compute()` unless given.
            ax: a matplotlib axis; a new figure unless given.

        Returns:
            Figure and axis.

        Raises:
            ModuleNotFoundError: when matplotlib is not installed.
        """
        return self._plot(val, ax)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"reduction={self.reduction!r}"

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the values of all processes; see `torchmetrics.Metric.sync`."""
        if isinstance(self.values, list) and not self.values:
            # torchmetrics sends float32 for a process without pictures, and then reads the others' float64 as that.
            self.values = [torch.empty(0, dtype=torch.float64, device=self.device)]
        super().sync(*args, **kwargs)

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Keep the list a list where there is one picture: torchmetrics makes a scalar of it."""
        wrapped = super()._wrap_compute(compute)

        @functools.wraps(compute)
        def listed(*args: Any, **kwargs: Any) -> Any:
            result = wrapped(*args, **kwargs)
            return (
                result[None] if self.reduction == "none" and isinstance(result, Tensor) and not result.ndim else result
            )

        return listed


def check_pictures(pictures: Any) -> Tensor:
    """Return pictures (N, C, H, W) in [0, 1] in float32 at least, or raise an error that says what would be right."""
    if not isinstance(pictures, Tensor):
        raise TypeError(f"pictures must be a tensor (N, C, H, W) in [0, 1], got {type(pictures).__name__}")
    if not pictures.is_floating_point():
        raise ValueError(f"pictures: {pictures.dtype} holds no values in [0, 1]; divide levels from 0 to 255 by 255")
    if pictures.ndim != 4 or not pictures.numel():
        raise ValueError(f"pictures must be a batch (N, C, H, W), got shape {tuple(pictures.shape)}")
    low, high = (float(bound) for bound in torch.aminmax(pictures.detach()))
    if low != low:  # aminmax gives NaN where there is one
        bad = pictures.detach().isnan().flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(
            f"pictures: NaN in {len(bad)} of {len(pictures)}, the first at index {bad[0]}; they must lie in [0, 1]"
        )
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"pictures must lie in [0, 1], got values from {low:g} to {high:g}; pass them before they are normalised"
        )
    return pictures.detach() if pictures.dtype == torch.float64 else pictures.detach().float()


def check_targets(targets: Any, count: int) -> list[str]:
    """Return one target for each picture; a single one is that of all."""
    listed = [targets] * count if isinstance(targets, str) else list(targets) if isinstance(targets, Sequence) else None
    if listed is None or not all(isinstance(target, str) for target in listed):
        raise TypeError(
            f"targets must be a target such as 'features.9:33', or a list of one for each picture, got {targets!r}"
        )
    if len(listed) != count:
        raise ValueError(f"targets: {len(listed)} do not fit {count} pictures; give one, or one for each")
    return listed
