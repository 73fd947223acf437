"""Contract cases of the metrics that compare pictures with one another and with photos."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metric_case import MetricCase, Mistake
from PIL import Image as Pillow
from torch import Tensor
from toys import toy

from featviz_pl import metrics
from featviz_pl.metrics import (
    Embedding,
    ForcedChoice,
    NearestPhotos,
    PathSimilarity,
    PhotoActivations,
    PhotoEmbeddings,
    embed_photos,
    measure_activations,
)
from featviz_pl.networks import FrozenNetwork

LAYERS = ["features.2", "features.5"]
TARGETS = ("features.5:1", "features.5:4", "features.5:1", "output:2")
PHOTOS = 12


def network(seed: int = 0) -> FrozenNetwork:
    """Build a toy in float64, so that results do not depend on the batch size."""
    return FrozenNetwork(toy(seed=seed).double(), mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.25], size=12, name="toy")


TOY = network()


def embedding() -> Embedding:
    """Build an embedding by two layers of the toy."""
    return Embedding(network(), LAYERS, size=12)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    directory = tempfile.TemporaryDirectory()  # deleted with the process
    generator = np.random.default_rng(0)
    first, second, *noise = generator.uniform(0, 255, size=(PHOTOS + 2, 4, 5, 3))
    for index in range(PHOTOS):  # from one pattern to another, so that photos that excite a unit are alike
        share = index / (PHOTOS - 1)
        levels = (0.95 * (share * first + (1 - share) * second) + 0.05 * noise[index]).astype(np.uint8)
        Pillow.fromarray(levels).resize((16, 14)).save(Path(directory.name) / f"{index:02}.png")
    return directory


def photo_folder() -> str:
    """Return a folder of small photos, the same in every process."""
    return _folder().name


@functools.cache
def activations() -> PhotoActivations:
    """Measure the photos by the toy."""
    return measure_activations(network(), photo_folder(), ["features.5", "output"])


@functools.cache
def embeddings() -> PhotoEmbeddings:
    """Embed the photos by the toy."""
    return embed_photos(embedding(), photo_folder())


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


def with_two_targets(count: int) -> tuple[Any, ...]:
    """Return pictures and targets whose strongest photos are similar."""
    return pictures(count), [TARGETS[index % 2] for index in range(count)]


def plain_choice(k: int = 4, **arguments: Any) -> ForcedChoice:
    """Build the metric without controls."""
    return ForcedChoice(activations(), embeddings(), embedding=embedding(), k=k, **arguments)


def choice(**arguments: Any) -> ForcedChoice:
    """Build the metric with controls, so that a picture's score does not depend on the others."""
    return plain_choice(controls=1 - pictures(5), **arguments)


def nearest(**arguments: Any) -> NearestPhotos:
    """Build the metric of the three nearest photos."""
    return NearestPhotos(embeddings(), embedding(), k=3, **arguments)


def path(
    network: FrozenNetwork = TOY,
    layers: str | list[str] = LAYERS,
    folder: str | None = None,
    k: int = 3,
    **arguments: Any,
) -> PathSimilarity:
    """Build the metric, at two layers unless given."""
    return PathSimilarity(network, layers, photos=activations(), folder=folder or photo_folder(), k=k, **arguments)


def _bad_pictures(make: Callable[..., Any], *targets: Any) -> list[Mistake]:
    six = pictures(1).repeat(1, 2, 1, 1)
    return [(lambda: make().update(six, *targets), "pictures: 6 channels do not fit the network, which takes 3")]


def _bad_targets(make: Callable[..., Any]) -> list[Mistake]:
    return [
        *_bad_pictures(make, "features.5:1"),
        (lambda: make().update(pictures(2), ["features.5:1"]), "targets: 1 do not fit 2 pictures"),
        (lambda: make().update(pictures(1), 33), "targets must be a target such as"),
    ]


def _bad_units(make: Callable[..., Any]) -> list[Mistake]:
    return [
        *_bad_targets(make),
        (lambda: make().update(pictures(1), "features.2:1"), "target: the photos were not measured at 'features.2'"),
        (lambda: make().update(pictures(1), "features.5:8"), "unit: 'features.5' has 8 units, 0 to 7; there is no 8"),
    ]


