"""Pictures in local stores of MLflow, read back by its own client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from mlflow.tracking import MlflowClient
from PIL import Image as Pillow
from runs import build, fit

from featviz_pl.callbacks import ImageSnapshot
from featviz_pl.io import read_picture, read_provenance
from featviz_pl_callbacks.image_logging import log_images


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return where a database is, which takes MLflow seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(params=["database", "folder"])
def logger(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> MLFlowLogger:
    uri = database if request.param == "database" else f"file:{tmp_path}/runs"
    return MLFlowLogger(request.node.name, tracking_uri=uri, artifact_location=str(tmp_path / "artifacts"))


def shown(logger: MLFlowLogger, folder: Path) -> dict[tuple[str, int], Any]:
    """Return the pictures of a run by key and step, which MLflow keeps in the names of its files."""
    client = MlflowClient(logger._tracking_uri)
    found = {}
    for file in client.list_artifacts(str(logger.run_id), "images"):
        if file.path.endswith(".png"):  # the other is a small copy
            key, _, step, *_ = file.path.removeprefix("images/").split("+")
            with Pillow.open(client.download_artifacts(str(logger.run_id), file.path, str(folder))) as picture:
                found[key.replace("~", "/"), int(step)] = np.array(picture)
    return found


def levels(image: torch.Tensor) -> Any:
    held = np.rint(image.double().numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
    return held[..., 0] if held.shape[-1] == 1 else held


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_local_store_holds_every_pixel(tmp_path: Path, logger: MLFlowLogger, channels: int) -> None:
    images = torch.rand(2, channels, 5, 7, generator=torch.Generator().manual_seed(0))
    assert log_images(logger, "features/net.layer3:0-1", images[0], step=63) == 1
    assert log_images(logger, "features/net.layer3:0-1", images, step=127, caption="left out") == 1
    logger.finalize("success")
    held = shown(logger, tmp_path)
    assert set(held) == {("features/net.layer3-0-1", 63), ("features/net.layer3-0-1", 127)}
    np.testing.assert_array_equal(held["features/net.layer3-0-1", 63], levels(images[0]))
    white = np.full((5, 2, channels), 255, dtype=np.uint8)
    pair = np.concatenate([levels(images[0]).reshape(5, 7, -1), white, levels(images[1]).reshape(5, 7, -1)], axis=1)
    np.testing.assert_array_equal(held["features/net.layer3-0-1", 127], pair.squeeze())


def test_names_that_mlflow_refuses_are_changed(tmp_path: Path, logger: MLFlowLogger) -> None:
    log_images(logger, "../up/x:*%+@[],y", torch.rand(3, 4, 4), step=0)
    assert list(shown(logger, tmp_path)) == [("up/x--------y", 0)]


def test_the_snapshots_of_a_run_have_a_picture_and_a_score_for_each_unit(tmp_path: Path, database: str) -> None:
    # Not in a folder: there MLflow cannot keep both a number `score` and a number `score/…`.
    logger = MLFlowLogger("snapshots", tracking_uri=database, artifact_location=str(tmp_path / "artifacts"))
    module = build()
    fit(module, 6, [ImageSnapshot(tmp_path / "out", every=3)], logger=logger, log_every_n_steps=1)
    held, key = shown(logger, tmp_path), f"pictures/{module.targets[0].replace(':', '-')}"
    assert set(held) == {(key, 3), (key, 6)}
    final = tmp_path / "out" / "final.png"
    np.testing.assert_array_equal(held[key, 6], (read_picture(final).permute(1, 2, 0) * 255).round().numpy())
    metrics = MlflowClient(logger._tracking_uri).get_metric_history(str(logger.run_id), f"{key}/score")
    assert [metric.step for metric in metrics] == [3, 6]
    assert metrics[-1].value == pytest.approx(read_provenance(final)["score"])


def test_all_four_loggers_take_pictures_of_one_run(tmp_path: Path, database: str) -> None:
    import wandb

    store = MLFlowLogger("four", tracking_uri=database, artifact_location=str(tmp_path / "artifacts"))
    table, board = CSVLogger(str(tmp_path), "table"), TensorBoardLogger(str(tmp_path), "board")
    runs = WandbLogger(save_dir=str(tmp_path), project="test", offline=True)
    snapshots = ImageSnapshot(tmp_path / "out", every=4)
    fit(build(), 4, [snapshots], logger=[store, table, board, runs], log_every_n_steps=1)
    wandb.finish()
    wandb.teardown()
    found = [
        *Path(table.log_dir, "images").rglob("*.png"),
        *tmp_path.glob("wandb/offline-run-*/files/media/images/**/*.png"),
    ]
    pictures = [np.array(Pillow.open(path)) for path in found]
    pictures += shown(store, tmp_path).values()
    assert len(pictures) == 3
    for picture in pictures:
        np.testing.assert_array_equal(picture, np.array(Pillow.open(tmp_path / "out" / "final.png")))
    assert len(list(Path(str(board.log_dir)).glob("events.*"))) == 1


def test_the_callbacks_import_neither_package() -> None:
    code = "import sys, featviz_pl_callbacks; print(sorted({'wandb', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
