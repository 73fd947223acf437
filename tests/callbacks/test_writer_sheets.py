"""The sheets beside a sweep: what they show, when they are made again, and that they go with their sweep."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from toys import QUIET, toy

from featviz_pl.callbacks import FeatureWriter
from featviz_pl.io import read_picture, save_png
from featviz_pl.sweep import FeatureSweep, FeatureTargets

SHEET = "features.5.png"


def sweep(folder: Path, targets: str, overwrite: bool = False) -> None:
    trainer = Trainer(**QUIET, callbacks=[FeatureWriter(folder, overwrite)])
    trainer.predict(FeatureSweep(toy(), steps=2, size=10), FeatureTargets(targets, 2), return_predictions=False)


def test_a_sheet_shows_all_pictures_of_its_layer_though_an_older_one_lay_there(tmp_path: Path) -> None:
    sweep(tmp_path, "features.5:0-1")
    older = (tmp_path / SHEET).read_bytes()
    sweep(tmp_path, "features.5:2-3")
    whole = (tmp_path / SHEET).read_bytes()
    assert read_picture(tmp_path / SHEET).shape == (3, 22, 22)
    (tmp_path / SHEET).write_bytes(older)  # as when the sweep was killed before it laid out the new one
    sweep(tmp_path, "features.5:2-3")
    assert (tmp_path / SHEET).read_bytes() == whole


def test_a_sheet_that_shows_what_there_is_stays(tmp_path: Path) -> None:
    sweep(tmp_path, "features.5:0-1")
    made = (tmp_path / SHEET).stat()
    sweep(tmp_path, "features.5:0-1")
    assert (tmp_path / SHEET).stat().st_mtime_ns == made.st_mtime_ns


def test_a_picture_that_somebody_deleted_leaves_its_place_white(tmp_path: Path) -> None:
    sweep(tmp_path, "features.5:0-1")
    (tmp_path / "features.5" / "0.png").unlink()
    sweep(tmp_path, "features.5:2-3")
    shown = read_picture(tmp_path / SHEET)
    assert torch.equal(shown[:, :10, :10], torch.ones(3, 10, 10))
    assert torch.equal(shown[:, 12:, 12:], read_picture(tmp_path / "features.5" / "3.png"))


def test_sheets_of_photos_go_with_the_sweep_that_is_overwritten(tmp_path: Path) -> None:
    sweep(tmp_path, "features.5:0-3")
    (tmp_path / "photos.json").write_text(json.dumps({"units": {}}))
    picture = torch.zeros(3, 4, 4)
    for name in ("features.5/3-photos.png", "features.5-photos.png"):
        save_png(picture, tmp_path / name, {"target": "features.5:3", "photos": {}})
    save_png(picture, tmp_path / "holiday-photos.png", {})
    sweep(tmp_path, "features.5:0-1", overwrite=True)
    left = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"
    }
    assert left == {"features.5/0.png", "features.5/1.png", SHEET, "manifest.jsonl", "holiday-photos.png"}
