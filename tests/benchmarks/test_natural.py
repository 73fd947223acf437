"""The script that measures the metrics of photos, and the values that the docstrings report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from toys import SHARED, needs_shared

from benchmarks import natural
from featviz_pl.io import read_picture, save_png
from featviz_pl.metrics import VariationPerPixel, natural_slope


@needs_shared
def test_some_photos_have_the_values_that_are_reported_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert natural.main([str(SHARED / "data" / "imagenet-samples"), "--limit", "80", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"] > 60
    expected = {
        "ClippedShare": (0.034, 0.072),
        "ColorDistance": (0.254, 0.127),
        "SpectrumSlope": natural_slope(),
        "VariationPerPixel": (0.087, 0.047),
        "HighFrequencyShare": (0.069, 0.069),
    }
    assert set(report["metrics"]) == set(expected)
    for name, (mean, deviation) in expected.items():
        assert abs(report["metrics"][name]["mean"] - mean) < 4 * deviation / math.sqrt(report["pictures"]), name


def test_the_script_measures_files_too_and_reports_unreadable_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_png(torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0)), tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    assert natural.main([str(path), str(tmp_path / "b.png"), "--size", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["pictures"], report["skipped"]) == (1, 1)
    metric = VariationPerPixel()
    metric.update(read_picture(path)[None])
    assert report["metrics"]["VariationPerPixel"]["mean"] == pytest.approx(float(metric.compute()))
    assert natural.main([str(path)]) == 2
    assert "none of 1 pictures" in capsys.readouterr().err
    assert natural.main([str(path), "--size", "32", "--shrink"]) == 0
    assert "SpectrumSlope" in capsys.readouterr().out
