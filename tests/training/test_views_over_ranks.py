"""Views divided over processes: the same views, the same gradient, the same picture, on any number of them."""

from __future__ import annotations

import functools
import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from torch import Tensor

# Where Lightning starts the processes, it handles errors in the first one only. A cluster starts each by itself, and so
# does "alone".
JOBS = {
    ("ddp_fork", 2): ("views-8", "views-5", "accumulated", "dead", "long", "whole"),
    ("ddp_fork", 4): ("views-8", "long"),
    ("ddp_spawn", 2): ("views-8",),
    ("ddp alone", 2): ("views-8", "views-1", "infinite", "apart", "interrupted", "continued"),
    ("ddp", 2): ("views-8",),
    ("ddp_spawn", 4): ("views-8", "views-5"),
    ("ddp", 4): ("views-8", "views-5"),
}
SLOW = {("ddp", 2), ("ddp_spawn", 4), ("ddp", 4)}
LAUNCHES = [pytest.param(*launch, marks=pytest.mark.slow if launch in SLOW else ()) for launch in JOBS]


class Done:
    """Hold what the processes of one program saw."""

    def __init__(self, folder: Path, strategy: str, counts: tuple[int, ...]) -> None:
        self.folder = folder
        wanted = [f"{processes}:{job}" for processes in counts for job in JOBS[strategy, processes]]
        command = [sys.executable, ranks.__file__, str(folder), strategy.removesuffix(" alone"), *wanted]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if strategy.endswith("alone"):
            each = {**environment, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
            starts = [(command, {**each, "NODE_RANK": "0", "LOCAL_RANK": str(rank)}) for rank in range(2)]
        else:
            starts = [(command, environment)]
        pipe = subprocess.PIPE
        running = [subprocess.Popen(start, stdout=pipe, stderr=pipe, text=True, env=own) for start, own in starts]
        try:
            ended = [process.communicate(timeout=240) for process in running]
        finally:
            for process in running:
                process.kill()
        assert [process.returncode for process in running] == [0] * len(running), [error for _, error in ended]
        self.lines = [line for output, _ in ended for line in output.splitlines()]

    def seen(self, job: str, processes: int = 2) -> list[dict[str, Any]]:
        """Return what each process saw."""
        return [
            torch.load(self.folder / f"{processes}-{job}-{rank}.pt", weights_only=True) for rank in range(processes)
        ]

    def provenance(self, job: str, processes: int) -> dict[str, Any]:
        """Return what the process that started the others says of the picture."""
        said = [json.loads(line.partition(" ")[2]) for line in self.lines if line.startswith("PROVENANCE")]
        return next(one for one in said if (one["job"], one["ranks"]) == (job, processes))


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run each program once; forks are cheap, and one program makes two and four."""
    run = functools.cache(lambda strategy, counts: Done(tmp_path_factory.mktemp(strategy), strategy, counts))
    return lambda strategy, processes=2: run(strategy, (2, 4) if strategy == "ddp_fork" else (processes,))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run a job in one process."""
    folder = tmp_path_factory.mktemp("alone")

    @functools.cache
    def run(job: str) -> dict[str, Any]:
        torch.set_num_threads(1)
        ranks.run(job, folder, devices=1)
        seen: dict[str, Any] = torch.load(folder / f"1-{job}-0.pt", weights_only=True)
        return seen

    return run


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    assert len(one) == len(other) > 0
    return max(float((a - b).abs().max()) for a, b in zip(one, other))


@pytest.mark.parametrize(("strategy", "processes"), LAUNCHES)
def test_the_gradient_over_processes_is_that_of_one(done: Any, alone: Any, strategy: str, processes: int) -> None:
    for job in JOBS[strategy, processes]:
        if job in ("views-8", "views-5", "accumulated", "dead"):
            expected, found = alone(job), done(strategy, processes).seen(job, processes)
            size = max(float(gradient.abs().max()) for gradient in expected["gradients"])
            assert size > 1e-5, job
            for own in found:
                assert difference(own["gradients"], expected["gradients"]) < 1e-10 * size, job
                assert difference(own["weights"], expected["weights"]) < 1e-10, job


@pytest.mark.parametrize(("strategy", "processes"), LAUNCHES)
def test_no_view_is_evaluated_twice_and_none_is_left_out(done: Any, strategy: str, processes: int) -> None:
    for job, count in (("views-8", 8), ("views-5", 5)):
        if job in JOBS[strategy, processes]:
            shares = [own["views"] for own in done(strategy, processes).seen(job, processes)]
            assert sorted(itertools.chain(*shares)) == [100 * step + view for step in range(3) for view in range(count)]
            assert min(map(len, shares)) >= 3 * (count // processes)


@pytest.mark.parametrize("processes", [2, 4])
def test_pictures_stay_the_same_bit_for_bit_for_a_hundred_steps(done: Any, processes: int) -> None:
    first, *others = done("ddp_fork", processes).seen("long", processes)
    assert first["steps"] == 100
    assert not first["error"]
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first["weights"], other["weights"]))
        assert first["losses"] != other["losses"]  # each saw its own views


