"""What is watched on one device; on several: tests/test_views_over_ranks.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from runs import build, fit
from torch import nn

import featviz_pl_callbacks.distributed_views
from featviz_pl.callbacks import Augmentation, DistributedViews
from featviz_pl.images import PixelImage
from featviz_pl.training import FeatureVisualization
from featviz_pl_callbacks.distributed_views import _digest


class Clock:
    """Go on by a quarter of a second with each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.25
        return self.now


def speeds(
    folder: Path, callback: DistributedViews, max_steps: int, views: int = 3, **arguments: Any
) -> dict[int, float]:
    """Return the speed that was logged after each step."""
    logger = CSVLogger(str(folder))
    fit(
        build([1, 2]),
        max_steps,
        [Augmentation("lucid", views=views), callback],
        logger=logger,
        log_every_n_steps=1,
        **arguments,
    )
    rows = [line.split(",") for line in (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()]
    step, speed = rows[0].index("step"), rows[0].index("views_per_second_per_device")
    return {int(row[step]) + 1: float(row[speed]) for row in rows[1:] if row[speed]}


@pytest.mark.parametrize(
    ("every", "steps", "accumulated", "expected"),
    [
        # Two pictures in three views are 6 in each batch; between two checks the clock is looked at twice: a quarter of
        # a second.
        (2, 6, 1, {2: 48.0, 4: 48.0, 6: 48.0}),
        (4, 6, 1, {4: 96.0, 6: 48.0}),  # and at the last step, with what is left
        (100, 5, 1, {5: 120.0}),
        (2, 4, 3, {2: 144.0, 4: 144.0}),
    ],
)
def test_the_speed_is_that_of_all_views_since_the_last_check(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: int,
    steps: int,
    accumulated: int,
    expected: dict[int, float],
) -> None:
    monkeypatch.setattr(featviz_pl_callbacks.distributed_views, "time", Clock())
    found = speeds(tmp_path, DistributedViews(every), steps, accumulate_grad_batches=accumulated)
    assert min(found) == min(expected)  # Lightning repeats a value until there is another
    assert {step: found[step] for step in expected} == expected


def test_the_scores_are_those_of_the_latest_check_for_each_term_and_picture() -> None:
    kept: list[dict[str, list[float]]] = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            assert isinstance(pl_module, FeatureVisualization)
            assert pl_module.last is not None
            kept.append({name: scores.tolist() for name, scores in pl_module.last.terms.items()})

    watch = DistributedViews(every=3)
    fit(build([1, 2]), 5, [watch, Look()])
    assert watch.scores == kept[4]
    assert [len(scores) for scores in watch.scores.values()] == [2]
    assert kept[4] != kept[2]


def test_one_device_needs_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing to gather on one device")

    for name in ("all_gather", "all_reduce", "broadcast", "barrier"):
        monkeypatch.setattr(torch.distributed, name, refuse)
    assert fit(build(), 4, [DistributedViews(every=1)]).global_step == 4


def test_the_digest_tells_every_bit_of_what_an_image_keeps() -> None:
    image = PixelImage(4, count=2)
    assert image.weight is not None
    found = [_digest(image)]
    with torch.no_grad():
        image.weight.zero_()
        for change in (0.0, -0.0, 1e-45, 1.0):
            image.weight[1, 0, 0, 0] = change
            found.append(_digest(image))
        image.initialized.fill_(True)
    found.append(_digest(image))
    assert found[0] == found[1]  # zeros as they were allocated
    assert len({tuple(digest) for digest in found[1:]}) == 5
    assert all(len(digest) == 4 and all(-(2**63) <= part < 2**63 for part in digest) for digest in found)
    assert _digest(nn.Identity()) != found[0]


@pytest.mark.parametrize("every", [0, -1, 1.5])
def test_an_impossible_interval_is_refused(every: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="every must be"):
        DistributedViews(every)
