"""Pictures to loggers: TensorBoard and CSV read back by their readers; the others are in tests/loggers."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped, unused-ignore]
import lightning.pytorch
import lightning.pytorch.loggers
import numpy as np
import pytest
import pytorch_lightning
import pytorch_lightning.loggers
import torch
from lightning.fabric.loggers.csv_logs import CSVLogger as FabricCSVLogger
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor, nn
from toys import QUIET

from featviz_pl.io import read_provenance
from featviz_pl_callbacks import image_logging
from featviz_pl_callbacks.image_logging import log_images, logged_step, register_image_sink

Levels = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_logging, "_REGISTERED", {})
    monkeypatch.setattr(image_logging, "_WARNED", set())


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """Draw values on both sides of rounding, and a few outside [0, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 1.1 - 0.05


def levels(image: Tensor) -> Levels:
    """Return the 256 levels of a picture (C, H, W) as (H, W, C)."""
    rounded: Levels = np.rint(np.clip(image.double().numpy(), 0, 1) * 255).astype(np.uint8)
    return rounded.transpose(1, 2, 0)


def laid_out(images: Tensor, columns: int) -> Levels:
    """Lay pictures out with 2 white pixels between them."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    paper = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, channels), 255, dtype=np.uint8)
    for index in range(count):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        paper[top : top + height, left : left + width] = levels(images[index])
    return paper


def read(file: Any) -> Levels:
    with Pillow.open(file) as picture:
        held = np.array(picture)
    return held[..., None] if held.ndim == 2 else held


def in_tensorboard(folder: str) -> dict[str, list[tuple[int, Levels]]]:
    """Read all pictures by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder)
    events.Reload()
    return {
        tag: [(held.step, read(io.BytesIO(held.encoded_image_string))) for held in events.Images(tag)]
        for tag in events.Tags()["images"]
    }


SHAPES: dict[str, tuple[Tensor, Callable[[Tensor], Levels]]] = {
    "one": (pictures(3, 5, 7), lambda image: levels(image)),
    "grey": (pictures(1, 5, 7), lambda image: levels(image)),
    "alpha": (pictures(4, 5, 7), lambda image: levels(image)),
    "one of a batch": (pictures(1, 3, 5, 7), lambda images: levels(images[0])),
    "three": (pictures(3, 3, 6, 6), lambda images: laid_out(images, 2)),
    "seven channels": (
        pictures(7, 5, 4),
        lambda image: np.concatenate([levels(channel[None]) for channel in image], axis=1),
    ),
    "half precision": (pictures(3, 5, 7).bfloat16(), lambda image: levels(image.float())),
    "double precision": (pictures(3, 5, 7).double(), lambda image: levels(image.float())),
}
every_shape = pytest.mark.parametrize("shape", SHAPES)


@every_shape
def test_tensorboard_holds_every_pixel(tmp_path: Path, shape: str) -> None:
    images, expected = SHAPES[shape]
    logger = TensorBoardLogger(str(tmp_path))
    assert log_images(logger, "features/conv1:3", images, step=63) == 1
    logger.finalize("success")
    held = in_tensorboard(logger.log_dir)
    assert list(held) == ["features/conv1:3"]
    ((step, picture),) = held["features/conv1:3"]
    assert step == 63
    wanted = expected(images)
    if wanted.shape[-1] == 1:  # TensorBoard shows grey as RGB
        wanted = wanted.repeat(3, axis=-1)
    np.testing.assert_array_equal(picture, wanted)


@every_shape
def test_files_beside_the_csv_hold_every_pixel(tmp_path: Path, shape: str) -> None:
    images, expected = SHAPES[shape]
    logger = CSVLogger(str(tmp_path))
    assert log_images(logger, "features/conv1:3", images, step=63) == 1
    logger.log_metrics({"loss": 1.0}, step=63)  # and does not complain about what already lies in its folder
    logger.save()
    folder = Path(logger.log_dir)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "images/features/conv1-3/step-000063.png",
        "metrics.csv",
    ]
    np.testing.assert_array_equal(read(folder / "images/features/conv1-3/step-000063.png"), expected(images))


def test_the_files_beside_the_csv_say_what_they_show(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path))
    log_images(logger, "a", pictures(2, 3, 4, 4), step=3, caption=["unit 0", "unit 1"])
    log_images(logger, "a", pictures(2, 3, 4, 4), step=5, caption="both")
    log_images(logger, "a", pictures(3, 4, 4), step=1234567)
    folder = Path(logger.log_dir, "images", "a")
    assert {path.name: read_provenance(path) for path in folder.iterdir()} == {
        "step-000003.png": {"step": 3, "caption": ["unit 0", "unit 1"]},
        "step-000005.png": {"step": 5, "caption": ["both", "both"]},
        "step-1234567.png": {"step": 1234567},
    }


