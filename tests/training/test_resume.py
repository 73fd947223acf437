"""Runs that stop and go on: checkpoints, copies, and the picture that an unbroken run would have made."""

from __future__ import annotations

import copy
import functools
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from guests import At
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from runs import Record, build, fit
from torch import Tensor
from toys import ToyNet, toy

from featviz_pl.callbacks import Augmentation
from featviz_pl.images import FourierImage, MaskedImage, PixelImage
from featviz_pl.objectives import Channel, TotalVariation
from featviz_pl.training import FeatureVisualization
from featviz_pl.training.steps import StepSource

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


def test_a_run_is_extended_exactly_from_a_checkpoint_that_was_taken_after_its_end(tmp_path: Path) -> None:
    long, views = build(3, seed=4), functools.partial(Augmentation, "article")
    fit(long, 9, [views()], accumulate_grad_batches=2)
    fit(build(3, seed=4), 6, [views()], accumulate_grad_batches=2).save_checkpoint(tmp_path / "end.ckpt")
    extended, record = build(3, seed=4), Record()
    fit(extended, 9, [views(), record], str(tmp_path / "end.ckpt"), accumulate_grad_batches=2)
    assert record.batches == list(range(12, 18))
    assert record.steps == [6, 7, 7, 8, 8, 9]
    assert torch.equal(extended.images, long.images)


def test_the_learning_rate_of_an_extended_run_is_that_of_one_as_long_from_the_start(tmp_path: Path) -> None:
    long, extended = Record(), Record()
    fit(build(3, preset="featviz"), 9, [long])
    fit(build(3, preset="featviz"), 6).save_checkpoint(tmp_path / "end.ckpt")
    fit(build(3, preset="featviz"), 9, [extended], str(tmp_path / "end.ckpt"))
    assert extended.rates == long.rates[6:]


@pytest.mark.parametrize(
    ("arguments", "views", "message"),
    [
        ({"preset": "featviz"}, [], "made with optimizer Adam, .* AdamW"),
        ({}, [Augmentation("article")], "made with views None"),
    ],
    ids=["optimizer", "views"],
)
def test_a_checkpoint_of_a_run_with_other_arguments_is_refused(
    arguments: dict[str, Any], views: list[Any], message: str, tmp_path: Path
) -> None:
    fit(build(3), 2).save_checkpoint(tmp_path / "end.ckpt")
    with pytest.raises(ValueError, match=message):
        fit(build(3, **arguments), 4, views, str(tmp_path / "end.ckpt"))


class Failing(ToyNet):
    """Fail in one pass, once."""

    passes = 0

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_pre_hook(count_down)


def count_down(module: torch.nn.Module, inputs: Any) -> None:
    Failing.passes -= 1
    if Failing.passes == 0:
        raise RuntimeError("the device is lost")


@pytest.mark.filterwarnings("ignore:.*was called without a model", "ignore:.*there is no last checkpoint available")
def test_a_run_that_failed_inside_an_accumulated_step_does_that_step_again(tmp_path: Path) -> None:
    def failing() -> FeatureVisualization:
        network = Failing()
        network.load_state_dict(toy().state_dict())
        return build([1, 6], network, scheduler=Cosine)

    keep = functools.partial(OnExceptionCheckpoint, tmp_path, "failed")
    whole = failing()
    fit(whole, 6, [resumable_views()], accumulate_grad_batches=3)
    first = failing()
    probes = 1  # before the first step
    Failing.passes = probes + 3 * 4 + 2  # the second of the three batches of the fifth step
    with pytest.raises(RuntimeError, match="the device is lost"):
        fit(first, 6, [resumable_views(), keep()], accumulate_grad_batches=3, enable_checkpointing=True)
    assert first.steps_taken == 4
    model, record = failing(), Record()
    fit(
        model,
        6,
        [resumable_views(), keep(), record],
        str(tmp_path / "failed.ckpt"),
        accumulate_grad_batches=3,
        enable_checkpointing=True,
    )
    assert record.batches == list(range(12, 18))
    assert torch.equal(model.images, whole.images)


class Interrupted(torch.optim.SGD):
    """Get a signal in the middle of one step, as many times as told."""

    at, times, number = 4, 1, signal.SIGINT

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure()
        super().step()
        Interrupted.at -= 1
        if Interrupted.at == 0:
            for _ in range(self.times):
                signal.raise_signal(self.number)
        super().step()
        return loss


@pytest.mark.filterwarnings("ignore:.*was called without a model", "ignore:.*there is no last checkpoint available")
@pytest.mark.parametrize("accumulated", [1, 3])
def test_ctrl_c_inside_the_optimizer_waits_for_the_step(tmp_path: Path, accumulated: int) -> None:
    keep = OnExceptionCheckpoint(tmp_path, "stopped")
    more: dict[str, Any] = {"accumulate_grad_batches": accumulated, "enable_checkpointing": True}
    Interrupted.at = 0
    whole, stopped, model = (build([1, 6], optimizer=Interrupted) for _ in range(3))
    fit(whole, 9, [resumable_views()], accumulate_grad_batches=accumulated)
    Interrupted.at, handler = 4, signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            fit(stopped, 9, [resumable_views(), keep], **more)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
    assert stopped.steps_taken == 4
    fit(model, 9, [resumable_views(), keep], str(tmp_path / "stopped.ckpt"), **more)
    assert torch.equal(model.images, whole.images)
    assert signal.getsignal(signal.SIGINT) == handler


