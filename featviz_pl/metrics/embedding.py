"""Pictures as vectors that can be compared, by a network that need not be the one under study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.metrics.base import check_pictures
from featviz_pl.metrics.cached_reader import CachedReader, NetworkLike, in_channels
from featviz_pl.networks import FrozenNetwork
from featviz_pl.networks.loading import EMBEDDED
from featviz_pl.numerics.activation_axes import at_positions
from featviz_pl.numerics.checks import near, size_pair

# Of the layers, sizes and poolings tried, these recognize best which picture a unit has: see `ForcedChoice`.
_LAYERS = ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4")
_SIZE = 192
_DEFAULT_SIZE = 224  # for networks that name none


class Embedding:
    """Turn pictures into vectors of length 1, whose product is their similarity.

    ``v = concatenation over layers of unit(mean over positions of activation)``, then ``unit(v)``;
    ``unit(x) = x / |x|``. All layers weigh the same. Pictures are cropped about the center to the aspect of `size`, and
    resized to it.

    Shape:
        (N, C, H, W) in [0, 1] -> (N, D), float32 or, where network and pictures are, float64

    Args:
        network: a name, a module that takes pictures in [0, 1], or a frozen network. It is read as it is at the first
            call.
        layer: one layer or several; all five blocks of the embedded network; required for other networks.
        size: at which the pictures are read, one number or (height, width); 192 for the embedded network, and the
            network's own, or 224, for others.

    Raises:
        ValueError: when no layer is named, the network has no such layer, or its activations are not finite.

    Example:
        >>> embedding = Embedding()
        >>> pictures = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
        >>> vectors = embedding(pictures)
        >>> vectors.shape, round((vectors[0] @ vectors[0]).item(), 4)
        (torch.Size([2, 544]), 1.0)

    Reference:
        Fu, Tamir, Sundaram and others, "DreamSim: Learning New Dimensions of Human Visual Similarity using Synthetic
        Data", 2023 (similarity of pictures as that of embeddings; theirs is learned from people)
    """

    def __init__(
        self,
        network: NetworkLike = EMBEDDED,
        layer: str | Sequence[str] | None = None,
        *,
        size: int | Sequence[int] | None = None,
    ) -> None:
        self._reader = CachedReader(network)
        embedded = self.network.name == EMBEDDED
        if layer is None and not embedded:
            raise ValueError(f"layer: name a layer of {self.network.name!r} to compare by; network.layers() lists them")
        self.layers = list(_LAYERS) if layer is None else [layer] if isinstance(layer, str) else list(layer)
        check_layers(self.network, self.layers)
        default = _SIZE if embedded else self.network.size or _DEFAULT_SIZE
        self.size = size_pair("size", default if size is None else size)

    @property
    def network(self) -> FrozenNetwork:
        """The network whose layers are read."""
        return self._reader.network

    @property
    def width(self) -> int:
        """Length D of the vectors, that of a grey picture's."""
        return self(torch.full((1, self.network.channels, *self.size), 0.5, dtype=torch.float32)).shape[1]

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return the vectors (N, D) of pictures (N, C, H, W); grayscale ones are repeated where the network takes color."""
        colored = in_channels(check_pictures(pictures), self.network.channels)
        activations = self._reader.activations(colored, self.layers, self.size)
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(colored.device.type, enabled=False):
            parts = [functional.normalize(unit_means(value), dim=1) for value in activations.values()]
            vectors = functional.normalize(torch.cat(parts, 1), dim=1)
        if not torch.isfinite(vectors).all():
            layers = ", ".join(self.layers)
            raise ValueError(f"network: {self.network.name!r} gives activations at {layers} that are not finite")
        return vectors

    def identity(self) -> dict[str, Any]:
        """Return what the vectors depend on, in plain values."""
        network = self.network
        mean, std = (None if values is None else list(values) for values in (network.mean, network.std))
        layers, size = list(self.layers), list(self.size)
        return {"weights_hash": network.weights_hash(), "layers": layers, "size": size, "mean": mean, "std": std}

    def __repr__(self) -> str:
        """Return the constructor."""
        if (repr(self._reader), self.layers, self.size) == (repr(EMBEDDED), list(_LAYERS), (_SIZE, _SIZE)):
            return "Embedding()"
        layer = repr(self.layers[0]) if len(self.layers) == 1 else repr(self.layers)
        return f"Embedding({self._reader!r}, layer={layer}, size={self.size})"


def check_layers(network: FrozenNetwork, layers: Sequence[str]) -> None:
    """Refuse layers that the network does not have, none at all, and one named twice."""
    known = [name for name, _ in network.module.named_modules(remove_duplicate=False) if name] + ["output"]
    for layer in layers:
        if not isinstance(layer, str):
            raise TypeError(f"layers must be names of layers, got {layer!r}")
        if layer not in known:
            raise ValueError(f"layer: the network has no layer {layer!r}; {near(layer, known)}")
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers must name at least one layer, and each once, got {list(layers)}")


def check_embedding(embedding: Any) -> Embedding:
    """Return an embedding, the default one for None."""
    if embedding is None:
        return Embedding()
    if not isinstance(embedding, Embedding):
        raise TypeError(f"embedding must be an Embedding, such as Embedding(), got {type(embedding).__name__}")
    return embedding


def unit_means(activation: Tensor) -> Tensor:
    """Return the mean of each unit over its positions, (B, …) to (B, U), in float32 at least."""
    precise = activation.to(torch.promote_types(activation.dtype, torch.float32))
    return at_positions(precise[:, None]).mean(2)[:, 0]


def unit_vectors(embedding: Embedding, pictures: Tensor) -> Tensor:
    """Return the vectors (N, D) of pictures in float64, of length 1 in that precision."""
    return functional.normalize(embedding(pictures).double(), dim=1)
