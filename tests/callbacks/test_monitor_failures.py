"""What goes wrong in or around a FeatureMonitor: the training hears of it, and is left alone."""
# ruff: noqa: NPY002 - what must stay as it was is the global generator

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from monitored import Classifier, Seen, differences, loaders
from torch import Tensor, nn
from toys import QUIET

import featviz_pl.engine.loop
import featviz_pl_callbacks._monitor_render
from featviz_pl.io import read_provenance
from featviz_pl_callbacks._training_guard import check_strategy, undisturbed
from featviz_pl_callbacks.feature_monitor import FeatureMonitor


def fit(
    watch: FeatureMonitor, module: LightningModule | None = None, folder: Path | None = None, **arguments: Any
) -> Trainer:
    trainer = Trainer(**{**QUIET, "max_epochs": 2, "default_root_dir": str(folder), **arguments, "callbacks": [watch]})
    trainer.fit(module or Classifier(), *loaders())
    return trainer


@contextmanager
def heard(*texts: str) -> Iterator[None]:
    """Expect each text in a warning of the monitor."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said = [str(one.message) for one in caught if "FeatureMonitor" in str(one.message)]
    for text in texts:
        assert any(text in one for one in said), said


# Refused before the first epoch.


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"targets": []}, "targets: none are given"),
        ({"targets": 3}, "targets must be a text such as"),
        ({"targets": "net.4:1:2"}, "does not parse"),
        ({"targets": "output:church"}, "targets: 'output:church' names a class"),
        ({"every_n_epochs": 0}, "every_n_epochs must be at least 1"),
        ({"every_n_steps": 0}, "every_n_steps must be at least 1"),
        ({"every_n_steps": 2, "when": "validation_end"}, "every_n_steps: 2 .*exclude"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"views": 0}, "views must be at least 1"),
        ({"size": 0}, "size must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"max_seconds": 0}, "max_seconds must be above 0"),
        ({"on_error": "warning"}, "on_error: unknown choice 'warning'; did you mean 'warn'"),
        ({"when": "epoch_end"}, "when: unknown choice 'epoch_end'; did you mean 'train_epoch_end'"),
        ({"std": 0.0}, "std must be above 0"),
        ({"preset": "lucit"}, "preset: unknown preset 'lucit'; did you mean 'lucid'"),
        ({"name": " "}, "name: ' '"),
    ],
    ids=str,
)
def test_impossible_arguments_are_named(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        FeatureMonitor(**{"targets": "net.4:0", **arguments})


def test_a_missing_layer_is_refused_at_setup_with_near_names() -> None:
    with pytest.raises(ValueError, match=r"targets: unknown layer 'net.44'; did you mean 'net.4'"):
        FeatureMonitor(["net.1", "net.44:0"]).setup(Trainer(**QUIET), Classifier(), "fit")


def test_layers_that_are_made_at_setup_are_looked_for_once_they_are_there(tmp_path: Path) -> None:
    class Late(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.made, self.net = self.net, nn.Identity()

        def configure_model(self) -> None:
            self.net = self.made

    watch = FeatureMonitor("net.4:0", steps=1, on_error="raise")
    fit(watch, Late(), tmp_path, max_epochs=1)
    assert list(watch.images) == ["net.4:0"]
    seen: list[int] = []
    late = Late()
    late.register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(ValueError, match=r"targets: unknown layer 'net.44'"):
        fit(FeatureMonitor("net.44:0"), late, tmp_path)
    assert seen == []


class DeepSpeedStrategy:
    """Stand for one whose package is not installed."""


class RayStrategy:
    """Stand for one that is not known."""


def test_strategies_that_divide_layers_are_refused_by_name() -> None:
    for strategy in (FSDPStrategy(), DeepSpeedStrategy()):
        with pytest.raises(
            ValueError,
            match=rf"strategy: .* {type(strategy).__name__} shards them; .*strategy='ddp'",
        ):
            check_strategy("FeatureMonitor", strategy, 1)
    with pytest.raises(ValueError, match="does not support RayStrategy"):
        check_strategy("FeatureMonitor", RayStrategy(), 2)
    check_strategy("FeatureMonitor", RayStrategy(), 1)


def test_two_monitors_of_one_name_are_refused_and_of_two_names_work(tmp_path: Path) -> None:
    one, two = FeatureMonitor("net.4:0", steps=1), FeatureMonitor("net.4:1", steps=1)
    with pytest.raises(ValueError, match="name: two FeatureMonitors"):
        Trainer(**QUIET, max_epochs=1, callbacks=[one, two], default_root_dir=str(tmp_path)).fit(
            Classifier(), *loaders()
        )


# In the middle of a training.


def ended(watch: FeatureMonitor | None, folder: Path, module: LightningModule | None = None) -> dict[str, Any]:
    """Return what a training ends with."""
    seen = Seen()
    callbacks: list[Callback] = [seen] if watch is None else [watch, seen]
    trainer = Trainer(**QUIET, max_epochs=2, log_every_n_steps=1, default_root_dir=str(folder), callbacks=callbacks)
    trainer.fit(module or Classifier(), *loaders())
    return seen.seen


class BreaksAlone(nn.Module):
    """Draw random numbers and fail on anything but the batches of the training and the validation."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) not in (2, 8):
            torch.rand(3)
            np.random.rand(3)
            random.random()
            raise RuntimeError("on purpose")
        return x


