"""The batch size of a sweep that is given none."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from toys import QUIET, toy

from featviz_pl.engine import Ascent
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel
from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.sweep import batch_size as room
from featviz_pl.sweep.batch_size import automatic_batch_size, free_memory, largest_fitting, saved_bytes


@pytest.mark.parametrize(
    ("units", "expected"), [("features.5:all", 4), ("features.5:0-2", 3), (["features.0:all", "features.5:all"], 4)]
)
def test_four_pictures_on_a_cpu_and_no_more_than_there_are_units(units: str | list[str], expected: int) -> None:
    targets = FeatureTargets(units)
    Trainer(**QUIET).predict(FeatureSweep(toy(), steps=1, size=8), targets)
    assert targets.batch_size == expected


@pytest.mark.parametrize(
    ("units", "ranks", "free", "expected"),
    [(8, 1, 10**9, 8), (8, 2, 10**9, 4), (8, 1, 12_500, 3), (100, 1, 10**9, 64)],
)
def test_memory_decides_on_an_accelerator(
    units: int, ranks: int, free: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_memory", lambda _: free)
    monkeypatch.setattr(room, "saved_bytes", lambda _: 1000)
    ascent = FeatureSweep(toy(), "lucid", size=8).ascent("features.5", [0], "cpu")
    size = automatic_batch_size(lambda *_: ascent, {"features.5": range(units)}, torch.device("meta"), ranks)
    assert size == expected


def test_what_a_step_saves_is_counted_for_each_picture() -> None:
    def saved(count: int) -> int:
        network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3))
        problem = Ascent(PixelImage(20, color="none"), FrozenNetwork(network), Channel("2", list(range(count))))
        problem.initialize()
        problem.prepare()
        return saved_bytes(problem)

    # Of each picture at least the rectified maps of 16 channels; weights are counted once.
    difference = saved(3) - saved(2)
    assert 16 * 20 * 20 * 4 <= difference <= 4 * 16 * 20 * 20 * 4


@pytest.mark.parametrize(
    ("size", "free", "most", "expected"), [(100, 4000, 64, 10), (100, 399, 64, 1), (0, 10**9, 8, 8), (100, 0, 8, 1)]
)
def test_a_batch_takes_a_quarter_of_the_free_memory_at_most(size: int, free: int, most: int, expected: int) -> None:
    assert largest_fitting(size, free, most) == expected


def test_free_memory_is_that_of_this_machine() -> None:
    assert 0 < free_memory(torch.device("cpu")) < 1 << 50
