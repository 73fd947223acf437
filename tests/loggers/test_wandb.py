"""Pictures in the folder of an offline run of Weights & Biases, by the records that it keeps for its server."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch.loggers import WandbLogger
from PIL import Image as Pillow
from runs import build, fit
from wandb.proto.wandb_internal_pb2 import Record

from featviz_pl.callbacks import ImageSnapshot
from featviz_pl.io import read_picture, read_provenance
from featviz_pl_callbacks.image_logging import log_images

BLOCK = 32768
HEADER = 7  # of the file, and of each piece of a record


def finish() -> None:
    """End the run, and wait for the process that writes its files."""
    wandb.finish()
    wandb.teardown()


def records(path: Path) -> Iterator[Any]:
    """Read the records of a run: pieces in blocks, as in LevelDB's log, each record a message of W&B's own protocol."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, held = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # what is left of a block holds no header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        held += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record()
            record.ParseFromString(held)
            held = b""
            yield record


def history(folder: Path) -> list[dict[str, Any]]:
    """Return what was logged, call by call."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    rows = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                *above, last = item.nested_key or [item.key]
                place = row
                for key in above:
                    place = place.setdefault(key, {})
                place[last] = json.loads(item.value_json)
            rows.append(row)
    return rows


def shown(folder: Path, key: str) -> list[tuple[int, list[str] | None, list[Any]]]:
    """Return step, captions and pictures of each entry under a key."""
    (files,) = folder.glob("wandb/offline-run-*/files")
    found = []
    for row in history(folder):
        if key in row:
            pictures = []
            for name in row[key]["filenames"]:
                with Pillow.open(files / name) as picture:
                    pictures.append(np.array(picture))
            found.append((row["trainer/global_step"], row[key].get("captions"), pictures))
    return found


def levels(image: torch.Tensor) -> Any:
    held = np.rint(image.double().numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
    return held[..., 0] if held.shape[-1] == 1 else held


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[Any]:
    made = WandbLogger(save_dir=str(tmp_path), project="test", offline=True)
    yield made
    finish()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_offline_run_holds_every_pixel(tmp_path: Path, logger: Any, channels: int) -> None:
    images = torch.rand(3, channels, 5, 7, generator=torch.Generator().manual_seed(0))
    assert log_images(logger, "net.layer3:0-2", images, step=63, caption=["a", "b", "c"]) == 1
    assert log_images(logger, "net.layer3:0-2", images[1], step=127) == 1
    logger.log_metrics({"loss": 1.0}, step=127)
    finish()
    first, second = shown(tmp_path, "net.layer3-0-2")
    assert (first[:2], second[:2]) == ((63, ["a", "b", "c"]), (127, None))
    assert (len(first[2]), len(second[2])) == (3, 1)
    for picture, image in zip([*first[2], *second[2]], [*images, images[1]]):
        np.testing.assert_array_equal(picture, levels(image))
    assert [row["loss"] for row in history(tmp_path) if row.get("trainer/global_step") == 127 and "loss" in row] == [
        1.0
    ]


def test_the_names_of_its_files_stay_in_its_folder(tmp_path: Path, logger: Any) -> None:
    log_images(logger, '../../up/x:*?"<>|y', torch.rand(3, 4, 4), step=0)
    finish()
    ((step, _, pictures),) = shown(tmp_path, "up/x-------y")
    assert (step, len(pictures)) == (0, 1)
    assert [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.png")] == ["wandb"]


def test_the_snapshots_of_a_run_have_a_picture_and_a_score_for_each_unit(tmp_path: Path, logger: Any) -> None:
    module = build([1, 2])
    fit(module, 6, [ImageSnapshot(tmp_path / "out", every=3)], logger=logger, log_every_n_steps=1)
    finish()
    assert [step for step, *_ in shown(tmp_path, "pictures")] == [3, 6]
    for index, unit in enumerate((1, 2)):
        key = module.targets[index].replace(":", "-")
        (_, (step, captions, pictures)) = shown(tmp_path, f"pictures/{key}")
        path = tmp_path / "out" / f"final-{unit}.png"
        np.testing.assert_array_equal(pictures[0], (read_picture(path).permute(1, 2, 0) * 255).round().numpy())
        score = read_provenance(path)["score"]
        assert (step, captions) == (6, [f"{module.targets[index]}  {score:.3g}"])
        assert [row[f"pictures/{key}/score"] for row in history(tmp_path) if f"pictures/{key}/score" in row][
            -1
        ] == score
