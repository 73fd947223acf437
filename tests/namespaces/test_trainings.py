"""Callbacks and modules in the Trainer of ``pytorch_lightning``: what comes out is the same as in ``lightning.pytorch``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import both_packages
import pytest
import torch
from both_packages import (
    LIGHTNING,
    PYTORCH_LIGHTNING,
    classifier,
    data,
    differences,
    ended,
    monitor,
    ours,
    trainer,
    visualization,
)
from toys import toy

from featviz_pl import callbacks, compat
from featviz_pl.images import FourierImage

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty"),
]
MODULES = {"FeatureSweep", "FeatureTargets", "FeatureVisualization"}
OF_RUNS: dict[str, dict[str, Any]] = {
    "Augmentation": {"transforms": "article", "views": 2},
    "DistributedViews": {"every": 2},
    "ImageSnapshot": {"folder": "snapshots", "every": 2},
    "PictureEvaluation": {"folder": "evaluated", "views": 1},
    "StopOnPlateau": {"patience": 2, "min_delta": 100.0, "every": 1},
}


def bytes_below(folder: Path, *endings: str) -> dict[str, bytes]:
    """Return the content of files by their names."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.suffix in endings
    }


def test_the_usual_module_is_refused_by_the_other_trainer_as_the_docstring_says() -> None:
    with pytest.raises(TypeError) as caught:
        trainer(PYTORCH_LIGHTNING, max_steps=1).fit(visualization(LIGHTNING))
    assert str(caught.value) in " ".join(str(compat.__doc__).split())


# Runs of this library.


