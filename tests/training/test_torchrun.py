"""``torchrun`` on two nodes: two agents, each with processes of its own, on one machine."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import node_worker
import pytest
import ranks
import torch
from torch import Tensor

from featviz_pl.cli.main import main

SUPPORT = Path(__file__).resolve().parents[1] / "support"
RENDEZVOUS = {
    "static": "--master-addr 127.0.0.1 --master-port {port} --node-rank {node}",
    "c10d": "--rdzv-backend c10d --rdzv-id pictures --rdzv-endpoint 127.0.0.1:{port}",
}


class Ended(NamedTuple):
    """What became of one agent and its processes."""

    code: int
    out: str
    err: str


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def start(*command: str, devices: int = 1, rendezvous: str = "static") -> list[subprocess.Popen[str]]:
    """Start two agents that find one another."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]),
    }
    port, pipe, running = free_port(), subprocess.PIPE, []
    for node in range(2):
        where = RENDEZVOUS[rendezvous].format(port=port, node=node).split()
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes",
            "2",
            "--nproc-per-node",
            str(devices),
            *where,
        ]
        running.append(subprocess.Popen([*launcher, *command], stdout=pipe, stderr=pipe, text=True, env=environment))
    return running


def end(running: list[subprocess.Popen[str]]) -> list[Ended]:
    """Ask agents that have not ended by themselves to end; they then end their processes, which are in sessions of their own."""
    ended = []
    for agent in running:
        if agent.poll() is None:
            agent.terminate()
    for agent in running:
        try:
            said = agent.communicate(timeout=60)  # after half a minute an agent ends its processes by force
        except subprocess.TimeoutExpired:
            agent.kill()
            said = agent.communicate()
        ended.append(Ended(agent.returncode, *said))
    return ended


def on_two_nodes(*command: str, seconds: float = 240, **how: Any) -> list[Ended]:
    """Start two agents and wait for both; past the time they are ended, and the test fails."""
    running, late = start(*command, **how), False
    try:
        for agent in running:
            agent.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = True
    ended = end(running)
    assert not late, f"took more than {seconds} s: {ended}"
    return ended


def worker(folder: Path, *tasks: str, devices: int = 1, rendezvous: str = "static") -> list[Ended]:
    """Let every process of two nodes do tasks of node_worker.py."""
    own = [f"{devices}:{task}" for task in tasks]
    return on_two_nodes(
        str(SUPPORT / "node_worker.py"), str(folder), "2", "ddp", *own, devices=devices, rendezvous=rendezvous
    )


def done(ended: Ended) -> list[str]:
    """Return the tasks that the processes of an agent have done."""
    return sorted({line.removeprefix("DONE ") for line in ended.out.splitlines() if line.startswith("DONE ")})


def seen(folder: Path, job: str, processes: int) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{processes}-{job}-{rank}.pt", weights_only=True) for rank in range(processes)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do everything in one process, once for all tests of this file."""
    folder = tmp_path_factory.mktemp("alone")
    torch.set_num_threads(1)
    ranks.run("views-8", folder, devices=1)
    ranks.run("views-5", folder, devices=1)
    node_worker.command(folder, num_nodes=1, devices=1)
    return folder


class Nodes(NamedTuple):
    """What two nodes did, and where."""

    folder: Path
    ended: list[Ended]
    processes: int


@pytest.fixture(
    scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["1 device each", "2 devices each"]
)
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Nodes:
    """Start two nodes once for all tests of this file. Last of all a process fails, which ends everything."""
    folder, devices = tmp_path_factory.mktemp("nodes"), int(request.param)
    return Nodes(folder, worker(folder, "views-8", "views-5", "long", "command", "lost", devices=devices), 2 * devices)


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    assert len(one) == len(other) > 0
    return max(float((a - b).abs().max()) for a, b in zip(one, other))


def test_both_nodes_do_everything_until_a_process_fails(nodes: Nodes) -> None:
    for ended in nodes.ended:
        assert done(ended) == ["command", "long", "views-5", "views-8"], ended.err


