"""Runs that stop and go on: checkpoints, copies, and the picture that an unbroken run would have made."""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from guests import At
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from runs import Record, build, fit
from torch import Tensor
from toys import toy

from featviz_pl.callbacks import Augmentation
from featviz_pl.images import FourierImage
from featviz_pl.module import FeatureVisualization, StepSource
from featviz_pl.objectives import Channel

Cosine = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=20)
NOT_EMPTY = "ignore:Checkpoint directory .* exists and is not empty"


def checkpoint_at(step: int, folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=step, save_top_k=-1)


def resumable(**arguments: Any) -> FeatureVisualization:
    return build([1, 6], seed=2, scheduler=Cosine, **arguments)


def resumable_views() -> Augmentation:
    return Augmentation("article", views=2, schedule="warmup")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Path]:
    """Run 20 steps with a checkpoint every 5, once for all tests of this file."""
    folder = tmp_path_factory.mktemp("unbroken")
    model = resumable()
    fit(model, 20, [resumable_views(), checkpoint_at(5, folder)], enable_checkpointing=True)
    return model.images.clone(), folder


@pytest.mark.filterwarnings(NOT_EMPTY)
@pytest.mark.parametrize("step", [5, 10, 15])
def test_a_resumed_run_gives_the_same_picture_bit_for_bit(unbroken: tuple[Tensor, Path], step: int) -> None:
    expected, folder = unbroken
    model, record = resumable(), Record()
    again = [resumable_views(), record, checkpoint_at(5, folder)]
    fit(model, 20, again, str(folder / f"step={step}.ckpt"), enable_checkpointing=True)
    assert record.batches == list(range(step, 20))
    assert torch.equal(model.images, expected)


@pytest.mark.filterwarnings("ignore:.*was called without a model", "ignore:.*there is no last checkpoint available")
def test_an_interrupted_run_resumes_bit_for_bit(unbroken: tuple[Tensor, Path], tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    keep = OnExceptionCheckpoint(tmp_path, "stopped")
    with pytest.raises(SystemExit):
        fit(resumable(), 20, [resumable_views(), At(7, interrupt), keep], enable_checkpointing=True)
    model, record = resumable(), Record()
    fit(model, 20, [resumable_views(), record, keep], str(tmp_path / "stopped.ckpt"), enable_checkpointing=True)
    assert record.steps == list(range(8, 21))
    assert torch.equal(model.images, unbroken[0])


@pytest.mark.filterwarnings(NOT_EMPTY)
def test_a_finished_run_is_extended_exactly(tmp_path: Path) -> None:
    long = build(3, seed=4)
    fit(long, 9, [Augmentation("article")])
    fit(build(3, seed=4), 6, [Augmentation("article"), checkpoint_at(6, tmp_path)], enable_checkpointing=True)
    extended = build(3, seed=4)
    again = [Augmentation("article"), checkpoint_at(6, tmp_path)]
    fit(extended, 9, again, str(tmp_path / "step=6.ckpt"), enable_checkpointing=True)
    assert torch.equal(extended.images, long.images)


def test_a_checkpoint_holds_the_picture_and_no_network(unbroken: tuple[Tensor, Path]) -> None:
    held = torch.load(unbroken[1] / "step=10.ckpt", weights_only=True)
    assert sorted(held["state_dict"]) == ["image.initialized", "image.weight"]
    assert held["state_dict"]["image.weight"].shape == (2, 3, 12, 7, 2)
    assert len(held["optimizer_states"]) == 1
    assert [tuple(state["exp_avg"].shape) for state in held["optimizer_states"][0]["state"].values()] == [(2, 3, 12, 7, 2)]
    assert held["hyper_parameters"] == {"steps": 5, "seed": 2, "lr": 0.05}


def test_load_from_checkpoint_gives_the_picture(unbroken: tuple[Tensor, Path]) -> None:
    arguments: dict[str, Any] = {"network": toy(), "objective": Channel("features.5", [1, 6]), "image": FourierImage(12)}
    loaded = FeatureVisualization.load_from_checkpoint(unbroken[1] / "step=20.ckpt", weights_only=True, **arguments)
    assert loaded.seed == 2
    assert torch.equal(loaded.images, unbroken[0])


def test_a_checkpoint_of_another_number_of_pictures_is_refused(unbroken: tuple[Tensor, Path]) -> None:
    model = build([1, 6, 7])
    with pytest.raises(ValueError, match=r"checkpoint.*2 pictures.*3"):
        fit(model, 20, [], str(unbroken[1] / "step=10.ckpt"))


def test_a_checkpoint_of_another_picture_size_is_refused(unbroken: tuple[Tensor, Path]) -> None:
    with pytest.raises(ValueError, match=r"checkpoint.*size"):
        fit(build([1, 6], size=10), 20, [], str(unbroken[1] / "step=10.ckpt"))


def test_copies_and_pickles_are_independent_and_run_on() -> None:
    model = build([1, 2], optimizer=torch.optim.SGD, scheduler=Cosine)
    fit(model, 2, [Augmentation("article")])
    reached = model.images.clone()
    straight = copy.deepcopy(model)
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(made.images, reached)
        assert torch.equal(made.scores(), model.scores())
        fit(made, 3)
        assert torch.equal(model.images, reached)
        if straight.last is None:
            fit(straight, 3)
        assert torch.equal(made.images, straight.images)


def test_the_source_of_steps_resumes_once_and_begins_anew_after() -> None:
    source = StepSource(5)
    steps = iter(source)
    assert [next(steps), next(steps)] == [0, 1]
    other = StepSource(5)
    other.load_state_dict(source.state_dict())
    assert list(other) == [2, 3, 4]
    assert list(other) == [0, 1, 2, 3, 4]
    assert len(other) == 5


def test_a_copy_shares_the_network() -> None:
    model = build()
    assert copy.deepcopy(model).network.module is model.network.module
