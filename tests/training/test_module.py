"""A run of the Trainer: the same steps as the bare loop, as long as asked, with every flag honoured, and what it logs."""

from __future__ import annotations

import copy
import csv
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters_context
from lightning.pytorch.loggers import CSVLogger
from runs import Record, build, fit, weights
from torch import Tensor, nn
from toys import adam, toy

from featviz_pl.callbacks import Augmentation, ImageSnapshot
from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import FourierImage
from featviz_pl.io import read_provenance
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import L2, Channel, TotalVariation
from featviz_pl.training import FeatureVisualization
from featviz_pl.transforms import Views, view_preset

# The same steps as the bare loop.


@pytest.mark.parametrize("views", [0, 3], ids=["plain", "three views"])
def test_the_trainer_takes_the_steps_of_the_bare_loop_bit_for_bit(views: int) -> None:
    model = build([1, 4], seed=7)
    fit(model, 6, [Augmentation("article", views=views)] if views else [])
    image = FourierImage(12)
    ascend(
        Ascent(
            image,
            FrozenNetwork(toy()),
            Channel("features.5", [1, 4]),
            7,
            Views(view_preset("article")[0], views) if views else None,
        ),
        steps=6,
        optimizer=adam(),
    )
    assert torch.equal(model.images, image().detach())


def test_scores_rise() -> None:
    model = build([0, 3])
    model.setup("fit")
    before = model.scores()
    fit(model, 12)
    assert bool((model.scores() > before).all())


# How long a run is.


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ({"max_steps": 3}, 3),
        ({"max_steps": -1, "max_epochs": 1}, 5),
        ({"fast_dev_run": True}, 1),
        ({"fast_dev_run": 2}, 2),
        ({"limit_train_batches": 2}, 2),
        ({"limit_train_batches": 0.5, "max_steps": -1, "max_epochs": 1, "log_every_n_steps": 1}, 2),
        ({"max_steps": 8}, 8),
    ],
    ids=str,
)
def test_the_trainer_decides_how_long(arguments: dict[str, Any], taken: int) -> None:
    record = Record()
    trainer = fit(build(), callbacks=[record], **arguments)
    assert trainer.global_step == taken
    assert record.batches == list(range(taken))


@pytest.mark.filterwarnings("ignore:.*max_epochs. was not set")
def test_a_bare_trainer_stops_after_the_modules_own_steps() -> None:
    assert fit(build(steps=4), max_steps=-1).global_step == 4


def test_accumulated_batches_are_views_of_one_step() -> None:
    record = Record()
    model = build()
    fit(model, 3, [record, Augmentation("article", views=2)], accumulate_grad_batches=2)
    assert record.batches == [0, 1, 2, 3, 4, 5]
    assert record.steps == [0, 1, 1, 2, 2, 3]
    assert torch.equal(record.before[0], record.before[1])
    assert record.scores[0] != record.scores[1]  # other views of the same picture


def test_a_trainer_that_is_used_twice_warns() -> None:
    trainer = fit(build(), 2)
    again = build()
    with pytest.warns(UserWarning, match="already taken its 2 steps.*make a new Trainer"):
        trainer.fit(again)


def test_a_second_fit_goes_on_from_the_picture_of_the_first() -> None:
    model = build()
    fit(model, 3)
    reached = model.images.clone()
    record = Record()
    fit(model, 2, [record])
    assert torch.equal(record.before[0], reached)
    assert not torch.equal(model.images, reached)


# What the Trainer and the user may choose.


def plain_gradient(model: FeatureVisualization, unit: int) -> Tensor:
    """Differentiate the score of one unit with plain torch."""
    image = copy.deepcopy(model.image)
    (weight,) = image.parameters()
    score = toy().eval().features(image())[:, unit].mean()
    return torch.autograd.grad(score, weight)[0]


def test_one_step_of_sgd_is_plain_gradient_ascent() -> None:
    model = build(2, optimizer=torch.optim.SGD, lr=0.5)
    model.setup("fit")
    start, gradient = weights(model), plain_gradient(model, 2)
    fit(model, 1)
    torch.testing.assert_close(weights(model), start + 0.5 * gradient, rtol=1e-4, atol=1e-7)