@pytest.mark.parametrize("job", ["views-8", "views-5"])
def test_the_gradient_over_nodes_is_that_of_one_process_and_each_view_is_seen_once(
    nodes: Nodes, alone: Path, job: str
) -> None:
    (expected,), found = seen(alone, job, 1), seen(nodes.folder, job, nodes.processes)
    size = max(float(gradient.abs().max()) for gradient in expected["gradients"])
    assert size > 1e-5
    for own in found:
        assert difference(own["gradients"], expected["gradients"]) < 1e-10 * size
        assert difference(own["weights"], expected["weights"]) < 1e-10
        assert own["logged"]["score"] == pytest.approx(expected["logged"]["score"], rel=1e-6)
    assert sorted(itertools.chain(*(own["views"] for own in found))) == expected["views"]
    assert all(own["views"] for own in found)


def test_pictures_of_all_nodes_are_the_same_bit_for_bit_after_a_hundred_steps(nodes: Nodes) -> None:
    first, *others = seen(nodes.folder, "long", nodes.processes)
    assert first["steps"] == 100
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first["weights"], other["weights"]))
        assert first["losses"] != other["losses"]  # each saw its own views


def test_a_sweep_over_nodes_makes_the_files_of_one_process_and_only_the_first_reports(
    nodes: Nodes, alone: Path
) -> None:
    reports = [json.loads(found) for ended in nodes.ended for found in re.findall(r"\{.*?\}", ended.out)]
    assert [(report["done"], report["skipped"], report["failed"]) for report in reports] == [(37, 0, 0)]
    assert nodes.ended[1].out.count("{") == 0
    found = files(nodes.folder / "command")
    assert sum(name.count("/") for name in found) == 37
    assert found == files(alone / "command")


def test_a_process_that_fails_ends_all_nodes_with_its_message(nodes: Nodes) -> None:
    assert all(ended.code != 0 for ended in nodes.ended)
    assert node_worker.MESSAGE in "".join(ended.err for ended in nodes.ended)
    assert "".join(ended.out for ended in nodes.ended).count("FAILED lost:") >= 1


# Under other circumstances.


@pytest.mark.slow
def test_nodes_that_find_one_another_by_themselves_make_the_same_files(alone: Path, tmp_path: Path) -> None:
    ended = worker(tmp_path, "command", rendezvous="c10d")
    assert [end.code for end in ended] == [0, 0], ended
    assert files(tmp_path / "command") == files(alone / "command")


@pytest.mark.slow
def test_a_training_whose_process_is_killed_on_one_node_ends_on_the_other(tmp_path: Path) -> None:
    ended = worker(tmp_path, "killed")
    assert all(end.code != 0 for end in ended)
    assert all(done(end) == [] for end in ended)


@pytest.mark.slow
def test_a_sweep_that_loses_a_node_finishes_the_share_of_the_other_and_the_same_call_the_rest(tmp_path: Path) -> None:
    node_worker.predict(tmp_path / "whole")
    running = start(str(SUPPORT / "node_worker.py"), str(tmp_path), "2", "ddp", "1:killed sweep")
    try:
        assert running[1].wait(120) != 0
        # The agent of the other waits five minutes for the one that is gone (its exit barrier); its process does not.
        assert running[0].stdout is not None
        assert select.select([running[0].stdout], [], [], 120)[0]
        assert running[0].stdout.readline() == "DONE killed sweep\n"
    finally:
        end(running)
    missing = set(files(tmp_path / "whole")) - set(files(tmp_path / "killed"))
    assert len(missing) >= 15  # the second process had 18 units, and has rendered 3 of them
    node_worker.predict(tmp_path / "killed")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sweep", "render"])
def test_more_processes_than_work_are_refused_on_every_node(command: str, tmp_path: Path) -> None:
    given = ["head:0", "--batch-size", "1"] if command == "sweep" else ["head:0", "--views", "1"]
    flags = [
        "--steps",
        "2",
        "--size",
        "10",
        "--accelerator",
        "cpu",
        "--num-nodes",
        "2",
        "-o",
        str(tmp_path / "out.png"),
    ]
    ended = on_two_nodes("-m", "featviz_pl", command, "toys:toy", *given, *flags)
    assert all(end.code != 0 for end in ended)
    assert "cannot be divided over 2 processes; give at" in ended[0].err


def test_a_number_of_nodes_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "toys:toy", "head:all", "-o", "atlas", "--num-nodes", "0"])
    assert stopped.value.code == 2
    assert "num_nodes must be at least 1, got 0" in capsys.readouterr().err
