"""Pictures as vectors that can be compared: by a network that need not be the one under study."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from featviz_pl.io.photo_batches import over_photos
from featviz_pl.io.photos import photo_paths, spread
from featviz_pl.io.records import load_record, save_record
from featviz_pl.metrics.base import check_pictures
from featviz_pl.networks import ActivationReader, FrozenNetwork, as_network
from featviz_pl.networks.loading import EMBEDDED
from featviz_pl.numerics.activation_axes import at_positions
from featviz_pl.numerics.checks import near, size_pair, whole_number
from featviz_pl.numerics.resampling import crop_and_resize

_KIND, _VERSION, _MAKER = "photo_embeddings", 1, "embed_photos"
# Of layers, sizes and poolings tried, these told best whose picture a picture is: see `ForcedChoice`.
_LAYERS = ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4")
_SIZE = 192
_OTHER_SIZE = 224  # for networks that name none


class Embedding:
    """Turn pictures into vectors of length 1, whose product is their similarity.

    ``v = concatenation over layers of unit(mean over positions of activation)``, then ``unit(v)``;
    ``unit(x) = x / |x|``. All layers weigh the same. Pictures are cut about the centre to the aspect of `size`, and
    resized to it.

    Shape:
        (N, C, H, W) in [0, 1] -> (N, D), float32 or, where network and pictures are, float64

    Args:
        network: a name, a module that takes pictures in [0, 1], or a frozen network. It is read as it is at the first
            call.
        layer: one layer or several; all five blocks of the embedded network, and for others a layer must be named.
        size: at which the pictures are seen, one number or (height, width); 192 for the embedded network, and the
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
        network: str | nn.Module | FrozenNetwork = EMBEDDED,
        layer: str | Sequence[str] | None = None,
        size: int | Sequence[int] | None = None,
    ) -> None:
        self._given = repr(network) if isinstance(network, str) else None
        self.network = as_network(network)
        own = self.network.name == EMBEDDED
        if layer is None and not own:
            raise ValueError(
                f"layer: name the layer of {self.network.name!r} by which pictures are compared; network.layers() lists them"
            )
        self.layers = list(_LAYERS) if layer is None else [layer] if isinstance(layer, str) else list(layer)
        check_layers(self.network, self.layers)
        self.size = size_pair("size", size if size is not None else _SIZE if own else self.network.size or _OTHER_SIZE)
        self._reader: ActivationReader | None = None

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return the vectors (N, D) of pictures (N, C, H, W); grey ones are shown in color where the network takes color."""
        shown = in_channels(check_pictures(pictures), self.network.channels)
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(shown.device.type, enabled=False):
            if self._reader is None:
                self._reader = self.network.reader()
            # A new tensor also where nothing is resized: those made in inference mode could not be probed.
            seen = torch.cat([crop_and_resize(picture[None], self.size) for picture in shown]).clone()
            read = self._reader.activations(seen, self.layers)
            parts = [
                at_positions(value.to(torch.promote_types(value.dtype, torch.float32))[:, None]).mean(2)[:, 0]
                for value in read.values()
            ]
            vectors = functional.normalize(torch.cat([functional.normalize(part, dim=1) for part in parts], 1), dim=1)
        if not torch.isfinite(vectors).all():
            raise ValueError(
                f"network: {self.network.name!r} gives activations at {', '.join(self.layers)} that are not finite"
            )
        return vectors

    def identity(self) -> dict[str, Any]:
        """Return what the vectors depend on, in plain values."""
        network = self.network
        mean, std = (None if values is None else list(values) for values in (network.mean, network.std))
        return {
            "weights_hash": network.weights_hash(),
            "layers": list(self.layers),
            "size": list(self.size),
            "mean": mean,
            "std": std,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be made again."""
        return {**vars(self), "_reader": None}

    def __repr__(self) -> str:
        """Return the constructor."""
        network = self._given or f"<{self.network.name}>"
        if self._given == repr(EMBEDDED) and self.layers == list(_LAYERS) and self.size == (_SIZE, _SIZE):
            return "Embedding()"
        layer = repr(self.layers[0]) if len(self.layers) == 1 else repr(self.layers)
        return f"Embedding({network}, layer={layer}, size={self.size})"


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


def in_channels(pictures: Tensor, channels: int) -> Tensor:
    """Return pictures with as many channels as a network takes: grey ones in color, where it takes color."""
    if pictures.shape[1] == channels:
        return pictures
    if pictures.shape[1] == 1:
        return pictures.expand(-1, channels, -1, -1)
    raise ValueError(f"pictures: {pictures.shape[1]} channels do not fit the network, which takes {channels}")


