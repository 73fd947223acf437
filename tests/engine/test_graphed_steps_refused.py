"""Steps that are not captured, or no longer: the same pictures, one by one, and a line that says why."""

from __future__ import annotations

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
    views_of,
)
from torch import Tensor
from torchvision.transforms import v2

from featviz_pl.engine import Ascent, Step, ascend
from featviz_pl.engine import graphed_steps as _captured_step
from featviz_pl.engine.step_invariance import why_not_alike
from featviz_pl.images import AlphaImage, BallImage, FourierImage, GrowingImage, MacoImage, MaskedImage, PixelImage
from featviz_pl.numerics import device_transfer as transfer
from featviz_pl.numerics.device_transfer import to_device
from featviz_pl.objectives import Inversion, Observation, StayNear, Style, Term
from featviz_pl.transforms import Blur, Compose, Crop, Jitter, Noise, Roll, Torchvision, Transform, Views

__all__ = ["graphs", "logged"]  # fixtures


class Ours(Term):
    """An objective of somebody else's."""

    def score(self, seen: Observation) -> Tensor:
        return seen.pictures.flatten(1).mean(1, keepdim=True) * (seen.step or 0)

    def formula(self) -> str:
        return "Ours()"


class Warped(Noise):
    """A transform of somebody else's."""


class Cast(FourierImage):
    """An image of somebody else's."""


class Shift(Jitter):
    """A geometric transform of somebody else's: only its matrix is used."""


EXCLUDED: dict[str, tuple[Callable[[], Ascent], str]] = {
    "growing": (lambda: problem_of(image=GrowingImage(10, sizes=[5, 10])), "steps follow the progress of the run"),
    "schedule": (
        lambda: problem_of(Views(Compose([Jitter(2)]), schedule="linear")),
        "steps follow the progress of the run",
    ),
    "moving range": (lambda: problem_of(Views(Compose([Crop(end=0.1)]))), "steps follow the progress of the run"),
    "alpha": (lambda: problem_of(image=AlphaImage(10)), "what is behind transparent pictures is drawn within the step"),
    "maco": (lambda: problem_of(image=MacoImage(10)), "MacoImage adds up what it hears of each step's gradient"),
    "masked maco": (
        lambda: problem_of(image=MaskedImage(MacoImage(10), PICTURE, PICTURE[0])),
        "MacoImage adds up what it hears of each step's gradient",
    ),
    "clipped pixels": (
        lambda: problem_of(image=PixelImage(10, squash="clip")),
        "PixelImage projects its weights before each step",
    ),
    "ball": (lambda: problem_of(image=BallImage(PICTURE, 0.1)), "BallImage projects its weights before each step"),
    "other image": (lambda: problem_of(image=Cast(10)), "Cast may do something else in every step"),
    "other objective": (lambda: problem_of(objective=CHANNELS + Ours()), "Ours may do something else in every step"),
    "running state": (
        lambda: problem_of(objective=CHANNELS + StayNear(PICTURE)),
        "StayNear may remember earlier steps",
    ),
    "style": (
        lambda: problem_of(objective=CHANNELS + Style(["features.3"], PICTURE)),
        "Style.features.3 may remember earlier steps",
    ),
    "moving reference": (
        lambda: problem_of(objective=CHANNELS + Inversion("features.5", PICTURE)),
        "a reference goes through the views of each step",
    ),
    "roll": (
        lambda: problem_of(Views(Compose([Jitter(1), Compose([Roll(3)])]))),
        "Roll(3) uses what it draws outside of tensors",
    ),
    "torchvision": (
        lambda: problem_of(Views(Torchvision(v2.RandomAffine(20.0)))),
        "Torchvision(RandomAffine(degrees=[-20.0, 20.0]",
    ),
    "other transform": (lambda: problem_of(Views(Warped(0.1))), "Warped may do something else in every step"),
}


@pytest.mark.parametrize(("make", "expected"), EXCLUDED.values(), ids=EXCLUDED.keys())
def test_steps_that_are_not_alike_are_not_captured(
    make: Callable[[], Ascent], expected: str, graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture
) -> None:
    own = plain_and_captured(make, graphs)
    assert (own.rehearsed, own.captured, own.replayed) == (0, 0, 0)
    assert reason(logged).startswith(expected)


def test_a_geometric_transform_of_somebody_else_s_is_captured(graphs: list[EagerGraphs]) -> None:
    assert plain_and_captured(lambda: problem_of(Views(Shift(2))), graphs).replayed


