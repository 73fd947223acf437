"""Embeddings of the photos of a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from featviz_pl.io.photos import photo_paths, spread
from featviz_pl.metrics.embedding import Embedding
from featviz_pl.metrics.photos import PhotoRecord, Progress, device_of, measure_photos
from featviz_pl.numerics.checks import size_pair


class PhotoEmbeddings(PhotoRecord):
    """Hold the vectors of photos; made by `embed_photos`.

    Args:
        values: (P, D), each of length 1.
        paths: of the P photos, relative to their folder.
        identity: of the embedding, see `Embedding.identity`.
        enlarged: how many photos are smaller than the embedding's size.
        unreadable_paths: of the files that could not be read and were left out.

    Raises:
        ValueError: when there are none, or their numbers differ.

    Example:
        >>> import torch
        >>> photos = PhotoEmbeddings(torch.eye(3), ["a.png", "b.png", "c.png"], identity=Embedding().identity())
        >>> len(photos), photos.values.shape
        (3, torch.Size([3, 3]))
    """

    KIND, MAKER = "photo_embeddings", "embed_photos"

    def __init__(
        self,
        values: Tensor,
        paths: Sequence[str],
        *,
        identity: dict[str, Any],
        enlarged: int = 0,
        unreadable_paths: Sequence[str] = (),
    ) -> None:
        if values.ndim != 2 or not len(paths) or len(values) != len(paths):
            raise ValueError(f"values must be (photos, D) for {len(paths)} photos, got shape {tuple(values.shape)}")
        super().__init__(paths, enlarged, unreadable_paths)
        self.values, self.identity = values, dict(identity)

    @property
    def size(self) -> tuple[int, int]:
        """Size at which the embedding read the photos, (height, width)."""
        return size_pair("size", self.identity["size"])

    def check(self, embedding: Embedding) -> None:
        """Refuse another embedding than the one that made the vectors.

        Raises:
            ValueError: when weights, layers, size, mean or standard deviation differ.
        """
        expected = embedding.identity()
        wrong = [
            f"{key}={self.identity.get(key)}, not {value}"
            for key, value in expected.items()
            if self.identity.get(key) != value
        ]
        if wrong:
            again = f"embed them again with {embedding!r} and {self.MAKER}"
            raise ValueError(f"photos: they were embedded with {', '.join(wrong)}; {again}")

    def __repr__(self) -> str:
        """Show the counts, without the values."""
        return f"PhotoEmbeddings(<{len(self)} photos>, enlarged={self.enlarged}, unreadable={self.unreadable})"


load_embeddings = PhotoEmbeddings.load


def embed_photos(
    embedding: Embedding,
    folder: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    progress: Progress | None = None,
) -> PhotoEmbeddings:
    """Embed the photos in a folder and its subfolders, or those of a list.

    Photos are cropped and resampled to the embedding's size as by `read_photos`; smaller ones are enlarged and counted,
    files that cannot be read are skipped and counted. Runs where the network's weights are.

    Args:
        embedding: that turns pictures into vectors.
        folder: with photos, or paths of photos, which are then their names.
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
        ...     photos = embed_photos(Embedding(size=48), folder)
        >>> photos.paths, photos.enlarged
        (['a.png', 'b.png'], 2)
    """
    root = folder if isinstance(folder, (str, os.PathLike)) else None
    if isinstance(folder, (str, os.PathLike)):
        paths = photo_paths(folder, limit)
    else:
        paths = [os.fspath(folder[index]) for index in spread(len(folder), limit)]
    network = embedding.network
    device = device_of(network.module)

    def measure(pictures: Tensor) -> dict[str, Tensor]:
        return {"vectors": embedding(pictures.to(device)).cpu()}

    values, record = measure_photos(
        paths, root, measure, embedding.size, network.channels, batch_size, workers, progress
    )
    return PhotoEmbeddings(values["vectors"], identity=embedding.identity(), **record)
