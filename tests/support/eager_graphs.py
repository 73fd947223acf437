"""A stand-in for CUDA graphs on the CPU: what a graph does again, it does by running the function again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from toys import toy

from featviz_pl.engine import Ascent, Step, ascend
from featviz_pl.engine import graphed_steps as _captured_step
from featviz_pl.engine.ascent import REDIRECTED_STEPS
from featviz_pl.images import FourierImage, Image
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel, Objective
from featviz_pl.transforms import Views, view_preset

Result = TypeVar("Result")


class EagerGraphs:
    """Run a captured function again at each replay, and overwrite the results of the capture, as a graph does.

    Args:
        device: of the pictures.
    """

    made: list[EagerGraphs]

    def __init__(self, device: torch.device) -> None:
        assert device.type == "cpu"
        self.rehearsed = self.captured = self.replayed = 0
        type(self).made.append(self)

    def rehearse(self, function: Callable[[], object]) -> None:
        self.rehearsed += 1
        function()

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        self.captured += 1
        result = function()

        def replay() -> Result:
            self.replayed += 1
            with torch.no_grad():
                for own, again in zip(tensors(result), tensors(_with_grad(function)), strict=True):
                    assert not own.requires_grad, "a graph of autograd is freed, and cannot be replayed"
                    own.copy_(again)
            return result

        return replay


def _with_grad(function: Callable[[], Result]) -> Result:
    with torch.enable_grad():
        return function()


def tensors(result: Any) -> list[Tensor]:
    """List the tensors of a step and its gradients."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Step):
        return [result.loss, result.scores, *result.terms.values()]
    return [own for part in result for own in tensors(part)] if isinstance(result, (tuple, list)) else []


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[EagerGraphs]:
    """Let steps on the CPU be captured, and return what captured them."""
    EagerGraphs.made = []
    monkeypatch.setitem(_captured_step.GRAPHS, "cpu", EagerGraphs)
    monkeypatch.setattr(_captured_step, "LEAST_REPLAYS", 4)
    return EagerGraphs.made


PICTURE = torch.rand(3, 10, 10, generator=torch.Generator().manual_seed(0))
STEPS = 40
FIRST = REDIRECTED_STEPS + 1  # step 16 looks for dead pictures
CHANNELS = Channel("features.5", [1, 4])


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Listen to what is logged."""
    caplog.set_level(logging.INFO, "featviz_pl")
    return caplog


def views_of(preset: str, count: int = 1) -> Views:
    """Return the views of a preset."""
    return Views(view_preset(preset)[0], count)


def problem_of(
    views: Views | None = None, objective: Objective | None = None, image: Image | None = None, network: Any = None
) -> Ascent:
    made = FourierImage(10) if image is None else image
    held = FrozenNetwork(toy() if network is None else network)
    return Ascent(made, held, CHANNELS if objective is None else objective, seed=3, views=views)


def ascended(make: Callable[[], Ascent], **arguments: Any) -> tuple[Tensor, Tensor, list[Step]]:
    """Return pictures, scores and all that the steps told."""
    told: list[Step] = []
    problem = make()
    scores = ascend(problem, STEPS, on_step=lambda _, step: told.append(step), **arguments)
    return problem.image().detach(), scores, told


def require_equal(one: tuple[Tensor, Tensor, list[Step]], other: tuple[Tensor, Tensor, list[Step]]) -> None:
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    for own, its in zip(one[2], other[2], strict=True):
        assert torch.equal(own.loss, its.loss)
        assert torch.equal(own.scores, its.scores)
        assert own.terms.keys() == its.terms.keys()
        assert all(torch.equal(own.terms[name], its.terms[name]) for name in own.terms)


def plain_and_captured(make: Callable[[], Ascent], made: list[EagerGraphs], **arguments: Any) -> EagerGraphs:
    """Require that a run with captured steps equals one without, and return what captured them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(_captured_step.GRAPHS, "cpu")
        plain = ascended(make, **arguments)
    assert not made
    require_equal(ascended(make, **arguments), plain)
    (own,) = made
    return own


def reason(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = [record for record in caplog.records if record.name == "featviz_pl.engine.graphed_steps"]
    assert record.levelno == logging.INFO
    return record.getMessage().removeprefix("steps are taken one by one, not replayed from a graph: ")
