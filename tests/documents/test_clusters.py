"""What examples/clusters/ shows: scripts and manifests that parse, commands that this version takes, and jobs that come back."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from featviz_pl.cli.main import parser

SUPPORT = Path(__file__).resolve().parents[1] / "support"
CLUSTERS = Path(__file__).resolve().parents[2] / "examples" / "clusters"
README = (CLUSTERS / "README.md").read_text()
SWEEP = ["sweep", "squeezenet1_0", "features.*", "-o", "/shared/atlas"]
SLURM = {"SLURM_JOB_ID": "4242", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "3", "SLURM_CPUS_PER_TASK": "4"}
DIRECTIVES = {
    *("job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task"),
    *("time", "requeue", "signal", "open-mode", "output"),
}


def parsed(arguments: list[str]) -> Any:
    """Read a command of featviz; a wrong one ends the test."""
    return parser().parse_args(arguments)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Return a folder for programs that stand for those of a cluster."""
    (tmp_path / "tools").mkdir()
    return tmp_path / "tools"


def stub(tools: Path, name: str, text: str) -> None:
    """Write a program."""
    (tools / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (tools / name).chmod(0o755)


def start(script: str, *arguments: str, tools: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a script of the folder, in a session of its own."""
    paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(paths), **variables}
    command, pipe = ["bash", str(CLUSTERS / script), *arguments], subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=found, cwd=tools.parent, start_new_session=True
    )


def finish(running: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    """Wait for a script and everything that it has started."""
    try:
        out, err = running.communicate(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    return running.returncode, out, err


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


# What is written there.


def test_every_file_is_explained() -> None:
    for path in CLUSTERS.iterdir():
        assert path.name == "README.md" or f"({path.name})" in README, path.name


@pytest.mark.parametrize("script", sorted(path.name for path in CLUSTERS.glob("*.sh")))
def test_a_script_parses_and_can_be_started(script: str) -> None:
    assert subprocess.run(["bash", "-n", str(CLUSTERS / script)], check=False, capture_output=True).stderr == b""
    assert os.access(CLUSTERS / script, os.X_OK)


def commands(text: str) -> list[list[str]]:
    """Return what follows ``featviz`` in a text: at the beginning of a line, or handed to a script."""
    text = text.replace("\\\n", " ")
    before = r"(?:#\s+)?(?:[A-Z_]+=\S+ )*(?:ip netns exec \S+ )?"
    words = r"(?:featviz|\S*torchrun\.sh|sbatch \S*slurm\.sh)"
    return [
        shlex.split(found, comments=True)
        for found in re.findall(rf"^\s*{before}\s*{words} (\w+ [^&\n]*)", text, re.MULTILINE)
    ]


@pytest.mark.parametrize("name", ["README.md", "torchrun.sh", "slurm.sh"])
def test_commands_that_are_shown_are_commands(name: str) -> None:
    found = commands((CLUSTERS / name).read_text())
    assert len(found) == {"README.md": 6, "torchrun.sh": 1, "slurm.sh": 2}[name]
    for arguments in found:
        assert parsed(arguments).command in ("sweep", "render")


def test_sizes_in_the_guide_follow_from_its_numbers() -> None:
    """The arithmetic of a million features, done again."""
    number = {name: float(value) for name, value in re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d.]+)", README, re.MULTILINE)}
    assert set(number) == {"N", "S", "t", "png", "line", "read", "sheet"}
    seconds = number["N"] * number["S"] * number["t"]
    told = {
        "core-days": seconds / 86400,
        "GB of pictures": number["N"] * number["png"] / 1e6,
        "MB of manifest": number["N"] * number["line"] / 1e6,
        "minutes of reading": number["N"] * number["read"] / 1e3 / 60,
        "minutes of sheets": number["N"] * number["sheet"] / 1e3 / 60,
    }
    for what, value in told.items():
        (shown,) = re.findall(rf"\*\*([\d,]+) {what}\*\*", README)
        assert float(shown.replace(",", "")) == pytest.approx(value, rel=0.05), what


# torchrun.


def test_torchrun_is_started_with_the_same_numbers_as_the_command(tools: Path) -> None:
    stub(tools, "torchrun", 'printf "%s\\n" "$@"')
    code, out, err = finish(
        start("torchrun.sh", *SWEEP, tools=tools, NODES="3", NODE="2", MAIN="10.0.0.1", DEVICES="8")
    )
    assert (code, err) == (0, "")
    words = out.splitlines()
    place = words.index("featviz")
    launcher, options = words[: place - 1], parsed(words[place + 1 :])
    assert words[place - 1] == "--no-python"
    assert dict(zip(launcher[::2], launcher[1::2])) == {
        "--nnodes": "3",
        "--node-rank": "2",
        "--nproc-per-node": "8",
        "--master-addr": "10.0.0.1",
        "--master-port": "29400",
    }
    assert (options.num_nodes, options.devices, options.layers) == (3, "8", ["features.*"])


@pytest.mark.parametrize("missing", ["NODES", "NODE", "MAIN", "DEVICES"])
def test_torchrun_needs_to_know_where_it_is(missing: str, tools: Path) -> None:
    stub(tools, "torchrun", "exit 0")
    given = {"NODES": "3", "NODE": "2", "MAIN": "10.0.0.1", "DEVICES": "8"}
    code, _, err = finish(
        start("torchrun.sh", *SWEEP, tools=tools, **{name: value for name, value in given.items() if name != missing})
    )
    assert code != 0
    assert f"{missing}: " in err


# SLURM.


def test_what_slurm_is_asked_for_fits_together() -> None:
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", (CLUSTERS / "slurm.sh").read_text(), re.MULTILINE))
    assert set(asked) == DIRECTIVES
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]  # one process for each device
    assert (
        asked["signal"] == "B:USR1@120"
    )  # to the script alone: Lightning would save a checkpoint, of which a sweep has no need
    assert asked["open-mode"] == "append"


@pytest.mark.parametrize("code", [0, 3])
def test_slurm_starts_as_many_processes_as_the_command_expects_and_hands_on_the_exit_code(
    code: int, tools: Path
) -> None:
    stub(tools, "srun", f'printf "%s\\n" "$OMP_NUM_THREADS" "$@"; exit {code}')
    ended, out, err = finish(start("slurm.sh", *SWEEP, tools=tools, **SLURM))
    assert (ended, err) == (code, "")
    threads, program, *words = out.splitlines()
    assert (threads, program) == ("4", "featviz")
    options = parsed(words)
    assert (options.num_nodes, options.devices) == (2, "3")


def test_slurm_is_asked_to_requeue_before_the_time_is_over_and_the_script_waits_for_its_processes(tools: Path) -> None:
    stub(tools, "scontrol", f'echo "$@" >> {tools}/asked; touch {tools}/go')
    stub(
        tools,
        "srun",
        f"touch {tools}/began; while [ ! -e {tools}/go ]; do sleep 0.01; done; sleep 0.05; echo ended; exit 143",
    )
    running = start("slurm.sh", *SWEEP, tools=tools, **SLURM)
    patience = time.monotonic() + 30
    while not (tools / "began").exists() and time.monotonic() < patience:
        time.sleep(0.01)
    running.send_signal(signal.SIGUSR1)
    code, out, err = finish(running)
    assert (code, out, err) == (143, "ended\n", "")
    assert (tools / "asked").read_text() == "requeue 4242\n"


# Kubernetes.


def job() -> dict[str, Any]:
    held: dict[str, Any] = yaml.safe_load((CLUSTERS / "pytorchjob.yaml").read_text())
    return held


def test_the_manifest_is_a_job_whose_numbers_fit_together() -> None:
    held = job()
    assert (held["apiVersion"], held["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = held["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"}
    assert replicas["Master"]["replicas"] == 1
    for replica in replicas.values():
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] == "pytorch"
        program, *flags, name = container["command"]
        assert (program, flags, name) == ("torchrun", ["--no-python"], "featviz")
        options = parsed(container["args"])
        assert options.num_nodes == sum(one["replicas"] for one in replicas.values())
        assert (
            options.devices == held["spec"]["nprocPerNode"] == str(container["resources"]["limits"]["nvidia.com/gpu"])
        )
        places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(places) == {volume["name"] for volume in pod["volumes"]}
        assert options.output.startswith(places["shared"])
        assert options.weights.startswith(places["shared"])
        assert all(isinstance(one["value"], str) for one in container["env"])


# All of it for real, in small.

TINY = [
    "sweep",
    "toys:toy",
    "features.[35]",
    "head",
    "--steps",
    "3",
    "--size",
    "10",
    "--batch-size",
    "3",
    "--accelerator",
    "cpu",
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from featviz_pl.cli.main import main

    folder = tmp_path_factory.mktemp("alone") / "atlas"
    assert main([*TINY, "-o", str(folder)]) == 0
    return folder


def free_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return str(held.getsockname()[1])


def programs(tools: Path) -> None:
    """Let the scripts find the programs of this environment."""
    stub(tools, "featviz", f'exec {sys.executable} -m featviz_pl "$@"')
    stub(tools, "torchrun", f'exec {sys.executable} -m torch.distributed.run "$@"')


@pytest.mark.slow
def test_torchrun_on_two_nodes_makes_the_files_of_one_process(alone: Path, tools: Path) -> None:
    programs(tools)
    given = {"NODES": "2", "MAIN": "127.0.0.1", "PORT": free_port(), "DEVICES": "1", "OMP_NUM_THREADS": "1"}
    running = [start("torchrun.sh", *TINY, "-o", "atlas", tools=tools, **given, NODE=str(node)) for node in range(2)]
    ended = [finish(one, 120) for one in running]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert files(tools.parent / "atlas") == files(alone)


@pytest.mark.slow
def test_processes_that_slurm_starts_make_the_files_of_one_process(alone: Path, tools: Path) -> None:
    programs(tools)
    each = 'SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & '
    stub(
        tools,
        "srun",
        f"code=0; for task in 0 1; do {each} done; for job in $(jobs -p); do wait $job || code=$?; done; exit $code",
    )
    own = {
        "SLURM_NNODES": "1",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NODEID": "0",
        "SLURM_CPUS_PER_TASK": "1",
    }
    named = {
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "featviz",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    code, out, err = finish(start("slurm.sh", *TINY, "-o", "atlas", tools=tools, **own, **named), 120)
    assert code == 0, err
    assert out.count("pictures of toys:toy") == 1
    assert files(tools.parent / "atlas") == files(alone)


@pytest.mark.slow
def test_the_pods_of_the_manifest_make_the_files_of_one_process(alone: Path, tools: Path) -> None:
    """With the variables that the training operator gives to the first and the second of two nodes."""
    programs(tools)
    command = job()["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["command"]
    where = [*TINY, "-o", "atlas", "--num-nodes", "2", "--devices", "1"]
    (tools / "pod.sh").write_text(shlex.join([*command, *where]))
    given = {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "1",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": free_port(),
    }
    running = [
        start(str(tools / "pod.sh"), tools=tools, **given, PET_NODE_RANK=str(rank), OMP_NUM_THREADS="1")
        for rank in range(2)
    ]
    ended = [finish(one, 120) for one in running]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert files(tools.parent / "atlas") == files(alone)
