"""Statistics that several processes measure are those of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from featviz_pl.statistics import AmplitudeSpectrum, folder_statistics, load_statistics

pytestmark = pytest.mark.slow


def two_processes(folder: Path, batch: int) -> list[dict[str, Any]]:
    """Return the results of two processes that measure a part of the pictures each."""
    program = str(Path(__file__).with_name("two_processes.py"))
    arguments = ["2", str(folder / "meeting"), str(folder / "pictures.pt"), str(batch)]
    command = [sys.executable, "-W", "ignore", program]
    processes = [
        subprocess.Popen([*command, str(rank), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    reports = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        reports += [json.loads(line.partition(" ")[2]) for line in out.splitlines() if line.startswith("REPORT")]
    return reports


def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    images = torch.rand(100, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    torch.save(images, tmp_path / "pictures.pt")
    pixels = images.double().transpose(0, 1).flatten(1).numpy()
    spectrum = AmplitudeSpectrum(8)
    spectrum.update(images)
    reports = two_processes(tmp_path, 16)
    assert len(reports) == 2
    for report in reports:
        assert (report["pixels"], report["pictures"]) == (100 * 120, 100)
        np.testing.assert_allclose(report["mean"], pixels.mean(1), atol=1e-9)
        np.testing.assert_allclose(report["covariance"], np.cov(pixels, bias=True), atol=1e-9)
        np.testing.assert_allclose(report["magnitude"], spectrum.compute().magnitude.numpy(), rtol=1e-9)


def test_workers_measure_the_same_to_the_last_digit(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(40):
        levels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Pillow.fromarray(levels).save(tmp_path / "photos" / f"{seed}.png")
    alone = folder_statistics(tmp_path / "photos", size=8)
    # A separate program, so that the workers do not come from a process with threads.
    command = [
        sys.executable,
        "-m",
        "featviz_pl",
        "stats",
        "photos",
        "-o",
        "shared.pt",
        "--size",
        "8",
        "--workers",
        "2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    shared = load_statistics(tmp_path / "shared.pt")
    assert torch.equal(shared.covariance, alone.covariance)
    assert shared.digest == alone.digest
    assert torch.equal(shared.spectrum.magnitude, alone.spectrum.magnitude.float().double())
