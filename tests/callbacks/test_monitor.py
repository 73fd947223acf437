"""What a FeatureMonitor renders, logs, writes and keeps."""

from __future__ import annotations

import copy
import csv
import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from monitored import EPOCHS, Classifier, loaders
from PIL import Image as Pillow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from toys import QUIET

import featviz_pl_callbacks.feature_monitor
from featviz_pl.io import read_picture, read_provenance, save_png
from featviz_pl.io.labels import text_lines
from featviz_pl_callbacks._monitor_film import monitor_sheet, save_film
from featviz_pl_callbacks.feature_monitor import FeatureMonitor

TARGETS = ["net.4:0", "net.4:1", "net.4:2", "net.1:3", "net.9:1"]


class Keep(Callback):
    """Keep the pictures of every moment."""

    def __init__(self, watch: FeatureMonitor) -> None:
        self.watch = watch
        self.moments: dict[int, dict[str, Tensor]] = {}

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.moments[trainer.global_step] = self.watch.images

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.moments[trainer.global_step] = self.watch.images


def watched(
    root: Path, epochs: int = EPOCHS, module: LightningModule | None = None, **arguments: Any
) -> tuple[FeatureMonitor, Keep]:
    """Train with a monitor, and keep its pictures."""
    own = ("logger", "callbacks", "accumulate_grad_batches", "precision")
    of_trainer: dict[str, Any] = {name: arguments.pop(name) for name in own if name in arguments}
    targets = arguments.pop("targets", ["net.4:0-2", "net.1:3", "net.9:1"])
    watch = FeatureMonitor(targets, **{"steps": 3, "on_error": "raise", **arguments})
    keep = Keep(watch)
    callbacks: list[Callback] = [watch, keep, *of_trainer.pop("callbacks", [])]
    trainer = Trainer(
        **{
            **QUIET,
            "max_epochs": epochs,
            "log_every_n_steps": 1,
            "default_root_dir": str(root),
            **of_trainer,
            "callbacks": callbacks,
        }
    )
    trainer.fit(module or Classifier(), *loaders())
    return watch, keep


def frozen() -> Classifier:
    """Build a training that changes nothing."""

    class Still(Classifier):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.0)

    module = Still()
    module.net[1] = nn.Identity()  # whose statistics would move
    return module


def test_the_pictures_are_those_of_the_network_as_it_is_and_change_over_the_epochs(tmp_path: Path) -> None:
    module = Classifier()
    watch, keep = watched(tmp_path, 2, module, steps=30)
    assert list(watch.images) == TARGETS == watch.targets
    assert [steps for steps, images in keep.moments.items() if images] == [8, *range(9, 17)]
    for target, image in watch.images.items():
        assert image.shape == (3, 12, 12)
        assert 0 <= float(image.min()) < float(image.max()) <= 1
        assert float((image - keep.moments[8][target]).abs().max()) > 0.02
    net = module.eval().net
    assert isinstance(net, nn.Sequential)
    with torch.no_grad():
        for target, layer, unit in (("net.4:2", 4, 2), ("net.1:3", 1, 3), ("net.9:1", 9, 1)):
            deep = net[: layer + 1]
            score, grey = (deep(x[None])[0, unit].mean() for x in (watch.images[target], torch.full((3, 12, 12), 0.5)))
            assert watch.scores[target] == pytest.approx(float(score), abs=1e-5)
            assert score > grey or layer == 9  # a logit moves slowly, and the network under it


def test_a_network_is_named_once_and_its_layers_below_it(tmp_path: Path) -> None:
    whole, _ = watched(tmp_path / "a", 1, targets=["net.4:1", "net.9:1"])
    below, _ = watched(tmp_path / "b", 1, targets=["4:1", "output:1"], network="net")
    assert torch.equal(whole.images["net.4:1"], below.images["4:1"])
    assert list(below.images) == ["4:1", "output:1"]


