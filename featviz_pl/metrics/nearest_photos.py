"""Similarity of pictures to the nearest photos."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.metrics.base import PictureMetric, Reduction, check_pictures
from featviz_pl.metrics.embedding import Embedding, check_embedding, unit_vectors
from featviz_pl.metrics.photo_embeddings import PhotoEmbeddings
from featviz_pl.numerics.checks import whole_number

_BATCH_SIZE = 512  # photos that are compared with all others in one product


class NearestPhotos(PictureMetric):
    """Measure how similar a picture is to the nearest photos.

    ``mean over the k nearest photos of cos(v_picture, v_photo)``. The mean of photos among themselves is `of_photos`.

    Range: [-1, 1]; higher is better, up to the mean of photos among themselves.

    Shape:
        update: pictures (N, C, H, W) in [0, 1]; compute: () or, with ``"none"``, (all pictures,)

    Args:
        photos: from `embed_photos`, or a file of them.
        embedding: that embedded them; the default `Embedding` unless given.
        k: number of photos, 1 or more; all of them where there are fewer.
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when the photos were embedded by another embedding.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from featviz_pl.metrics import embed_photos
        >>> embedding = Embedding(size=48)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for color in ("red", "blue"):
        ...         Image.new("RGB", (48, 48), color).save(f"{folder}/{color}.png")
        ...     photos = embed_photos(embedding, folder)
        >>> metric = NearestPhotos(photos, embedding, k=1)
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 48, 48)
        >>> metric.update(red)
        >>> round(metric.compute().item(), 4), metric.nearest(red)[0][0][0]
        (1.0, 'red.png')

    Reference:
        Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization"
        (plausibility), 2023
    """

    higher_is_better = True
    plot_lower_bound = -1.0
    plot_upper_bound = 1.0

    def __init__(
        self,
        photos: PhotoEmbeddings | str | os.PathLike[str],
        embedding: Embedding | None = None,
        *,
        k: int = 5,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(reduction, **kwargs)
        self.photos, self._photos_repr = PhotoEmbeddings.resolve(photos)
        self.embedding = check_embedding(embedding)
        self.photos.check(self.embedding)
        self.k = whole_number("k", k)

    def update(self, pictures: Tensor, *inputs: Any) -> None:
        """Compare further pictures (N, C, H, W) with the photos."""
        super().update(pictures)

    def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
        """Return the mean similarity (N,) of each picture to its nearest photos."""
        return self._nearest(pictures)[0].mean(1).clamp(-1, 1)

    def nearest(self, pictures: Tensor) -> list[list[tuple[str, float]]]:
        """Return for each picture the paths of the k nearest photos with their similarity, the nearest first."""
        similarities, indices = self._nearest(check_pictures(pictures))
        return [
            [(self.photos.paths[index], value) for value, index in zip(values, row)]
            for values, row in zip(similarities.tolist(), indices.tolist())
        ]

    def of_photos(self) -> float:
        """Return the mean value of the photos themselves, each among the others; NaN for a single photo."""
        vectors = self._photo_vectors(torch.device("cpu"))
        count = min(self.k, len(vectors) - 1)
        if not count:
            return float("nan")
        total = 0.0
        for first in range(0, len(vectors), _BATCH_SIZE):
            products = vectors[first : first + _BATCH_SIZE] @ vectors.T
            rows = torch.arange(len(products))
            products[rows, first + rows] = -torch.inf
            total += float(products.topk(count, dim=1).values.mean(1).sum())
        return total / len(vectors)

    def _nearest(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarities and indices (N, k) of the nearest photos; ties in the order of the photos."""
        vectors = unit_vectors(self.embedding, pictures)
        products = vectors @ self._photo_vectors(vectors.device).T
        similarities, indices = products.sort(dim=1, descending=True, stable=True)
        return similarities[:, : self.k], indices[:, : self.k]

    def _photo_vectors(self, device: torch.device) -> Tensor:
        return functional.normalize(self.photos.values.to(device, torch.float64), dim=1)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"{self._photos_repr}, embedding={self.embedding!r}, k={self.k}, {super().extra_repr()}"