def _renamed() -> PhotoEmbeddings:
    """Return embeddings of which the last photo has another name."""
    record = embeddings()
    return PhotoEmbeddings(record.values, [*record.paths[:-1], "other.png"], identity=record.identity)


def _of_set(name: str, **arguments: Any) -> Callable[..., Any]:
    return lambda **more: getattr(metrics, name)(embedding(), **arguments, **more)


def _nearest(layers: list[str], seed: int = 0, size: int = 12) -> NearestPhotos:
    return NearestPhotos(embeddings(), Embedding(network(seed), layers, size=size))


CASES = [
    MetricCase(
        *("PairwiseDistance", _of_set("PairwiseDistance"), alone, 0.0, 2.0, None, False),
        mistakes=[
            *_bad_pictures(_of_set("PairwiseDistance")),
            (lambda: metrics.PairwiseDistance("embedded"), "embedding must be an Embedding, such as"),  # type: ignore[arg-type]
        ],
    ),
    MetricCase("VendiScore", _of_set("VendiScore"), alone, 1.0, None, None, False),
    MetricCase(
        *("Agreement", _of_set("Agreement"), with_targets, None, 1.0, True, False),
        mistakes=_bad_targets(_of_set("Agreement")),
    ),
    MetricCase(
        *("NearestPhotos", nearest, alone, -1.0, 1.0, True),
        mistakes=[
            *_bad_pictures(nearest),
            (lambda: NearestPhotos(embeddings(), embedding(), k=0), "k must be at least 1"),
            (lambda: _nearest(LAYERS, seed=1), "photos: they were embedded with weights_hash="),
            (lambda: _nearest(LAYERS[:1]), r"photos: they were embedded with layers=\['features.2', "),
            (lambda: _nearest(LAYERS, size=16), r"size=\[12, 12\], not \[16, 16\]; embed them again with"),
            (lambda: NearestPhotos("nowhere.pt", embedding()), "path: there is no file 'nowhere.pt'"),
        ],
    ),
    MetricCase(
        *("PathSimilarity", path, with_two_targets, None, None, True, False),
        mistakes=[
            *_bad_units(path),
            (lambda: path(layers="features.50"), "layer: the network has no layer 'features.50'; did"),
            (lambda: path(layers=[]), "layers must name at least one layer"),
            (lambda: path(network(1)), "photos: they were measured with 'toy'"),
            (lambda: path(k=7), "k: 7 photos and as many others are more"),
            (lambda: path(k=1), "k must be at least 2"),
            (lambda: path(measure="cos"), "measure: unknown measure 'cos'; did you"),
            (lambda: path(folder="nowhere").update(*with_targets(1)), "folder: 'nowhere' does not hold '"),
        ],
    ),
    MetricCase(
        *("ForcedChoice", choice, with_targets, 0.0, 1.0, True),
        mistakes=[
            *_bad_units(choice),
            (lambda: choice().update(pictures(2), "features.5:1", pictures(1)), "opposites: 1 do not fit 2 pictures"),
            (
                lambda: ForcedChoice(activations(), _renamed(), embedding=embedding()),
                "embeddings: their 12 photos must be the 12 of the activations",
            ),
            (lambda: plain_choice(k=0), "k must be at least 1"),
            (lambda: ForcedChoice(activations(), embeddings()), "photos: they were embedded with weights_hash="),
            (lambda: ForcedChoice("nowhere.pt", embeddings()), "path: there is no file 'nowhere.pt'"),
            (lambda: plain_choice(controls=torch.ones(2, 5)), r"controls must be \(M, 16\) as vectors"),
            (lambda: plain_choice(controls="a.png"), "controls must be pictures"),
            (lambda: plain_choice(controls=["no.png"]), "cannot read a picture from 'no.png'"),
            (lambda: plain_choice(control_targets=["output:1"]), "control_targets: there are no controls"),
            (lambda: choice(control_targets=["output:1"]), "targets: 1 do not fit 5 pictures"),
        ],
    ),
]