def test_a_csv_logger_in_a_store_of_the_net_keeps_its_pictures_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    image = pictures(3, 5, 7)
    log_images(FabricCSVLogger("memory://bucket/run", name="x", version=0), "a", image, step=2)
    with fsspec.open("memory://bucket/run/x/version_0/images/a/step-000002.png") as file:
        np.testing.assert_array_equal(read(file), levels(image))
    assert list(tmp_path.rglob("*.png")) == []


class Model(lightning.pytorch.LightningModule):
    """Train on nothing, with one optimizer or, by hand, with two."""

    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.count = optimizers
        self.automatic_optimization = optimizers == 1

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
        loss: Tensor = self.layer(batch).sum()
        if self.automatic_optimization:
            return loss
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        return None

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.layer(batch)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.1) for _ in range(self.count)]


class Watch(lightning.pytorch.Callback):
    """Log a number and a picture of the same name in every hook where both can be."""

    def both(self, trainer: Any, module: Any, hook: str, **how: Any) -> None:
        module.log(hook, 1.0, **how)
        log_images(trainer, hook, torch.full((3, 2, 2), 0.5))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.both(trainer, pl_module, "on_train_batch_end", on_step=True, on_epoch=False)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.both(trainer, pl_module, "on_validation_epoch_end")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.both(trainer, pl_module, "on_train_epoch_end")