def breaking() -> Classifier:
    module = Classifier()
    module.net[3] = BreaksAlone()
    return module


def test_an_exception_inside_leaves_the_training_untouched_and_says_what_happened(tmp_path: Path) -> None:
    plain = ended(None, tmp_path, breaking())
    with heard(
        "FeatureMonitor: after step 8, and training goes on: net.4:0, net.1:3: ValueError",
        "on purpose",
        "after step 16",
    ):
        watched = ended(FeatureMonitor(["net.4:0", "net.1:3"], folder=tmp_path / "out"), tmp_path, breaking())
    assert differences(plain, watched) == []
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="on purpose"):
        ended(FeatureMonitor("net.4:0", on_error="raise"), tmp_path, breaking())


def test_one_layer_that_fails_does_the_others_no_harm(tmp_path: Path) -> None:
    watch = FeatureMonitor(["net.4:0", "net.4:99", "net.9:1"], steps=1)
    with heard("net.4:0, net.4:99: ValueError: unit: '4' has 8 units, 0 to 7; there is no 99"):
        fit(watch, None, tmp_path)
    assert list(watch.images) == ["net.9:1"]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with heard("logging the pictures:"):
        assert fit(FeatureMonitor("net.4:0", steps=1, folder=tmp_path / "out"), None, tmp_path).global_step == 16
    with pytest.raises((ValueError, OSError)):
        fit(FeatureMonitor("net.4:0", steps=1, folder=tmp_path / "out", on_error="raise"), None, tmp_path)


