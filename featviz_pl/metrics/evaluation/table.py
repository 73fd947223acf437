"""The columns of an evaluation, filled metric by metric."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from featviz_pl.metrics.activation import Activation, ActivationPercentile, HeldOutActivation
from featviz_pl.metrics.base import PictureMetric
from featviz_pl.metrics.embedding import Embedding, PhotoEmbeddings, embed_photos, load_embeddings
from featviz_pl.metrics.evaluation.batches import Batches, Values, finite
from featviz_pl.metrics.evaluation.photos import check_folder, read_activations, said_of
from featviz_pl.metrics.evaluation.pictures import EvaluatedPicture, named
from featviz_pl.metrics.forced_choice import ForcedChoice
from featviz_pl.metrics.natural import ClippedShare, ColorDistance, VariationPerPixel
from featviz_pl.metrics.photo_activations import PhotoActivations, measure_activations
from featviz_pl.metrics.plausibility import NearestPhotos
from featviz_pl.metrics.sets import Agreement, PairwiseDistance, VendiScore
from featviz_pl.metrics.spectrum import HighFrequencyShare, SpectrumSlope, natural_slope
from featviz_pl.metrics.targets import single_target
from featviz_pl.metrics.transfer import TransferProbability, TransferRank, judge_classes
from featviz_pl.networks import FrozenNetwork

COLUMNS = (
    "score",
    "held_out",
    "percentile",
    "transfer",
    "rank",
    "slope",
    "clipped",
    "color_distance",
    "variation",
    "high_frequency",
    "nearest",
    "forced_choice",
)
_ALONE: dict[str, Any] = {"sync_on_compute": False}  # the other processes of a run may not take part
_OF_A_TARGET = ("score", "held_out")  # in units of what is wanted: means over different targets tell nothing
_FEW = 100  # photos, among which a percentile is coarse
_MOST_COMPARED = 10_000  # photos, each with all others
_COLORS = 3  # channels that an embedding sees
Progress = Callable[[int, int], object]


class Table(Batches):
    """Fill the columns, each with one value for each picture; None where one does not apply.

    Args:
        pictures: of any sizes.
        network: that they were made with.
        embedding: that compares them; the default one unless given.
        own_targets: whether the targets are those that files say: some of these have no shorthand.
    """

    def __init__(
        self,
        pictures: list[EvaluatedPicture],
        network: FrozenNetwork,
        embedding: Embedding | None = None,
        own_targets: bool = False,
    ) -> None:
        super().__init__(pictures)
        self.network, self.weights = network, network.weights_hash()
        self.settings: dict[str, Any] = {}
        self.of_photos: dict[str, float | None] = {"slope": natural_slope()[0]}
        self._columns: dict[str, Values] = {}
        self._of_the_set: dict[str, float | None] = {}
        self._embedding = embedding
        self._targets = [target_of(picture, own_targets) for picture in pictures]
        self._shows = [one_form(picture.target, network) for picture in pictures]
        without = [picture.name for picture, target in zip(pictures, self._targets) if target is None]
        if without:
            self.notes.append(f"{named(without)}: the objective has no shorthand, so its activation is not measured")
        self._note_other_networks()

    def _note_other_networks(self) -> None:
        """Say which files were made with another network: their targets may mean something else here."""
        own = self.weights
        others = [picture.name for picture in self.pictures if picture.origin.get("weights", own) != own]
        if others:
            names = {
                str(picture.origin.get("network"))
                for picture in self.pictures
                if picture.origin.get("weights", own) != own
            }
            self.notes.append(
                f"{named(others)}: made with other weights ({', '.join(sorted(names))}) than those of {self.network.name!r} here; "
                "the values are those of this network"
            )

    # Metrics.

    def measure_activation(self, views: int) -> None:
        """Measure how the pictures excite their targets, as they are and through held-out views."""
        metrics: dict[str, PictureMetric] = {
            "score": Activation(self.network),
            "held_out": HeldOutActivation(self.network, views),
        }
        for name, metric in metrics.items():
            self._columns[name] = self.measured(metric, self._targets)

    def measure_alone(self) -> None:
        """Measure what needs no network; a picture that is too small, or has other channels, goes without."""
        metrics: dict[str, PictureMetric] = {
            "slope": SpectrumSlope(),
            "clipped": ClippedShare(),
            "color_distance": ColorDistance(),
            "variation": VariationPerPixel(),
            "high_frequency": HighFrequencyShare(),
        }
        for name, metric in metrics.items():
            try:
                self._columns[name] = self.measured(metric)
            except ValueError:
                self._columns[name] = self.measured(metric, skip=f"{name} was not measured")

    def ask(self, judge: FrozenNetwork) -> None:
        """Ask an independent network whether it sees the classes, among those that both networks have."""
        classes = [None if target is None else class_of(target, self.network) for target in self._targets]
        if not any(classes):
            self.notes.append("judge: none of the pictures is of a class with a name, so there is nothing to ask")
        if judge.weights_hash() == self.weights:
            self.notes.append("judge: it is the network itself, and no independent one")
        wanted = dict(
            zip(
                dict.fromkeys(filter(None, classes)),
                judge_classes(list(dict.fromkeys(filter(None, classes))), judge.classes),
            )
        )
        among = self._common_classes(judge)
        for name, kind in {"transfer": TransferProbability, "rank": TransferRank}.items():
            indices = [None if one is None else wanted[one] for one in classes]
            self._columns[name] = self.measured(kind(judge, among), indices)
        self.settings |= {
            "judge": judge.name,
            "judge_weights": judge.weights_hash(),
            "among": len(among or judge.classes),
        }

    def compare_with_photos(
        self,
        photos: str | os.PathLike[str] | PhotoEmbeddings | None,
        activations: str | os.PathLike[str] | PhotoActivations | None,
        limit: int | None,
        workers: int,
        progress: Progress | None,
    ) -> None:
        """Find the place of the scores among those of photos, and compare pictures with photos."""
        units = [target if target is not None and is_unit(target) else None for target in self._targets]
        folder = None if isinstance(photos, PhotoEmbeddings) or photos is None or Path(photos).is_file() else photos
        if folder is not None:
            check_folder(folder)
        measures = activations is None and folder is not None and any(units)
        reports = [_part(progress, index, 1 + measures) for index in range(2)]
        held = read_activations(activations) if isinstance(activations, (str, os.PathLike)) else activations
        recorded = None if held is None or folder is None else recorded_photos(folder, held, limit)
        if measures:
            assert folder is not None
            layers = list(dict.fromkeys(single_target(unit).layer for unit in units if unit is not None))
            with said_of("photos"):
                size = self._common_size()
                held = measure_activations(
                    self.network, folder, layers, size, limit, workers=workers, progress=reports[0]
                )
        if held is not None:
            with said_of("activations" if activations is not None else "photos"):
                percentile = ActivationPercentile(self.network, held)
            self._columns["percentile"] = self.measured(percentile, units)
            self._note_photos(held)
        if photos is None:
            return
        if held is not None and recorded is not None:
            found = embed_photos(self.embedding, recorded, workers=workers, progress=reports[measures])
            names = dict(zip(recorded, held.paths))
            embeddings = PhotoEmbeddings(
                found.values, [names[path] for path in found.paths], found.identity, found.enlarged
            )
        elif folder is not None:
            with said_of("photos"):
                embeddings = embed_photos(self.embedding, folder, limit, workers=workers, progress=reports[measures])
        else:
            with said_of("photos"):
                embeddings = photos if isinstance(photos, PhotoEmbeddings) else load_embeddings(photos)
        if held is None:
            self._note_unreadable(embeddings)
        nearest = NearestPhotos(embeddings, self.embedding)
        self._columns["nearest"] = self.measured(nearest, channels=_COLORS)
        self.settings["photos"] = len(embeddings)
        if len(embeddings) <= _MOST_COMPARED:
            self.of_photos["nearest"] = finite(nearest.of_photos())
        if held is not None and len(held) < 2:
            self.notes.append("forced_choice was not measured: there is one photo, and a choice needs two or more")
        elif held is not None:
            choice = ForcedChoice(
                held, embeddings, self.embedding, controls=self._vectors(), control_targets=self._shows
            )
            own = [None if unit is None else shows for unit, shows in zip(units, self._shows)]
            self._columns["forced_choice"] = self.measured(choice, own, channels=_COLORS)
            if any(units) and len(set(self._shows)) == 1:
                self.notes.append("forced_choice: it needs pictures of other targets as controls, and there are none")

    def _vectors(self) -> Tensor:
        """Return the vector (N, D) of every picture."""
        found: dict[int, Tensor] = {}
        for places in self.parts(range(len(self.pictures))):
            found |= dict(zip(places, self.embedding(self.batch(places, _COLORS)).cpu()))
        return torch.stack([found[place] for place in range(len(self.pictures))])

    def _common_size(self) -> tuple[int, int] | None:
        """Return the size of the pictures where it is one: photos are then measured at it, for means over positions depend on it."""
        sizes = {(int(picture.image.shape[1]), int(picture.image.shape[2])) for picture in self.pictures}
        return sizes.pop() if len(sizes) == 1 else None

    def _note_photos(self, held: PhotoActivations) -> None:
        self.settings |= {"photos": len(held.paths), "photo_size": list(held.size)}
        self._note_unreadable(held)
        if len(held) < _FEW:
            self.notes.append(
                f"percentile: among {len(held)} photos, each of which is {100 / len(held):.3g} points; give {_FEW} photos or more"
            )
        if held.enlarged:
            size = " x ".join(map(str, held.size))
            self.notes.append(f"photos: {held.enlarged} of {len(held.paths)} are smaller than {size} and were enlarged")

    def _note_unreadable(self, held: PhotoActivations | PhotoEmbeddings) -> None:
        if held.unreadable:
            which = f": {named(held.unreadable_paths)}" if held.unreadable_paths else ""
            self.notes.append(f"photos: {held.unreadable} files could not be read and were left out{which}")

    def measure_set(self) -> None:
        """Measure how different the pictures are, and whether those of one target agree."""
        if len(self.pictures) < 2 or self.pictures[0].image.shape[0] not in (1, _COLORS):
            return
        targets = self._shows
        metrics: dict[str, Metric] = {
            "pairwise_distance": PairwiseDistance(self.embedding, **_ALONE),
            "vendi": VendiScore(self.embedding, **_ALONE),
        }
        if 1 < len(set(targets)) < len(targets):
            metrics["agreement"] = Agreement(self.embedding, **_ALONE)
        for name, metric in metrics.items():
            for places in self.parts(range(len(self.pictures))):
                batch = self.batch(places, _COLORS)
                metric.to(batch.device)
                metric.update(batch, *([[targets[place] for place in places]] if name == "agreement" else []))
            self._of_the_set[name] = finite(float(metric.compute()))

    @property
    def embedding(self) -> Embedding:
        """What compares pictures, made when it is first needed."""
        if self._embedding is None:
            self._embedding = Embedding()
        return self._embedding

    def _common_classes(self, judge: FrozenNetwork) -> list[str | int] | None:
        """Return the classes of the judge that the network has too; None where these are all, or not known."""
        if not self.network.classes or self.network.classes == judge.classes:
            return None
        found: list[str | int] = []
        for name in self.network.classes:
            try:
                found += judge_classes([name], judge.classes)
            except ValueError:
                continue
        return list(dict.fromkeys(found)) if len(set(found)) > 1 else None

    # Results.

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each picture."""
        names = [name for name in COLUMNS if name in self._columns]
        return [
            {"picture": picture.name, "target": picture.target, **{name: self._columns[name][place] for name in names}}
            for place, picture in enumerate(self.pictures)
        ]

    def summary(self) -> dict[str, float | None]:
        """Return the mean of each column over the pictures to which it applies, and the values of the set.

        Scores have one only where all are of the same target.
        """
        means: dict[str, float | None] = {}
        for name in COLUMNS:
            if name in self._columns:
                held = {place: value for place, value in enumerate(self._columns[name]) if value is not None}
                alike = name not in _OF_A_TARGET or len({self._shows[place] for place in held}) == 1
                means[name] = math.fsum(held.values()) / len(held) if held and alike else None
        return means | self._of_the_set


