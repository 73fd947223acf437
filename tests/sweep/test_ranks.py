"""A sweep on several processes that Lightning starts itself: each unit once, the same files, and no hang where one is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import node_worker
import pytest
import torch

from featviz_pl.cli.main import main
from featviz_pl.io import read_picture
from featviz_pl.sweep.manifest import read_manifest

pytestmark = pytest.mark.slow

FORKED = ("2:sweep", "4:sweep", "2:other version", "2:lost", "2:killed", "2:killed sweep", "2:no locks")
STRATEGIES = {"ddp_fork": FORKED, "ddp_spawn": ("2:sweep",), "ddp": ("2:sweep",)}
LAUNCHES = [
    ("ddp_fork", 2),
    ("ddp_fork", 4),
    ("ddp_spawn", 2),
    ("ddp", 2),
]


class Done(NamedTuple):
    """What a program did, and where."""

    folder: Path
    lines: list[str]

    def error(self, task: str) -> str:
        """Return why a task failed: torch puts the traceback before it."""
        (found,) = [line for line in self.lines if line.startswith(f"FAILED {task}: ")]
        return found


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def run(folder: Path, strategy: str, *tasks: str, seconds: float = 240) -> Done:
    """Run tasks in a program of its own, so that forks come from a process without threads."""
    command = [sys.executable, node_worker.__file__, str(folder), "1", strategy, *tasks]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=seconds)
    assert ended.returncode == 0, ended.stderr
    return Done(folder, ended.stdout.splitlines())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """Keep what each program did: run once, when first asked for."""

    class Programs(dict[str, Done]):
        def __missing__(self, strategy: str) -> Done:
            self[strategy] = run(tmp_path_factory.mktemp(strategy), strategy, *STRATEGIES[strategy])
            return self[strategy]

    return Programs()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweep in this process, once for all tests of this file."""
    folder = tmp_path_factory.mktemp("alone") / "atlas"
    torch.set_num_threads(1)
    node_worker.predict(folder)
    assert len(read_manifest(folder)[1]) == 37
    return folder


@pytest.mark.parametrize(("strategy", "processes"), LAUNCHES)
def test_each_unit_is_rendered_once_by_one_process(
    done: dict[str, Done], alone: Path, strategy: str, processes: int
) -> None:
    folder = done[strategy].folder
    shares = [json.loads((folder / f"rendered-{processes}-{rank}.json").read_text()) for rank in range(processes)]
    assert sorted(target for share in shares for target in share) == sorted(read_manifest(alone)[1])
    assert min(map(len, shares)) >= 37 // processes - 3  # a batch less than its share at most


@pytest.mark.parametrize(("strategy", "processes"), LAUNCHES)
def test_pixels_origins_sheets_and_manifest_are_those_of_one_process(
    done: dict[str, Done], alone: Path, strategy: str, processes: int
) -> None:
    found, expected = done[strategy].folder / f"atlas-{processes}", files(alone)
    pictures = [name for name in expected if name.count("/") == 1]
    assert len(pictures) == 37
    for name in pictures:
        assert torch.equal(read_picture(found / name), read_picture(alone / name)), name
    assert files(found) == expected


def test_a_manifest_of_another_version_is_refused_by_every_process(done: dict[str, Done]) -> None:
    folder = done["ddp_fork"].folder / "other"
    assert (
        done["ddp_fork"].error("other version").endswith("go on with the version that wrote it, or give another folder")
    )
    assert "has format 9, and this version reads 1" in done["ddp_fork"].error("other version")
    assert set(files(folder)) == {"manifest.jsonl"}


def test_the_command_refuses_a_manifest_of_another_version_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"featviz_sweep": 9, "settings": {}}\n')
    with_two = ["--devices", "2", "--accelerator", "cpu", "--steps", "2", "--size", "10", "--batch-size", "1"]
    assert main(["sweep", "toys:toy", "head:all", "-o", str(tmp_path), *with_two]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(
        f"featviz sweep: error: manifest: {str(tmp_path / 'manifest.jsonl')!r} has format 9, and this version reads 1"
    )


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("lost", f"RuntimeError: {node_worker.MESSAGE}"),
        ("killed", "process 1 terminated with signal SIGKILL"),
        ("killed sweep", "process 1 terminated with signal SIGKILL"),
    ],
)
def test_a_process_that_dies_ends_the_others_and_says_why(done: dict[str, Done], task: str, reason: str) -> None:
    assert done["ddp_fork"].error(task).endswith(reason)


def test_the_same_call_finishes_what_a_process_that_was_killed_left(done: dict[str, Done], alone: Path) -> None:
    folder = done["ddp_fork"].folder / "killed"
    left = set(files(alone)) - set(files(folder))
    assert len(left) >= 15  # the second process had 18 units, and has rendered 3 of them
    node_worker.predict(folder)
    assert files(folder) == files(alone)


def test_a_file_system_without_locks_makes_the_same_files(done: dict[str, Done], alone: Path) -> None:
    assert files(done["ddp_fork"].folder / "no-locks") == files(alone)


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
@pytest.mark.parametrize("task", ["lost", "killed"])
def test_a_process_that_dies_ends_the_others_however_they_were_started(
    strategy: str, task: str, tmp_path: Path
) -> None:
    command = [sys.executable, node_worker.__file__, str(tmp_path), "1", strategy, f"2:{task}"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert "DONE" not in ended.stdout
    assert ended.returncode != 0 or "FAILED" in ended.stdout
    assert task == "killed" or node_worker.MESSAGE in ended.stdout + ended.stderr