def test_gradients_are_clipped() -> None:
    model = build(2, optimizer=torch.optim.SGD, lr=1.0)
    model.setup("fit")
    start, gradient = weights(model), plain_gradient(model, 2)
    limit = float(gradient.norm()) / 10
    fit(model, 1, gradient_clip_val=limit)
    assert float((weights(model) - start).norm()) == pytest.approx(limit, rel=5e-3)  # torch adds 1e-6 to the norm


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD,
        torch.optim.NAdam,
        functools.partial(torch.optim.Adam, lr=0.02, betas=(0.5, 0.9)),
        functools.partial(torch.optim.LBFGS, max_iter=3, line_search_fn="strong_wolfe"),
        lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
    ],
    ids=["SGD", "NAdam", "partial Adam", "LBFGS", "lambda"],
)
def test_any_optimizer_raises_the_score(optimizer: Any) -> None:
    model = FeatureVisualization(toy(), 1000 * Channel("features.5", 2), image=FourierImage(12), optimizer=optimizer)
    model.setup("fit")
    before = float(model.scores())
    assert fit(model, 5).global_step == 5
    assert float(model.scores()) > before + 0.1


def test_the_class_of_an_optimizer_gets_the_learning_rate() -> None:
    record = Record()
    fit(build(optimizer=torch.optim.SGD, lr=0.25), 1, [record])
    assert record.rates == [0.25]


def test_a_scheduler_is_stepped_after_every_step() -> None:
    record = Record()
    fit(
        build(lr=0.8, scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)), 4, [record]
    )
    assert record.rates == [0.8, 0.4, 0.2, 0.1]


def test_a_scheduler_that_watches_the_loss_is_shown_it() -> None:
    # The first loss is the best; nothing is better by 1e9, so each later one halves the rate, from the batch after it.
    plateau = functools.partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=1e9, threshold_mode="abs"
    )
    record = Record()
    fit(build(lr=0.8, scheduler=plateau), 52, [record])
    assert record.rates == [0.8] * 50 + [0.4] * 2  # without a logger the loss is reported after 25 and 50 steps


def test_a_scheduler_that_watches_the_loss_follows_the_logger(tmp_path: Path) -> None:
    plateau = functools.partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=1e9, threshold_mode="abs"
    )
    record = Record()
    fit(build(lr=0.8, scheduler=plateau), 5, [record], logger=CSVLogger(str(tmp_path)), log_every_n_steps=1)
    assert record.rates == [0.8, 0.8, 0.4, 0.2, 0.1]


@pytest.mark.parametrize(
    ("precision", "held"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.float32),
        ("bf16-true", torch.float32),
        ("64-true", torch.float64),
    ],
)
def test_the_picture_keeps_float32_at_least(precision: Any, held: torch.dtype) -> None:
    exact, model = build([2, 5], seed=1), build([2, 5], seed=1)
    fit(exact, 4, [Augmentation("article", views=2)])
    fit(model, 4, [Augmentation("article", views=2)], precision=precision)
    assert model.images.dtype == held
    assert weights(model).dtype == held
    assert model.scores().dtype in (torch.float32, torch.float64)
    assert float((model.images.float() - exact.images).abs().mean()) < (0.01 if "bf16" in precision else 1e-5)
    assert next(toy().parameters()).dtype == torch.float32


