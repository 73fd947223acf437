"""The evaluation at the end of a run: the table of its pictures, logged and on disk, and an unchanged run."""

from __future__ import annotations

import copy
import csv
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluation_worker
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from metric_cases_transfer import color_judge
from torch import Tensor
from toys import QUIET, toy

from featviz_pl.callbacks import PictureEvaluation
from featviz_pl.images import AlphaImage, FourierImage, Image
from featviz_pl.io import as_saved, save_png
from featviz_pl.metrics import evaluate, load_activations, measure_activations
from featviz_pl.networks import FrozenNetwork, load_network
from featviz_pl.objectives import Channel, Direction, Objective
from featviz_pl.training import FeatureVisualization


def build(objective: Objective | str = "output:0-1", image: Image | None = None) -> FeatureVisualization:
    network = FrozenNetwork(toy(), classes=["red", "green", "blue", "c", "d"])
    return FeatureVisualization(network, objective, image=image or FourierImage(40), seed=3)


def fit(module: LightningModule, *callbacks: Callback, **arguments: Any) -> Trainer:
    trainer = Trainer(**{**QUIET, "max_steps": 3, "callbacks": list(callbacks), **arguments})
    trainer.fit(module)
    return trainer


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index in range(8):
        save_png(
            torch.rand(3, 30, 34, generator=torch.Generator().manual_seed(index)) * index / 8,
            tmp_path / "photos" / f"{index}.png",
        )
    return tmp_path / "photos"


def test_the_table_is_that_of_the_pictures_as_they_are_saved(photos: Path, tmp_path: Path) -> None:
    module, callback = build(), PictureEvaluation(tmp_path / "out", color_judge(), photos=photos, views=2, limit=7)
    fit(module, callback)
    assert callback.result is not None
    expected = evaluate(
        as_saved(module.images),
        module.network,
        ["output:0", "output:1"],
        judge=color_judge(),
        photos=photos,
        views=2,
        limit=7,
    )
    assert callback.result.rows == expected.rows
    assert callback.result.summary == expected.summary
    assert [row["score"] for row in callback.result.rows] == pytest.approx(module.scores().tolist(), rel=1e-5)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.json", "evaluation.csv"}
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"] == expected.rows
    with (tmp_path / "out" / "evaluation.csv").open(newline="") as file:
        assert [row["target"] for row in csv.DictReader(file)] == ["output:0", "output:1"]


def test_the_means_go_to_every_logger_on_the_axis_of_the_steps(tmp_path: Path) -> None:
    callback, loggers = PictureEvaluation(views=1), [CSVLogger(tmp_path / name) for name in ("one", "two")]
    fit(build(), callback, logger=loggers, log_every_n_steps=1)
    assert callback.result is not None
    for logger in loggers:
        with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        logged = {name: float(value) for name, value in rows[-1].items() if name.startswith("evaluation/")}
        assert logged == pytest.approx(
            {f"evaluation/{name}": value for name, value in callback.result.summary.items() if value is not None}
        )
        assert {row["step"] for row in rows if row["evaluation/clipped"]} == {"3"}


def test_nothing_is_written_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(build(), PictureEvaluation(views=1))
    assert list(tmp_path.iterdir()) == []


def test_the_global_generator_and_the_network_are_left_alone(photos: Path) -> None:
    module = build()
    module.network.module.train()
    before = module.network.weights_hash()

    def generator() -> Tensor:
        fit(module, *callbacks)
        return torch.random.get_rng_state()

    callbacks: list[Callback] = []
    torch.manual_seed(0)
    without = generator()
    callbacks = [PictureEvaluation(judge=color_judge(), photos=photos, views=1)]
    torch.manual_seed(0)
    assert torch.equal(generator(), without)
    assert module.network.module.training
    assert module.network.weights_hash() == before


def test_objectives_without_shorthand_and_transparent_pictures_are_measured_too(photos: Path) -> None:
    callback = PictureEvaluation(views=1, photos=photos, judge=color_judge())
    fit(build(Channel("features.5", 1) + Channel("features.5", 2)), callback)
    assert callback.result is not None
    row = callback.result.rows[0]
    assert (row["target"], row["score"], row["rank"]) == ("features.5:1 & features.5:2", None, None)
    assert row["nearest"] is not None
    transparent = build("features.5:1", AlphaImage(40))
    fit(transparent, callback)
    assert callback.result.rows[0]["score"] == pytest.approx(float(transparent.scores()), rel=1e-5)


