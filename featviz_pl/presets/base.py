"""What a named recipe fixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from featviz_pl.images import Image
from featviz_pl.networks import FrozenNetwork
from featviz_pl.networks.layer_address import OUTPUT
from featviz_pl.objectives import Objective
from featviz_pl.transforms import Compose, Views

_OVERRIDABLE = {"transforms", "optimizer_arguments"}

ObjectiveMaker = Callable[[Objective, FrozenNetwork, tuple[int, int], "Tensor | None"], Objective]


@dataclass(frozen=True)
class Recipe:
    """Hold what a preset fixes.

    Args:
        name: of the preset.
        source: where its constants come from.
        image: makes the parameterization for a size and number of channels.
        transforms: of each view.
        views: number of views per step.
        optimizer: class of the optimizer.
        lr: learning rate.
        steps: number of optimization steps.
        size: of the picture; None is the network's input size.
        size_of_views: of each view; None is the picture's, ``"network"`` the network's input size where it has one.
        optimizer_arguments: further arguments of the optimizer.
        scheduler: makes a learning-rate scheduler from the optimizer and the number of steps.
        output_overrides: ``transforms``, ``optimizer_arguments`` or both, for objectives that read nothing but the
            network's output, such as classes.
        make_objective: makes the objective that is optimized from the user's objective, the network, the size of the
            views and the start picture.

    Raises:
        ValueError: when `output_overrides` holds another key.
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
    scheduler: Callable[[torch.optim.Optimizer, int], LRScheduler] | None = None
    output_overrides: Mapping[str, Any] = field(default_factory=dict)
    make_objective: ObjectiveMaker | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.output_overrides) - _OVERRIDABLE:
            raise ValueError(
                f"output_overrides: cannot hold {', '.join(sorted(unknown))}; give {' or '.join(sorted(_OVERRIDABLE))}"
            )

    def for_layers(self, layers: Iterable[str]) -> Recipe:
        """Return the recipe for an objective that reads these layers, with `output_overrides` applied where they hold.

        Example:
            >>> from featviz_pl.presets import recipe
            >>> default = recipe("featviz")
            >>> default.for_layers(["features.9"]) is default, default.for_layers(["output"]) is default
            (True, False)
        """
        if not self.output_overrides or set(layers) != {OUTPUT}:
            return self
        return replace(self, output_overrides={}, **self.output_overrides)

    def make_views(self, network: FrozenNetwork, count: int | None = None) -> Views:
        """Return the views of pictures for a network, `count` of them, or the recipe's number."""
        to_network_size = self.size_of_views == "network" and network.size is not None
        transforms = Compose(self.transforms.listed(), network.size) if to_network_size else self.transforms
        return Views(transforms, self.views if count is None else count)

    def make_optimizer(self, parameters: Iterable[nn.Parameter], lr: float | None = None) -> torch.optim.Optimizer:
        """Return the optimizer of these parameters; `lr` replaces the recipe's learning rate."""
        return self.optimizer(parameters, lr=self.lr if lr is None else lr, **self.optimizer_arguments)  # type: ignore[call-arg]

    def make_scheduler(self, optimizer: torch.optim.Optimizer, steps: int | None = None) -> LRScheduler | None:
        """Return the learning-rate scheduler for a number of steps, the recipe's unless given; None without one."""
        return None if self.scheduler is None else self.scheduler(optimizer, self.steps if steps is None else steps)
