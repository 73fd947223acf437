"""Signs of what is added and subtracted, on the real network: each is held against the same run without it."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from toys import SHARED, adam, needs_shared

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import FourierImage
from featviz_pl.networks import FrozenNetwork, load_network
from featviz_pl.objectives import Alignment, Channel, Diversity, Interpolation, Objective, TotalVariation

pytestmark = needs_shared
LAYER, SIZE = "features.7", 48


@cache
def network() -> FrozenNetwork:
    return load_network("squeezenet1_0", str(SHARED / "weights" / "squeezenet1_0.pth"))


def pictures(objective: Objective, count: int) -> Tensor:
    """Optimise a few steps without views."""
    problem = Ascent(FourierImage(SIZE, count), network(), objective)
    ascend(problem, steps=16, optimizer=adam())
    shown: Tensor = problem.image()
    return shown.detach()


def activations(seen: Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        read: NDArray[np.float64] = network().activations(seen, [LAYER])[LAYER].flatten(2).double().numpy()
    return read


def test_diversity_lowers_the_cosine_between_gram_matrices() -> None:
    def cosine(seen: Tensor) -> float:
        grams = [(own @ own.T).ravel() for own in activations(seen)]
        units = [gram / np.linalg.norm(gram) for gram in grams]
        return float(np.mean([units[i] @ units[j] for i in range(4) for j in range(i)]))

    alone = Channel(LAYER, 20)
    assert cosine(pictures(alone + 1000 * Diversity(LAYER), 4)) < cosine(pictures(alone, 4)) - 0.05


def test_alignment_draws_neighbours_together() -> None:
    def distance(seen: Tensor) -> float:
        return float(np.mean(np.square(np.diff(activations(seen), axis=0))) / np.mean(np.square(activations(seen))))

    between = Interpolation(Channel(LAYER, 20), Channel(LAYER, 24))
    assert distance(pictures(between + 0.1 * Alignment(LAYER), 4)) < 0.8 * distance(pictures(between, 4))


def test_total_variation_is_subtracted() -> None:
    def variation(seen: Tensor) -> float:
        shown = seen.double().numpy()
        return float(np.abs(np.diff(shown, axis=2)).sum() + np.abs(np.diff(shown, axis=3)).sum())

    alone = Channel(LAYER, 20)
    assert variation(pictures(alone - 0.5 * TotalVariation(), 1)) < 0.8 * variation(pictures(alone, 1))