def test_a_direction_of_the_output_is_no_class_to_the_judge() -> None:
    callback = PictureEvaluation(views=1, judge=color_judge())
    fit(build(Direction("output", [1.0, 0.0, 0.0, 0.0, 1.0])), callback)
    assert callback.result is not None
    row = callback.result.rows[0]
    assert row["target"].startswith("output:Direction-")
    assert (row["score"], row["transfer"], row["rank"]) == (None, None, None)


def test_activations_that_do_not_hold_the_target_are_refused_before_the_first_step(
    photos: Path, tmp_path: Path
) -> None:
    module = build("features.5:1")
    path = measure_activations(module.network, photos, "output", size=40, limit=5).save(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"^target: the photos were not measured at 'features\.5'"):
        fit(module, PictureEvaluation(activations=path, views=1))
    other = build("output:1")
    (photos / load_activations(path).paths[2]).unlink()
    with pytest.raises(ValueError, match=r"^activations: 1 of their 5 photos are not in "):
        fit(other, PictureEvaluation(photos=photos, activations=path, views=1))
    assert module.steps_taken == other.steps_taken == 0
    for objective in (
        "features.5:1@2,2",
        Channel("features.5", 1) + Channel("features.5", 2),
    ):  # of which photos are not measured
        callback = PictureEvaluation(activations=path, views=1)
        fit(build(objective), callback)
        assert callback.result is not None


def test_a_judge_by_name_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str, weights: str) -> FrozenNetwork:
        loaded.append(name)
        return load_network(name, weights)

    monkeypatch.setattr("featviz_pl_callbacks.picture_evaluation.load_network", load)
    callback = PictureEvaluation(judge="embedded", views=1)
    for runs in (1, 2):
        fit(build("features.5:1"), callback)
        assert callback.result is not None
        assert loaded == ["embedded"] * runs


def test_a_failure_at_the_end_is_a_warning_and_the_run_is_as_good_as_without(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, module, callback = build(), build(), PictureEvaluation(tmp_path / "out", photos=photos, views=1)
    fit(plain)

    def fail(*arguments: Any, **named: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("featviz_pl_callbacks.picture_evaluation.evaluate", fail)
    with pytest.warns(UserWarning, match=r"the pictures could not be measured \(ZeroDivisionError: division by zero\)"):
        fit(module, callback)
    assert callback.result is None
    assert torch.equal(module.images, plain.images)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"judge": color_judge()}, "unknown class of the judge 'c'"),
        ({"judge": "squeezenet1_O"}, "unknown network 'squeezenet1_O'; did you mean 'squeezenet1_"),
        ({"judge": "embedded", "judge_weights": "none.pth"}, "there is no file 'none.pth'"),
        ({"photos": "nowhere"}, "there is no folder 'nowhere'"),
        ({"activations": "nowhere.pt"}, r"there is no file 'nowhere\.pt'"),
        ({"folder": "file"}, "folder: cannot make 'file'"),
        ({"views": 0}, "views must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"workers": -1}, "workers must be at least 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_step(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("something else")
    module = build("output:c")
    with pytest.raises(ValueError, match=message):
        fit(module, PictureEvaluation(**arguments))
    assert module.steps_taken == 0


def test_an_interrupted_run_is_not_measured() -> None:
    class Press(Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            raise KeyboardInterrupt

    callback = PictureEvaluation(views=1)
    with pytest.raises(SystemExit):
        fit(build(), Press(), callback)
    assert callback.result is None


def test_says_what_it_is_and_travels() -> None:
    callback = PictureEvaluation("out", "squeezenet1_0", judge_weights="weights.pth", photos="photos", views=3)
    assert repr(callback) == (
        "PictureEvaluation('out', judge='squeezenet1_0', judge_weights='weights.pth', photos='photos', views=3)"
    )
    for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert repr(made) == repr(callback)
    assert callback.state_dict() == {}
    for judge, name in ((toy(), "ToyNet"), (color_judge(), "colors")):
        given = PictureEvaluation(judge=judge)
        assert f"judge=<{name}>" in repr(given)
        assert f"<{name}>" in given.state_key
        assert len(repr(given)) < 200
        assert len(given.state_key) < 200


def test_of_several_processes_the_first_measures_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, evaluation_worker.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert [row["target"] for row in first["rows"]] == ["output:0", "output:1"]
    assert second["rows"] is None
    assert first["pictures"] == second["pictures"]
    assert json.loads((tmp_path / "table" / "evaluation.json").read_text())["rows"] == first["rows"]
    assert "REFUSED" in done.stdout
    assert "class: unknown class of the judge 'c'" in done.stdout