def test_every_unit_of_a_layer_is_rendered_after_a_restart_too(tmp_path: Path) -> None:
    units = [f"net.4:{unit}@" for unit in range(8)]
    watch, _ = watched(tmp_path, 1, targets=["net.4:all@", "net.9"])
    assert list(watch.images) == watch.targets == [*units, "net.9"]
    alone, _ = watched(tmp_path, 1, targets="net.4:3@")
    assert torch.equal(watch.images["net.4:3@"], alone.images["net.4:3@"])
    state = copy.deepcopy(watch.state_dict())
    fresh = FeatureMonitor(["net.4:all@", "net.9"], steps=3)
    assert fresh.targets == ["net.4:all@", "net.9"]
    assert fresh.state_key == watch.state_key
    fresh.load_state_dict(state)
    assert list(fresh.images) == [*units, "net.9"]


def test_pictures_are_normalised_as_the_training_does(tmp_path: Path) -> None:
    plain, _ = watched(tmp_path / "a", 1, frozen(), targets="net.4:1", steps=6)
    same, _ = watched(tmp_path / "b", 1, frozen(), targets="net.4:1", steps=6, mean=[0.0, 0.0, 0.0], std=1.0)
    other, _ = watched(tmp_path / "c", 1, frozen(), targets="net.4:1", steps=6, mean=0.5, std=[0.2, 0.2, 0.3])
    assert torch.equal(plain.images["net.4:1"], same.images["net.4:1"])
    shown = (other.images["net.4:1"] - 0.5) / torch.tensor([0.2, 0.2, 0.3]).view(3, 1, 1)
    with torch.no_grad():
        score = frozen().eval().net[:5](shown[None])[0, 1].mean()
    assert other.scores["net.4:1"] == pytest.approx(float(score), abs=1e-5)


def test_a_first_batch_outside_0_to_1_is_remarked_on_unless_mean_or_std_are_given(tmp_path: Path) -> None:
    watch = FeatureMonitor("net.4:0")
    batch = (torch.linspace(-2, 2.5, 3 * 4 * 4).view(1, 3, 4, 4), 0)
    with pytest.warns(UserWarning, match=r"values from -2 to 2.5, .*; give the mean and std"):
        watch.on_train_batch_start(Trainer(**QUIET), Classifier(), batch, 0)
    FeatureMonitor("net.4:0", mean=0.5, std=0.25).on_train_batch_start(Trainer(**QUIET), Classifier(), batch, 0)


