"""Folders of sweeps that earlier releases began."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from featviz_pl.cli.main import main
from featviz_pl.io import as_saved, read_provenance, save_png
from featviz_pl.io.provenance import versions

ADAMW = "'amsgrad': False, 'betas': (0.5, 0.99), 'capturable': False, 'decoupled_weight_decay': True, "
ADAMW += "'differentiable': False, 'eps': 1e-08, 'maximize': False, 'weight_decay': "
# Written by release 0.1.0 before it was divided into rooms, with a batch size that it measured.
SETTINGS: dict[str, Any] = {
    **versions(),
    "network": "embedded",
    "weights": "abf491a4d638133d",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "preset": "featviz",
    "size": [32, 32],
    "image": "FourierImage(size=(32, 32), count=None, channels=3, color='auto', decay=1.3)",
    "views": "Views(Compose([Pad(12, 'reflect'), Jitter(12), Scale(Uniform(low=0.9, high=1.4)), "
    "Rotate(Uniform(low=-10, high=10))]), count=1, schedule=None)",
    "seed": 0,
    "steps": 2,
    "optimizer": "AdamW",
    "optimizer_arguments": f"{{{ADAMW}0.1}}",
    "lr": 0.2,
    "scheduler": "CosineAnnealingLR",
    "precision": "32-true",
    "views_of_outputs": "Views(Compose([Crop(center='anywhere', side=Uniform(low=0.35, high=1)), "
    "Rotate(Uniform(low=-10, high=10))]), count=1, schedule=None)",
    "optimizer_of_outputs": {
        "optimizer": "AdamW",
        "optimizer_arguments": f"{{{ADAMW}0.2}}",
        "lr": 0.2,
        "scheduler": "CosineAnnealingLR",
    },
    "constants": {
        "color_matrix": ["9", "0.1924", "0.1215", "0.01714"],
        "scale": ["544", "1.432", "7.488", "0.2445"],
    },
    "batch_size": 2,
}


def old_folder(folder: Path, **more: Any) -> None:
    """Write units 0 and 1 of a sweep that was stopped while it rendered the others."""
    lines = [{"featviz_sweep": 1, "settings": SETTINGS | more}]
    for unit in (0, 1):
        origin = {"target": f"stem:{unit}", "objective": f"Channel('stem', {unit})", "score": 0.5}
        save_png(as_saved(torch.rand(3, 32, 32)), folder / f"stem/{unit}.png", SETTINGS | more | origin)
        lines.append({"target": f"stem:{unit}", "path": f"stem/{unit}.png", "score": 0.5})
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines[:-1]))
    (folder / "manifest.0.jsonl").write_text(f"{json.dumps(lines[-1])}\n")


def sweep(folder: Path) -> int:
    arguments = ["--size", "32", "--steps", "2", "--accelerator", "cpu", "-o", str(folder)]
    return main(["sweep", "embedded", "stem:0-2", *arguments])


def test_an_old_folder_goes_on_with_its_batch_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old_folder(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("stem/*.png")}
    assert sweep(tmp_path) == 0
    assert "3 pictures of embedded, 1 of them new" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    origin = read_provenance(tmp_path / "stem" / "2.png")
    assert SETTINGS.items() <= origin.items()


def test_an_old_folder_with_a_tolerance_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old_folder(tmp_path, tolerance=0.1)
    assert sweep(tmp_path) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "tolerance: the pictures" in err
    assert "were made with 0.1, and this asks for None; give another folder, or --overwrite" in err
