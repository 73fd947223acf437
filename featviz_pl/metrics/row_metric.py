"""Metrics whose states are rows for each picture, gathered over processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.numerics.digest import digest
from featviz_pl.statistics.exact_metric import ExactMetric


class RowMetric(ExactMetric):
    """Hold rows for each picture, in float64 or as integers, that all processes exchange for `compute`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._row_dtypes: dict[str, torch.dtype] = {}

    def add_rows(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        """Add a state of rows (N, …), each of the shape that `row_shape` returns."""
        self.add_state(name, [], dist_reduce_fx="cat")
        self._row_dtypes[name] = dtype

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of a state; a number unless a subclass says otherwise."""
        return ()

    def append(self, **rows: Tensor) -> None:
        """Append rows to states, by the names of these."""
        for name, values in rows.items():
            getattr(self, name).append(values)

    def rows(self, name: str) -> Tensor:
        """Return all rows so far.

        Raises:
            ValueError: when there are none yet.
        """
        state = getattr(self, name)
        rows: Tensor = state if isinstance(state, Tensor) else torch.cat(state) if state else torch.empty(0)
        if not len(rows):
            raise ValueError(f"{type(self).__name__}: there are no pictures yet; update it first")
        return rows

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; see `torchmetrics.Metric.sync`."""
        for name, dtype in self._row_dtypes.items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                # torchmetrics sends float32 of one axis for a process without pictures, which fits no other's rows.
                setattr(self, name, [torch.empty((0, *self.row_shape(name)), dtype=dtype, device=self.device)])
        super().sync(*args, **kwargs)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
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


def target_keys(targets: Sequence[str]) -> Tensor:
    """Return an integer (N,) for each target, the same in every process: processes exchange tensors only."""
    return torch.tensor([int(digest([target.strip()]), 16) >> 1 for target in targets], dtype=torch.int64)
