"""Contract cases of the metrics that compare pictures with one another and with photos."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metric_case import MetricCase
from PIL import Image as Pillow
from torch import Tensor
from toys import toy

from featviz_pl.metrics import (
    Agreement,
    Embedding,
    ForcedChoice,
    NearestPhotos,
    PairwiseDistance,
    PathSimilarity,
    PhotoActivations,
    PhotoEmbeddings,
    VendiScore,
    embed_photos,
    measure_activations,
)
from featviz_pl.networks import FrozenNetwork

LAYERS = ["features.2", "features.5"]
TARGETS = ("features.5:1", "features.5:4", "features.5:1", "output:2")
PHOTOS = 12


def network(seed: int = 0) -> FrozenNetwork:
    """Build a toy in float64, so that the size of a batch does not show in the last digits."""
    return FrozenNetwork(toy(seed=seed).double(), mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.25], size=12, name="toy")


def embedding() -> Embedding:
    """Build an embedding by two layers of the toy."""
    return Embedding(network(), LAYERS, size=12)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    held = tempfile.TemporaryDirectory()  # goes with the process
    generator = np.random.default_rng(0)
    first, second, *noise = generator.uniform(0, 255, size=(PHOTOS + 2, 4, 5, 3))
    for index in range(PHOTOS):  # from one pattern to another, so that photos that excite a unit are alike
        share = index / (PHOTOS - 1)
        levels = (0.95 * (share * first + (1 - share) * second) + 0.05 * noise[index]).astype(np.uint8)
        Pillow.fromarray(levels).resize((16, 14)).save(Path(held.name) / f"{index:02}.png")
    return held


def folder() -> str:
    """Return a folder of small photos, the same in every process."""
    return _folder().name


@functools.cache
def activations() -> PhotoActivations:
    """Measure the photos by the toy."""
    return measure_activations(network(), folder(), ["features.5", "output"])


@functools.cache
def embeddings() -> PhotoEmbeddings:
    """Embed the photos by the toy."""
    return embed_photos(embedding(), folder())


def pictures(count: int) -> Tensor:
    """Return soft noise, the same for the same index."""
    drawn = [torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(index)) for index in range(count)]
    return torch.nn.functional.interpolate(torch.cat(drawn), (14, 12), mode="bilinear")


def alone(count: int) -> tuple[Any, ...]:
    """Return pictures."""
    return (pictures(count),)


def with_targets(count: int) -> tuple[Any, ...]:
    """Return pictures and their targets."""
    return pictures(count), [TARGETS[index % len(TARGETS)] for index in range(count)]


def with_kinds(count: int) -> tuple[Any, ...]:
    """Return pictures and targets whose strongest photos are alike."""
    return pictures(count), [TARGETS[index % 2] for index in range(count)]


def choice(**arguments: Any) -> ForcedChoice:
    """Build the metric with controls, by which each picture is measured for itself."""
    return ForcedChoice(activations(), embeddings(), embedding=embedding(), k=4, controls=1 - pictures(5), **arguments)


def nearest(**arguments: Any) -> NearestPhotos:
    """Build the metric of the three nearest photos."""
    return NearestPhotos(embeddings(), embedding(), k=3, **arguments)


def path(**arguments: Any) -> PathSimilarity:
    """Build the metric at two layers."""
    return PathSimilarity(network(), LAYERS, photos=activations(), folder=folder(), k=3, **arguments)


def _bad_pictures(make: Callable[..., Any], *others: Any) -> list[tuple[Callable[[], Any], str]]:
    return [
        (
            lambda: make().update(pictures(1).repeat(1, 2, 1, 1), *others),
            "pictures: 6 channels do not fit the network, which takes 3",
        ),
        (lambda: make().update(pictures(1) * torch.nan, *others), "pictures: NaN in 1 of 1"),
    ]


def _bad_targets(make: Callable[..., Any]) -> list[tuple[Callable[[], Any], str]]:
    return [
        *_bad_pictures(make, "features.5:1"),
        (lambda: make().update(pictures(2), ["features.5:1"]), "targets: 1 do not fit 2 pictures"),
        (lambda: make().update(pictures(1), 33), "targets must be a target such as"),
    ]


def _bad_units(make: Callable[..., Any]) -> list[tuple[Callable[[], Any], str]]:
    return [
        *_bad_targets(make),
        (
            lambda: make().update(pictures(1), "features.2:1"),
            "target: the photos were not measured at 'features.2'; did you",
        ),
        (lambda: make().update(pictures(1), "features.5:8"), "unit: 'features.5' has 8 units, 0 to 7; there is no 8"),
    ]


def _others() -> PhotoEmbeddings:
    """Return vectors of photos of which one has another name."""
    held = embeddings()
    return PhotoEmbeddings(held.values, [*held.paths[:-1], "other.png"], identity=held.identity)


CASES = [
    MetricCase(
        "PairwiseDistance",
        lambda **arguments: PairwiseDistance(embedding(), **arguments),
        alone,
        lower=0.0,
        upper=2.0,
        higher_is_better=None,
        per_picture=False,
        bad=[
            *_bad_pictures(lambda: PairwiseDistance(embedding())),
            (lambda: PairwiseDistance("embedded"), "embedding must be an Embedding, such as"),  # type: ignore[arg-type]
        ],
    ),
    MetricCase(
        "VendiScore",
        lambda **arguments: VendiScore(embedding(), **arguments),
        alone,
        lower=1.0,
        upper=None,
        higher_is_better=None,
        per_picture=False,
        bad=_bad_pictures(lambda: VendiScore(embedding())),
    ),
    MetricCase(
        "Agreement",
        lambda **arguments: Agreement(embedding(), **arguments),
        with_targets,
        lower=None,
        upper=1.0,
        higher_is_better=True,
        per_picture=False,
        bad=_bad_targets(lambda: Agreement(embedding())),
    ),
    MetricCase(
        "NearestPhotos",
        nearest,
        alone,
        lower=-1.0,
        upper=1.0,
        higher_is_better=True,
        bad=[
            *_bad_pictures(nearest),
            (lambda: NearestPhotos(embeddings(), embedding(), k=0), "k must be at least 1"),
            (
                lambda: NearestPhotos(embeddings(), Embedding(network(1), LAYERS)),
                "photos: they were embedded with weights_hash=",
            ),
            (
                lambda: NearestPhotos(embeddings(), Embedding(network(), LAYERS[:1])),
                r"photos: they were embedded with layers=\['features.2', ",
            ),
            (
                lambda: NearestPhotos(embeddings(), Embedding(network(), LAYERS, size=16)),
                r"size=\[12, 12\], not \[16, 16\]; embed them again with",
            ),
            (lambda: NearestPhotos("nowhere.pt", embedding()), "path: there is no file 'nowhere.pt'"),
        ],
    ),
    MetricCase(
        "PathSimilarity",
        path,
        with_kinds,
        lower=None,
        upper=None,
        higher_is_better=True,
        per_picture=False,
        bad=[
            *_bad_units(path),
            (
                lambda: PathSimilarity(network(), "features.50", photos=activations(), folder=folder()),
                "layer: the network has no layer 'features.50'; did",
            ),
            (
                lambda: PathSimilarity(network(), [], photos=activations(), folder=folder()),
                "layers must name at least one layer",
            ),
            (
                lambda: PathSimilarity(network(1), LAYERS, photos=activations(), folder=folder()),
                "photos: they were measured with 'toy'",
            ),
            (
                lambda: PathSimilarity(network(), LAYERS, photos=activations(), folder=folder(), k=7),
                "k: 7 photos and as many others are more",
            ),
            (
                lambda: PathSimilarity(network(), LAYERS, photos=activations(), folder=folder(), k=1),
                "k must be at least 2",
            ),
            (
                lambda: PathSimilarity(network(), LAYERS, photos=activations(), folder=folder(), k=2, measure="cos"),
                "measure: unknown measure 'cos'; did you",
            ),
            (
                lambda: PathSimilarity(network(), LAYERS, photos=activations(), folder="nowhere", k=2).update(
                    *with_targets(1)
                ),
                "folder: 'nowhere' does not hold '",
            ),
        ],
    ),
    MetricCase(
        "ForcedChoice",
        choice,
        with_targets,
        lower=0.0,
        upper=1.0,
        higher_is_better=True,
        bad=[
            *_bad_units(choice),
            (lambda: choice().update(pictures(2), "features.5:1", pictures(1)), "opposites: 1 do not fit 2 pictures"),
            (
                lambda: ForcedChoice(activations(), _others(), embedding=embedding()),
                "embeddings: their 12 photos must be the 12 of the activations",
            ),
            (lambda: ForcedChoice(activations(), embeddings(), embedding=embedding(), k=0), "k must be at least 1"),
            (lambda: ForcedChoice(activations(), embeddings()), "photos: they were embedded with weights_hash="),
            (
                lambda: ForcedChoice("nowhere.pt", embeddings(), embedding=embedding()),
                "path: there is no file 'nowhere.pt'",
            ),
            (
                lambda: ForcedChoice(activations(), embeddings(), embedding=embedding(), controls=torch.ones(2, 5)),
                r"controls must be \(M, 16\) as vectors of this embedding",
            ),
            (
                lambda: ForcedChoice(activations(), embeddings(), embedding=embedding(), controls="a.png"),  # type: ignore[arg-type]
                "controls must be pictures",
            ),
            (
                lambda: ForcedChoice(activations(), embeddings(), embedding=embedding(), controls=["no.png"]),
                "cannot read a picture from 'no.png'",
            ),
            (
                lambda: ForcedChoice(activations(), embeddings(), embedding=embedding(), control_targets=["output:1"]),
                "control_targets: there are no controls",
            ),
            (
                lambda: ForcedChoice(
                    activations(),
                    embeddings(),
                    embedding=embedding(),
                    controls=pictures(2),
                    control_targets=["output:1"],
                ),
                "targets: 1 do not fit 2 pictures",
            ),
        ],
    ),
]
