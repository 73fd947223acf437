"""``featviz sweep``: what it reports, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from featviz_pl.cli.main import main

QUICK = ["--steps", "3", "--size", "10", "--batch-size", "3", "--accelerator", "cpu"]


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.txt")
    for arguments in (
        ["a:1@2"],
        ["a", "--preset", "lucit"],
        ["a", "--image", "furier"],
        ["a:all", "--steps", "0"],
        ["missing.txt"],
        ["pipe.txt"],
    ):
        assert run("sweep", "no:network", "-o", "atlas", *arguments) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "no:network" not in err
