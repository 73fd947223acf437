"""What goes wrong, what a guest finds as it was, what a run saves, and runs on several processes."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from guests import At, Breakable, condition, require_same
from runs import Record, build, fit
from torch import nn
from toys import toy

from featviz_pl.callbacks import Augmentation
from featviz_pl.engine import NonFiniteError
from featviz_pl.images import FourierImage, PixelImage
from featviz_pl.io import read_picture, read_provenance
from featviz_pl.networks import FrozenNetwork
from featviz_pl.training import FeatureVisualization

# What goes wrong.


@pytest.mark.parametrize("at", [0, 4])
def test_a_step_that_is_not_finite_stops_the_run_and_never_reaches_the_picture(at: int) -> None:
    network = Breakable()
    model = FeatureVisualization(network, "output:0", image=FourierImage(6), steps=8)
    record = Record()

    def throw() -> None:
        network.switch.on = True

    with pytest.raises(ValueError, match=f"step {at}: the score is not finite"):
        fit(model, 8, [At(at, throw, before=True), record])
    assert len(record.before) == at + 1
    assert torch.equal(model.images, record.before[-1])
    assert bool(torch.isfinite(model.images).all())


INF, NAN = float("inf"), float("nan")


def at_step(model: FeatureVisualization, step: int) -> None:
    holder: Any = model
    holder._trainer = SimpleNamespace(global_step=step)


@pytest.mark.parametrize(
    ("loss", "bad"),
    [(1.0, [2.0, NAN]), (1.0, [INF, 2.0]), (NAN, [2.0, 3.0]), (-INF, [2.0, 3.0])],
    ids=["nan", "inf", "loss nan", "loss inf"],
)
def test_on_an_accelerator_the_gradient_of_a_bad_step_is_zeroed_and_the_first_one_is_named(
    loss: float, bad: list[float]
) -> None:
    # What an accelerator does instead of stopping at once; the same operations run on a CPU.
    model = build()
    at_step(model, 3)
    good = torch.tensor([1.0, -2.0])
    model._mask_non_finite(torch.tensor(4.0), [good])
    assert good.tolist() == [1.0, -2.0]
    model._raise_non_finite()
    for step in (7, 9):
        at_step(model, step)
        gradients = [torch.tensor(bad), torch.ones(2, 2)]
        model._mask_non_finite(torch.tensor(loss), gradients)
        assert [gradient.abs().sum().item() for gradient in gradients] == [0.0, 0.0]
    at_step(model, 12)
    model._mask_non_finite(torch.tensor(4.0), [good])
    assert good.tolist() == [1.0, -2.0]
    with pytest.raises(NonFiniteError, match="step 7: the score or the gradient is not finite"):
        model._raise_non_finite()


def test_a_new_run_forgets_the_bad_step_of_the_last() -> None:
    model = build()
    at_step(model, 7)
    model._mask_non_finite(torch.tensor(NAN), [torch.ones(1)])
    assert fit(model, 2).global_step == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(99), r"unit: 'features.5' has 8 units, 0 to 7; there is no 99"),
        (
            lambda: FeatureVisualization(toy(), "features.55:0", image=FourierImage(8)),
            r"no layer 'features.55'; did you mean 'features.5'",
        ),
        (
            lambda: FeatureVisualization(toy(), "features.5:0", image=FourierImage(8, channels=4)),
            r"network: its forward fails",
        ),
    ],
    ids=["unit", "layer", "channels"],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    make: Callable[[], FeatureVisualization], message: str
) -> None:
    record = Record()
    with pytest.raises(ValueError, match=message):
        fit(make(), 3, [record])
    assert record.batches == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"network": 3}, "network must be a name"),
        ({"objective": 3}, "objective must be an Objective or a target"),
        ({"objective": "a:b:c"}, "does not parse"),
        ({"image": toy()}, "image must be an Image"),
    ],
    ids=str,
)
def test_impossible_arguments_are_named(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        FeatureVisualization(**{"network": toy(), "objective": "output:0", **arguments})


# The guest.


def awkward_guest() -> nn.Module:
    """Build a network in the middle of somebody's work: mixed modes, frozen parts, gradients, a hook, an unusual layout."""
    network = toy().train()
    network.features[3].eval()
    network.features[0].weight.requires_grad_(False)
    network.features[5].to(memory_format=torch.channels_last)
    for parameter in network.head.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    network.features[2].register_forward_hook(lambda *_: None)
    return network


def finished(model: FeatureVisualization, trainer_arguments: dict[str, Any]) -> None:
    fit(model, 3, [Augmentation("article", views=2)], **trainer_arguments)