def test_a_second_ctrl_c_does_not_wait() -> None:
    handler = signal.getsignal(signal.SIGINT)
    Interrupted.at, Interrupted.times = 4, 2
    model = build([1, 6], optimizer=Interrupted)
    try:
        with pytest.raises(SystemExit):
            fit(model, 9, [resumable_views()])
    finally:
        Interrupted.at, Interrupted.times = 0, 1
        signal.signal(signal.SIGINT, handler)
    assert model.steps_taken == 3


def test_a_checkpoint_holds_the_picture_and_no_network(unbroken: tuple[Tensor, Path]) -> None:
    held = torch.load(unbroken[1] / "step=10.ckpt", weights_only=True)
    assert sorted(held["state_dict"]) == ["_extra_state", "image.initialized", "image.weight"]
    assert held["state_dict"]["image.weight"].shape == (2, 3, 12, 7, 2)
    assert len(held["optimizer_states"]) == 1
    assert [tuple(state["exp_avg"].shape) for state in held["optimizer_states"][0]["state"].values()] == [
        (2, 3, 12, 7, 2)
    ]
    assert held["hyper_parameters"] == {"steps": 5, "seed": 2, "lr": 0.05, "preset": "lucid"}


def test_load_from_checkpoint_gives_the_picture(unbroken: tuple[Tensor, Path]) -> None:
    arguments: dict[str, Any] = {
        "network": toy(),
        "objective": Channel("features.5", [1, 6]),
        "image": FourierImage(12),
    }
    loaded = FeatureVisualization.load_from_checkpoint(unbroken[1] / "step=20.ckpt", weights_only=True, **arguments)
    assert loaded.seed == 2
    assert torch.equal(loaded.images, unbroken[0])


def test_a_checkpoint_of_another_number_of_pictures_is_refused(unbroken: tuple[Tensor, Path]) -> None:
    model = build([1, 6, 7])
    with pytest.raises(ValueError, match=r"checkpoint: its image is .*count=2.* of this run is .*count=3"):
        fit(model, 20, [], str(unbroken[1] / "step=10.ckpt"))


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "size": (
        {"image": FourierImage(10)},
        r"its image is FourierImage\(size=\(12, 12\), .* of this run is FourierImage\(size=\(10, 10\)",
    ),
    "class": ({"image": PixelImage(12)}, r"its image is FourierImage\(.* of this run is PixelImage\("),
    "decay": ({"image": FourierImage(12, decay=0.5)}, r"its image is .*decay=1.3\), .* decay=0.5\)"),
    "color": ({"image": FourierImage(12, color="none")}, r"its image is .*color='auto'.* color='none'"),
    "objective": (
        {"objective": Channel("features.5", [1, 5])},
        r"its objective is Channel\('features.5', \[1, 6\]\), and that of this run is Channel\('features.5', \[1, 5\]\)",
    ),
    "term": (
        {"objective": Channel("features.5", [1, 6]) - 1e-3 * TotalVariation()},
        r"its objective is Channel.* and that of this run is .* - 0.001 \* TotalVariation\(\)",
    ),
    "seed": ({"seed": 3}, "its seed is 2, and that of this run is 3"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_something_else_is_refused_in_words_that_name_both(
    unbroken: tuple[Tensor, Path], name: str
) -> None:
    other, message = OTHERS[name]
    own = {
        "network": toy(),
        "objective": Channel("features.5", [1, 6]),
        "image": FourierImage(12),
        "seed": 2,
        "scheduler": Cosine,
    }
    model = FeatureVisualization(**{**own, **copy.deepcopy(other)})
    with pytest.raises(ValueError, match=f"checkpoint: {message}"):
        fit(model, 20, [], str(unbroken[1] / "step=10.ckpt"))


def test_a_checkpoint_around_another_picture_is_refused_though_the_call_looks_the_same(tmp_path: Path) -> None:
    def around(value: float) -> FeatureVisualization:
        mask = torch.zeros(1, 8, 8)
        mask[:, 2:6, 2:6] = 1
        image = MaskedImage(PixelImage(8), torch.full((3, 8, 8), value), mask)
        return FeatureVisualization(toy(), Channel("features.5", 1), image=image)

    fit(around(0.5), 2).save_checkpoint(tmp_path / "a.ckpt")
    fit(around(0.5), 3, [], str(tmp_path / "a.ckpt"))
    with pytest.raises(ValueError, match=r"its image MaskedImage.* has another picture than that of this run"):
        fit(around(0.6), 3, [], str(tmp_path / "a.ckpt"))


def test_what_a_run_did_travels_with_its_checkpoint(unbroken: tuple[Tensor, Path]) -> None:
    arguments: dict[str, Any] = {
        "network": toy(),
        "objective": Channel("features.5", [1, 6]),
        "image": FourierImage(12),
    }
    loaded = FeatureVisualization.load_from_checkpoint(unbroken[1] / "step=15.ckpt", weights_only=True, **arguments)
    origin = loaded.provenance()
    assert loaded.steps_taken == 15
    assert (origin["optimizer"], origin["scheduler"], origin["lr"]) == ("Adam", "CosineAnnealingLR", 0.05)
    assert "count=2" in origin["views"]


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
