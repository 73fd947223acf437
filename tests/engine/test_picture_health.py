"""What is known of each picture of a batch: who has failed, and who has converged."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from featviz_pl.engine.picture_health import DEAD_AFTER, Watch


def expected_end(scores: np.ndarray[Any, Any], tolerance: float) -> int | None:
    """Return the step at which a picture with these scores has converged, from the definition."""
    means = [scores[begin : begin + 32].mean() for begin in range(0, len(scores) - 31, 32)]
    little = [later - earlier <= tolerance * (later - scores[0]) for earlier, later in pairwise(means)]
    return next((32 * (index + 3) for index in range(len(little) - 1) if little[index] and little[index + 1]), None)


def test_a_picture_has_converged_when_two_stretches_in_a_row_bring_little() -> None:
    random = np.random.default_rng(0)
    ends = [6.0, 20.0, 45.0, 90.0, 1e9]  # the time in which the rest of the gain falls by e
    scores = np.stack([5 - 4 * np.exp(-np.arange(400) / end) + 0.02 * random.normal(size=400) for end in ends], 1)
    scores[:, 4] = np.arange(400)  # rises for ever
    watch, found = Watch(5, 400, 0, "cpu", tolerance=0.02), dict[int, int]()
    for step in range(400):
        watch.kept(torch.tensor(scores[step]), [torch.ones(5, 1)])
        if (step + 1) % 32 == 0:
            for place in watch.looks()[1]:
                found.setdefault(place, step + 1)
    assert found == {place: end for place in range(5) if (end := expected_end(scores[:, place], 0.02)) is not None}
    assert len(set(found.values())) >= 3
    assert 4 not in found


def test_what_begins_anew_is_watched_from_its_own_first_step() -> None:
    watch = Watch(2, 100, 0, "cpu", tolerance=0.5)
    for _ in range(96):
        watch.kept(torch.tensor([1.0, math.nan]), [torch.tensor([[1.0], [1.0]])])
    assert watch.looks() == ({1: "the score or the gradient of step 0 is not finite"}, [0])
    watch.begin_anew([1])
    assert watch.looks() == ({}, [0])
    (kept,) = watch.kept(torch.tensor([1.0, 2.0]), [torch.ones(2, 1)])
    assert kept is not None
    assert kept.flatten().tolist() == [1.0, 1.0]
    for _ in range(DEAD_AFTER - 2):
        watch.kept(torch.tensor([1.0, 2.0]), [torch.tensor([[1.0], [0.0]])])
    assert watch.failures() == {}
    watch.begin_anew([1])
    for _ in range(DEAD_AFTER):
        watch.kept(torch.tensor([1.0, math.inf]), [torch.tensor([[1.0], [0.0]])])
    assert watch.failures() == {1: "the score or the gradient of step 0 is not finite"}
