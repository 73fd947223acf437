"""Steps that are captured once and replayed give the same pictures."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager_graphs import (
    CHANNELS,
    FIRST,
    PICTURE,
    STEPS,
    EagerGraphs,
    ascended,
    graphs,
    logged,
    plain_and_captured,
    problem_of,
    reason,
    tensors,
    views_of,
)
from lightning.pytorch import Trainer
from torch import nn
from toys import QUIET, toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.engine import graphed_steps as _captured_step
from featviz_pl.engine import picture_health as _watch
from featviz_pl.images import FourierImage, Image, MaskedImage, PixelImage
from featviz_pl.numerics.device_transfer import Transfers
from featviz_pl.objectives import (
    Alignment,
    Channel,
    ClassLogit,
    DeepDream,
    Inversion,
    Neuron,
    Objective,
    TotalVariation,
)
from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.sweep import slots as _sweep_slots
from featviz_pl.sweep.slots import Rendered
from featviz_pl.transforms import (
    Blur,
    ColorShift,
    Compose,
    CropOrPad,
    Jitter,
    Noise,
    NormalizeGradient,
    Pad,
    Rotate,
    Views,
)

__all__ = ["graphs", "logged"]  # fixtures


# Those that are captured.


MANY = Compose(
    [
        Pad(2, "grey"),
        Jitter(2),
        Noise(0.1, uniform=0.1),
        Rotate([-5.0, 0.0, 5.0]),
        Blur([0.4, 0.8], kernel=5),
        ColorShift(0.2, 0.2),
    ]
)
VIEWS: dict[str, Callable[[], Views | None]] = {
    "none": lambda: None,
    "lucid": lambda: views_of("lucid"),
    "article": lambda: views_of("article", 3),
    "featviz": lambda: views_of("featviz"),
    "whole_objects": lambda: views_of("whole_objects", 2),
    "horama": lambda: views_of("horama"),
    "many": lambda: Views(MANY, 2),
    "sized": lambda: Views(Compose([Pad(1, "reflect"), Jitter(1), CropOrPad(12), NormalizeGradient()]), 2),
}


@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS.keys())
def test_replayed_steps_give_the_same_pictures(
    views: Callable[[], Views | None], graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture
) -> None:
    own = plain_and_captured(lambda: problem_of(views()), graphs)
    assert (own.rehearsed, own.captured) == (1, 1)
    # The first steps, the captured one, and the one at the end, which looks for dead pictures, are plain.
    assert own.replayed == STEPS - FIRST - 2
    assert not logged.records


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "penalised": lambda: CHANNELS - 1e-3 * TotalVariation(),
    "neuron": lambda: Neuron("features.5", [1, 2]),
    "class": lambda: ClassLogit([1, 2]),
    "joint": lambda: CHANNELS + 0.1 * Alignment("features.3"),
    "dream": lambda: DeepDream("features.5"),
    "still reference": lambda: Inversion("features.5", PICTURE, through_views=False),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_replayed_steps_of_other_objectives_give_the_same_pictures(
    objective: Callable[[], Objective], graphs: list[EagerGraphs]
) -> None:
    assert plain_and_captured(lambda: problem_of(views_of("lucid"), objective()), graphs).replayed == STEPS - FIRST - 2


IMAGES: dict[str, Callable[[], Image]] = {
    "pixels": lambda: PixelImage(10),
    "masked": lambda: MaskedImage(FourierImage(10), PICTURE, PICTURE[0]),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())
def test_replayed_steps_of_other_images_give_the_same_pictures(
    image: Callable[[], Image], graphs: list[EagerGraphs]
) -> None:
    assert (
        plain_and_captured(lambda: problem_of(views_of("lucid"), image=image()), graphs).replayed == STEPS - FIRST - 2
    )


def test_pictures_of_double_precision_and_failing_ones_are_the_same(graphs: list[EagerGraphs]) -> None:
    def double() -> Ascent:
        problem = problem_of(views_of("lucid"))
        problem.image.double()
        problem.initialize()
        problem.prepare(dtype=torch.float64)
        return problem

    failures: dict[int, str] = {}
    assert (
        plain_and_captured(double, graphs, failures=failures).replayed > STEPS - FIRST - 2
    )  # no step looks for dead pictures
    assert not failures


def test_any_optimizer_works_as_it_does(graphs: list[EagerGraphs]) -> None:
    own = plain_and_captured(
        lambda: problem_of(views_of("lucid")),
        graphs,
        optimizer=lambda held: torch.optim.AdamW(held, lr=0.1, weight_decay=0.1),
    )
    assert own.replayed


def test_global_generators_are_left_as_they_were(graphs: list[EagerGraphs]) -> None:
    before = torch.get_rng_state()
    ascended(lambda: problem_of(views_of("lucid")))
    assert torch.equal(torch.get_rng_state(), before)
    assert graphs[0].replayed


def test_nothing_outlives_the_run(graphs: list[EagerGraphs]) -> None:
    class Marked(nn.Conv2d):
        pass

    gc.collect()
    gc.disable()
    try:
        ascend(problem_of(views_of("lucid"), Channel("output", [1, 2]), network=Marked(3, 4, 3)), STEPS)
        assert graphs[0].replayed
        graphs.clear()
        # No cycle may hold the memory of a graph until the collector happens to run.
        assert not [held for held in gc.get_objects() if type(held) in (_captured_step._Captured, Transfers)]
        gc.collect()
        assert not [held for held in gc.get_objects() if type(held) is Marked]
    finally:
        gc.enable()


def test_short_runs_are_not_captured(graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture) -> None:
    ascend(problem_of(), FIRST + _captured_step.LEAST_REPLAYS)
    assert (graphs[0].rehearsed, logged.records) == (0, [])


def test_what_a_step_returns_is_not_overwritten_by_the_next(graphs: list[EagerGraphs]) -> None:
    problem = problem_of(views_of("lucid"))
    problem.initialize()
    problem.prepare()
    take = _captured_step.StepGradients(problem, list(problem.image.parameters()))
    results = [tensors(take(step, 100)) for step in range(17, 24)]
    assert graphs[0].replayed == 6
    for step, found in zip(range(17, 24), results):
        result = problem.step(step, 100)
        gradients = torch.autograd.grad(result.loss, list(problem.image.parameters()))
        assert all(map(torch.equal, found, tensors((result, gradients))))


def test_a_step_under_another_autocast_is_captured_anew(graphs: list[EagerGraphs]) -> None:
    problem = problem_of(views_of("lucid"))
    problem.initialize()
    problem.prepare()
    take = _captured_step.StepGradients(problem, list(problem.image.parameters()))
    for place in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(place)):
            for step in range(17, 25):
                found, plain = take(step, 100), problem.step(step, 100)
                assert torch.equal(found[0].scores, plain.scores)
    assert (graphs[0].captured, graphs[0].replayed) == (2, 14)


# Sweeps.


def swept(preset: str, **arguments: Any) -> list[Rendered]:
    sweep = FeatureSweep(toy(), preset, size=8, steps=STEPS, **arguments)
    found: list[Rendered] = Trainer(**QUIET).predict(sweep, FeatureTargets("features.5", 3))  # type: ignore[assignment]
    return found


@pytest.fixture
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (_watch, _sweep_slots):
        monkeypatch.setattr(room, "STRETCH", 4)


@pytest.mark.usefixtures("short_stretches")
@pytest.mark.parametrize("least", [1, 4])
@pytest.mark.parametrize(
    ("preset", "arguments"),
    [("lucid", {}), ("article", {"views": 2}), ("featviz", {}), ("lucid", {"lr": 0.3, "tolerance": 0.1})],
    ids=["lucid", "article", "featviz", "refilled"],
)
def test_sweeps_give_the_same_pictures(
    preset: str, arguments: dict[str, Any], least: int, graphs: list[EagerGraphs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_captured_step, "LEAST_REPLAYS", least)
    found = swept(preset, **arguments)
    assert sum(own.replayed for own in graphs) >= 3
    if arguments.get("tolerance") and least == 1:
        assert max(own.captured for own in graphs) > 1  # after others have begun, when all are past their first steps
    monkeypatch.delitem(_captured_step.GRAPHS, "cpu")
    for own, its in zip(found, swept(preset, **arguments), strict=True):
        assert own.targets == its.targets
        assert torch.equal(own.images, its.images)
        assert own.scores == its.scores


def test_targets_that_change_too_often_end_the_capturing(
    graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture
) -> None:
    problem = problem_of(views_of("lucid"))
    problem.initialize()
    problem.prepare()
    take = _captured_step.StepGradients(problem, list(problem.image.parameters()))
    for units in ([1, 5], [1, 6], [1, 7]):
        for step in range(17, 20):
            assert torch.equal(take([step, step], 100)[0].scores, problem.step([step, step], 100).scores)
        problem.begin_anew([1], Channel("features.5", units), FourierImage(10))
    assert graphs[0].captured == 1
    assert reason(logged) == "targets change too often"
