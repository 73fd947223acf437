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

pytestmark = pytest.mark.slow

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
    keys = "path network target steps seed score seconds done skipped failed"
    assert set(report) == set(keys.split())
    assert (report["path"], report["network"], report["target"]) == (str(folder), "toys:toy", UNITS)
    assert (report["steps"], report["seed"], report["done"], report["skipped"], report["failed"]) == (3, 0, 37, 0, 0)
    assert report["seconds"] > 0
    return folder


def test_every_unit_is_there(alone: Path) -> None:
    units = {"features.0": 6, "features.1": 2, "features.2": 8, "features.3": 8, "features.5": 8, "head": 5}
    pictures = {f"{layer}/{unit}.png" for layer, count in units.items() for unit in range(count)}
    assert set(files(alone)) == pictures | {f"{layer}.png" for layer in units} | {"manifest.jsonl"}
    assert all(read_picture(alone / name).shape == (3, 10, 10) for name in pictures)


@pytest.mark.parametrize("devices", [2, 4])
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
    [(8, 4, ""), (26, 64, "0.1,0.2,0.3,0.05,0.4,0.25,0.15")],
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
            assert main(["sweep", "sweep_networks:wide", "0:all", "-o", str(folder), *QUICK, *more]) == 2
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
        (signal.SIGINT, 2),
        (signal.SIGTERM, 1),
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
    assert main(["sweep", "sweep_networks:wide", "0:0-1", "-o", str(folder), *QUICK, "--overwrite"]) == 0


def test_other_processes_end_when_the_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    running = busy(folder, 2)
    running.kill()
    running.wait()
    try:
        # What is left of it notices at its next step; the next sweep waits for that.
        assert main(["sweep", "sweep_networks:wide", "0:0-1", "-o", str(folder), *QUICK, "--overwrite"]) == 0
    finally:
        finish(running, 60)


def test_the_first_process_ends_when_another_fails(tmp_path: Path) -> None:
    arguments = ["sweep_networks:fails_elsewhere", "1:0-3", "-o", str(tmp_path / "atlas"), *QUICK]
    code, out, err = program("sweep", *arguments, "--devices", "2", "--batch-size", "2", seconds=90)
    assert code != 0
    assert out == ""
    assert "error: only the second process fails" in err