def rendered(package: str, folder: Path, usual_callbacks: bool = False) -> dict[str, Any]:
    """Run with all callbacks and two loggers, and return everything that came of it."""
    folder.mkdir()
    os.chdir(folder)
    made = [ours(LIGHTNING if usual_callbacks else package, name, **arguments) for name, arguments in OF_RUNS.items()]
    kinds = __import__(f"{package}.loggers", fromlist=["x"])
    loggers = [kinds.CSVLogger("csv"), kinds.TensorBoardLogger("board")]
    module = visualization(package)
    held = trainer(package, *made, max_steps=9, logger=loggers, log_every_n_steps=1)
    held.fit(module)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(loggers[1].log_dir)
    board.Reload()
    assert board.Tags()["images"] == ["pictures", "pictures/features.5:1", "pictures/features.5:4"]
    shown = [(event.step, event.encoded_image_string) for event in board.Images("pictures")]
    seen = dict(zip(OF_RUNS, made))
    return {
        **ended(module, held),
        "images": module.images,
        "files": bytes_below(folder, ".png", ".webp"),
        "evaluated": (folder / "evaluated" / "evaluation.csv").read_text(),
        "scores": seen["DistributedViews"].scores,
        "board": shown,
    }


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run once in the Trainer of ``lightning.pytorch``."""
    return rendered(LIGHTNING, tmp_path_factory.mktemp("usual") / "run")


@pytest.mark.parametrize("usual_callbacks", [False, True])
def test_a_run_with_every_callback_and_logger_is_the_same_bit_for_bit(
    usual_callbacks: bool, usual: Any, tmp_path: Path
) -> None:
    found = rendered(PYTORCH_LIGHTNING, tmp_path / "run", usual_callbacks)
    assert differences(found, usual) == []
    assert found["steps"] == 3  # StopOnPlateau has stopped it
    assert {"snapshots/final.png", "snapshots/step-000002.png", "snapshots/animation.webp"} < set(found["files"])
    assert "csv/lightning_logs/version_0/images/pictures/step-000002.png" in found["files"]
    assert [step for step, _ in found["board"]] == [2]
    assert len(found["scores"]) == 1
    assert found["evaluated"].count("\n") == 3


def test_a_checkpoint_of_the_one_goes_on_in_the_other(tmp_path: Path) -> None:
    def run(package: str, steps: int, start: str | None = None) -> tuple[Any, Any]:
        listed = [
            ours(package, "Augmentation", transforms="lucid"),
            ours(package, "ImageSnapshot", folder=tmp_path / "out", every=2),
        ]
        held, module = trainer(package, *listed, max_steps=steps), visualization(package)
        held.fit(module, ckpt_path=start)
        return held, module

    _, whole = run(LIGHTNING, 6)
    for one, other in ((LIGHTNING, PYTORCH_LIGHTNING), (PYTORCH_LIGHTNING, LIGHTNING)):
        held, _ = run(one, 3)
        held.save_checkpoint(tmp_path / "half.ckpt")
        _, continued = run(other, 6, str(tmp_path / "half.ckpt"))
        assert torch.equal(continued.images, whole.images)
        loaded = type(continued).load_from_checkpoint(
            tmp_path / "half.ckpt", network=toy(), objective="features.5:1,4", image=FourierImage(48)
        )
        assert type(loaded) is type(continued)
        assert loaded.steps_taken == 3


@pytest.mark.parametrize("kind", ["StepProgressBar", "SweepProgressBar"])
def test_our_bar_takes_the_place_of_lightnings(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    bar = ours(PYTORCH_LIGHTNING, kind, refresh_rate=1)
    held = trainer(PYTORCH_LIGHTNING, bar, enable_progress_bar=True, max_steps=2)
    assert held.progress_bar_callback is bar
    assert [one for one in held.callbacks if "ProgressBar" in type(one).__name__] == [bar]
    if kind == "StepProgressBar":
        held.fit(visualization(PYTORCH_LIGHTNING))
        assert "optimising" in capsys.readouterr().err


def test_the_usual_bar_draws_where_lightnings_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(PYTORCH_LIGHTNING, callbacks.StepProgressBar(1), max_steps=2).fit(visualization(PYTORCH_LIGHTNING))
    assert "2/2" in capsys.readouterr().err


# Sweeps.


def swept(package: str, folder: Path) -> Any:
    sweep = ours(package, "FeatureSweep", network=toy(), steps=2, size=10)
    listed = [ours(package, "FeatureWriter", folder=folder), ours(package, "SweepProgressBar")]
    held = trainer(package, *listed, enable_progress_bar=True)
    held.predict(
        sweep,
        ours(package, "FeatureTargets", targets=["features.5:all", "head:1"], batch_size=3),
        return_predictions=False,
    )
    return listed[0].summary


def test_a_sweep_writes_the_same_files_and_goes_on(tmp_path: Path) -> None:
    assert [swept(package, tmp_path / package).rendered for package in (LIGHTNING, PYTORCH_LIGHTNING)] == [9, 9]
    files = [bytes_below(tmp_path / package, ".png", ".jsonl") for package in (LIGHTNING, PYTORCH_LIGHTNING)]
    assert files[0] == files[1]
    assert len(files[0]) == 9 + 2 + 1
    again = swept(PYTORCH_LIGHTNING, tmp_path / LIGHTNING)  # where the other package began
    assert (again.rendered, again.skipped) == (0, 9)


# Other people's modules.


@pytest.mark.parametrize("usual_callback", [False, True])
def test_a_monitored_training_ends_as_it_ends_without(usual_callback: bool, tmp_path: Path) -> None:
    def train(package: str, *listed: Any) -> dict[str, Any]:
        module = classifier(package)
        held = trainer(package, *listed, max_epochs=2, default_root_dir=str(tmp_path))
        held.fit(module, data(), data())
        return ended(module, held)

    watch = monitor(LIGHTNING if usual_callback else PYTORCH_LIGHTNING, tmp_path / "one")
    assert differences(train(PYTORCH_LIGHTNING, watch), train(PYTORCH_LIGHTNING)) == []
    other = monitor(LIGHTNING, tmp_path / "other")
    train(LIGHTNING, other)
    assert differences(watch.images, other.images) == []
    assert len(watch.images) == 4
    assert bytes_below(tmp_path / "one", ".png") == bytes_below(tmp_path / "other", ".png")
    assert len(bytes_below(tmp_path / "one", ".png")) == 3  # after 3 and 6 of 8 steps, and the film


@pytest.mark.parametrize("usual_callback", [False, True])
@pytest.mark.parametrize("stage", ["validate", "fit"])
def test_the_photos_that_excite_units_are_the_same(stage: str, usual_callback: bool, tmp_path: Path) -> None:
    found = []
    for package in (LIGHTNING, PYTORCH_LIGHTNING):
        source = LIGHTNING if usual_callback else package
        top = ours(source, "TopActivations", targets="net.0:all", k=2, folder=tmp_path / package)
        held = trainer(package, top, max_epochs=1)
        if stage == "validate":
            held.validate(classifier(package), data(), verbose=False)
        else:
            held.fit(classifier(package), data(), data())
        found.append(
            {target: [(one.photo, one.score, one.box) for one in unit.top] for target, unit in top.results.items()}
        )
    assert found[0] == found[1]
    assert len(found[0]) == 6
    assert bytes_below(tmp_path / LIGHTNING, ".png", ".json") == bytes_below(
        tmp_path / PYTORCH_LIGHTNING, ".png", ".json"
    )


def test_a_layer_that_is_missing_is_named_before_the_first_batch(tmp_path: Path) -> None:
    watch = ours(PYTORCH_LIGHTNING, "FeatureMonitor", targets="net.00:1")
    with pytest.raises(ValueError, match=r"unknown layer 'net\.00'; did you mean"):
        trainer(PYTORCH_LIGHTNING, watch, max_epochs=1).fit(classifier(PYTORCH_LIGHTNING), data(), data())


def test_one_callback_need_not_be_in_a_list() -> None:
    watch = ours(PYTORCH_LIGHTNING, "FeatureMonitor", targets="net.0:1")
    held = trainer(PYTORCH_LIGHTNING, callbacks=watch)
    assert held.callbacks == [watch]


def test_a_configuration_names_classes_of_compat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.cli import LightningCLI

    monkeypatch.setattr(sys, "argv", ["run"])
    text = """
        trainer:
          logger: false
          callbacks:
            - class_path: featviz_pl.compat.Augmentation
              init_args: {transforms: lucid, views: 2}
            - class_path: featviz_pl.compat.StepProgressBar
        model: {network: embedded, steps: 7}
    """
    (tmp_path / "run.yaml").write_text(text)
    config = ["--config", str(tmp_path / "run.yaml")]
    made = LightningCLI(
        compat.FeatureVisualization, run=False, args=config, save_config_callback=None, seed_everything_default=False
    )
    assert made.model.steps == 7
    assert {"Augmentation", "StepProgressBar"} <= {type(one).__name__ for one in made.trainer.callbacks}  # type: ignore[attr-defined]


# Several processes.


@pytest.fixture(scope="module")
def over_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run all trainings of both packages on two processes."""
    found = {}
    for package in (LIGHTNING, PYTORCH_LIGHTNING):
        folder = found[package] = tmp_path_factory.mktemp(package)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, both_packages.__file__, str(folder), package]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
    return found