def test_a_picture_without_gradient_in_one_share_only_is_left_to_the_others(done: Any, alone: Any) -> None:
    """With a rule of its own for each process, the gradient would have been another: that is what this run was chosen for."""
    shares = done("ddp_fork").seen("dead")
    fired = [own["losses"][0] < 0 for own in shares]
    assert sorted(fired) == [False, True]
    assert difference(shares[0]["gradients"], alone("dead")["gradients"]) < 1e-10


def test_logged_scores_are_means_over_the_views_of_all_processes(done: Any, alone: Any) -> None:
    for job in ("views-8", "views-5"):
        expected = alone(job)
        for own in done("ddp_fork").seen(job):
            for name in ("loss", "score", "score/Channel.features.5", "score/TotalVariation"):
                assert own["logged"][name] == pytest.approx(expected["logged"][name], rel=1e-6), name
            assert own["logged"]["views_per_second_per_device"] > 0
            assert own["scores"].keys() == expected["scores"].keys() == {"Channel.features.5", "TotalVariation"}
            for name, scores in own["scores"].items():
                assert scores == pytest.approx(expected["scores"][name], rel=1e-6)
                assert len(scores) == 2


def test_fewer_views_than_processes_are_refused_in_each(done: Any) -> None:
    for own in done("ddp alone").seen("views-1"):
        assert own["error"].startswith("ValueError: views: 1 views cannot be divided over 2 processes")
        assert own["steps"] == 0


def test_a_score_that_is_not_finite_in_one_process_stops_all_of_them(done: Any) -> None:
    found = done("ddp alone").seen("infinite")
    assert [own["steps"] for own in found] == [2, 2]
    assert [own["error"].partition(" is not finite")[0] for own in found] == [
        "NonFiniteError: step 2: the gradient",
        "NonFiniteError: step 2: the score",
    ]
    assert all(torch.equal(a, b) and torch.isfinite(a).all() for a, b in zip(found[0]["weights"], found[1]["weights"]))


def test_pictures_that_differ_stop_all_processes_with_rank_and_step(done: Any) -> None:
    for own in done("ddp alone").seen("apart"):
        assert own["error"].startswith("RuntimeError: step 6: rank 1 holds other pictures than rank 0")
        assert own["steps"] == 6


def test_a_signal_to_one_process_stops_all_after_the_same_step_and_the_checkpoint_continues_exactly(done: Any) -> None:
    found = done("ddp alone")
    for own in found.seen("interrupted"):
        assert own["error"].startswith("KeyboardInterrupt")
        assert own["steps"] == 8  # it came in the fifth to one of them, and they ask one another every eighth
    whole, continued = (done("ddp_fork").seen("whole"), found.seen("continued"))
    for own, expected in zip(continued, whole):
        assert own["views"] == [view for view in expected["views"] if view >= 800]
        assert all(torch.equal(a, b) for a, b in zip(own["weights"], expected["weights"]))


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn", "ddp alone"])
def test_the_process_that_started_the_others_knows_what_they_did(done: Any, alone: Any, strategy: str) -> None:
    origin = done(strategy, 2).provenance("views-8", 2)
    assert origin["steps"] == 3
    assert (origin["optimizer"], origin["lr"], origin["scheduler"]) == ("AdamW", 0.2, "CosineAnnealingLR")
    assert "count=8" in origin["views"]
