"""``featviz stats``: what it measures, what it prints, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from toys import SHARED, needs_shared, toy

from featviz_pl.cli.main import main
from featviz_pl.cli.stats import pairs
from featviz_pl.statistics import dataset_statistics, load_statistics

Pixels = np.ndarray[Any, Any]
SIZES = [(12, 20), (16, 10), (9, 9)]


def run(*args: str) -> int:
    """Run the command in this process and return its exit code."""
    try:
        return main(["stats", *args])
    except SystemExit as stopped:
        return int(stopped.code or 0)


def levels(height: int, width: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def covariance(photos: list[Pixels]) -> Pixels:
    found: Pixels = np.cov(
        np.concatenate([photo.reshape(-1, 3) for photo in photos]).T.astype(np.float64) / 255, bias=True
    )
    return found


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that holds nothing but three photos by classes."""
    folder = tmp_path / "here"
    for number, size in enumerate(SIZES):
        place = folder / "photos" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(levels(*size, number)).save(place / f"{number}.png")
    monkeypatch.chdir(folder)
    return folder


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# What it measures.


def test_a_folder_is_measured_and_said_in_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    assert run("photos", "--size", "10") == 0
    out, err = capsys.readouterr()
    line = r"stats\.pt: 3 photos, 481 pixels, in \S+ s; 1 unreadable, 1 smaller than 10 x 10 and left out of the spectrum\n"
    assert re.fullmatch(line, out)
    assert err == ""
    found = load_statistics("stats.pt")
    np.testing.assert_allclose(
        found.covariance.numpy(), covariance([levels(*size, number) for number, size in enumerate(SIZES)]), atol=1e-8
    )
    assert (found.unreadable, found.too_small, found.spectrum.size) == (1, 1, (10, 10))


