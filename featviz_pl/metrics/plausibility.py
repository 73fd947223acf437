"""Is there anything like it? The photos that are nearest to a picture."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.metrics.base import PictureMetric, check_pictures
from featviz_pl.metrics.embedding import Embedding, PhotoEmbeddings, load_embeddings
from featviz_pl.metrics.row_metric import check_embedding, unit_vectors
from featviz_pl.numerics.checks import whole_number

_AT_ONCE = 512  # photos that are compared with all others together


class NearestPhotos(PictureMetric):
    """Measure how like the nearest photos a picture is.

    ``mean over the k nearest photos of cos(v_picture, v_photo)``. What photos reach among themselves is `of_photos`.

    Range: [-1, 1]; higher is better, and what photos reach among themselves is enough.

    Shape:
        update: pictures (N, C, H, W) in [0, 1]; compute: () or, with ``"none"``, (all pictures,)

    Args:
        photos: from `embed_photos`, or a file of them.
        embedding: by which they were embedded; the default `Embedding` unless given.
        k: number of photos, 1 or more; all of them where there are fewer.
        reduction: ``"mean"`` over all pictures, or ``"none"`` for a value for each.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: when the photos were embedded by another embedding.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from featviz_pl.metrics import embed_photos
        >>> embedding = Embedding(size=48)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, color in {"red": (255, 0, 0), "blue": (0, 0, 255)}.items():
        ...         Image.new("RGB", (48, 48), color).save(f"{folder}/{name}.png")
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
        k: int = 5,
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(reduction, **kwargs)
        self._file = None if isinstance(photos, PhotoEmbeddings) else os.fspath(photos)
        self.photos = photos if isinstance(photos, PhotoEmbeddings) else load_embeddings(photos)
        self.embedding = check_embedding(embedding)
        self.photos.check(self.embedding)
        self.k = whole_number("k", k)

    def update(self, pictures: Tensor, *others: Any) -> None:
        """Compare further pictures (N, C, H, W) with the photos."""
        super().update(pictures)

    def measure(self, pictures: Tensor, *others: Any) -> Tensor:
        """Return the mean similarity (N,) of each picture to its nearest photos."""
        return self._nearest(pictures)[0].mean(1).clamp(-1, 1)

    def nearest(self, pictures: Tensor) -> list[list[tuple[str, float]]]:
        """Return for each picture the path of each of the k nearest photos and their similarity, the nearest first."""
        similarities, indices = self._nearest(check_pictures(pictures))
        return [
            [(self.photos.paths[index], value) for value, index in zip(values, places)]
            for values, places in zip(similarities.tolist(), indices.tolist())
        ]

    def of_photos(self) -> float:
        """Return the mean value of the photos themselves, each among the others: what is natural. NaN for a single photo."""
        held = self._photo_vectors(torch.device("cpu"))
        count = min(self.k, len(held) - 1)
        if not count:
            return float("nan")
        total = 0.0
        for first in range(0, len(held), _AT_ONCE):
            products = held[first : first + _AT_ONCE] @ held.T
            rows = torch.arange(len(products))
            products[rows, first + rows] = -torch.inf
            total += float(products.topk(count, dim=1).values.mean(1).sum())
        return total / len(held)

    def _nearest(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarities and indices (N, k) of the nearest photos; of equal ones the first in their order."""
        vectors = unit_vectors(self.embedding, pictures)
        similarities, indices = (vectors @ self._photo_vectors(vectors.device).T).sort(
            dim=1, descending=True, stable=True
        )
        return similarities[:, : self.k], indices[:, : self.k]

    def _photo_vectors(self, device: torch.device) -> Tensor:
        return functional.normalize(self.photos.values.to(device, torch.float64), dim=1)

    def extra_repr(self) -> str:
        """Show the arguments."""
        photos = self.photos if self._file is None else self._file
        return f"{photos!r}, embedding={self.embedding!r}, k={self.k}, {super().extra_repr()}"
