"""Resume equality over optimizers, schedulers, callbacks, steps and what else a Trainer can do; and after real signals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import killed
import pytest
import resume_cases
import torch
from resume_cases import EVERY, Case, compared, pairwise

import featviz_pl.training.module

SOME = pairwise()
WHERE = ("first", "middle", "last")
# On two processes: each optimizer, each scheduler, each callback, each other thing once.
ON_TWO = [
    Case("Adam", "plateau", "all", "plain"),
    Case("AdamW", "cosine", "views", "accumulated"),
    Case("momentum", "one cycle", "stop", "clipped"),
    Case("NAdam", "no scheduler", "snapshots", "bf16"),
]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let schedulers that follow the loss read it in runs as short as these."""
    monkeypatch.setattr(featviz_pl.training.module, "LOG_EVERY", 2)


def resume(case: Case, folder: Path, *places: str) -> None:
    steps = {"first": 2, "middle": 5, "last": case.last() - 1}
    case.fit(folder / "whole")
    end = f"step={case.last()}.ckpt"
    assert not (folder / "whole" / f"step={case.last() + 1}.ckpt").exists()
    for place in places:
        case.fit(folder / place, folder / "whole" / f"step={steps[place]}.ckpt")
        assert compared(folder / "whole" / end, folder / place / end) == [], place


@pytest.mark.filterwarnings(f"ignore:{resume_cases.DIRECTORY}")
@pytest.mark.parametrize(
    ("case", "place"), [pytest.param(case, WHERE[i % 3], id=" ".join(case)) for i, case in enumerate(SOME)]
)
def test_a_resumed_run_ends_in_the_same_checkpoint(case: Case, place: str, tmp_path: Path) -> None:
    resume(case, tmp_path, place)


@pytest.mark.slow
@pytest.mark.filterwarnings(f"ignore:{resume_cases.DIRECTORY}")
@pytest.mark.parametrize("case", [pytest.param(case, id=" ".join(case)) for case in EVERY])
def test_every_resumed_run_ends_in_the_same_checkpoint(case: Case, tmp_path: Path) -> None:
    resume(case, tmp_path, *WHERE)


def test_the_cases_do_what_they_are_for(tmp_path: Path) -> None:
    """Otherwise equality would say nothing."""
    assert {value for case in SOME for value in case} == {value for case in EVERY for value in case}
    rates = set()
    for scheduler in resume_cases.SCHEDULERS:
        case = Case("Adam", scheduler, "no callbacks", "plain")
        case.fit(tmp_path / scheduler)
        held = [torch.load(tmp_path / scheduler / f"step={step}.ckpt", weights_only=True) for step in (5, 11)]
        first, last = (checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] for checkpoint in held)
        assert (first == last) == (scheduler == "no scheduler")
        rates.add(last)
    assert len(rates) == len(resume_cases.SCHEDULERS)
    different = compared(tmp_path / "cosine" / "step=11.ckpt", tmp_path / "plateau" / "step=11.ckpt")
    assert "/state_dict/image.weight" in different


def run_program(module: str | None, *arguments: str) -> list[str]:
    assert module is not None
    command = [sys.executable, module, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def on_two_processes(cases: list[Case], folder: Path) -> None:
    numbers = [str(EVERY.index(case)) for case in cases]
    said = run_program(resume_cases.__file__, str(folder), *numbers)
    assert [line for line in said if line.startswith("COMPARED")] == [f"COMPARED {number} []" for number in numbers]


def test_two_processes_resume_to_the_same_checkpoint(tmp_path: Path) -> None:
    on_two_processes(ON_TWO, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", sorted(resume_cases.OPTIMIZERS))
def test_two_processes_resume_to_the_same_checkpoint_in_every_pair(optimizer: str, tmp_path: Path) -> None:
    on_two_processes([case for case in SOME if case.optimizer == optimizer], tmp_path)


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run the program that is killed, once for all tests of this file."""
    said = run_program(killed.__file__, str(tmp_path_factory.mktemp("killed")))
    return dict(line.split(" ", 1) for line in said if line.split(" ", 1)[0] in ("KILLED", "INTERRUPTED", "REQUEUED"))


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_picture(survived: dict[str, str]) -> None:
    kills, same = survived["KILLED"].split()
    assert int(kills) >= 4
    assert same == "True"


def test_ctrl_c_at_any_moment_waits_for_the_step_and_the_run_goes_on_exactly(survived: dict[str, str]) -> None:
    interrupts, same = survived["INTERRUPTED"].split()
    assert int(interrupts) >= 4
    assert same == "True"


def test_a_slurm_job_that_is_requeued_goes_on_exactly(survived: dict[str, str]) -> None:
    assert survived["REQUEUED"] == "requeue 4242 True"