def test_json_is_one_line_with_what_was_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("photos", "-o", "new/own.pt", "--size", "9x8", "--limit", "2", "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    report = json.loads(out)
    # Sorted by name: class0/0, class0/2, class1/1; two of three, evenly spread, are the first and the second.
    expected = covariance([levels(*SIZES[0], 0), levels(*SIZES[2], 2)])
    found = load_statistics("new/own.pt")
    np.testing.assert_allclose(found.covariance.numpy(), expected, atol=1e-8)
    assert report.pop("seconds") > 0
    assert report.pop("mean") == found.mean.tolist()
    assert report.pop("matrix") == found.matrix.tolist()
    assert report == {
        "path": str(Path("new/own.pt")),
        "source": "photos",
        "photos": 2,
        "pixels": 240 + 81,
        "unreadable": 0,
        "too_small": 0,
        "size": [9, 8],
        "channels": 3,
        "digest": found.digest,
    }


def test_one_channel_and_half_precision_are_flags(here: Path) -> None:
    assert run("photos", "--size", "8", "--channels", "1", "--compact") == 0
    found = load_statistics("stats.pt", channels=1)
    assert torch.equal(found.spectrum.magnitude, found.spectrum.magnitude.half().double())


def test_the_digest_that_is_reported_is_that_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("photos", "--size", "8", "--compact", "--json") == 0
    assert json.loads(capsys.readouterr().out)["digest"] == load_statistics("stats.pt").digest


def test_a_data_set_of_torchvision_is_measured_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--dataset", "ImageFolder", "--root", "photos", "--size", "8", "-o", "a.pt") == 0
    assert run("photos", "--size", "8", "-o", "b.pt") == 0
    assert load_statistics("a.pt").digest == load_statistics("b.pt").digest
    capsys.readouterr()
    assert (
        run(
            "--dataset", "FakeData", "--option", "size=6", "--option", "image_size=(3, 10, 12)", "--size", "8", "--json"
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert (report["source"], report["photos"], report["pixels"]) == ("FakeData", 6, 720)


@needs_shared
def test_a_data_set_on_disk_is_measured_without_a_download(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--split", "val", "--option", "size=160px", "--limit", "10", "--size", "32", "--json"]
    assert run("--dataset", "Imagenette", "--root", str(SHARED / "data"), *flags) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["photos"] == 10


@pytest.mark.slow
def test_workers_find_the_same_in_a_data_set(here: Path) -> None:
    from torchvision.datasets import FakeData

    flags = ["--option", "size=40", "--option", "image_size=(3, 10, 12)", "--size", "8", "--workers", "2"]
    # A program of its own, so that the workers do not come from a process with threads.
    command = [sys.executable, "-m", "featviz_pl", "stats", "--dataset", "FakeData", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert load_statistics("stats.pt").digest == dataset_statistics(FakeData(40, (3, 10, 12)), size=8).digest


def test_options_are_numbers_tuples_and_texts() -> None:
    assert pairs(["size=160px", "count=3", "shape=(3, 4)", "full=True", "path=a=b", "none="]) == {
        "size": "160px",
        "count": 3,
        "shape": (3, 4),
        "full": True,
        "path": "a=b",
        "none": "",
    }


# Activations.


def test_activations_of_photos_are_recorded(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from featviz_pl.metrics import load_activations

    photos = [levels(12, 12, seed) for seed in range(3)]
    (here / "exact").mkdir()
    for number, photo in enumerate(photos):
        Pillow.fromarray(photo).save(here / "exact" / f"{number}.png")
    (here / "exact" / "torn.png").write_bytes(b"no photo")
    flags = ["--network", "toys:toy", "--layer", "features.5", "--layer", "output", "--size", "12", "-o", "act.pt"]
    assert run("exact", *flags, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert report.pop("seconds") > 0
    assert report == {
        "path": "act.pt",
        "source": "exact",
        "network": "toys:toy",
        "layers": ["features.5", "output"],
        "photos": 3,
        "unreadable": 1,
        "enlarged": 0,
    }
    seen = torch.stack([torch.from_numpy(photo).permute(2, 0, 1).float() / 255 for photo in photos])
    network, found = toy().eval(), load_activations("act.pt")
    with torch.no_grad():
        expected = network(seen)[:, 2].clone(), network.features(seen)[:, 4].mean((1, 2))
    torch.testing.assert_close(found.of("output:2").float(), expected[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.of("features.5:4").float(), expected[1], rtol=1e-3, atol=1e-3)
    assert run("photos", *flags) == 0
    assert re.fullmatch(
        r"act\.pt: 3 photos in features\.5, output of toys:toy in \S+ s; 0 unreadable, \d smaller than the network's input and enlarged\n",
        capsys.readouterr().out,
    )


def test_activations_have_a_default_file_of_their_own(here: Path) -> None:
    from featviz_pl.metrics import load_activations

    assert run("photos", "--network", "toys:toy", "--layer", "output", "--size", "12") == 0
    assert files(here) == {"photos", "activations.pt"}
    assert len(load_activations("activations.pt")) == 3


# What is refused.

MISTAKES: dict[str, tuple[list[str], str]] = {
    "nothing to measure": ([], "source: give a folder of photos, or --dataset NAME"),
    "two things to measure": (
        ["photos", "--dataset", "CIFAR10"],
        "source: give a folder of photos, or --dataset NAME .* and not both",
    ),
    "missing folder": (["nowhere"], "folder: there is no folder 'nowhere'"),
    "empty folder": (["empty"], "folder: 'empty' holds no image files"),
    "only corrupt files": (
        ["corrupt"],
        "folder: none of 2 files in 'corrupt' can be read as a photo; cannot read a picture from 'corrupt/a.png'",
    ),
    "photos too small": (
        ["photos", "--size", "64"],
        "size: none of the photos in 'photos' has 64 x 64 pixels; the largest shorter side is 12",
    ),
    "size of nothing": (["photos", "--size", "1"], "size must be at least 4 pixels"),
    "limit": (["photos", "--limit", "0"], "limit must be at least 1, got 0"),
    "workers": (["photos", "--workers", "-1"], "workers must be at least 0, got -1"),
    "channels": (["photos", "--channels", "2"], r"--channels: invalid choice: 2"),
    "output": (["photos", "-o", "stats.png"], r"output: 'stats\.png' must end in \.pt"),
    "output is a folder": (["photos", "-o", "folder.pt"], r"'folder\.pt' is a folder"),
    "unknown data set": (
        ["--dataset", "CIFAR11", "--root", "."],
        "unknown data set of torchvision 'CIFAR11'; did you mean 'CIFAR10'",
    ),
    "data set without a place": (["--dataset", "CIFAR10"], "dataset: CIFAR10 needs --root DIR"),
    "missing data": (["--dataset", "CIFAR10", "--root", "."], r"the data of CIFAR10 are not in '\.'.*or --download"),
    "unknown option": (
        ["--dataset", "FakeData", "--option", "sise=3"],
        "unknown argument of FakeData 'sise'; did you mean 'size'",
    ),
    "no option": (
        ["--dataset", "FakeData", "--option", "size"],
        "option: must be KEY=VALUE, such as size=160px, got 'size'",
    ),
    "root of a folder": (["photos", "--root", "."], "root: belongs to --dataset"),
    "download of a folder": (["photos", "--download"], "download: belongs to --dataset"),
    "layer without a network": (["photos", "--layer", "a"], "layer: belongs to --network NAME"),
    "weights without a network": (["photos", "--weights", "none"], "weights: belongs to --network NAME"),
    "batch size without a network": (["photos", "--batch-size", "8"], "batch_size: belongs to --network NAME"),
    "batch size of nothing": (
        ["photos", "--network", "toys:toy", "--layer", "output", "--batch-size", "0"],
        "batch_size must be at least 1, got 0",
    ),
    "network without a layer": (["photos", "--network", "toys:toy"], "layer: say where to record"),
    "activations of a data set": (
        ["--dataset", "FakeData", "--network", "toys:toy", "--layer", "output"],
        "dataset: activations are recorded with the photos' files",
    ),
    "activations of no photos": (
        ["empty", "--network", "toys:toy", "--layer", "output"],
        "folder: 'empty' holds no image files",
    ),
    "activations in half precision": (
        ["photos", "--network", "toys:toy", "--layer", "output", "--compact"],
        "compact: belongs to colors and spectrum",
    ),
    "unknown layer": (
        ["photos", "--network", "toys:toy", "--layer", "features.55"],
        "'features.55'; did you mean .*'features.5'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(mistake: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("empty", "corrupt", "folder.pt"):
        (here / name).mkdir()
    for name in ("a.png", "b.jpg"):
        (here / "corrupt" / name).write_bytes(b"no photo")
    before = files(here)
    arguments, message = MISTAKES[mistake]
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err.startswith("featviz stats: error: ")
    assert re.search(message, err), err
    assert files(here) == before


def test_an_interrupt_leaves_what_was_there(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("photos", "--size", "8") == 0
    before = (here / "stats.pt").read_bytes()
    capsys.readouterr()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("featviz_pl.statistics.measuring.summed_magnitude", interrupt)
    assert run("photos", "--size", "9") == 130
    assert capsys.readouterr() == ("", "featviz stats: interrupted; nothing was written\n")
    assert (here / "stats.pt").read_bytes() == before
    assert files(here) == {"photos", "stats.pt"}


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "killpg"), reason="the terminal of this system tells a group of processes otherwise"
)
def test_ctrl_c_ends_the_workers_too(here: Path) -> None:
    # A pipe in place of a photo: whoever reads it waits for ever, so the signal always comes in the middle.
    os.mkfifo(here / "photos" / "wait.png")
    command = [sys.executable, "-m", "featviz_pl", "stats", "photos", "--size", "8", "--workers", "1"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with (here / "photos" / "wait.png").open("wb"):  # opens when the worker does
        os.killpg(started.pid, signal.SIGINT)
        out, err = started.communicate(timeout=60)
    assert (started.returncode, out) == (130, "")
    assert err == "featviz stats: interrupted; nothing was written\n"
    assert files(here) == {"photos"}
