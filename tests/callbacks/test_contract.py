"""What every callback keeps: one table over all that are exported; an export without an entry fails."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from toys import QUIET, toy

import featviz_pl_callbacks
from featviz_pl.images import FourierImage
from featviz_pl.training import FeatureVisualization

# Class name: arguments of one instance and of another.
TABLE: dict[str, tuple[Callable[[Path], dict[str, Any]], Callable[[Path], dict[str, Any]]]] = {
    "Augmentation": (lambda _: {"transforms": "article", "views": 2}, lambda _: {"transforms": "lucid"}),
    "DistributedViews": (lambda _: {"every": 2}, lambda _: {"every": 3}),
    "ImageSnapshot": (
        lambda folder: {"folder": folder / "one", "every": 2},
        lambda folder: {"folder": folder / "two", "every": [1]},
    ),
    "PictureEvaluation": (
        lambda folder: {"folder": folder / "one", "views": 1},
        lambda folder: {"folder": folder / "two", "views": 1},
    ),
    "StepProgressBar": (lambda _: {"refresh_rate": 1}, lambda _: {"refresh_rate": 3}),
    "StopOnPlateau": (lambda _: {"patience": 50, "every": 2}, lambda _: {"patience": 60, "every": 2}),
}
REFUSED_TWICE = {"Augmentation": (ValueError, "two Augmentation"), "StepProgressBar": (Exception, "[Pp]rogress bar")}

every_callback = pytest.mark.parametrize("name", sorted(TABLE))


def make(name: str, folder: Path, which: int = 0) -> Callback:
    made: Callback = getattr(featviz_pl_callbacks, name)(**TABLE[name][which](folder))
    return made


def model(seed: int = 0) -> FeatureVisualization:
    return FeatureVisualization(toy(), "features.5:1,4", image=FourierImage(10), seed=seed)


def fit(module: LightningModule, *callbacks: Callback, **arguments: Any) -> Trainer:
    quiet = {name: value for name, value in QUIET.items() if name != "enable_progress_bar"}
    bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    trainer = Trainer(
        **{**quiet, "enable_progress_bar": bar, "max_steps": 4, "callbacks": list(callbacks), **arguments}
    )
    trainer.fit(module)
    return trainer


OF_SWEEPS = {"FeatureWriter", "SweepProgressBar"}  # not of trainings; see test_writer.py
# Of other people's modules, in which nothing is visualized but by them; see test_monitor.py, test_top_activations.py.
OF_OTHER_MODULES = {"FeatureMonitor", "TopActivations"}


def test_every_export_is_in_the_table() -> None:
    known = set(TABLE) | OF_SWEEPS | OF_OTHER_MODULES
    exported = {name for name in featviz_pl_callbacks.__all__ if isinstance(getattr(featviz_pl_callbacks, name), type)}
    assert exported == known, "add the new callback to TABLE, so that the contract is tested"


@every_callback
def test_is_a_lightning_callback_with_a_repr_that_names_it(name: str, tmp_path: Path) -> None:
    callback = make(name, tmp_path)
    assert isinstance(callback, Callback)
    assert name in repr(callback)


@every_callback
def test_a_callback_is_only_made_and_does_nothing_before_a_run(name: str, tmp_path: Path) -> None:
    make(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@every_callback
def test_runs_twice_in_one_object(name: str, tmp_path: Path) -> None:
    callback, pictures = make(name, tmp_path), []
    for _ in range(2):
        module = model()
        assert fit(module, callback).global_step == 4
        pictures.append(module.images)
    assert torch.equal(*pictures)


@every_callback
def test_runs_with_a_logger(name: str, tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path / "log"))
    assert fit(model(), make(name, tmp_path), logger=logger, log_every_n_steps=1).global_step == 4


@every_callback
def test_survives_copies_and_pickles_before_and_after_a_run(name: str, tmp_path: Path) -> None:
    callback = make(name, tmp_path)
    for _ in range(2):
        for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
            assert type(made) is type(callback)
            assert made.state_key == callback.state_key
            assert fit(model(), made).global_step == 4
        if name != "StepProgressBar":  # holds its Trainer after a run, as Lightning's bars do
            fit(model(), callback)


@every_callback
def test_its_state_goes_through_a_checkpoint_under_its_own_key(name: str, tmp_path: Path) -> None:
    callback = make(name, tmp_path)
    trainer = fit(model(), callback)
    state = callback.state_dict()
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    held = torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]
    if not state:
        assert callback.state_key not in held
        return
    assert held[callback.state_key] == state
    fresh = make(name, tmp_path)
    assert fresh.state_dict() != state
    fresh.load_state_dict(held[fresh.state_key])
    assert fresh.state_dict() == state


@every_callback
def test_two_of_a_kind_work_side_by_side_or_are_refused(name: str, tmp_path: Path) -> None:
    both = make(name, tmp_path), make(name, tmp_path, 1)
    if name in REFUSED_TWICE:
        error, message = REFUSED_TWICE[name]
        with pytest.raises(error, match=message):
            fit(model(), *both)
        return
    assert both[0].state_key != both[1].state_key
    assert fit(model(), *both).global_step == 4


@every_callback
def test_what_only_watches_leaves_gradient_and_picture_alone(name: str, tmp_path: Path) -> None:
    def run(*callbacks: Callback) -> tuple[list[Tensor], Tensor]:
        gradients: list[Tensor] = []

        class Watch(Callback):
            def on_before_optimizer_step(
                self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
            ) -> None:
                gradients.append(
                    next(parameter.grad.clone() for parameter in pl_module.parameters() if parameter.grad is not None)
                )

        module = model()
        fit(module, *callbacks, Watch())
        return gradients, module.images

    plain, watched = run(), run(make(name, tmp_path))
    same = all(torch.equal(a, b) for a, b in zip(plain[0], watched[0])) and torch.equal(plain[1], watched[1])
    assert same == (name != "Augmentation")  # the one whose purpose is another gradient


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"StepProgressBar"}))  # a bar shows any module's steps
def test_another_module_is_refused_by_name(name: str, tmp_path: Path) -> None:
    class Other(LightningModule):
        pass

    with pytest.raises(TypeError, match=f"{name} works on a FeatureVisualization, not on Other"):
        make(name, tmp_path).setup(Trainer(**QUIET), Other(), "fit")
