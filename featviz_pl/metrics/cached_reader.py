"""The network of a metric, read as it is at the first picture after a reset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.networks import ActivationReader, FrozenNetwork, as_network
from featviz_pl.networks.probing import probe
from featviz_pl.numerics.resampling import crop_and_resize

NetworkLike = str | nn.Module | FrozenNetwork  # a name, a module that takes pictures in [0, 1], or a frozen network


class CachedReader:
    """Read layers of a network, outside every mode of the caller; what reads them is made at the first call.

    Args:
        network: a name, a module that takes pictures in [0, 1], or a frozen network.
    """

    def __init__(self, network: NetworkLike) -> None:
        self.network = as_network(network)
        self._repr = repr(network) if isinstance(network, str) else f"<{self.network.name}>"
        self._reader: ActivationReader | None = None
        self._shapes: dict[tuple[str, tuple[int, int, int]], tuple[int, ...]] = {}

    @property
    def is_open(self) -> bool:
        """Whether the network has been read since the last reset."""
        return self._reader is not None

    def reader(self) -> ActivationReader:
        """Return what reads the network as it is at the first call after a reset."""
        if self._reader is None:
            self._reader = self.network.reader()
        return self._reader

    def activations(
        self, pictures: Tensor, layers: Sequence[str], size: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        """Return the activations (N, …) of each layer for pictures (N, C, H, W).

        Args:
            pictures: in the channels of the network.
            layers: names.
            size: to which the pictures are cropped and resized, (height, width); as they are unless given.
        """
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
            resized = (
                pictures if size is None else torch.cat([crop_and_resize(picture[None], size) for picture in pictures])
            )
            # A copy in any case: a tensor made in inference mode cannot be probed.
            return self.reader().activations(resized.clone(), layers)

    def shape(self, layer: str, picture: tuple[int, int, int]) -> tuple[int, ...]:
        """Return the shape of a layer's activation for one picture (C, H, W)."""
        if (layer, picture) not in self._shapes:
            self._shapes[layer, picture] = probe(self.reader(), picture, [layer])[layer]
        return self._shapes[layer, picture]

    def reset(self) -> None:
        """Read the network anew at the next call: it may be in training."""
        self._reader = None
        self._shapes = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made anew."""
        return {**vars(self), "_reader": None, "_shapes": {}}

    def __repr__(self) -> str:
        """Show the network as it was passed."""
        return self._repr


def in_channels(pictures: Tensor, channels: int) -> Tensor:
    """Return pictures with as many channels as a network takes: grayscale ones repeated where it takes color."""
    if pictures.shape[1] == channels:
        return pictures
    if pictures.shape[1] == 1:
        return pictures.expand(-1, channels, -1, -1)
    raise ValueError(f"pictures: {pictures.shape[1]} channels do not fit the network, which takes {channels}")