def pretend_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_captured_step, "why_not_alike", lambda *_: None)


@pytest.mark.parametrize("views", [Roll(4), Torchvision(v2.RandomAffine(20.0))], ids=lambda made: type(made).__name__)
def test_what_does_not_go_through_the_door_is_found_by_comparing(
    views: Transform, graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_alike(monkeypatch)
    own = plain_and_captured(lambda: problem_of(Views(views)), graphs)
    assert own.replayed <= 2
    assert own.captured or isinstance(views, Torchvision)


def test_only_the_second_comparison_may_tell(
    graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Ours):
        def score(self, seen: Observation) -> Tensor:
            return seen.pictures.flatten(1).mean(1, keepdim=True) * (1.0 + (seen.step == FIRST + 2))

    pretend_alike(monkeypatch)
    own = plain_and_captured(lambda: problem_of(views_of("lucid"), CHANNELS + Late()), graphs)
    assert (own.captured, own.replayed) == (1, 2)
    assert reason(logged) == "a replayed step differs from the plain one"


def test_a_step_that_changes_what_it_works_on_is_found_and_undone(
    graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def masked() -> Ascent:
        image = MacoImage(10)
        made.append(image)
        return problem_of(image=image)

    made: list[MacoImage] = []
    pretend_alike(monkeypatch)
    assert plain_and_captured(masked, graphs).captured == 0
    assert reason(logged) == "RuntimeError: a step changes what it works on"
    assert all(image.transparency is not None for image in made)
    assert torch.equal(made[0].transparency, made[1].transparency)  # type: ignore[arg-type]


class Uneven(Noise):
    """Send something more to the device in some steps."""

    extra = 0

    def apply(self, image: Tensor, parameters: Any) -> Tensor:  # type: ignore[override]
        type(self).extra += image.is_meta
        view = super().apply(image, parameters)
        if self.extra > 3:
            to_device(torch.ones(1), image.device)
        return view


def test_a_step_that_sends_something_else_is_found(
    graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_alike(monkeypatch)
    monkeypatch.setattr(Uneven, "extra", 0)
    assert plain_and_captured(lambda: problem_of(Views(Uneven(0.1))), graphs).replayed == 2
    assert reason(logged).startswith("TransferError: tensor 2 that goes to the device was")


def test_kernels_of_other_lengths_are_found(graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture) -> None:
    plain_and_captured(lambda: problem_of(Views(Blur([0.3, 0.6, 0.9, 1.2]))), graphs)
    assert reason(logged).startswith("TransferError: tensor 1 that goes to the device was")


@pytest.mark.parametrize("broken", ["rehearse", "capture", "replay"])
def test_what_fails_in_a_capture_leaves_plain_steps(
    broken: str, graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("CUDA error: operation not permitted\nmore lines")

    monkeypatch.setattr(EagerGraphs, *(("capture", lambda *_: fail) if broken == "replay" else (broken, fail)))
    assert plain_and_captured(lambda: problem_of(views_of("lucid")), graphs).replayed == 0
    assert reason(logged) == "RuntimeError: CUDA error: operation not permitted"


def test_too_little_memory_for_both_leaves_plain_steps(
    graphs: list[EagerGraphs], logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Ascent.step

    def step(self: Ascent, step: Any, *rest: Any) -> Step:
        if graphs and graphs[0].replayed == 1 and transfer._door.get() is None and not logged.records:
            raise torch.OutOfMemoryError("out of memory")
        return given(self, step, *rest)

    monkeypatch.setattr(Ascent, "step", step)
    assert plain_and_captured(lambda: problem_of(views_of("lucid")), graphs).replayed == 1
    assert reason(logged) == "there is too little memory for captured and plain steps"


def test_too_little_memory_for_a_plain_step_ends_the_run(
    graphs: list[EagerGraphs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    problem = problem_of()
    monkeypatch.setattr(problem, "step", fail)
    with pytest.raises(torch.OutOfMemoryError):
        ascend(problem, STEPS)


def test_on_a_cpu_nothing_is_captured_nor_logged(logged: pytest.LogCaptureFixture) -> None:
    assert list(_captured_step.GRAPHS) == ["cuda"]
    ascended(lambda: problem_of(views_of("lucid")))
    assert not logged.records


def test_why_not_says_nothing_of_an_ordinary_problem() -> None:
    made = problem_of(views_of("article"))
    assert why_not_alike(made.image, made.views, made.objective) is None
