"""The files of examples/clusters/: scripts and manifests that parse, commands that this version takes, and real jobs."""

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

from featviz_pl.cli.main import main, parser

SUPPORT = Path(__file__).resolve().parents[1] / "support"
CLUSTERS = Path(__file__).resolve().parents[2] / "examples" / "clusters"
README = (CLUSTERS / "README.md").read_text()
SWEEP = ["sweep", "squeezenet1_0", "features.*:all", "-o", "/shared/atlas"]
SLURM = {"SLURM_JOB_ID": "4242", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "3", "SLURM_CPUS_PER_TASK": "4"}
NODES = {"NODES": "3", "NODE": "2", "MAIN": "10.0.0.1", "DEVICES": "8"}
DIRECTIVES = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task"}
DIRECTIVES |= {"time", "requeue", "signal", "open-mode", "output"}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Return a folder for programs that replace those of a cluster."""
    (tmp_path / "tools").mkdir()
    return tmp_path / "tools"


def stub(tools: Path, name: str, text: str) -> None:
    """Write a program."""
    (tools / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (tools / name).chmod(0o755)


def start(script: str, *arguments: str, tools: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a script of the folder in a new session."""
    paths = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": paths, **variables}
    command, pipe = ["bash", str(CLUSTERS / script), *arguments], subprocess.PIPE
    options: dict[str, Any] = {"stdout": pipe, "stderr": pipe, "text": True, "start_new_session": True}
    return subprocess.Popen(command, env=environment, cwd=tools.parent, **options)


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    """Wait for a script and everything that it has started."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# Text.


def test_every_file_is_explained_and_scripts_parse() -> None:
    for path in CLUSTERS.iterdir():
        assert path.name == "README.md" or f"({path.name})" in README, path.name
    for path in CLUSTERS.glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(path)], check=False, capture_output=True).stderr == b""
        assert os.access(path, os.X_OK)


def commands(text: str) -> list[list[str]]:
    """Return what follows ``featviz`` in a text: at the beginning of a line, or as arguments of a script."""
    before = r"(?:#\s+)?(?:[A-Z_]+=\S+ )*(?:ip netns exec \S+ )?"
    words = r"(?:featviz|\S*torchrun\.sh|sbatch \S*slurm\.sh)"
    lines = re.findall(rf"^\s*{before}\s*{words} (\w+ [^&\n]*)", text.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize(("name", "count"), [("README.md", 6), ("torchrun.sh", 1), ("slurm.sh", 2)])
def test_commands_in_the_text_are_commands(name: str, count: int) -> None:
    listed_commands = commands((CLUSTERS / name).read_text())
    assert len(listed_commands) == count
    for arguments in listed_commands:
        assert parser().parse_args(arguments).command in ("sweep", "render")


def test_sizes_in_the_guide_follow_from_its_numbers() -> None:
    """The arithmetic of a million features."""
    number = {name: float(value) for name, value in re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d.]+)", README, re.MULTILINE)}
    assert set(number) == {"N", "S", "t", "png", "line", "read", "sheet"}
    expected = {
        "core-days": number["N"] * number["S"] * number["t"] / 86400,
        "GB of pictures": number["N"] * number["png"] / 1e6,
        "MB of manifest": number["N"] * number["line"] / 1e6,
        "minutes of reading": number["N"] * number["read"] / 1e3 / 60,
        "minutes of sheets": number["N"] * number["sheet"] / 1e3 / 60,
    }
    for unit, value in expected.items():
        (text,) = re.findall(rf"\*\*([\d,]+) {unit}\*\*", README)
        assert float(text.replace(",", "")) == pytest.approx(value, rel=0.05), unit


# torchrun.


def test_torchrun_starts_with_the_same_numbers_as_the_command(tools: Path) -> None:
    stub(tools, "torchrun", 'printf "%s\\n" "$@"')
    code, out, err = finish(start("torchrun.sh", *SWEEP, tools=tools, **NODES))
    assert (code, err) == (0, "")
    launcher, _, command = out.partition("--no-python\nfeatviz\n")
    words, options = launcher.split(), parser().parse_args(command.splitlines())
    expected = {"--nnodes": "3", "--node-rank": "2", "--nproc-per-node": "8"}
    expected |= {"--master-addr": "10.0.0.1", "--master-port": "29400"}
    assert dict(zip(words[::2], words[1::2])) == expected
    assert (options.num_nodes, options.devices, options.layers) == (3, "8", ["features.*:all"])


@pytest.mark.parametrize("missing", NODES)
def test_torchrun_needs_every_variable(missing: str, tools: Path) -> None:
    stub(tools, "torchrun", "exit 0")
    variables = {name: value for name, value in NODES.items() if name != missing}
    code, _, err = finish(start("torchrun.sh", *SWEEP, tools=tools, **variables))
    assert code != 0
    assert f"{missing}: " in err


# SLURM.


def test_directives_for_slurm_fit_together() -> None:
    text = (CLUSTERS / "slurm.sh").read_text()
    directives = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert set(directives) == DIRECTIVES
    assert directives["ntasks-per-node"] == directives["gpus-per-node"]  # one process for each device
    # To the script alone: Lightning would save a checkpoint, which a sweep does not need.
    assert directives["signal"] == "B:USR1@120"
    assert directives["open-mode"] == "append"


@pytest.mark.parametrize("code", [0, 3])
def test_slurm_starts_as_many_processes_as_the_command_expects_and_returns_their_exit_code(
    code: int, tools: Path
) -> None:
    stub(tools, "srun", f'printf "%s\\n" "$OMP_NUM_THREADS" "$@"; exit {code}')
    returned, out, err = finish(start("slurm.sh", *SWEEP, tools=tools, **SLURM))
    assert (returned, err) == (code, "")
    threads, program, *words = out.splitlines()
    assert (threads, program) == ("4", "featviz")
    options = parser().parse_args(words)
    assert (options.num_nodes, options.devices) == (2, "3")


def test_the_script_requeues_its_job_before_the_time_is_over_and_waits_for_its_processes(tools: Path) -> None:
    stub(tools, "scontrol", f'echo "$@" >> {tools}/requests; touch {tools}/go')
    wait = f"while [ ! -e {tools}/go ]; do sleep 0.01; done; sleep 0.05"
    stub(tools, "srun", f"touch {tools}/began; {wait}; echo ended; exit 143")
    process = start("slurm.sh", *SWEEP, tools=tools, **SLURM)
    deadline = time.monotonic() + 30
    while not (tools / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    assert finish(process) == (143, "ended\n", "")
    assert (tools / "requests").read_text() == "requeue 4242\n"


# Kubernetes.


def job() -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((CLUSTERS / "pytorchjob.yaml").read_text())
    return manifest


def test_the_manifest_is_a_job_whose_numbers_fit_together() -> None:
    manifest = job()
    assert (manifest["apiVersion"], manifest["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = manifest["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"}
    assert replicas["Master"]["replicas"] == 1
    for replica in replicas.values():
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] == "pytorch"
        assert container["command"] == ["torchrun", "--no-python", "featviz"]
        options = parser().parse_args(container["args"])
        assert options.num_nodes == sum(part["replicas"] for part in replicas.values())
        gpus = str(container["resources"]["limits"]["nvidia.com/gpu"])
        assert options.devices == manifest["spec"]["nprocPerNode"] == gpus
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        assert all(path.startswith(mounts["shared"]) for path in (options.output, options.weights))
        assert all(isinstance(variable["value"], str) for variable in container["env"])


# Real jobs in small.

TINY = ["sweep", "toys:toy", "features.[35]:all", "head:all", "--steps", "3", "--size", "10"]
TINY += ["--batch-size", "3", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a sweep by one process."""
    folder = tmp_path_factory.mktemp("alone") / "atlas"
    assert main([*TINY, "-o", str(folder)]) == 0
    return files(folder)


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture
def programs(tools: Path) -> Path:
    """Let the scripts find the programs of this environment."""
    stub(tools, "featviz", f'exec {sys.executable} -m featviz_pl "$@"')
    stub(tools, "torchrun", f'exec {sys.executable} -m torch.distributed.run "$@"')
    return tools


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torchrun.sh", "pods of the manifest"])
def test_two_nodes_write_the_files_of_one_process(kind: str, alone: dict[str, bytes], programs: Path) -> None:
    port, arguments = free_port(), [*TINY, "-o", "atlas"]
    if kind == "torchrun.sh":
        script, index = kind, "NODE"
        variables = {"NODES": "2", "MAIN": "127.0.0.1", "PORT": port, "DEVICES": "1"}
    else:  # with the variables that the training operator sets
        script, index = str(programs / "pod.sh"), "PET_NODE_RANK"
        command = job()["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["command"]
        Path(script).write_text(shlex.join([*command, *arguments, "--num-nodes", "2", "--devices", "1"]))
        variables = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "127.0.0.1"}
        variables |= {"PET_MASTER_PORT": port}
        arguments = []
    variables["OMP_NUM_THREADS"] = "1"
    processes = [start(script, *arguments, tools=programs, **variables, **{index: str(node)}) for node in range(2)]
    results = [finish(process, 120) for process in processes]
    assert [code for code, _, _ in results] == [0, 0], results
    assert files(programs.parent / "atlas") == alone


@pytest.mark.slow
def test_processes_of_slurm_write_the_files_of_one_process(alone: dict[str, bytes], programs: Path) -> None:
    each = 'SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & '
    wait = "for job in $(jobs -p); do wait $job || code=$?; done; exit $code"
    stub(programs, "srun", f"code=0; for task in 0 1; do {each} done; {wait}")
    variables = {"SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NTASKS": "2", "SLURM_NODEID": "0"}
    variables |= {"SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "featviz"}
    variables |= {"SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": free_port()}
    code, out, err = finish(start("slurm.sh", *TINY, "-o", "atlas", tools=programs, **variables), 120)
    assert code == 0, err
    assert out.count("pictures of toys:toy") == 1
    assert files(programs.parent / "atlas") == alone