def steps_in(folder: str) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """Return the steps of the numbers and those of the pictures, by name."""
    numbers: dict[str, set[int]] = {}
    with Path(folder, "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name in row:
                if name.startswith("on_") and row[name]:
                    numbers.setdefault(name, set()).add(int(row["step"]))
    shown: dict[str, set[int]] = {}
    for path in Path(folder, "images").rglob("*.png"):
        shown.setdefault(path.parent.name, set()).add(int(path.stem.removeprefix("step-")))
    return numbers, shown


def train(
    model: Any,
    logger: Any,
    max_epochs: int = 2,
    ckpt_path: str | None = None,
    package: Any = lightning.pytorch,
    **more: Any,
) -> Any:
    numbers: Any = torch.ones(4, 1)
    data = torch.utils.data.DataLoader(numbers)
    quiet = {
        **QUIET,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "val_check_interval": 2,
        "limit_val_batches": 1,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        trainer = package.Trainer(
            **{**quiet, "max_epochs": max_epochs, "callbacks": [Watch()], "logger": logger, **more}
        )
        trainer.fit(model, data, data if isinstance(model, Model) else None, ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize(
    ("optimizers", "accumulated", "batch_ends"),
    [(1, 1, range(8)), (1, 2, range(4)), (1, 3, range(4)), (2, 1, range(8))],
)
def test_pictures_are_on_the_steps_of_the_numbers_logged_in_the_same_hook(
    tmp_path: Path, optimizers: int, accumulated: int, batch_ends: range
) -> None:
    logger = CSVLogger(str(tmp_path), version="a")
    train(Model(optimizers), logger, accumulate_grad_batches=accumulated)
    numbers, shown = steps_in(logger.log_dir)
    assert len(numbers) == 3
    assert numbers["on_train_batch_end"] == set(batch_ends)
    assert shown == numbers


def test_pictures_stay_on_the_steps_of_the_numbers_when_a_training_is_resumed(tmp_path: Path) -> None:
    train(Model(), False).save_checkpoint(tmp_path / "a.ckpt")
    logger = CSVLogger(str(tmp_path), version="b")
    train(Model(), logger, max_epochs=4, ckpt_path=str(tmp_path / "a.ckpt"))
    numbers, shown = steps_in(logger.log_dir)
    assert numbers["on_train_epoch_end"] == {11, 15}
    assert shown == numbers


def test_the_step_before_and_after_a_training_is_that_of_its_nearest_numbers(tmp_path: Path) -> None:
    assert logged_step(lightning.pytorch.Trainer(**QUIET)) == 0
    logger = CSVLogger(str(tmp_path), version="c")
    trainer = train(Model(), logger)
    assert logged_step(trainer) == 7
    numbers: Any = torch.ones(2, 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        trainer.validate(Model(), torch.utils.data.DataLoader(numbers), verbose=False)
    numbers, shown = steps_in(logger.log_dir)
    assert max(numbers["on_validation_epoch_end"]) == 8
    assert shown["on_validation_epoch_end"] == numbers["on_validation_epoch_end"]


class PlainModel(pytorch_lightning.LightningModule):
    """Train on nothing, in the other namespace."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch).sum()
        log_images(self.trainer, "step", torch.full((3, 2, 2), 0.5))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_trainers_and_loggers_of_the_other_namespace_take_pictures_too(tmp_path: Path) -> None:
    loggers: list[Any] = [
        pytorch_lightning.loggers.CSVLogger(str(tmp_path)),
        pytorch_lightning.loggers.TensorBoardLogger(str(tmp_path)),
    ]
    train(PlainModel(), loggers, 1, package=pytorch_lightning, callbacks=[], val_check_interval=None)
    files = sorted(path.name for path in Path(loggers[0].log_dir, "images", "step").iterdir())
    assert files == [f"step-00000{step}.png" for step in range(4)]
    assert [step for step, _ in in_tensorboard(loggers[1].log_dir)["step"]] == [0, 1, 2, 3]


def test_several_loggers_get_the_same_pictures_at_once(tmp_path: Path) -> None:
    board, table = TensorBoardLogger(str(tmp_path), "board"), CSVLogger(str(tmp_path), "table")
    images = pictures(2, 3, 5, 7)
    assert log_images([board, table], "a", images, step=4) == 2
    trainer = lightning.pytorch.Trainer(**{**QUIET, "logger": [board, table]})
    assert log_images(trainer, "b", images, step=6) == 2
    board.finalize("success")
    shown = in_tensorboard(board.log_dir)
    for name, step in (("a", 4), ("b", 6)):
        ((held, picture),) = shown[name]
        assert held == step
        np.testing.assert_array_equal(picture, read(Path(table.log_dir, "images", name, f"step-00000{step}.png")))


class Mute(Logger):
    """Take numbers only."""

    name = version = "mute"

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None: ...


def test_a_logger_that_takes_no_pictures_is_left_out_and_that_is_said_once(tmp_path: Path) -> None:
    loggers = [Mute(), CSVLogger(str(tmp_path)), Mute()]
    with pytest.warns(
        UserWarning, match=r"^Mute takes no pictures, and gets none; register_image_sink\(Mute, function\)"
    ) as said:
        assert log_images(loggers, "a", pictures(3, 4, 4), step=0) == 1
    assert len(said) == 1
    assert log_images(loggers, "a", pictures(3, 4, 4), step=1) == 1  # warnings are errors here
    assert len(list(tmp_path.rglob("*.png"))) == 2


def test_the_muted_loggers_of_a_trial_run_take_pictures_without_a_word(tmp_path: Path) -> None:
    trainer = lightning.pytorch.Trainer(**{**QUIET, "logger": CSVLogger(str(tmp_path)), "fast_dev_run": True})
    log_images(trainer, "a", pictures(3, 4, 4))
    assert list(tmp_path.iterdir()) == []


class Listing(Mute):
    """Take lists of Pillow pictures, as Weights & Biases does."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[Any, ...]] = []

    def log_image(self, key: str, images: list[Pillow.Image], step: int | None = None, **kwargs: Any) -> None:
        self.got.append((key, [np.array(image) for image in images], step, kwargs))


class ListingWithoutCaptions(Listing):
    def log_image(self, key: str, images: list[Pillow.Image], step: int | None = None) -> None:  # type: ignore[override]
        self.got.append((key, [np.array(image) for image in images], step, {}))


class OtherImages(Mute):
    """Have a method of the same name for something else."""

    def log_image(self, path: str) -> None:
        raise AssertionError("not called with a list")


def test_a_logger_with_log_image_gets_a_list_with_captions() -> None:
    logger, images = Listing(), pictures(2, 3, 5, 7)
    log_images(logger, "a:0", images, step=8, caption=["x", "y"])
    log_images(logger, "b", images[0], step=9)
    (key, shown, step, more), (_, alone, *rest) = logger.got
    assert (key, step, more) == ("a-0", 8, {"caption": ["x", "y"]})
    for picture, image in zip(shown, images, strict=True):
        np.testing.assert_array_equal(picture, levels(image))
    np.testing.assert_array_equal(alone[0], levels(images[0]))
    assert rest == [9, {}]


def test_a_logger_whose_log_image_knows_no_captions_gets_none() -> None:
    logger = ListingWithoutCaptions()
    assert log_images(logger, "a", pictures(3, 5, 7), step=8, caption="x") == 1
    assert logger.got[0][3] == {}


def test_more_pictures_than_a_list_may_have_come_as_a_sheet() -> None:
    logger = Listing()
    log_images(logger, "a", pictures(108, 1, 2, 2), step=0, caption="x")
    log_images(logger, "a", pictures(109, 1, 2, 2), step=1, caption="x")
    assert [len(shown) for _, shown, *_ in logger.got] == [108, 1]
    assert [more for *_, more in logger.got] == [{"caption": ["x"] * 108}, {}]
    assert logger.got[1][1][0].size > 109 * 4


def test_a_method_of_that_name_for_something_else_is_not_called() -> None:
    with pytest.warns(UserWarning, match="OtherImages takes no pictures"):
        assert log_images(OtherImages(), "a", pictures(3, 5, 7), step=0) == 0


def test_a_logger_whose_experiment_has_add_image_gets_levels() -> None:
    class Writer:
        got: tuple[Any, ...] = ()

        def add_image(self, tag: str, img_tensor: Tensor, global_step: int) -> None:
            self.got = (tag, img_tensor, global_step)

    class Boards(Mute):
        experiment = Writer()

    image = pictures(3, 5, 7)
    assert log_images(Boards(), "a:0", image, step=2) == 1
    tag, shown, step = Boards.experiment.got
    assert (tag, step, shown.dtype) == ("a:0", 2, torch.uint8)
    np.testing.assert_array_equal(shown.permute(1, 2, 0).numpy(), levels(image))


class Sink:
    """Remember what came."""

    def __init__(self) -> None:
        self.got: list[tuple[Any, ...]] = []

    def __call__(self, logger: Any, name: str, images: Tensor, step: int, captions: list[str] | None) -> None:
        self.got.append((logger, name, images, step, captions))


@pytest.mark.parametrize(
    "known", [Mute, f"{Mute.__module__}.Mute", Logger, "lightning.pytorch.loggers.Logger"], ids=str
)
def test_a_registered_sink_gets_what_was_given(known: Any) -> None:
    sink, logger, images = Sink(), Mute(), pictures(3, 5, 7).double().requires_grad_()
    register_image_sink(known, sink)
    assert log_images(logger, "a/b:0", images, step=3, caption="x") == 1
    ((held, name, shown, step, captions),) = sink.got
    assert held is logger
    assert (name, step, captions) == ("a/b:0", 3, ["x"])
    assert (shown.shape, shown.dtype, shown.requires_grad) == ((1, 3, 5, 7), torch.float32, False)
    torch.testing.assert_close(shown[0], images.detach().float(), rtol=0, atol=0)


def test_a_registered_sink_rules_over_what_the_library_knows(tmp_path: Path) -> None:
    sink = Sink()
    register_image_sink("lightning.pytorch.loggers.CSVLogger", sink)
    log_images(CSVLogger(str(tmp_path)), "a", pictures(3, 4, 4), step=0)
    assert (len(sink.got), list(tmp_path.iterdir())) == (1, [])


def test_the_sink_of_the_nearest_class_rules_and_of_one_class_the_latest() -> None:
    sinks = [Sink() for _ in range(4)]
    kinds: list[Any] = [Listing, Listing, Logger, f"{Listing.__module__}.Listing"]
    for known, sink in zip(kinds, sinks):
        register_image_sink(known, sink)
    log_images(ListingWithoutCaptions(), "a", pictures(3, 4, 4), step=0)
    assert [len(sink.got) for sink in sinks] == [0, 0, 0, 1]
    register_image_sink(Listing, sinks[0])
    log_images(Listing(), "a", pictures(3, 4, 4), step=0)
    assert [len(sink.got) for sink in sinks] == [1, 0, 0, 1]


def test_what_is_registered_under_a_name_of_something_else_is_not_taken() -> None:
    for name in ("nowhere.Mute", "lightning.pytorch.loggers.Mute", "lightning.pytorch.loggers.CSVLogger"):
        register_image_sink(name, Sink())
    with pytest.warns(UserWarning, match="Mute takes no pictures"):
        assert log_images(Mute(), "a", pictures(3, 4, 4), step=0) == 0


@pytest.fixture
def second_process() -> Iterator[None]:
    before = rank_zero_only.rank  # type: ignore[attr-defined]
    rank_zero_only.rank = 1  # type: ignore[attr-defined]
    yield
    rank_zero_only.rank = before  # type: ignore[attr-defined]


@pytest.mark.usefixtures("second_process")
def test_only_the_first_process_writes(tmp_path: Path) -> None:
    sink = Sink()
    register_image_sink(Mute, sink)
    assert (
        log_images([Mute(), CSVLogger(str(tmp_path)), TensorBoardLogger(str(tmp_path))], "a", pictures(3, 4, 4), step=0)
        == 0
    )
    assert (sink.got, list(tmp_path.iterdir())) == ([], [])
    with pytest.raises(ValueError, match="images must be"):  # a mistake is one everywhere
        log_images([], "a", pictures(4, 4), step=0)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("pictures", "pictures"),
        ("net.layer3:0-15", "net.layer3-0-15"),
        ("/features//conv 1/", "features/conv 1"),
        ("../../up", "up"),
        ("a/../b", "a/b"),
        ("a/./b.", "a/b"),
        ('x<>:"\\|?*%+~y', "x-----------y"),
        ("C:\\temp", "C--temp"),
        ("schräg/Größe", "schr-g/Gr--e"),
        ("ü", "-"),
    ],
)
def test_names_stay_in_their_folder(tmp_path: Path, name: str, path: str) -> None:
    logger = CSVLogger(str(tmp_path / "log"), version="v")
    log_images(logger, name, pictures(3, 4, 4), step=0)
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.png")] == [
        f"log/lightning_logs/v/images/{path}/step-000000.png"
    ]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": ""}, ValueError, r"name: '' has no letter or digit; give the name of the pictures"),
        ({"name": "../_"}, ValueError, r"name: '\.\./_' has no letter or digit"),
        (
            {"images": pictures(4, 4)},
            ValueError,
            r"images must be one picture \(C, H, W\) or several \(N, C, H, W\), got shape \(4, 4\)",
        ),
        ({"images": torch.empty(0, 3, 4, 4)}, ValueError, r"got shape \(0, 3, 4, 4\)"),
        (
            {"images": torch.zeros(3, 4, 4, dtype=torch.uint8)},
            TypeError,
            r"floating-point tensor with values in \[0, 1\], got torch.uint8",
        ),
        ({"images": np.zeros((3, 4, 4))}, TypeError, "got ndarray"),
        ({"step": -1}, ValueError, "step must be at least 0, got -1"),
        ({"step": 1.5}, TypeError, "step must be a whole number of at least 0, got 1.5"),
        ({"step": None}, ValueError, "step: loggers alone have no step; give the step, or the Trainer"),
        ({"caption": ["x", "y"]}, ValueError, "caption: 2 captions for 1 pictures; give one for each"),
    ],
)
def test_what_cannot_be_logged_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"loggers": [], "name": "a", "images": pictures(3, 4, 4), "step": 0, **change}
    with pytest.raises(error, match=message):
        log_images(**arguments)


