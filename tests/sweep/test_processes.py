"""``featviz sweep`` as programs: several processes, kills, interrupts, two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featviz_pl.cli.main import main
from featviz_pl.io import read_picture

SUPPORT = Path(__file__).resolve().parents[1] / "support"
QUICK = ["--steps", "3", "--size", "10", "--batch-size", "3", "--accelerator", "cpu"]
UNITS = [
    "features.0:all",
    "features.1:0-1",
    "features.[235]:all",
    "head:all",
]  # 6 + 2 + 3 x 8 + 5 = 37 units in 14 batches of 3


def environment() -> dict[str, str]:
    """Return the environment of a program that finds the test networks and has one thread."""
    paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def finish(program: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Wait for a program and every process that it has started, ended by force where it takes too long."""
    try:
        out, err = program.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        out, err = program.communicate()
        raise AssertionError(f"took more than {seconds} s: {out}{err}") from None
    return program.returncode, out, err


def program(*arguments: str, seconds: float = 120) -> tuple[int, str, str]:
    return finish(start("-m", "featviz_pl", *arguments), seconds)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def until(done: Callable[[], Any], running: subprocess.Popen[str], seconds: float = 90) -> None:
    """Wait for a sign of life of a program."""
    patience = time.monotonic() + seconds
    while not done():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < patience
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweep on one process, once for all tests of this file."""
    folder = tmp_path_factory.mktemp("alone") / "atlas"
    code, out, err = program("sweep", "toys:toy", *UNITS, "-o", str(folder), *QUICK, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    report = json.loads(out)
    assert set(report) == {
        "path",
        "network",
        "target",
        "steps",
        "seed",
        "score",
        "seconds",
        "done",
        "skipped",
        "failed",
    }
    assert (report["path"], report["network"], report["target"]) == (str(folder), "toys:toy", UNITS)
    assert (report["steps"], report["seed"], report["done"], report["skipped"], report["failed"]) == (3, 0, 37, 0, 0)
    assert report["seconds"] > 0
    return folder


def test_every_unit_is_there(alone: Path) -> None:
    units = {"features.0": 6, "features.1": 2, "features.2": 8, "features.3": 8, "features.5": 8, "head": 5}
    pictures = {f"{layer}/{unit}.png" for layer, count in units.items() for unit in range(count)}
    assert set(files(alone)) == pictures | {f"{layer}.png" for layer in units} | {"manifest.jsonl"}
    assert all(read_picture(alone / name).shape == (3, 10, 10) for name in pictures)


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_write_the_same_files_each_once(devices: int, alone: Path, tmp_path: Path) -> None:
    arguments = [
        "sweep",
        "toys:toy",
        *UNITS,
        "-o",
        str(tmp_path / "atlas"),
        *QUICK,
        "--json",
        "--devices",
        str(devices),
    ]
    code, out, err = program(*arguments)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    assert json.loads(out)["done"] == 37
    assert files(tmp_path / "atlas") == files(alone)


def test_processes_that_torchrun_starts_write_the_same_files(alone: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "featviz_pl"]
    running = start(
        *launcher, "sweep", "toys:toy", *UNITS, "-o", str(tmp_path / "atlas"), *QUICK, "--json", "--devices", "2"
    )
    code, out, err = finish(running)
    assert code == 0, err
    assert json.loads(out)["done"] == 37
    assert files(tmp_path / "atlas") == files(alone)


@pytest.mark.parametrize(
    ("units", "steps", "moments"),
    [(8, 4, ""), pytest.param(26, 64, "0.1,0.2,0.3,0.05,0.4,0.25,0.15", marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_a_sweep_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    units: int, steps: int, moments: str, tmp_path: Path
) -> None:
    def arguments(folder: Path) -> list[str]:
        layer = f"0:0-{units - 1}"
        flags = ["--steps", str(steps), "--size", "10", "--batch-size", "4", "--accelerator", "cpu", "--json"]
        return ["sweep", "sweep_networks:wide", layer, "-o", str(folder), *flags]

    assert program(*arguments(tmp_path / "whole"))[0] == 0
    killed = tmp_path / "killed"
    running = start("-W", "ignore", str(SUPPORT / "sweep_worker.py"), str(killed), moments, *arguments(killed))
    code, out, err = finish(running, 300)
    assert code == 0, err
    report = json.loads(out.partition("REPORT ")[2])
    assert report["code"] == 0
    assert report["attempts"] > units // 4
    assert report["again"] == []  # nothing that was finished was written again
    assert files(killed) == files(tmp_path / "whole")


def busy(folder: Path, devices: int = 1) -> subprocess.Popen[str]:
    """Start a sweep that takes long, and wait until every process of it has made its first picture."""
    flags = ["--steps", "300", "--size", "10", "--batch-size", "1", "--accelerator", "cpu", "--devices", str(devices)]
    running = start("-m", "featviz_pl", "sweep", "sweep_networks:wide", "0:all", "-o", str(folder), *flags)
    until(lambda: all((folder / "0" / f"{rank}.png").exists() for rank in range(devices)), running)
    return running


def test_a_second_sweep_of_a_folder_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "atlas"
    first = busy(folder)
    try:
        header = (folder / "manifest.jsonl").read_bytes()
        for more in ([], ["--overwrite"]):
            assert run("sweep", "sweep_networks:wide", "0:all", "-o", str(folder), *QUICK, *more) == 2
            message = f"output: another sweep works in {str(folder)!r}; wait for it, or give another folder"
            assert capsys.readouterr() == ("", f"featviz sweep: error: {message}\n")
        assert first.poll() is None
        assert (folder / "manifest.jsonl").read_bytes() == header
        assert (folder / "0" / "0.png").exists()
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


@pytest.mark.parametrize(
    ("stop", "devices"),
    [
        (signal.SIGINT, 1),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),
        (signal.SIGTERM, 2),
    ],
)
def test_a_sweep_that_is_stopped_says_that_it_can_go_on(stop: signal.Signals, devices: int, tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    running = busy(folder, devices)
    running.send_signal(stop)
    found, out, err = finish(running, 60)
    code, word = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}[stop]
    assert (found, out) == (code, "")
    assert err == f"featviz sweep: {word}; what is done is whole, and the same command goes on from there\n"
    assert all(read_picture(path).shape == (3, 10, 10) for path in folder.glob("0/*.png"))
    # No process of it is left, so the folder is free.
    assert run("sweep", "sweep_networks:wide", "0:0-1", "-o", str(folder), *QUICK, "--overwrite") == 0


def test_other_processes_end_when_the_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    running = busy(folder, 2)
    running.kill()
    running.wait()
    try:
        # What is left of it notices at its next step; the next sweep waits for that.
        assert run("sweep", "sweep_networks:wide", "0:0-1", "-o", str(folder), *QUICK, "--overwrite") == 0
    finally:
        finish(running, 60)


def test_the_first_process_ends_when_another_fails(tmp_path: Path) -> None:
    arguments = [
        "sweep",
        "sweep_networks:fails_elsewhere",
        "1:0-3",
        "-o",
        str(tmp_path / "atlas"),
        *QUICK,
        "--devices",
        "2",
        "--batch-size",
        "2",
    ]
    code, out, err = program(*arguments, seconds=90)
    assert code != 0
    assert out == ""
    assert "error: only the second process fails" in err


# In this process.


def run(*arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    try:
        return main(list(arguments))
    except SystemExit as stopped:
        return int(stopped.code or 0)


def test_units_that_fail_have_an_exit_code_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--steps", "20", "--size", "8", "--accelerator", "cpu", "--json", "-o", str(tmp_path / "atlas")]
    for new in (2, 0):
        assert run("sweep", "sweep_networks:partly_dead", "1:all", *flags) == 3
        out, err = capsys.readouterr()
        report = json.loads(out)
        assert (report["done"], report["skipped"], report["failed"]) == (new, 2 - new, 1)
        assert err == "featviz sweep: 1 units failed: 1:1: no gradient reaches the picture: nothing turns the unit on\n"


def test_a_sweep_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("sweep", "toys:toy", "features.5:0-2", "-o", "atlas", *QUICK) == 0
    assert run("sweep", "toys:toy", "features.5:0-4", "-o", "atlas", *QUICK) == 0
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert first.startswith("atlas: 3 pictures of toys:toy, 3 of them new, in ")
    assert second.startswith("atlas: 5 pictures of toys:toy, 2 of them new, in ")
    assert err == ""


MISTAKES: dict[str, tuple[list[str], str]] = {
    "unknown layer": (
        ["features.55:all"],
        "unknown layer or pattern of layers 'features.55'; did you mean 'features.5'",
    ),
    "unit out of range": (["features.5:8"], "'features.5' has 8 units, 0 to 7; there is no 8"),
    "bad line": (["units.txt"], "'units.txt', line 2: target: 'a:b:c' does not parse"),
    "steps 0": (["features.5:all", "--steps", "0"], "steps must be at least 1"),
    "batch size 0": (["features.5:all", "--batch-size", "0"], "batch_size must be at least 1"),
    "batch size of words": (
        ["features.5:all", "--batch-size", "many"],
        "batch-size: invalid int value: 'many'",
    ),
    "unknown preset": (["features.5:all", "--preset", "lucit"], "unknown preset 'lucit'; did you mean 'lucid'"),
    "unknown image": (["features.5:all", "--image", "furier"], "unknown parameterization 'furier'"),
    "no folder": (["features.5:all", "-o", "units.txt/below"], "cannot write into 'units.txt/below'"),
    "more devices than targets": (
        ["features.5:0", "--devices", "2"],
        "1 targets cannot be divided over 2 processes; give at most 1",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("units.txt").write_text("features.5:1\na:b:c\n")
    arguments, message = MISTAKES[mistake]
    assert run("sweep", "toys:toy", "-o", "atlas", *QUICK, *arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert message in err
    assert [path.name for path in tmp_path.rglob("*.png")] == []


def test_changed_settings_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "atlas")
    assert run("sweep", "toys:toy", "features.5:0-1", "-o", folder, *QUICK) == 0
    capsys.readouterr()
    assert run("sweep", "toys:toy", "features.5:0-1", "-o", folder, *QUICK, "--seed", "4") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "error: seed: the pictures in" in err
    assert "were made with 0, and this asks for 4" in err
    assert run("sweep", "toys:toy", "features.5:0-1", "-o", folder, *QUICK, "--seed", "4", "--overwrite") == 0


def test_what_needs_no_network_is_refused_before_one_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*args: object) -> None:
        raise AssertionError("the network was loaded")

    monkeypatch.setattr("featviz_pl.networks.load_network", load)
    for arguments in (
        ["a:1@2"],
        ["a", "--preset", "lucit"],
        ["a", "--image", "furier"],
        ["a:all", "--steps", "0"],
        ["missing.txt"],
    ):
        assert run("sweep", "toys:toy", "-o", "atlas", *arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_help_names_every_flag_of_the_design(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sweep", "--help") == 0
    text = capsys.readouterr().out
    for flag in (
        *(
            "--weights",
            "--mean",
            "--std",
            "--steps",
            "--size",
            "--views",
            "--seed",
            "--preset",
            "--lr",
            "--image",
            "--batch-size",
        ),
        *("--accelerator", "--devices", "--num-nodes", "--precision", "--overwrite", "-o", "--json"),
    ):
        assert flag in text