def failed(model: FeatureVisualization, trainer_arguments: dict[str, Any]) -> None:
    def fail() -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, 5, [Augmentation("article", views=2), At(2, fail)], **trainer_arguments)


def interrupted(model: FeatureVisualization, trainer_arguments: dict[str, Any]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        fit(model, 5, [Augmentation("article", views=2), At(2, interrupt)], **trainer_arguments)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "64-true"])
@pytest.mark.parametrize("run", [finished, failed, interrupted], ids=lambda run: run.__name__)
def test_the_network_is_left_as_it_was(run: Callable[..., None], precision: str) -> None:
    network = awkward_guest()
    before = condition(network)
    run(build(network=network), {"precision": precision})
    require_same(before, condition(network))
    weights = [weight for weight in network.parameters() if weight.grad is not None]
    assert len(weights) == 2  # those of the head, set above: no other weight has a gradient


def test_the_network_is_no_part_of_the_module() -> None:
    model = build()
    assert {name.split(".")[0] for name, _ in model.named_modules() if name} == {"image", "objective"}
    assert [name for name, _ in model.named_parameters()] == ["image.weight"]


def test_global_generators_are_left_as_found() -> None:
    state = torch.get_rng_state(), np.random.get_state(legacy=True), random.getstate()  # noqa: NPY002 - the global one is meant
    fit(build([0, 1]), 3, [Augmentation("lucid", views=2)])
    assert torch.equal(torch.get_rng_state(), state[0])
    assert str(np.random.get_state(legacy=True)) == str(state[1])  # noqa: NPY002
    assert random.getstate() == state[2]


def test_the_picture_depends_on_its_seed_and_not_on_global_generators() -> None:
    pictures = []
    for outside, seed in ((0, 5), (1, 5), (1, 6)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(outside)
            model = build(seed=seed)
            fit(model, 3, [Augmentation("article", views=2)])
        pictures.append(model.images)
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def test_a_picture_does_not_depend_on_its_companions() -> None:
    together = build([0, 3, 6])
    fit(together, 5, [Augmentation("article", views=2)])
    for position, unit in enumerate([0, 3, 6]):
        alone = build([unit])
        fit(alone, 5, [Augmentation("article", views=2)])
        torch.testing.assert_close(alone.images[0], together.images[position], rtol=0, atol=1e-4)


def test_neither_hooks_nor_modules_grow_over_many_runs() -> None:
    network = toy()

    def alive() -> tuple[int, int]:
        gc.collect()
        modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]
        return len(modules), sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)

    def run() -> None:
        fit(build(network=network), 2, [Augmentation("article", views=2)])

    run()
    before = alive()
    for _ in range(4):
        run()
    assert alive() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


# Saving.


def test_save_writes_the_picture_with_its_origin(tmp_path: Path) -> None:
    model = FeatureVisualization(
        FrozenNetwork(toy(), name="a toy"), "features.5:2", image=PixelImage(9), seed=11, lr=0.1
    )
    fit(model, 4, [Augmentation("article", views=3)])
    path = model.save(tmp_path / "new" / "picture.png")
    assert float((read_picture(path) - model.images[0]).abs().max()) <= 0.5 / 255 + 1e-6
    origin = read_provenance(path)
    assert origin["network"] == "a toy"
    assert origin["target"] == "features.5:2"
    assert (origin["seed"], origin["steps"], origin["lr"]) == (11, 4, 0.1)
    assert "count=3" in origin["views"]
    # The score is the unit's mean over the picture as it is in the file, read back and shown to the plain network.
    expected = toy().eval().features(read_picture(path)[None])[0, 2].mean().item()
    assert origin["score"] == pytest.approx(expected, rel=1e-4)


def test_save_lays_several_pictures_out_in_a_sheet(tmp_path: Path) -> None:
    model = build([0, 1, 2])
    fit(model, 1)
    origin = read_provenance(model.save(tmp_path / "sheet.png"))
    assert origin["target"] == ["features.5:0", "features.5:1", "features.5:2"]
    assert len(origin["score"]) == 3


# Several processes.


def test_two_processes_share_the_views_of_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    program = Path(__file__).parents[1] / "support" / "workers.py"
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, env=dict(os.environ), check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("REPORT")).partition(" ")[2])
    assert report["moved"] > 1e-3
    assert (
        report["of other views"] > 1e-4
    )  # so the third view, which one of the two processes lacks a partner for, counts
    assert report["difference"] < 1e-9
    assert report["without views"] < 1e-9
    assert "ValueError: views: 1 views cannot be divided over 2 processes" in report["refusal"]