def is_unit(target: str) -> bool:
    """Say whether photos are measured for a target: a channel or a class."""
    parsed = single_target(target)
    return parsed.units is not None and parsed.position is None


def _part(progress: Progress | None, index: int, parts: int) -> Progress | None:
    """Return what reports one of several readings of the same photos."""
    return None if progress is None else lambda done, total: progress(index * total + done, parts * total)


def recorded_photos(folder: str | os.PathLike[str], held: PhotoActivations, limit: int | None) -> list[str]:
    """Return the paths of the photos of a record, which are compared with the pictures whatever else the folder holds.

    Raises:
        ValueError: when the folder is missing or does not hold all of them, or they are more than the limit.
    """
    check_folder(folder)
    if limit is not None and limit < len(held):
        raise ValueError(
            f"limit: the activations are of {len(held)} photos, which are all compared; leave out the limit of {limit}"
        )
    paths = [Path(folder, name) for name in held.paths]
    missing = [name for name, path in zip(held.paths, paths) if not path.is_file()]
    if missing:
        raise ValueError(
            f"activations: {len(missing)} of their {len(held)} photos are not in {os.fspath(folder)!r}, such as {missing[0]!r}; give the "
            "folder that they were measured on, or measure again"
        )
    return [str(path) for path in paths]