def on_rank(folder: Path, name: str, rank: int) -> Any:
    return torch.load(folder / f"{name}-{rank}.pt", weights_only=True)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["views", "with", "top"])
def test_two_processes_of_either_package_end_the_same(name: str, rank: int, over_two: dict[str, Path]) -> None:
    found = [on_rank(folder, name, rank) for folder in over_two.values()]
    assert differences(*found) == []
    assert found[0]


@pytest.mark.parametrize("rank", [0, 1])
def test_on_two_processes_a_monitored_training_ends_as_it_ends_without(rank: int, over_two: dict[str, Path]) -> None:
    watched, alone = (on_rank(over_two[PYTORCH_LIGHTNING], name, rank) for name in ("with", "without"))
    parts = ("weights", "optimizer", "generator", "logged", "steps")
    assert differences({part: watched[part] for part in parts}, {part: alone[part] for part in parts}) == []
    assert len(watched["images"]) == 4


def test_two_processes_write_the_files_of_a_sweep_on_one(over_two: dict[str, Path], tmp_path: Path) -> None:
    assert swept(PYTORCH_LIGHTNING, tmp_path / "atlas").rendered == 9
    alone = bytes_below(tmp_path / "atlas", ".png", ".jsonl")
    assert [bytes_below(folder / "atlas", ".png", ".jsonl") for folder in over_two.values()] == [alone, alone]
