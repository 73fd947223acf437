"""The submodule that a `FeatureMonitor` renders, and the shape of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from lightning.pytorch import LightningModule

from featviz_pl.objectives import Target
from featviz_pl.objectives.target_syntax import ALL
from featviz_pl_callbacks._support import Picture
from featviz_pl_callbacks._watched_network import (
    LiveNetwork,
    check_names,
    find_input_module,
    full_path,
    live_network,
    relative,
)


class MonitoredNetwork:
    """Find the submodule that takes the pictures, once, and return it as it is at any time.

    Args:
        network: name of the submodule, or None to find it.
        size: (height, width) of the pictures, or None for that of the training's.
        mean: that the network's input is normalized by.
        std: that the network's input is normalized by.
    """

    def __init__(
        self,
        network: str | None,
        size: tuple[int, int] | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        self._network, self._size, self._mean, self._std = network, size, mean, std
        self.reset()

    def reset(self) -> None:
        """Forget the submodule; the next call of `find` searches again."""
        self._path = ""
        self._picture: Picture | None = None

    def find(
        self, module: LightningModule, targets: Sequence[Target], training_picture: Picture | None, device: torch.device
    ) -> Picture:
        """Return the shape of the pictures.

        Args:
            module: the LightningModule.
            targets: their layers are read.
            training_picture: shape of the training's pictures, or None if unknown.
            device: of the training.

        Raises:
            ValueError: when a layer has gone, or no submodule takes the pictures.
        """
        layers = [target.layer for target in targets]
        check_names(module, layers, self._network)  # a network may lose layers between epochs
        if self._picture is None:
            if self._size is None and training_picture is None:
                raise ValueError("size: unknown, because the first batch holds no pictures (N, C, H, W); give size=…")
            channels, *size = training_picture or (3, 0, 0)
            height, width = self._size or size
            paths = [full_path(layer, self._network) for layer in layers]
            self._path, self._picture = find_input_module(
                module, paths, self._network, (channels, height, width), device, any_channels=training_picture is None
            )
        return self._picture

    def live(self, module: LightningModule) -> LiveNetwork:
        """Return the network with its present weights."""
        return live_network(module, self._path, self._mean, self._std)

    def layer(self, target: Target) -> str:
        """Return the name of a target's layer in the network."""
        return relative(full_path(target.layer, self._network), self._path)

    def resolve(self, targets: Sequence[Target], network: LiveNetwork, picture: Picture) -> list[Target]:
        """Return one target for each picture, with the units of ``layer:all``."""
        resolved = []
        for target in targets:
            count = network.count_units(self.layer(target), picture[1:], picture[0]) if target.units == ALL else 0
            resolved += target.resolve(count).singles()
        return resolved

    def renamed(self, targets: Sequence[Target]) -> list[Target]:
        """Return targets with their layers named as in the network."""
        return [replace(target, layer=self.layer(target)) for target in targets]
