"""Many views of many pictures, each drawn from its own key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.numerics.random import generator_for
from featviz_pl.transforms.base import Transform
from featviz_pl.transforms.compose import Compose
from featviz_pl.transforms.schedule import Schedule, schedule_named
from featviz_pl.transforms.warp import sizes


class Views(nn.Module):
    """Turn N pictures into N x V views.

    View v of a picture at a step is drawn from (seed, step, the picture's key, v) alone: it does not matter which
    process evaluates it, nor which pictures stand beside it. It holds no tensors, and
    ``SummaryWriter.add_graph(views, images)`` draws it.

    Shape:
        (N, C, H, W) -> (N, V, C, h, w)

    Args:
        transforms: what happens to each view.
        count: number of views V.
        schedule: strength of the views over the run; None is full strength throughout.

    Example:
        >>> from featviz_pl.transforms import Jitter
        >>> views = Views(Compose([Jitter(2)]), count=4)
        >>> drawn = views.sample(seed=0, step=0, keys=[7, 8])
        >>> views.apply(torch.rand(2, 3, 8, 8), drawn, progress=0.0).shape
        torch.Size([2, 4, 3, 8, 8])
    """

    def __init__(self, transforms: Transform, count: int = 1, schedule: str | Schedule | None = None) -> None:
        if not isinstance(transforms, Transform):
            raise TypeError(f"transforms must be a transform, got {type(transforms).__name__}")
        super().__init__()
        self.transforms = transforms if isinstance(transforms, Compose) else Compose([transforms])
        self.count = whole_number("views", count)
        self.schedule = schedule_named(schedule)

    def sample(self, seed: int, step: int, keys: Sequence[int], indices: Sequence[int] | None = None) -> Any:
        """Draw the views at `indices` (all unless given) of every picture; the first axis is N x V, views fastest."""
        indices = range(self.count) if indices is None else indices
        draws = [
            self.transforms.sample(generator_for(seed, "views", step, key, index), 1)
            for key in keys
            for index in indices
        ]
        return _concatenated(draws)

    def apply(self, images: Tensor, parameters: Any, progress: float) -> Tensor:  # type: ignore[override]
        """Transform every picture with its parameters, with the ranges and the strength at a progress in [0, 1]."""
        with untraced():
            parameters = self.transforms.at(parameters, progress)
            if self.schedule is not None:
                parameters = self.transforms.weaken(parameters, self.schedule.strength(progress))
        flat: Tensor = self.transforms.apply(images, parameters)
        count = sizes(images)[0]
        views = flat.view(count, -1, *flat.shape[1:])
        return views.expand(-1, self.count, *[-1] * (views.ndim - 2)) if not self.transforms.listed() else views

    def forward(self, images: Tensor, seed: int = 0, step: int = 0) -> Tensor:
        """Draw for each picture, its index being its key, and show it as at the beginning of a run."""
        with untraced():
            drawn = self.sample(int(seed), int(step), range(sizes(images)[0]))
        return self.apply(images, drawn, progress=0.0)

    def __repr__(self) -> str:
        """Show what is drawn."""
        return f"Views({self.transforms!r}, count={self.count}, schedule={self.schedule!r})"


def _concatenated(draws: list[Any]) -> Any:
    if isinstance(draws[0], tuple):
        return tuple(_concatenated(list(parts)) for parts in zip(*draws))
    return torch.cat(draws)