class Spy(nn.Module):
    """Remember in which precision the network computes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        SEEN.append(y.dtype)
        return y


SEEN: list[torch.dtype] = []


def test_reduced_precision_reaches_the_network_only() -> None:
    network = Spy()
    fit(FeatureVisualization(network, "output:1", image=FourierImage(8)), 2, precision="bf16-true")
    assert SEEN[-1] == torch.bfloat16
    assert network.convolution.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("casts", "expected"),
    [
        (["half", "float"], torch.float32),
        (["bfloat16", "cpu"], torch.bfloat16),  # a move is no cast
        (["double", "bfloat16"], torch.bfloat16),
        (["bfloat16", "double"], torch.float64),
        (["cpu"], torch.float32),
    ],
    ids=str,
)
def test_the_last_cast_decides_the_precision_of_the_network(casts: list[str], expected: torch.dtype) -> None:
    model = FeatureVisualization(Spy(), "output:1", image=FourierImage(8))
    for cast in casts:
        getattr(model, cast)()
    fit(model, 1)
    assert SEEN[-1] == expected
    assert model.images.dtype == (torch.float64 if "double" in casts else torch.float32)


# Logging.


def test_logged_names_and_numbers(tmp_path: Path) -> None:
    objective = Channel("features.5", [0, 1]) - 0.1 * L2() - 0.01 * TotalVariation()
    model = FeatureVisualization(toy(), objective, image=FourierImage(8), steps=3)
    logged: list[dict[str, float]] = []

    class Watch(Callback):
        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    fit(model, 3, [Watch()], logger=CSVLogger(str(tmp_path)), log_every_n_steps=1)
    for values in logged:
        assert set(values) == {"loss", "score", "score/Channel.features.5", "score/L2", "score/TotalVariation"}
        assert values["loss"] == pytest.approx(-2 * values["score"], rel=1e-5)  # the sum over two pictures
        parts = values["score/Channel.features.5"] - 0.1 * values["score/L2"] - 0.01 * values["score/TotalVariation"]
        assert values["score"] == pytest.approx(parts, rel=1e-4)
    rows = (Path(tmp_path) / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 3


def steps_logged(folder: Path) -> list[int]:
    rows = list(csv.DictReader((folder / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()))
    return [int(row["step"]) for row in rows if row["loss"]]


@pytest.mark.parametrize(
    ("every", "steps", "logged"),
    [(3, 10, [2, 5, 8]), (7, 8, [6]), (30, 31, [29])],  # Lightning counts steps from 0: the third one is 2
)
def test_values_are_logged_as_often_as_the_trainer_asks(
    tmp_path: Path, every: int, steps: int, logged: list[int]
) -> None:
    fit(build(), steps, logger=CSVLogger(str(tmp_path)), log_every_n_steps=every)
    assert steps_logged(tmp_path) == logged


def test_without_a_logger_values_for_a_progress_bar_come_every_25_steps() -> None:
    first: list[int] = []

    class Watch(Callback):
        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if "loss" in trainer.callback_metrics:
                first.append(trainer.global_step)

    fit(build(), 26, [Watch()], log_every_n_steps=1)
    assert first == [25, 26]


# Provenance.


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [(None, "Adam"), (torch.optim.SGD, "SGD"), (functools.partial(torch.optim.NAdam, lr=0.1), "NAdam")],
    ids=["none", "class", "partial"],
)
def test_provenance_names_the_optimizer(optimizer: Any, name: str) -> None:
    said = build(optimizer=optimizer).provenance()["optimizer"]
    assert name in said
    assert "0x" not in said  # an address would differ between equal runs


def test_the_weights_are_hashed_once_for_all_pictures_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hashed: list[str] = []
    original = FrozenNetwork.weights_hash

    def counted(self: FrozenNetwork) -> str:
        hashed.append(original(self))
        return hashed[-1]

    monkeypatch.setattr(FrozenNetwork, "weights_hash", counted)
    model = build([0, 1, 2])
    fit(model, 4, [ImageSnapshot(tmp_path, every=1)])
    model.save(tmp_path / "sheet.png")
    assert len(hashed) == 1
    for file in tmp_path.glob("*.png"):
        assert read_provenance(file)["weights"] == hashed[0]


class OneUnit(FeatureVisualization):
    """Somebody's own module, which takes other arguments."""

    def __init__(self, unit: int = 3) -> None:
        super().__init__(toy(), f"features.5:{unit}", image=FourierImage(8), steps=7, lr=0.1)


def test_a_subclass_may_take_other_arguments() -> None:
    assert dict(OneUnit(2).hparams) == {"steps": 7, "seed": 0, "lr": 0.1, "preset": "featviz"}
    # Where LightningCLI builds it, it says what it gave.
    with _given_hyperparameters_context({"unit": 2}, "somebody.OneUnit"):
        assert OneUnit(2).targets == ["features.5:2"]
