"""Pictures to the loggers of ``pytorch_lightning``, read back by their own packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from both_packages import LIGHTNING, PYTORCH_LIGHTNING, data, monitor, trainer
from both_packages import classifier as classifier_of
from numpy.typing import NDArray
from PIL import Image as Pillow

from featviz_pl.io import read_picture
from featviz_pl_callbacks.image_logging import log_images

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
PICTURE = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))


def levels() -> NDArray[Any]:
    expected: NDArray[Any] = np.rint(PICTURE.double().numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
    return expected


def opened(path: Path) -> NDArray[Any]:
    with Pillow.open(path) as picture:
        return np.array(picture)


def test_tables_and_tensorboard_get_the_pictures_of_a_monitored_training(tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    table, board = CSVLogger(str(tmp_path / "csv")), TensorBoardLogger(str(tmp_path / "board"))
    watch = monitor(PYTORCH_LIGHTNING, tmp_path / "files")
    trainer(PYTORCH_LIGHTNING, watch, max_epochs=2, logger=[table, board], log_every_n_steps=1).fit(
        classifier_of(PYTORCH_LIGHTNING), data(), data()
    )
    events = EventAccumulator(board.log_dir)
    events.Reload()
    assert [event.step for event in events.Images("features")] == [3, 6]
    files = sorted((Path(table.log_dir) / "images" / "features").glob("*.png"))
    assert [path.name for path in files] == ["step-000003.png", "step-000006.png"]
    for step, path in zip((3, 6), files):
        assert torch.equal(read_picture(path), read_picture(tmp_path / "files" / f"step-{step:06d}.png"))


def test_the_muted_logger_of_a_quick_trial_says_nothing() -> None:
    from pytorch_lightning.loggers.logger import DummyLogger

    assert log_images(DummyLogger(), "conv1", PICTURE, step=0) == 1


def test_mlflow_gets_every_pixel(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    from pytorch_lightning.loggers import MLFlowLogger

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    logger = MLFlowLogger("test", tracking_uri=store, artifact_location=(tmp_path / "artifacts").as_uri())
    assert log_images(logger, "net.layer3:1", PICTURE, step=63) == 1
    listed = list((tmp_path / "artifacts").rglob("*.png"))
    assert len(listed) == 1
    np.testing.assert_array_equal(opened(listed[0]), levels())
    assert "63" in listed[0].name
    assert mlflow.__version__


def test_weights_and_biases_gets_every_pixel(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    from pytorch_lightning.loggers import WandbLogger

    logger = WandbLogger(save_dir=str(tmp_path), project="test", offline=True)
    try:
        assert log_images(logger, "net.layer3:1", PICTURE, step=63, caption="unit 1") == 1
    finally:
        wandb.finish()
        wandb.teardown()
    (path,) = tmp_path.glob("wandb/offline-run-*/files/media/images/**/*.png")
    np.testing.assert_array_equal(opened(path), levels())


def test_the_loggers_of_one_package_serve_the_trainer_of_the_other(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    table = CSVLogger(str(tmp_path / "csv"))
    watch = monitor(LIGHTNING, tmp_path / "files")
    trainer(PYTORCH_LIGHTNING, watch, max_epochs=2, logger=table, log_every_n_steps=1).fit(
        classifier_of(PYTORCH_LIGHTNING), data(), data()
    )
    assert len(list((Path(table.log_dir) / "images" / "features").glob("*.png"))) == 2
