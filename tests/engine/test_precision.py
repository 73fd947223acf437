"""`precision="auto"`: measured, said, and in the provenance."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

import featviz_pl as fv
from featviz_pl.cli.main import main
from featviz_pl.engine import Ascent
from featviz_pl.engine.precision import FastestPrecision, choose, fastest_precision
from featviz_pl.io import read_provenance
from featviz_pl.sweep.manifest import read_manifest

QUIET: dict[str, Any] = {"accelerator": "cpu", "size": 16, "steps": 2, "preset": "lucid"}


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        ({"32-true": 1.0, "bf16-mixed": 0.90}, "bf16-mixed"),
        ({"32-true": 1.0, "bf16-mixed": 0.92}, "32-true"),
        ({"32-true": 1.0, "bf16-mixed": 3.0}, "32-true"),
        ({"32-true": 1.0}, "32-true"),
    ],
)
def test_less_precision_must_be_clearly_faster(seconds: dict[str, float], name: str) -> None:
    assert choose(seconds).name == name


def test_the_choice_says_what_was_measured() -> None:
    found = FastestPrecision("bf16-mixed", {"32-true": 0.0141, "bf16-mixed": 0.00902})
    assert str(found) == "precision bf16-mixed: a step takes 14.1 ms in 32-true, 9.02 ms in bf16-mixed"
    assert str(FastestPrecision("32-true", {"32-true": 1.0})) == "precision 32-true: this device has no bfloat16"


def test_both_precisions_are_measured_and_nothing_moves() -> None:
    image = fv.images.FourierImage(12)
    problem = Ascent(image, fv.FrozenNetwork(nn.Conv2d(3, 4, 3)), fv.objectives.Channel("output", 1))
    problem.initialize()
    assert image.weight is not None
    before = image.weight.detach().clone()
    found = fastest_precision(problem, steps=8)
    assert list(found.seconds) == ["32-true", "bf16-mixed"]
    assert all(0 < seconds < 60 for seconds in found.seconds.values())
    assert torch.equal(image.weight, before)
    assert image.weight.grad is None


def test_a_render_takes_what_was_measured(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    found = FastestPrecision("bf16-mixed", {"32-true": 2.0, "bf16-mixed": 1.0})
    monkeypatch.setattr(
        importlib.import_module("featviz_pl.rendering"), "fastest_precision", MagicMock(return_value=found)
    )
    with caplog.at_level(logging.INFO, "featviz_pl"):
        measured = fv.render(nn.Conv2d(3, 4, 3), "output:1", precision="auto", **QUIET)
    named = fv.render(nn.Conv2d(3, 4, 3), "output:1", precision="bf16-mixed", **QUIET)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("featviz_pl")] == [str(found)]
    assert measured.provenance[0]["precision"] == named.provenance[0]["precision"] == "bf16-mixed"


def test_a_measured_render_is_the_named_one() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3)
    measured = fv.render(network, "output:1", precision="auto", **QUIET)
    named = fv.render(network, "output:1", precision=measured.provenance[0]["precision"], **QUIET)
    assert torch.equal(measured.images, named.images)


def test_it_is_refused_where_the_choice_could_differ(tmp_path: Path) -> None:
    kept = tmp_path / "kept.ckpt"
    kept.touch()
    with pytest.raises(
        ValueError,
        match="precision: 'auto' is measured in one process, not on devices=2; give '32-true' or 'bf16-mixed'",
    ):
        fv.render(nn.Conv2d(3, 4, 3), "output:1", precision="auto", devices=2, **QUIET)
    with pytest.raises(ValueError, match="precision: 'auto' may choose otherwise than the run that goes on"):
        fv.render(nn.Conv2d(3, 4, 3), "output:1", precision="auto", resume=kept, **QUIET)


def test_the_command_says_it(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "featviz_pl",
        "render",
        "embedded",
        "blocks.2:1",
        "--size",
        "32",
        "--steps",
        "2",
        "--json",
    ]
    command += ["--precision", "auto", "--accelerator", "cpu", "-o", str(tmp_path / "unit.png")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("featviz render: precision ")
    assert json.loads(run.stdout)["steps"] == 2


def test_a_sweep_measures_once_and_goes_on_in_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "sweep",
        "embedded",
        "blocks.2:0-1",
        "--size",
        "32",
        "--steps",
        "2",
        "--accelerator",
        "cpu",
        "--precision",
        "auto",
    ]
    command += ["--batch-size", "1", "-o", str(tmp_path)]
    assert main(command) == 0
    assert capsys.readouterr().err.startswith("featviz sweep: precision ")
    held = read_manifest(tmp_path).settings
    assert held is not None
    rewritten = (tmp_path / "manifest.jsonl").read_text().replace(held["precision"], "bf16-true")
    (tmp_path / "manifest.jsonl").write_text(rewritten)
    (tmp_path / "blocks.2" / "1.png").unlink()
    assert main(command) == 0
    assert "precision" not in capsys.readouterr().err
    assert read_provenance(tmp_path / "blocks.2" / "1.png")["precision"] == "bf16-true"


def test_a_sweep_over_processes_wants_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "sweep",
                "embedded",
                "blocks.2:all",
                "--precision",
                "auto",
                "--devices",
                "2",
                "-o",
                str(tmp_path / "sweep"),
            ]
        )
        == 2
    )
    assert "precision: 'auto' is measured in one process, not on devices=2" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