def only_note(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let monitors render nothing, but note after which step they would."""
    fired: list[int] = []

    def note(self: FeatureMonitor, trainer: Trainer, module: LightningModule) -> None:
        fired.append(trainer.global_step)

    monkeypatch.setattr(FeatureMonitor, "_render", note)
    return fired


@pytest.mark.parametrize(
    ("arguments", "accumulated", "expected"),
    [
        ({"every_n_epochs": 1}, 1, [8, 16, 24]),
        ({"every_n_epochs": 2}, 1, [16]),
        ({"every_n_steps": 5}, 1, [5, 10, 15, 20]),
        ({"every_n_steps": 2}, 3, [2, 4, 6, 8]),  # three optimizer steps for the eight batches of an epoch
        ({"when": "validation_end"}, 1, [8, 16, 24]),
    ],
    ids=str,
)
def test_it_fires_when_it_is_asked_to(
    arguments: dict[str, Any], accumulated: int, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fired = only_note(monkeypatch)
    watched(tmp_path, 3, accumulate_grad_batches=accumulated, **arguments)
    assert fired == expected


def test_the_sanity_check_and_validations_outside_a_training_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fired = only_note(monkeypatch)
    watch = FeatureMonitor("net.4:0", when="validation_end")
    trainer = Trainer(**QUIET, max_epochs=1, num_sanity_val_steps=2, callbacks=[watch], default_root_dir=str(tmp_path))
    module = Classifier()
    trainer.fit(module, *loaders())
    assert fired == [8]
    trainer.validate(module, loaders()[1], verbose=False)
    assert fired == [8]


def test_with_several_optimizers_a_batch_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                optimizer.zero_grad()
                self.manual_backward(self(batch[0]).square().mean())
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), 0.01) for _ in range(2)]

    fired = only_note(monkeypatch)
    watched(tmp_path, 1, Two(), every_n_steps=3)
    assert fired == [4, 6, 10, 12, 16]


# Start.


def test_a_warm_start_goes_on_from_the_last_picture_and_a_fresh_one_begins_anew(tmp_path: Path) -> None:
    warm, of_warm = watched(tmp_path / "warm", 2, frozen(), targets="net.4:1")
    fresh, of_fresh = watched(tmp_path / "fresh", 2, frozen(), targets="net.4:1", warm_start=False)
    assert torch.equal(of_warm.moments[8]["net.4:1"], of_fresh.moments[8]["net.4:1"])
    assert torch.equal(fresh.images["net.4:1"], of_fresh.moments[8]["net.4:1"])  # the network has not changed
    twice, _ = watched(tmp_path / "twice", 1, frozen(), targets="net.4:1", steps=6)
    assert not torch.equal(warm.images["net.4:1"], fresh.images["net.4:1"])
    assert warm.scores["net.4:1"] > fresh.scores["net.4:1"]
    assert warm.scores["net.4:1"] == pytest.approx(twice.scores["net.4:1"], rel=0.2)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_training_that_is_resumed_goes_on_with_the_film(tmp_path: Path) -> None:
    def run(folder: Path, epochs: int, ckpt: Path | None = None) -> FeatureMonitor:
        watch = FeatureMonitor(["net.4:0-1", "net.9:2"], steps=3, folder=folder, on_error="raise")
        keep = ModelCheckpoint(dirpath=folder, filename="{epoch}", save_top_k=-1)
        quiet = {**QUIET, "enable_checkpointing": True}
        trainer = Trainer(**quiet, max_epochs=epochs, callbacks=[watch, keep], default_root_dir=str(tmp_path))
        loader = torch.utils.data.DataLoader(
            loaders()[0].dataset, 2
        )  # in order, and augmentations are left out: the same batches
        trainer.fit(Steady(), loader, loaders()[1], ckpt_path=ckpt, weights_only=True)
        return watch

    class Steady(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self.net[:8](batch[0])[:, :4], batch[1])  # no dropout

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "parts", 2)
    resumed = run(tmp_path / "parts", 3, tmp_path / "parts" / "epoch=1.ckpt")
    assert whole.images.keys() == resumed.images.keys()
    assert all(torch.equal(image, resumed.images[name]) for name, image in whole.images.items())
    assert resumed.state_dict()["files"] == ["step-000008.png", "step-000016.png", "step-000024.png"]
    with Pillow.open(tmp_path / "parts" / "film.webp") as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]


# Files and loggers.


def cells(sheet: Tensor, columns: int, labels: bool) -> list[Tensor]:
    """Cut pictures of 12 pixels out of a sheet: below each are two pixels, or two lines of 14 pixels as well."""
    height, width = 14 + (28 if labels else 0), (sheet.shape[2] + 2) // columns
    rows = (sheet.shape[1] + 2) // height
    corners = [(row * height, column * width) for row in range(rows) for column in range(columns)]
    return [sheet[:, top : top + 12, left : left + 12] for top, left in corners]


@pytest.mark.parametrize("labels", [True, False])
def test_sheets_and_a_film_are_written_where_no_logger_takes_pictures(tmp_path: Path, labels: bool) -> None:
    watch, keep = watched(tmp_path, 3, labels=labels)
    folder = tmp_path / "features"
    names = ["film.png", "film.webp", "step-000008.png", "step-000016.png", "step-000024.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    sheet = read_picture(folder / "step-000024.png")
    for picture, target in zip(cells(sheet, 3, labels), TARGETS):
        assert torch.equal(picture, watch.images[target])
    ink = sheet[:, 12:40] if labels else sheet[:, 12:14]  # below the first row
    assert bool((ink < 0.5).any()) is labels
    film = cells(read_picture(folder / "film.png"), 3, labels)  # a row for each picture, a column for each interval
    for index, (target, steps) in enumerate(itertools.product(TARGETS, (8, 16, 24))):
        assert torch.equal(film[index], keep.moments[steps][target])
    origin = read_provenance(folder / "step-000016.png")
    assert origin["target"] == TARGETS
    assert (origin["trained_steps"], origin["epoch"], origin["steps"], origin["size"]) == (16, 1, [3] * 5, [12, 12])
    assert str(tmp_path) not in str(origin)


def test_labels_are_target_and_score(tmp_path: Path) -> None:
    watch, _ = watched(tmp_path, 1, targets=["net.4:0", "net.1:3"])
    sheet = read_picture(tmp_path / "features" / "step-000008.png")
    width = (sheet.shape[2] + 2) // 2
    for index, (target, score) in enumerate(watch.scores.items()):
        label = sheet[:, 12:40, index * width : index * width + width - 2]
        assert torch.equal(label, text_lines([target, f"{score:.3g}"], width - 2))


def test_loggers_get_a_picture_and_a_score_for_each_unit_at_the_steps_of_the_files(tmp_path: Path) -> None:
    table, board = CSVLogger(str(tmp_path / "log")), TensorBoardLogger(str(tmp_path / "board"))
    watch, _ = watched(tmp_path, 2, logger=[table, board], name="units", folder=tmp_path / "files")
    assert {path.name for path in (tmp_path / "files").glob("step-*")} == {"step-000008.png", "step-000016.png"}
    images = Path(table.log_dir) / "images" / "units"
    with (Path(table.log_dir) / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["step"] == "16"]
    events = EventAccumulator(board.log_dir)
    events.Reload()
    assert sorted(events.Tags()["images"]) == sorted(["units", *(f"units/{target}" for target in TARGETS)])
    for target in TARGETS:
        path = images / target.replace(":", "-") / "step-000016.png"
        assert torch.equal(read_picture(path), watch.images[target])
        assert [event.step for event in events.Images(f"units/{target}")] == [8, 16]
        (score,) = [float(row[f"units/{target}/score"]) for row in rows if row.get(f"units/{target}/score")]
        assert score == pytest.approx(watch.scores[target])
        assert events.Scalars(f"units/{target}/score")[-1].value == pytest.approx(score)
    sheet = read_picture(images / "step-000016.png")
    assert torch.equal(sheet, read_picture(tmp_path / "files" / "step-000016.png"))


def test_a_logger_that_takes_pictures_replaces_the_files(tmp_path: Path) -> None:
    watched(tmp_path, 1, logger=CSVLogger(str(tmp_path / "log")), targets="net.4:0")
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    ("arguments", "views"), [({"preset": "article"}, 4), ({"preset": "article", "views": 1}, 1), ({}, 1)]
)
def test_the_number_of_views_is_the_presets_unless_given(arguments: dict[str, Any], views: int, tmp_path: Path) -> None:
    watched(tmp_path, 1, targets="net.4:0", **arguments)
    assert read_provenance(tmp_path / "features" / "step-000008.png")["views"] == views


def test_size_preset_and_channels(tmp_path: Path) -> None:
    watch, _ = watched(
        tmp_path, 1, size=[10, 14], preset="article", views=2, seed=3, targets=["net.4:0", "net.4", "net.4:1@"]
    )
    assert {tuple(image.shape) for image in watch.images.values()} == {(3, 10, 14)}
    assert list(watch.images) == ["net.4:0", "net.4", "net.4:1@"]


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_pictures_are_in_full_precision_whatever_that_of_the_training_is(precision: Any, tmp_path: Path) -> None:
    class Plain(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

    watch, _ = watched(tmp_path, 1, Plain(), precision=precision, targets=["net.4:0", "net.9:1"])
    assert {image.dtype for image in watch.images.values()} == {torch.float32}
    assert all(float(image.std()) > 0.001 for image in watch.images.values())


def test_pictures_of_many_channels_are_grey_panels(tmp_path: Path) -> None:
    pictures = [torch.rand(2, 5, 6, 8) for _ in range(2)]
    for step in range(2):
        save_png(monitor_sheet(pictures[step]), tmp_path / f"{step}.png")
    save_film(tmp_path, ["0.png", "1.png"], 2)
    film = read_picture(tmp_path / "film.png", channels=1)
    assert film.shape == (1, 2 * 8 - 2, 2 * 42 - 2)  # two pictures at two moments, five panels each
    for row in range(2):
        for column in range(2):
            panels = torch.cat(list(pictures[column][row]), dim=1)
            assert (film[0, row * 8 : row * 8 + 6, column * 42 : column * 42 + 40] - panels).abs().max() < 0.003


# A callback like others.


@pytest.mark.parametrize(
    "text",
    [
        "FeatureMonitor('net.4:0-2')",
        "FeatureMonitor(['net.4', 'net.1:3@2,1'], network='net', every_n_epochs=2, size=[8, 9], folder='out', on_error='raise')",
        "FeatureMonitor('a:1', max_seconds=2.5, every_n_steps=10, mean=[0.4, 0.5, 0.6], std=0.2, warm_start=False, name='b')",
    ],
)
def test_its_repr_is_its_constructor_and_it_survives_copies(text: str) -> None:
    made = eval(text)
    assert repr(made) == text
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert repr(again) == text
        assert again.state_key == made.state_key


def test_copies_after_a_training_and_a_second_training_work(tmp_path: Path) -> None:
    watch, _ = watched(tmp_path, 1)
    first = watch.images
    for again in (copy.deepcopy(watch), pickle.loads(pickle.dumps(watch)), watch):
        assert all(torch.equal(image, again.images[name]) for name, image in first.items())
        Trainer(**QUIET, max_epochs=1, callbacks=[again], default_root_dir=str(tmp_path)).fit(Classifier(), *loaders())
        assert all(torch.equal(image, again.images[name]) for name, image in first.items())


def test_it_is_built_from_a_configuration() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Callback, "callback")
    path = f"{FeatureMonitor.__module__}.FeatureMonitor"
    given = {"targets": ["net.4:0-1"], "size": [8, 8], "mean": [0.5, 0.5, 0.5], "std": 0.2, "max_seconds": 3.0}
    made = parser.instantiate(parser.parse_object({"callback": {"class_path": path, "init_args": given}})).callback
    assert isinstance(made, featviz_pl_callbacks.feature_monitor.FeatureMonitor)
    assert made.targets == ["net.4:0", "net.4:1"]
    assert (made.size, made.mean, made.std) == ((8, 8), (0.5, 0.5, 0.5), (0.2,))


def test_its_state_is_in_checkpoints_under_its_own_key_and_can_be_read_without_code(tmp_path: Path) -> None:
    one, other = FeatureMonitor("net.4:0", steps=2), FeatureMonitor("net.1:1", steps=2, name="second")
    assert one.state_key != other.state_key
    quiet = {**QUIET, "enable_checkpointing": True}
    trainer = Trainer(
        **quiet, max_epochs=1, callbacks=[one, other, ModelCheckpoint(tmp_path)], default_root_dir=str(tmp_path)
    )
    trainer.fit(Classifier(), *loaders())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    held = torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]
    for watch in (one, other):
        fresh = FeatureMonitor(watch.targets, name=watch.name)
        fresh.load_state_dict(held[fresh.state_key])
        assert fresh.scores == watch.scores
        assert all(torch.equal(image, fresh.images[name]) for name, image in watch.images.items())
    assert (tmp_path / "second" / "step-000008.png").is_file()


def test_networks_with_other_numbers_of_channels(tmp_path: Path) -> None:
    class Grey(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net[0] = nn.Conv2d(1, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(x[:, :1])
            return y

    watch, _ = watched(tmp_path, 1, Grey(), network="net", targets="4:0")
    assert watch.images["4:0"].shape == (1, 12, 12)
