"""Does the network process a picture as it processes photos? Layer by layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.metrics.base import check_pictures, check_targets
from featviz_pl.metrics.embedding import check_layers, in_channels
from featviz_pl.metrics.photo_activations import PhotoActivations, load_activations, read_photos
from featviz_pl.metrics.row_metric import RowMetric
from featviz_pl.networks import ActivationReader, FrozenNetwork, as_network
from featviz_pl.numerics.checks import unknown, whole_number
from featviz_pl.numerics.resampling import crop_and_resize

MEASURES = ("spearman", "cosine")
_AT_ONCE = 16


class PathSimilarity(RowMetric):
    """Measure at each layer how like that of natural pictures of the same kind a picture's activation is.

    ``(a - o) / (s - o)``, with the mean similarity a of the picture to the k photos that excite its target most, s of
    those photos among themselves, and o of those photos to k others, evenly spread over the rest from strongly to
    weakly exciting: at 1 the layer treats the picture like a photo of its kind, at 0 like any other. Similarity is
    Spearman's rank correlation, ties at their mean rank, of all activations of the layer, position by position. Of
    several pictures, numerators and denominators are averaged first. NaN where the photos of the kind are not more
    alike than others (s <= o): the layer does not tell them apart. Where it hardly does, pictures that show little of
    anything have values far above 1, for they are as like these photos as all others: compare with them.

    Range: (-∞, ∞); higher is better, up to 1.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: a number () for each layer, by name

    Args:
        network: the one by which the photos were measured.
        layers: names of layers, of which all positions are compared.
        photos: from `measure_activations`, or a file of them: they say which photos excite a target. Pictures are cut
            and resized to the size at which these were measured.
        folder: where the photos are.
        k: number of photos of the kind, 2 or more, and of others.
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
        ...         Image.linear_gradient("L").point(lambda value: value if level > 99 else 255 - value).save(f"{folder}/{level}.png")
        ...     network = nn.Conv2d(3, 2, 3)
        ...     photos = measure_activations(network, folder, "output", size=8)
        ...     metric = PathSimilarity(network, ["output"], photos, folder, k=2)
        ...     [shown] = read_photos([f"{folder}/{photos.paths[int(photos.strongest('output:0', 1))]}"], 8)
        ...     metric.update(shown, "output:0")
        >>> sorted(metric.compute())
        ['output']

    Reference:
        Geirhos, Zimmermann, Bilodeau, Brendel, Kim, "Don't trust your eyes: on the (un)reliability of feature
        visualizations", 2024 (there the kind is a class of labelled photos)
    """

    higher_is_better = True  # type: ignore[assignment]  # the base has no direction

    def __init__(
        self,
        network: str | nn.Module | FrozenNetwork,
        layers: str | list[str],
        photos: PhotoActivations | str | os.PathLike[str],
        folder: str | os.PathLike[str],
        k: int = 10,
        measure: str = "spearman",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._given = repr(network) if isinstance(network, str) else None
        self.network = as_network(network)
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        check_layers(self.network, self.layers)
        self._file = None if isinstance(photos, PhotoActivations) else os.fspath(photos)
        self.photos = photos if isinstance(photos, PhotoActivations) else load_activations(photos)
        self.photos.check(self.network)
        self.folder = os.fspath(folder)
        self.k = whole_number("k", k, least=2)
        if 2 * self.k > len(self.photos):
            raise ValueError(
                f"k: {self.k} photos of the kind and as many others are more than the {len(self.photos)} there are"
            )
        if measure not in MEASURES:
            raise unknown("measure", "measure", str(measure), MEASURES)
        self.measure = measure
        self._reader: ActivationReader | None = None
        self._kinds: dict[str, list[tuple[Tensor, float, float]]] = {}
        self.add_rows("gains")  # a - o for each picture and layer
        self.add_rows("spans")  # s - o

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of a state."""
        return (len(self.layers),)

    def update(self, pictures: Tensor, targets: str | Sequence[str] = ()) -> None:
        """Follow further pictures (N, C, H, W), each of its target: one for all, or one for each."""
        shown = check_pictures(pictures)
        listed = check_targets(targets, len(shown))
        for target in dict.fromkeys(listed):
            if target not in self._kinds:
                self._kinds[target] = self._kind(target, shown.device)
        paths = self._paths(shown)
        gains, spans = torch.empty(2, len(shown), len(self.layers), dtype=torch.float64)
        for row, target in enumerate(listed):
            for column, (mean, same, other) in enumerate(self._kinds[target]):
                gains[row, column] = float(paths[column][row].double() @ mean.to(paths[column].device)) - other
                spans[row, column] = same - other
        for held, rows in ((self.gains, gains), (self.spans, spans)):
            assert isinstance(held, list)
            held.append(rows.to(shown.device))

    def compute(self) -> dict[str, Tensor]:
        """Return the similarity at each layer."""
        gains, spans = self.rows("gains").mean(0), self.rows("spans").mean(0)
        return dict(zip(self.layers, torch.where(spans > 1e-9, gains / spans, torch.nan)))

    def _kind(self, target: str, device: torch.device) -> list[tuple[Tensor, float, float]]:
        """Return for each layer the mean vector of the photos of a kind, and their similarity among themselves and to others."""
        order = self.photos.strongest(target, len(self.photos)).tolist()
        rest = order[self.k :]
        chosen = order[: self.k] + [rest[(2 * index + 1) * len(rest) // (2 * self.k)] for index in range(self.k)]
        paths = [Path(self.folder, self.photos.paths[index]) for index in chosen]
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None:
            raise ValueError(
                f"folder: {self.folder!r} does not hold {missing.relative_to(self.folder).as_posix()!r}, one of the photos measured"
            )
        batches = [
            self._paths(batch.to(device))
            for batch in read_photos(paths, self.photos.size, self.network.channels, _AT_ONCE)
        ]
        found = []
        for parts in zip(*batches):
            vectors = torch.cat(parts).double()
            own, others = vectors[: self.k], vectors[self.k :]
            same = (own.sum(0).square().sum() - own.square().sum()) / (self.k * (self.k - 1))
            found.append((own.mean(0), float(same), float(own.mean(0) @ others.mean(0))))
        return found

    def _paths(self, pictures: Tensor) -> list[Tensor]:
        """Return for each layer the activations of pictures as vectors (N, D) whose product is their similarity."""
        shown = in_channels(pictures, self.network.channels)
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(shown.device.type, enabled=False):
            if self._reader is None:
                self._reader = self.network.reader()
            seen = torch.cat([crop_and_resize(picture[None], self.photos.size) for picture in shown]).clone()
            read = self._reader.activations(seen, self.layers)
            return [self._comparable(read[layer].flatten(1)) for layer in self.layers]

    def _comparable(self, activations: Tensor) -> Tensor:
        """Turn activations (N, D) into vectors whose product is their correlation of ranks, or their cosine."""
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
        self._reader = None
        self._kinds = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be made again."""
        return {**super().__getstate__(), "_reader": None, "_kinds": {}}

    def extra_repr(self) -> str:
        """Show the arguments."""
        network = self._given or f"<{self.network.name}>"
        return f"{network}, {self.layers}, {self._file or self.photos!r}, {self.folder!r}, k={self.k}, measure={self.measure!r}"


def mean_ranks(values: Tensor) -> Tensor:
    """Return the rank of each value (D,) from 0, in float64, equal ones at the mean of their ranks.

    Example:
        >>> mean_ranks(torch.tensor([0.5, 0.0, 0.0, 2.0])).tolist()
        [2.0, 0.5, 0.5, 3.0]
    """
    held, order = values.sort()
    new = torch.ones_like(held, dtype=torch.bool)
    new[1:] = held[1:] != held[:-1]
    first = new.nonzero()[:, 0]  # rank of the first of each run of equal values
    counts = torch.diff(first, append=first.new_tensor([len(held)]))
    ranks = torch.empty(len(held), dtype=torch.float64, device=held.device)
    ranks[order] = (first.double() + (counts.double() - 1) / 2).repeat_interleave(counts)
    return ranks