class PhotoEmbeddings:
    """Hold the vectors of photos; made by `embed_photos`.

    Args:
        values: (P, D), each of length 1.
        paths: of the P photos, relative to their folder.
        identity: of the embedding, see `Embedding.identity`.
        enlarged: how many photos are smaller than the embedding's size.
        unreadable: how many files could not be read and were left out.
        unreadable_paths: of those, relative to the folder.

    Raises:
        ValueError: when there are none, or their numbers differ.

    Example:
        >>> held = PhotoEmbeddings(torch.eye(3), ["a.png", "b.png", "c.png"], Embedding().identity())
        >>> len(held), held.values.shape
        (3, torch.Size([3, 3]))
    """

    def __init__(
        self,
        values: Tensor,
        paths: Sequence[str],
        identity: dict[str, Any],
        enlarged: int = 0,
        unreadable: int = 0,
        unreadable_paths: Sequence[str] = (),
    ) -> None:
        if values.ndim != 2 or not len(paths) or len(values) != len(paths):
            raise ValueError(
                f"values must be (photos, D) for {len(paths)} photos, at least one, got shape {tuple(values.shape)}"
            )
        self.values, self.paths, self.identity = values, [str(path) for path in paths], dict(identity)
        self.enlarged = whole_number("enlarged", enlarged, least=0)
        self.unreadable = whole_number("unreadable", unreadable, least=0)
        self.unreadable_paths = [str(path) for path in unreadable_paths]

    @property
    def size(self) -> tuple[int, int]:
        """Size of the photos as the embedding saw them, (height, width)."""
        return size_pair("size", self.identity["size"])

    def check(self, embedding: Embedding) -> None:
        """Refuse another embedding than the one that made the vectors.

        Raises:
            ValueError: when weights, layers, size, mean or standard deviation differ.
        """
        wanted = embedding.identity()
        other = [name for name, value in wanted.items() if self.identity.get(name) != value]
        if other:
            said = ", ".join(f"{name}={self.identity.get(name)}, not {wanted[name]}" for name in other)
            raise ValueError(
                f"photos: they were embedded with {said}; embed them again with {embedding!r} and {_MAKER}"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the record to a file for `load_embeddings`; missing folders are made, and the file is whole or absent."""
        return save_record(path, _KIND, _VERSION, vars(self))

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.paths)

    def __repr__(self) -> str:
        """Show of what it is, without the values."""
        return f"PhotoEmbeddings(<{len(self)} photos>, enlarged={self.enlarged}, unreadable={self.unreadable})"


def load_embeddings(path: str | os.PathLike[str]) -> PhotoEmbeddings:
    """Read the vectors of photos from a file that `PhotoEmbeddings.save` wrote; no code in the file is run.

    Args:
        path: of the file.

    Raises:
        ValueError: when the file is missing, damaged, holds something else, or is of another version of the format.

    Example:
        >>> import tempfile
        >>> held = PhotoEmbeddings(torch.eye(2), ["a.png", "b.png"], Embedding().identity())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_embeddings(held.save(f"{folder}/photos.pt")).paths
        ['a.png', 'b.png']
    """
    held = load_record(path, _KIND, _VERSION, _MAKER)
    try:
        return PhotoEmbeddings(**{name: value for name, value in held.items() if name not in ("format", "version")})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"path: {str(path)!r} is damaged ({error}); embed the photos again") from error


def embed_photos(
    embedding: Embedding,
    folder: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> PhotoEmbeddings:
    """Embed the photos in a folder and its subfolders, or those of a list.

    Photos are cut and resampled to the embedding's size as `read_photos` does it; smaller ones are enlarged and
    counted, files that cannot be read are skipped and counted. Runs where the network's weights are.

    Args:
        embedding: that turns pictures into vectors.
        folder: with photos, or paths of photos, which are then named as they are given.
        limit: embed at most this many, evenly spread over the sorted names; all unless given.
        batch_size: photos in one pass.
        workers: processes that read photos beside this one; a program that starts some must guard its main part, as for
            every DataLoader.
        progress: called after each batch with the number of photos read so far and of all.

    Raises:
        ValueError: when the folder is missing or empty, or no file in it can be read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a", "b"):
        ...         Image.new("RGB", (12, 10)).save(f"{folder}/{name}.png")
        ...     found = embed_photos(Embedding(size=48), folder)
        >>> found.paths, found.enlarged
        (['a.png', 'b.png'], 2)
    """
    if isinstance(folder, (str, os.PathLike)):
        paths = photo_paths(folder, limit)
        names = [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
    else:
        listed = [os.fspath(path) for path in folder]
        paths = names = [listed[index] for index in spread(len(listed), limit)]
    device = next((weight.device for weight in embedding.network.module.parameters()), torch.device("cpu"))

    def embed(shown: Tensor) -> dict[str, Tensor]:
        return {"vectors": embedding(shown.to(device)).cpu()}

    found = over_photos(paths, embedding.size, embedding.network.channels, batch_size, workers, embed, progress)
    if not found.indices:
        raise ValueError(
            f"folder: none of {len(paths)} files can be read as a photo of 8 bits per channel; {found.reason or 'there are none'}"
        )
    read, unreadable = ([names[index] for index in part] for part in (found.indices, found.unreadable))
    values = torch.cat(found.values["vectors"])
    return PhotoEmbeddings(values, read, embedding.identity(), found.enlarged, len(unreadable), unreadable)