@pytest.mark.parametrize(
    ("logger", "sink", "error", "message"),
    [
        (Mute(), Sink(), TypeError, "is neither a class nor the text"),
        ("Mute", Sink(), ValueError, "logger: 'Mute' names no class in a module; write 'package.module.Class'"),
        (Mute, None, TypeError, "sink: None cannot be called; give a function"),
    ],
    ids=["an instance", "no module", "no function"],
)
def test_what_cannot_be_registered_is_refused(logger: Any, sink: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        register_image_sink(logger, sink)


class Client:
    """Stand for MLflow's client, which the main test run does not install; the real one is in tests/loggers."""

    def __init__(self) -> None:
        self.got: list[tuple[Any, ...]] = []

    def log_image(
        self, run_id: str, image: Any, artifact_file: str | None = None, key: str | None = None, step: int | None = None
    ) -> None:
        self.got.append((run_id, np.array(image), artifact_file, key, step))


@pytest.mark.parametrize("base", [lightning.pytorch.loggers.MLFlowLogger, pytorch_lightning.loggers.MLFlowLogger])
def test_mlflow_gets_pictures_by_name_and_step(base: Any) -> None:
    client = Client()

    class Store(base):  # type: ignore[misc]
        def __init__(self) -> None:  # without the package
            self.client = client

        @property
        def experiment(self) -> Client:
            return self.client

        @property
        def run_id(self) -> str:
            return "run"

    image = pictures(3, 5, 7)
    assert log_images(Store(), "a/b:0", image, step=63) == 1
    run, picture, *rest = client.got[-1]
    assert (run, tuple(rest)) == ("run", (None, "a/b-0", 63))
    np.testing.assert_array_equal(picture, levels(image))
