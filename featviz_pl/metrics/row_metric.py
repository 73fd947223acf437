"""What metrics of vectors share: rows that are kept, gathered over processes, and known by their target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.metrics.embedding import Embedding
from featviz_pl.numerics.digest import digest
from featviz_pl.statistics.exact_metric import ExactMetric


class RowMetric(ExactMetric):
    """Keep rows for each picture, in float64 or as whole numbers, that all processes share when it computes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._row_dtypes: dict[str, torch.dtype] = {}

    def add_rows(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        """Add a state of rows (N, …); `row_shape` says of what shape each is."""
        self.add_state(name, [], dist_reduce_fx="cat")
        self._row_dtypes[name] = dtype

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of a state."""
        raise NotImplementedError

    def rows(self, name: str) -> Tensor:
        """Return all rows so far."""
        held = getattr(self, name)
        found: Tensor = held if isinstance(held, Tensor) else torch.cat(held) if held else torch.empty(0)
        if not len(found):
            raise ValueError(f"{type(self).__name__}: there are no pictures yet; update it first")
        return found

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; see `torchmetrics.Metric.sync`."""
        for name, dtype in self._row_dtypes.items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                # torchmetrics sends float32 of one axis for a process without pictures, which fits no other's rows.
                setattr(self, name, [torch.empty((0, *self.row_shape(name)), dtype=dtype, device=self.device)])
        super().sync(*args, **kwargs)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw the value, or several results one after the other, with the bounds of the range.

        Args:
            val: one result of `compute` or `forward`, or a list of them; `compute()` unless given.
            ax: a matplotlib axis; a new figure unless given.

        Returns:
            Figure and axis.

        Raises:
            ModuleNotFoundError: when matplotlib is not installed.
        """
        return self._plot(val, ax)


def unit_vectors(embedding: Embedding, pictures: Tensor) -> Tensor:
    """Return the vectors (N, D) of pictures in float64, of length 1 in that precision."""
    return functional.normalize(embedding(pictures).double(), dim=1)


def width_of(embedding: Embedding) -> int:
    """Return D, from the vector of a grey picture."""
    shown = torch.full((1, embedding.network.channels, *embedding.size), 0.5, dtype=torch.float32)
    return embedding(shown).shape[1]


def target_keys(targets: Sequence[str]) -> Tensor:
    """Return a whole number (N,) for each target, the same in every process: processes exchange tensors only."""
    return torch.tensor([int(digest([target.strip()]), 16) >> 1 for target in targets], dtype=torch.int64)


def check_embedding(embedding: Any) -> Embedding:
    """Return an embedding, the default one for None."""
    if embedding is None:
        return Embedding()
    if not isinstance(embedding, Embedding):
        raise TypeError(
            f"embedding must be an Embedding, such as Embedding('embedded'), got {type(embedding).__name__}"
        )
    return embedding