def target_of(picture: EvaluatedPicture, own: bool) -> str | None:
    """Return the target of a picture, or None for one that its file says and that has no shorthand.

    Raises:
        ValueError: when it does not parse, and is none that the file says.
    """
    try:
        target = single_target(picture.target)
    except ValueError as error:
        if own:
            return None
        raise ValueError(f"{picture.name}: {error}") from error
    # 'output:Direction-…' would be read as a class of that name.
    said = str(picture.origin.get("objective", "Class"))
    return None if own and target.class_name is not None and "Class" not in said else picture.target


def class_of(target: str, network: FrozenNetwork) -> str | None:
    """Return the name of the class that a target names, None where it is of no class, or one without a name.

    Example:
        >>> from featviz_pl.networks import load_network
        >>> network = load_network("embedded")
        >>> class_of("output:4", network), class_of("output:tench", network), class_of("blocks.2:4", network)
        ('church', 'tench', None)
    """
    try:
        parsed = single_target(target)
    except ValueError:
        return None
    if parsed.units is None or parsed.position is not None or parsed.layer != "output":
        return None
    unit = parsed.units[0]
    if isinstance(unit, str):
        return unit
    return network.classes[unit] if unit < len(network.classes) else None


def one_form(target: str, network: FrozenNetwork) -> str:
    """Return a target as it is compared with others: a class by its number, for it may be given by name too.

    Example:
        >>> from featviz_pl.networks import load_network
        >>> network = load_network("embedded")
        >>> one_form("output:church", network), one_form("output:4", network), one_form("blocks.2:4", network)
        ('output:4', 'output:4', 'blocks.2:4')
    """
    try:
        name = single_target(target).class_name
    except ValueError:
        return target
    return f"output:{network.classes.index(name)}" if name is not None and name in network.classes else target
