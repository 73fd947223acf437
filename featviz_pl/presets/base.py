"""What a named recipe fixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.images import Image
from featviz_pl.networks import FrozenNetwork
from featviz_pl.networks.reader import OUTPUT
from featviz_pl.objectives import Objective
from featviz_pl.transforms import Compose

Wrap = Callable[[Objective, FrozenNetwork, tuple[int, int], "Tensor | None"], Objective]


@dataclass(frozen=True)
class Recipe:
    """Hold what a preset fixes.

    Args:
        name: of the preset.
        source: where its constants come from.
        image: makes the parameterization for a size and number of channels.
        transforms: of each view.
        views: how many.
        optimizer: class that makes the optimizer.
        lr: its learning rate.
        steps: of the run.
        size: of the picture; None is the network's own.
        size_of_views: of each view; None is the picture's, ``"network"`` the network's own where it has one.
        optimizer_arguments: further arguments of the optimizer.
        scheduler: makes a learning-rate scheduler for a number of steps.
        of_outputs: what is different where nothing but the network's output is wanted, such as classes: ``transforms``,
            ``optimizer_arguments`` or both.
        wrap: turns what the user wants, the network, the size of the views and the picture to start from into what is
            optimised.
    """

    name: str
    source: str
    image: Callable[..., Image]
    transforms: Compose
    views: int
    optimizer: type[torch.optim.Optimizer]
    lr: float
    steps: int
    size: int | None = None
    size_of_views: str | None = None
    optimizer_arguments: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler] | None = None
    of_outputs: Mapping[str, Any] = field(default_factory=dict)
    wrap: Wrap | None = None

    def __post_init__(self) -> None:
        other = set(self.of_outputs) - {"transforms", "optimizer_arguments"}
        if other:
            raise ValueError(
                f"of_outputs: {', '.join(sorted(other))} cannot differ for outputs; give transforms or optimizer_arguments"
            )

    def suited(self, layers: Iterable[str]) -> Recipe:
        """Return the recipe for what is read of the network.

        Example:
            >>> from featviz_pl.presets import recipe
            >>> own = recipe("featviz")
            >>> own.suited(["features.9"]) is own, own.suited(["output"]) is own
            (True, False)
        """
        read = set(layers)
        return replace(self, of_outputs={}, **self.of_outputs) if self.of_outputs and read == {OUTPUT} else self

    def make_optimizer(self, parameters: Iterable[nn.Parameter], lr: float | None = None) -> torch.optim.Optimizer:
        """Make the optimizer, with another learning rate if one is given."""
        return self.optimizer(parameters, lr=self.lr if lr is None else lr, **self.optimizer_arguments)  # type: ignore[call-arg]
