"""Whether a network processes a picture as it processes photos, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from featviz_pl.metrics.base import check_pictures, check_targets
from featviz_pl.metrics.cached_reader import CachedReader, NetworkLike, in_channels
from featviz_pl.metrics.embedding import check_layers
from featviz_pl.metrics.photo_activations import PhotoActivations
from featviz_pl.metrics.photos import read_photos
from featviz_pl.metrics.row_metric import RowMetric
from featviz_pl.metrics.sets import mean_of_pairs
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import unknown, whole_number

MEASURES = ("spearman", "cosine")
_BATCH_SIZE = 16


class PathSimilarity(RowMetric):
    """Measure at each layer how similar a picture's activations are to those of photos that excite the same target.

    ``(a - o) / (s - o)``, with the mean similarity a of the picture to the k photos that excite its target most, s of
    those photos among themselves, and o of those photos to k others, evenly spread over the rest from strongly to
    weakly exciting: at 1 the layer treats the picture like a photo of its target, at 0 like any other. Similarity is
    Spearman's rank correlation, ties at their mean rank, of all activations of the layer, position by position. Over
    several pictures, numerators and denominators are averaged first. NaN where the k photos are not more similar to
    each other than to others (s <= o): the layer does not separate them. Where it hardly does, pictures of low contrast
    have values far above 1, for they are as similar to these photos as to all others: compare with them.

    Range: (-∞, ∞); higher is better, up to 1.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: a number () for each layer, by name

    Args:
        network: that measured the photos.
        layers: names of layers, of which all positions are compared.
        photos: from `measure_activations`, or a file of them: they say which photos excite a target. Pictures are
            cropped and resized to the size of these.
        folder: of the photos.
        k: number of photos that excite the target, 2 or more, and of others.
        measure: ``"spearman"``, or ``"cosine"``.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: when the network has no such layer, the photos were measured by another, are not in the folder, or
            are fewer than 2 k.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from featviz_pl.metrics import measure_activations
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for level in (10, 20, 200, 210):
        ...         gradient = Image.linear_gradient("L").point(lambda value: value if level > 99 else 255 - value)
        ...         gradient.save(f"{folder}/{level}.png")
        ...     network = nn.Conv2d(3, 2, 3)
        ...     photos = measure_activations(network, folder, "output", size=8)
        ...     metric = PathSimilarity(network, ["output"], photos=photos, folder=folder, k=2)
        ...     [photo] = read_photos([f"{folder}/{photos.paths[int(photos.strongest('output:0', 1))]}"], 8)
        ...     metric.update(photo, "output:0")
        >>> sorted(metric.compute())
        ['output']

    Reference:
        Geirhos, Zimmermann, Bilodeau, Brendel, Kim, "Don't trust your eyes: on the (un)reliability of feature
        visualizations", 2024 (there the photos are those of a labelled class)
    """

    higher_is_better = True  # type: ignore[assignment]  # the base has no direction

    def __init__(
        self,
        network: NetworkLike,
        layers: str | list[str],
        *,
        photos: PhotoActivations | str | os.PathLike[str],
        folder: str | os.PathLike[str],
        k: int = 10,
        measure: str = "spearman",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._reader = CachedReader(network)
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        check_layers(self.network, self.layers)
        self.photos, self._photos_repr = PhotoActivations.resolve(photos)
        self.photos.check(self.network)
        self.folder = os.fspath(folder)
        self.k = whole_number("k", k, least=2)
        if 2 * self.k > len(self.photos):
            raise ValueError(f"k: {self.k} photos and as many others are more than the {len(self.photos)} there are")
        if measure not in MEASURES:
            raise unknown("measure", "measure", str(measure), MEASURES)
        self.measure = measure
        self._references: dict[str, list[_Reference]] = {}
        self.add_rows("gains")  # a - o for each picture and layer
        self.add_rows("spans")  # s - o

    @property
    def network(self) -> FrozenNetwork:
        """The network whose layers are compared."""
        return self._reader.network

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of a state."""
        return (len(self.layers),)

    def update(self, pictures: Tensor, targets: str | Sequence[str] = ()) -> None:
        """Compare further pictures (N, C, H, W), each of its target: one for all, or one for each."""
        checked = check_pictures(pictures)
        listed = check_targets(targets, len(checked))
        for target in dict.fromkeys(listed):
            if target not in self._references:
                self._references[target] = self._photo_references(target, checked.device)
        vectors = self._vectors(checked)
        gains, spans = torch.empty(2, len(checked), len(self.layers), dtype=torch.float64)
        for row, target in enumerate(listed):
            for column, reference in enumerate(self._references[target]):
                similarity = vectors[column][row].double() @ reference.mean.to(checked.device)
                gains[row, column] = float(similarity) - reference.between
                spans[row, column] = reference.within - reference.between
        self.append(gains=gains.to(checked.device), spans=spans.to(checked.device))

    def compute(self) -> dict[str, Tensor]:
        """Return the similarity at each layer."""
        gains, spans = self.rows("gains").mean(0), self.rows("spans").mean(0)
        return dict(zip(self.layers, torch.where(spans > 1e-9, gains / spans, torch.nan)))

    def _photo_references(self, target: str, device: torch.device) -> list[_Reference]:
        """Return for each layer what the photos that excite a target most are like, and how they differ from others."""
        order = self.photos.strongest(target, len(self.photos)).tolist()
        remaining = order[self.k :]
        spread = [remaining[(2 * index + 1) * len(remaining) // (2 * self.k)] for index in range(self.k)]
        paths = [Path(self.folder, self.photos.paths[index]) for index in order[: self.k] + spread]
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None:
            name = missing.relative_to(self.folder).as_posix()
            raise ValueError(f"folder: {self.folder!r} does not hold {name!r}, one of the photos measured")
        batches = read_photos(paths, self.photos.size, channels=self.network.channels, batch_size=_BATCH_SIZE)
        references = []
        for parts in zip(*(self._vectors(batch.to(device)) for batch in batches)):
            vectors = torch.cat(parts).double()
            strongest, others = vectors[: self.k], vectors[self.k :]
            mean = strongest.mean(0)
            references.append(_Reference(mean, float(mean_of_pairs(strongest)), float(mean @ others.mean(0))))
        return references

    def _vectors(self, pictures: Tensor) -> list[Tensor]:
        """Return for each layer vectors (N, D) of pictures whose product is their similarity."""
        colored = in_channels(pictures, self.network.channels)
        activations = self._reader.activations(colored, self.layers, self.photos.size)
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(colored.device.type, enabled=False):
            return [self._comparable(activations[layer].flatten(1)) for layer in self.layers]

    def _comparable(self, activations: Tensor) -> Tensor:
        """Turn activations (N, D) into vectors whose product is their rank correlation, or their cosine."""
        if not torch.isfinite(activations).all():
            raise ValueError(f"network: {self.network.name!r} gives activations that are not finite")
        vectors = activations.to(torch.promote_types(activations.dtype, torch.float32))
        if self.measure == "spearman":
            vectors = torch.stack([mean_ranks(row) for row in vectors])
            vectors = (vectors - vectors.mean(1, keepdim=True)).to(torch.float64)
        return nn.functional.normalize(vectors, dim=1)

    def reset(self) -> None:
        """Forget the pictures, and read the network anew."""
        super().reset()
        self._reader.reset()
        self._references = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is computed anew."""
        return {**super().__getstate__(), "_references": {}}

    def extra_repr(self) -> str:
        """Show the arguments."""
        photos = f"photos={self._photos_repr}, folder={self.folder!r}"
        return f"{self._reader!r}, {self.layers}, {photos}, k={self.k}, measure={self.measure!r}"


class _Reference(NamedTuple):
    """Mean vector of the photos that excite a target most, their mean similarity, and that to other photos."""

    mean: Tensor
    within: float
    between: float


def mean_ranks(values: Tensor) -> Tensor:
    """Return the rank of each value (D,) from 0, in float64, ties at the mean of their ranks.

    Example:
        >>> mean_ranks(torch.tensor([0.5, 0.0, 0.0, 2.0])).tolist()
        [2.0, 0.5, 0.5, 3.0]
    """
    ascending, order = values.sort()
    starts = torch.ones_like(ascending, dtype=torch.bool)
    starts[1:] = ascending[1:] != ascending[:-1]
    first = starts.nonzero()[:, 0]  # rank of the first of each run of equal values
    counts = torch.diff(first, append=first.new_tensor([len(ascending)]))
    ranks = torch.empty(len(ascending), dtype=torch.float64, device=ascending.device)
    ranks[order] = (first.double() + (counts.double() - 1) / 2).repeat_interleave(counts)
    return ranks