def test_batches_without_pictures_need_a_size(tmp_path: Path) -> None:
    class Flat(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(x.unflatten(1, (3, 12, 12)) if x.ndim == 2 else x)
            return y

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def on_flat(watch: FeatureMonitor) -> None:
        data = [(x.flatten(1), y) for x, y in loaders()[0]]
        trainer = Trainer(**QUIET, max_epochs=1, default_root_dir=str(tmp_path), callbacks=[watch])
        trainer.fit(Flat(), torch.utils.data.DataLoader(data, batch_size=None), loaders()[1])  # type: ignore[arg-type]

    with heard("ValueError: size: unknown"):
        on_flat(FeatureMonitor("net.4:0", steps=1))
    watch = FeatureMonitor("net.4:0", steps=1, size=9, on_error="raise")
    on_flat(watch)
    assert watch.images["net.4:0"].shape == (3, 9, 9)


def test_a_network_that_changes_between_epochs_is_looked_at_as_it_is(tmp_path: Path) -> None:
    class Changing(Classifier):
        def on_train_epoch_start(self) -> None:
            net: Any = self.net
            if self.current_epoch == 1:  # grows, gets fewer channels, and loses its rectifier's place
                net[4] = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 1))
                net[5] = nn.Identity()
            if self.current_epoch == 2:
                self.net = nn.Sequential(net[0], net[6:8], nn.Linear(6, 4))

    watch = FeatureMonitor(["net.0:1", "net.4:3"], steps=2)
    moments: list[dict[str, Tensor]] = []

    class Keep(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            moments.append(watch.images)

    with heard("after step 24, and training goes on: net.0:1, net.4:3: ValueError: targets: unknown layer 'net.4'"):
        trainer = Trainer(**QUIET, max_epochs=3, default_root_dir=str(tmp_path), callbacks=[watch, Keep()])
        trainer.fit(Changing(), *loaders())
    assert all(not torch.equal(moments[0][name], moments[1][name]) for name in ("net.0:1", "net.4:3"))
    assert all(torch.equal(moments[1][name], moments[2][name]) for name in ("net.0:1", "net.4:3"))  # kept


def test_a_network_that_has_diverged_is_said_to_have(tmp_path: Path) -> None:
    class Diverging(Classifier):
        def on_train_epoch_end(self) -> None:
            with torch.no_grad():
                self.net[4].weight.fill_(torch.nan)

    watch = FeatureMonitor("net.4:0", steps=2)
    module = Diverging()
    with heard("net.4:0: the score or the gradient of step 0 is not finite"):
        fit(watch, module, tmp_path)
    assert torch.isfinite(watch.images["net.4:0"]).all()


def test_the_budget_ends_each_time_early_and_every_picture_takes_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            Clock.now += 1.0
            return Clock.now

    monkeypatch.setattr(featviz_pl_callbacks._monitor_render, "time", Clock())
    watch = FeatureMonitor(["net.4:0", "net.1:3"], steps=50, max_seconds=12)
    with heard("FeatureMonitor: max_seconds=12 ended 2 of 2 pictures before 50 steps"):
        fit(watch, None, tmp_path, max_epochs=1)
    # The clock is looked at once at first, once before each picture and once after each step: 11 seconds are left at
    # the first picture, of which it gets half; its steps end at 3, 4, … and the first beyond 2 + 11 / 2 = 7.5 is the
    # sixth.
    taken = read_provenance(tmp_path / "features" / "step-000008.png")["steps"]
    assert taken[0] == 6
    assert 1 <= taken[1] <= 6
    assert Clock.now < 16
    patient = FeatureMonitor("net.4:0", steps=4, max_seconds=1000, on_error="raise")
    fit(patient, None, tmp_path, max_epochs=1)
    assert read_provenance(tmp_path / "features" / "step-000008.png")["steps"] == [4]


def interrupt(monkeypatch: pytest.MonkeyPatch, at_call: int, error: BaseException) -> None:
    """Raise in the middle of a rendering."""
    calls = [0]

    def ascend(*arguments: Any, on_step: Any, **options: Any) -> Any:
        def stop(index: int, step: Any) -> None:
            on_step(index, step)
            calls[0] += 1
            if calls[0] == at_call:
                torch.rand(5)
                random.random()
                raise error

        return featviz_pl.engine.loop.ascend(*arguments, on_step=stop, **options)

    monkeypatch.setattr(featviz_pl_callbacks._monitor_render, "ascend", ascend)


@pytest.mark.filterwarnings("ignore:.*was called without a model|.*there is no last checkpoint available")
def test_ctrl_c_in_the_middle_of_a_rendering_ends_the_training_where_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}

    class Look(Callback):
        def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
            kept.update(
                error=exception, torch=torch.get_rng_state(), python=random.getstate(), step=trainer.global_step
            )
            kept.update(
                modes={name: part.training for name, part in pl_module.named_modules()}, grad=torch.is_grad_enabled()
            )
            kept.update(
                weights={name: value.clone() for name, value in pl_module.state_dict().items()}, images=watch.images
            )

    class Reach(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            if trainer.global_step == 8:
                reached.update(torch=torch.get_rng_state(), python=random.getstate())
                reached.update(
                    modes={name: part.training for name, part in pl_module.named_modules()},
                    grad=torch.is_grad_enabled(),
                )
                reached.update(weights={name: value.clone() for name, value in pl_module.state_dict().items()})

    reached: dict[str, Any] = {}
    watch = FeatureMonitor(["net.4:0", "net.1:3"], steps=4, every_n_steps=4)
    with monkeypatch.context() as patched:
        interrupt(patched, 8 + 3, KeyboardInterrupt())  # in the third step of the first picture at the second time
        callbacks = [Reach(), watch, Look(), OnExceptionCheckpoint(tmp_path, "stopped")]
        quiet = {**QUIET, "enable_checkpointing": True}
        trainer = Trainer(**quiet, max_epochs=2, callbacks=callbacks, default_root_dir=str(tmp_path))
        with pytest.raises(SystemExit):
            trainer.fit(Classifier(), *loaders())
    assert isinstance(kept.pop("error"), KeyboardInterrupt)
    assert kept.pop("step") == 8
    images = kept.pop("images")
    assert list(images) == ["net.4:0", "net.1:3"]  # of the time before
    assert differences(reached, kept) == []
    again = FeatureMonitor(["net.4:0", "net.1:3"], steps=4, every_n_steps=4, on_error="raise")
    trainer = Trainer(
        **{**QUIET, "enable_checkpointing": True}, max_epochs=2, callbacks=[again], default_root_dir=str(tmp_path)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
        trainer.fit(Classifier(), *loaders(), ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    assert trainer.global_step == 16
    assert again.state_dict()["files"] == ["step-000004.png", "step-000012.png", "step-000016.png"]


def numpy_state() -> tuple[Any, ...]:
    held: Any = np.random.get_state()
    return held[0], held[1].tolist(), *held[2:]


def test_the_guard_restores_modes_generators_and_determinism_after_anything() -> None:
    module = Classifier()
    module.train()
    module.net[1].eval()
    modes = {name: part.training for name, part in module.named_modules()}
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = torch.get_rng_state(), random.getstate(), numpy_state()
        with suppress(KeyboardInterrupt), torch.no_grad(), undisturbed(module, torch.device("cpu")):
            assert torch.is_grad_enabled()
            assert not any(part.training for part in module.modules())
            assert not torch.are_deterministic_algorithms_enabled()
            torch.rand(1), random.random(), np.random.rand()
            raise KeyboardInterrupt
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert numpy_state() == before[2]
    assert {name: part.training for name, part in module.named_modules()} == modes
