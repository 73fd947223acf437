"""The columns and rows of an evaluation, measured metric by metric."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from featviz_pl.metrics.activation import Activation, ActivationPercentile, HeldOutActivation
from featviz_pl.metrics.base import PictureMetric, check_pictures
from featviz_pl.metrics.embedding import Embedding
from featviz_pl.metrics.evaluation.photos import check_photos, recorded_photos, rename_argument_in_errors
from featviz_pl.metrics.evaluation.pictures import EvaluatedPicture, first_names
from featviz_pl.metrics.evaluation.targets import canonical_target, class_of, is_unit, target_of
from featviz_pl.metrics.forced_choice import ForcedChoice
from featviz_pl.metrics.nearest_photos import NearestPhotos
from featviz_pl.metrics.photo_activations import PhotoActivations, measure_activations
from featviz_pl.metrics.photo_embeddings import PhotoEmbeddings, embed_photos
from featviz_pl.metrics.photos import PhotoRecord, Progress
from featviz_pl.metrics.pixel_statistics import ClippedShare, ColorDistance, VariationPerPixel
from featviz_pl.metrics.sets import Agreement, PairwiseDistance, VendiScore
from featviz_pl.metrics.spectrum import HighFrequencyShare, SpectrumSlope, natural_slope
from featviz_pl.metrics.targets import single_target
from featviz_pl.metrics.transfer import TransferProbability, TransferRank, judge_classes
from featviz_pl.networks import FrozenNetwork

Values = list[float | None]
Paths = str | os.PathLike[str]

COLUMNS = (
    *("score", "held_out", "percentile", "transfer", "rank", "slope", "clipped", "color_distance", "variation"),
    *("high_frequency", "nearest", "forced_choice"),
)
_NO_SYNC: dict[str, Any] = {"sync_on_compute": False}  # other processes of a run may not take part
_PER_TARGET = ("score", "held_out")  # in units of the target: means over different targets are meaningless
_FEW_PHOTOS = 100  # fewer make a coarse percentile
_MOST_COMPARED = 10_000  # photos, each with all others
_COLORS = 3  # channels of an embedding's pictures
_BATCH_SIZE = 32


class MetricTable:
    """Measure columns of one value for each picture; None where a metric does not apply.

    Args:
        pictures: of any sizes.
        network: that they were made with.
        embedding: that compares them; the default one unless given.
        targets_from_files: whether the targets are those of the files' provenance: some of these have no shorthand.

    Raises:
        ValueError: when a picture holds no values in [0, 1], by its name.
    """

    def __init__(
        self,
        pictures: list[EvaluatedPicture],
        network: FrozenNetwork,
        embedding: Embedding | None = None,
        targets_from_files: bool = False,
    ) -> None:
        for picture in pictures:
            try:
                check_pictures(picture.image[None])
            except ValueError as error:
                raise ValueError(f"{picture.name}: {error}") from error
        self.pictures = pictures
        self.network, self.weights = network, network.weights_hash()
        self.settings: dict[str, Any] = {}
        self.of_photos: dict[str, float | None] = {"slope": natural_slope()[0]}
        self.notes: list[str] = []
        self._columns: dict[str, Values] = {}
        self._set_values: dict[str, float | None] = {}
        self._embedding = embedding
        self._targets = [target_of(picture, targets_from_files) for picture in pictures]
        self._labels = [canonical_target(picture.target, network) for picture in pictures]
        without = [picture.name for picture, target in zip(pictures, self._targets) if target is None]
        if without:
            self.notes.append(
                f"{first_names(without)}: the objective has no shorthand, so its activation is not measured"
            )
        foreign = [picture for picture in pictures if picture.provenance.get("weights", self.weights) != self.weights]
        if foreign:
            networks = ", ".join(sorted({str(picture.provenance.get("network")) for picture in foreign}))
            self.notes.append(
                f"{first_names([picture.name for picture in foreign])}: made with other weights ({networks}) than those "
                f"of {self.network.name!r} here; the values are those of this network"
            )

    @property
    def embedding(self) -> Embedding:
        """What compares pictures, made at the first use."""
        if self._embedding is None:
            self._embedding = Embedding()
        return self._embedding

    # Batches.

    def _measure(
        self,
        metric: PictureMetric,
        inputs: Sequence[Any] | None = None,
        channels: int | None = None,
        skip: str | None = None,
    ) -> Values:
        """Return the values of a metric; None where `inputs` are None, and, with `skip`, where it fails, which is noted.

        `measure` is called directly, without an update: nothing is summed over the processes of a run, which may not
        all take part.
        """
        values: Values = [None] * len(self.pictures)
        applies = [index for index in range(len(values)) if inputs is None or inputs[index] is not None]
        for indices in self._batches(applies):
            batch = self._batch(indices, channels)
            metric.to(batch.device)
            try:
                measured = metric.measure(batch, *([] if inputs is None else [[inputs[index] for index in indices]]))
            except ValueError as error:
                if skip is None:
                    raise
                self.notes.append(f"{first_names([self.pictures[index].name for index in indices])}: {skip}: {error}")
                continue
            for index, value in zip(indices, measured.tolist()):
                values[index] = finite(value)
        return values

    def _batches(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """Yield the indices of pictures that fit into one batch."""
        groups: dict[Any, list[int]] = {}
        for index in indices:
            image = self.pictures[index].image
            groups.setdefault((image.shape, image.dtype, image.device), []).append(index)
        for group in groups.values():
            yield from (group[first : first + _BATCH_SIZE] for first in range(0, len(group), _BATCH_SIZE))

    def _batch(self, indices: Sequence[int], channels: int | None = None) -> Tensor:
        """Return pictures as a batch; grayscale ones with so many channels where these are given."""
        batch = check_pictures(torch.stack([self.pictures[index].image for index in indices]))
        return batch.expand(-1, channels, -1, -1) if batch.shape[1] == 1 and channels is not None else batch

    # Metrics.

    def measure_activation(self, views: int) -> None:
        """Measure how the pictures excite their targets, as they are and through held-out views."""
        self._columns["score"] = self._measure(Activation(self.network), self._targets)
        self._columns["held_out"] = self._measure(HeldOutActivation(self.network, views), self._targets)

    def measure_pixels(self) -> None:
        """Measure what needs no network; a picture that is too small, or has other channels, is skipped."""
        metrics: dict[str, PictureMetric] = {
            "slope": SpectrumSlope(),
            "clipped": ClippedShare(),
            "color_distance": ColorDistance(),
            "variation": VariationPerPixel(),
            "high_frequency": HighFrequencyShare(),
        }
        for name, metric in metrics.items():
            try:
                self._columns[name] = self._measure(metric)
            except ValueError:
                self._columns[name] = self._measure(metric, skip=f"{name} was not measured")

    def measure_transfer(self, judge: FrozenNetwork) -> None:
        """Measure whether an independent network recognizes the classes, among those that both networks have."""
        names = [None if target is None else class_of(target, self.network) for target in self._targets]
        if not any(names):
            self.notes.append("judge: none of the pictures is of a class with a name, so it is not asked")
        if judge.weights_hash() == self.weights:
            self.notes.append("judge: it is the network itself, and no independent one")
        distinct = list(dict.fromkeys(filter(None, names)))
        indices = dict(zip(distinct, judge_classes(distinct, judge.classes)))
        among = self._common_classes(judge)
        classes = [None if name is None else indices[name] for name in names]
        self._columns["transfer"] = self._measure(TransferProbability(judge, among), classes)
        self._columns["rank"] = self._measure(TransferRank(judge, among), classes)
        count = len(among or judge.classes)
        self.settings |= {"judge": judge.name, "judge_weights": judge.weights_hash(), "among": count}

    def _common_classes(self, judge: FrozenNetwork) -> list[str | int] | None:
        """Return the classes of the judge that the network has too; None where these are all, or not known."""
        if not self.network.classes or self.network.classes == judge.classes:
            return None
        common: list[str | int] = []
        for name in self.network.classes:
            try:
                common += judge_classes([name], judge.classes)
            except ValueError:
                continue
        return list(dict.fromkeys(common)) if len(set(common)) > 1 else None

    def compare_with_photos(
        self,
        photos: Paths | PhotoEmbeddings | None,
        activations: Paths | PhotoActivations | None,
        limit: int | None,
        workers: int,
        progress: Progress | None,
    ) -> None:
        """Measure the percentiles of the scores among those of photos, and compare pictures with photos."""
        units = [target if target is not None and is_unit(target) else None for target in self._targets]
        folder = None if photos is None or isinstance(photos, PhotoEmbeddings) or Path(photos).is_file() else photos
        record = check_photos(folder, activations, limit)
        recorded = None if record is None or folder is None else recorded_photos(folder, record, limit)
        measures = record is None and folder is not None and any(units)
        reports = [_part(progress, index, 1 + measures) for index in range(2)]
        if measures:
            assert folder is not None
            layers = list(dict.fromkeys(single_target(unit).layer for unit in units if unit is not None))
            sizes = {(int(picture.image.shape[1]), int(picture.image.shape[2])) for picture in self.pictures}
            size = sizes.pop() if len(sizes) == 1 else None  # means over positions depend on the size
            with rename_argument_in_errors("photos"):
                record = measure_activations(
                    self.network, folder, layers, size=size, limit=limit, workers=workers, progress=reports[0]
                )
        if record is not None:
            with rename_argument_in_errors("photos" if activations is None else "activations"):
                percentile = ActivationPercentile(self.network, record)
            self._columns["percentile"] = self._measure(percentile, units)
            self._note_photos(record)
        if photos is None:
            return
        if folder is None:
            with rename_argument_in_errors("photos"):
                embeddings, _ = PhotoEmbeddings.resolve(photos)
        else:
            paths = folder if recorded is None else recorded
            with rename_argument_in_errors("photos"):
                embeddings = embed_photos(
                    self.embedding,
                    paths,
                    limit=None if recorded else limit,
                    workers=workers,
                    progress=reports[measures],
                )
            if recorded is not None and record is not None:
                names = dict(zip(recorded, record.paths))
                embeddings.paths = [names[path] for path in embeddings.paths]
        if record is None:
            self._note_unreadable(embeddings)
        nearest = NearestPhotos(embeddings, self.embedding)
        self._columns["nearest"] = self._measure(nearest, channels=_COLORS)
        self.settings["photos"] = len(embeddings)
        if len(embeddings) <= _MOST_COMPARED:
            self.of_photos["nearest"] = finite(nearest.of_photos())
        if record is not None:
            self._measure_forced_choice(record, embeddings, units)

    def _measure_forced_choice(
        self, activations: PhotoActivations, embeddings: PhotoEmbeddings, units: list[str | None]
    ) -> None:
        if len(activations) < 2:
            self.notes.append("forced_choice was not measured: there is one photo, and a choice needs two or more")
            return
        vectors = [torch.empty(0)] * len(self.pictures)
        for indices in self._batches(range(len(vectors))):
            for index, vector in zip(indices, self.embedding(self._batch(indices, _COLORS)).cpu()):
                vectors[index] = vector
        controls: dict[str, Any] = {"controls": torch.stack(vectors), "control_targets": self._labels}
        choice = ForcedChoice(activations, embeddings, embedding=self.embedding, **controls)
        labels = [None if unit is None else label for unit, label in zip(units, self._labels)]
        self._columns["forced_choice"] = self._measure(choice, labels, channels=_COLORS)
        if any(units) and len(set(self._labels)) == 1:
            self.notes.append("forced_choice: it needs pictures of other targets as controls, and there are none")

    def _note_photos(self, record: PhotoActivations) -> None:
        count = len(record)
        self.settings |= {"photos": count, "photo_size": list(record.size)}
        self._note_unreadable(record)
        if count < _FEW_PHOTOS:
            share = f"{count} photos, each of which is {100 / count:.3g} points"
            self.notes.append(f"percentile: among {share}; give {_FEW_PHOTOS} photos or more")
        if record.enlarged:
            size = " x ".join(map(str, record.size))
            self.notes.append(f"photos: {record.enlarged} of {count} are smaller than {size} and were enlarged")

    def _note_unreadable(self, record: PhotoRecord) -> None:
        if record.unreadable:
            names = f": {first_names(record.unreadable_paths)}" if record.unreadable_paths else ""
            self.notes.append(f"photos: {record.unreadable} files could not be read and were left out{names}")

    def measure_set(self) -> None:
        """Measure how different the pictures are, and whether those of each target agree."""
        if len(self.pictures) < 2 or self.pictures[0].image.shape[0] not in (1, _COLORS):
            return
        metrics: dict[str, Metric] = {
            "pairwise_distance": PairwiseDistance(self.embedding, **_NO_SYNC),
            "vendi": VendiScore(self.embedding, **_NO_SYNC),
        }
        if 1 < len(set(self._labels)) < len(self._labels):
            metrics["agreement"] = Agreement(self.embedding, **_NO_SYNC)
        for name, metric in metrics.items():
            for indices in self._batches(range(len(self.pictures))):
                batch = self._batch(indices, _COLORS)
                metric.to(batch.device)
                metric.update(batch, *([[self._labels[index] for index in indices]] if name == "agreement" else []))
            self._set_values[name] = finite(float(metric.compute()))

    # Results.

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each picture."""
        columns = {name: self._columns[name] for name in COLUMNS if name in self._columns}
        return [
            {"picture": picture.name, "target": picture.target, **{name: columns[name][index] for name in columns}}
            for index, picture in enumerate(self.pictures)
        ]

    def summary(self) -> dict[str, float | None]:
        """Return the mean of each column over the pictures to which it applies, and the values of the set.

        Scores have one only where all are of the same target.
        """
        means: dict[str, float | None] = {}
        for name in (name for name in COLUMNS if name in self._columns):
            values = {index: value for index, value in enumerate(self._columns[name]) if value is not None}
            comparable = name not in _PER_TARGET or len({self._labels[index] for index in values}) == 1
            means[name] = math.fsum(values.values()) / len(values) if values and comparable else None
        return means | self._set_values


def finite(value: float) -> float | None:
    """Return a value, or None where it is not finite.

    Example:
        >>> finite(2.0), finite(float("nan"))
        (2.0, None)
    """
    return value if math.isfinite(value) else None


def _part(progress: Progress | None, index: int, parts: int) -> Progress | None:
    """Return what reports one of several passes over the same photos."""
    return None if progress is None else lambda done, total: progress(index * total + done, parts * total)
