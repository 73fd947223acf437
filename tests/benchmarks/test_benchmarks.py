"""Each benchmark of speed in small: that all of it runs, also where a peer is missing or fails."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import _contestants, _field, imports, memory, peers, step, sweep
from benchmarks._networks import MEAN, STD, build
from benchmarks._worker import Desk, DistributionError, MissingError, Worker, WorkerError

ROOT = Path(__file__).resolve().parents[2]
STEADY = "fake_peers:Steady"


class InProcess:
    """Answer in this process, as the process of a library would: nothing is imported anew."""

    def __init__(self, name: str, python: str = "", accelerator: str = "cpu") -> None:
        self.name = name
        self.desk = Desk(name, accelerator)
        self.about = self.ask("load")

    def ask(self, do: str, **arguments: Any) -> Any:
        arguments = json.loads(json.dumps(arguments))
        try:
            return json.loads(json.dumps(getattr(self.desk, do)(**arguments)))
        except DistributionError as missing:
            raise MissingError(f"{missing} is missing") from None
        except RuntimeError as error:
            raise WorkerError(f"{self.name}: {error}") from None

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_field, "Worker", InProcess)
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    yield
    logger.setLevel(level)


def run(benchmark: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Run a benchmark in small, and return the JSON that it writes."""
    file = folder / "out.json"
    monkeypatch.setattr(sys, "argv", [benchmark.__file__, "--quick", "--json", str(file), *arguments])
    benchmark.main()
    return json.loads(file.read_text())


def test_the_step_is_compared_with_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(step, tmp_path, monkeypatch)["parts"]["step"]
    names = ["limit", "ascend, as it is", "fit, as it is", "ascend, one view", "fit, one view"]
    assert [row["step"] for row in rows] == names
    assert all(row["ms"] > 0 for row in rows)
    assert rows[0]["over the limit"] == 1
    # One round: each ratio is that of the values beside it.
    assert rows[2]["over ascend"] == pytest.approx(rows[2]["ms"] / rows[1]["ms"])
    assert rows[4]["over ascend"] == pytest.approx(rows[4]["ms"] / rows[3]["ms"])


def test_the_step_is_compared_with_a_compiled_one_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featviz_pl.networks.compiled_reader.BACKEND", "eager")
    rows = run(step, tmp_path, monkeypatch, "--compile")["parts"]["step"]
    assert [row["step"] for row in rows[5:]] == ["traced", "compiled", "ascend, as it is, compiled"]
    assert [row["compiling, s"] is not None for row in rows] == [row["step"] == "compiled" for row in rows]


def test_peers_are_compared_and_missing_or_failing_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [STEADY, "fake_peers:NotInstalled", "fake_peers:FailsToRender"]
    report = run(peers, tmp_path, monkeypatch, "--parts", "step", "features", "quality", "--peers", *names)
    parts, notes = report["parts"], "\n".join(report["notes"])
    for part in ("step", "features"):
        assert [row["library"] for row in parts[part]] == ["featviz_pl, 32-true", STEADY]
    assert parts["step"][1]["over 32-true"] == pytest.approx(parts["step"][1]["ms"] / parts["step"][0]["ms"])
    assert all(row["1 unit"] > 0 and row["4 units"] > 0 for row in parts["features"])
    [quality] = parts["quality"]
    assert quality["peer"] == STEADY
    assert quality["our steps"] == 8  # the only step of the ladder in small; a picture of noise is easily reached
    assert quality["our score"] >= quality["its score"]
    assert quality["sooner"] == pytest.approx(quality["its seconds"] / quality["our seconds"])
    assert "left out: a-library-that-nobody-has is missing" in notes
    assert "failed: fake_peers:FailsToRender: no picture" in notes


def test_a_sweep_is_compared_with_single_renders_and_with_the_fastest_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(sweep, tmp_path, monkeypatch, "--peers", STEADY, "fake_peers:FailsToRender")
    (rows,) = report["parts"].values()
    names = ["sweep, 32-true, batch 2", "sweep, 32-true, batch auto", "single renders, 32-true", STEADY]
    assert [row["what"] for row in rows] == names
    ratio = rows[0]["features per minute"] / rows[-1]["features per minute"]
    assert rows[0]["times the peer"] == pytest.approx(ratio)
    assert rows[-1]["times the peer"] == 1


def test_the_fastest_peer_is_the_one_with_the_shortest_step() -> None:
    answers = {"slow": {"ms": 9.0}, "fast": {"ms": 3.0}, "broken": None}
    field: Any = SimpleNamespace(peers=list(answers), try_to_ask=lambda name, _, **_job: answers[name])
    assert sweep.fastest_peer(field, {"layer": "a"}) == "fast"
    field.peers = ["broken"]
    assert sweep.fastest_peer(field, {"layer": "a"}) is None


@pytest.mark.slow
def test_memory_is_read_above_the_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(memory, tmp_path, monkeypatch, "--peers", STEADY)["parts"]["memory, MiB"]
    assert [row["library"] for row in rows] == ["featviz_pl, 32-true", STEADY]
    columns = {"library", "one unit", "grown by 2", "modules left", "hooks left", "tensors left", "in batches"}
    assert set(rows[0]) == columns
    assert rows[1]["hooks left"] == 0


LEAK = """
from benchmarks._worker import Desk
import torch
desk = Desk("fake_peers:Steady")
desk.load()
desk.memory()
before = desk.alive()
leaked = torch.ones(16 << 20)  # 64 MiB
layer = torch.nn.ReLU()
layer.register_forward_hook(print)
after = desk.alive()
memory = desk.memory()
assert (after["modules"] - before["modules"], after["hooks"] - before["hooks"]) == (1, 1)
assert memory["peak"] >= memory["now"]
del leaked
assert abs(memory["now"] - desk.memory()["now"] - 64) < 4
"""


@pytest.mark.slow
def test_memory_that_a_library_leaks_is_measured() -> None:
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", LEAK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_imports_are_compared_within_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = iter([3.0, 0.1, 3.4, 0.2, 9.0])
    commands: list[list[str]] = []

    def seconds(command: list[str]) -> float:
        commands.append(command)
        return next(waits)

    monkeypatch.setattr(imports, "seconds", seconds)
    parts = run(imports, tmp_path, monkeypatch)["parts"]
    more = {row["what"]: row["more than torch and lightning"] for row in parts["imports"]}
    expected = {imports.BASE: 0.0, "import featviz_pl": -2.9, "every public name": 0.4, "featviz --help": -2.8}
    assert more == pytest.approx(expected)
    assert parts["render"] == [{"what": "featviz render, 32-true", "seconds": 9.0}]
    assert commands[-1][1:4] == ["-m", "featviz_pl", "render"]


@pytest.mark.slow
def test_a_library_in_a_process_of_its_own_answers_fails_and_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    job = {"layer": "features.2", "unit": 0, "size": 16, "steps": 3}
    with Worker("fake_peers:Steady") as worker:
        worker.ask("network", name="tiny", weights="none")
        assert worker.ask("render", **job)["ms"] > 0
        with pytest.raises(WorkerError, match=r"fake_peers:Steady: AttributeError: .*no attribute 'dance'"):
            worker.ask("dance")
        assert worker.ask("loop", units=[0, 1], layer="features.2", size=16, steps=1) > 0
    with Worker("fake_peers:Dies") as worker, pytest.raises(WorkerError, match="ended with 7: out of luck"):
        worker.ask("render", **job)


def test_peers_get_the_job_and_return_pictures_in_the_unit_range(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Any] = []
    network = build("tiny")

    def render_vis(model: Any, target: str, param_f: Any, thresholds: Any, **display: bool) -> list[Any]:
        received.extend([target, param_f(), thresholds])
        return [np.full((1, 8, 8, 3), 0.25, np.float32)]

    def fourier(objective: Any, total_steps: int, image_size: int, device: str, crops_per_iteration: int = 6) -> Any:
        score = objective(torch.rand(crops_per_iteration, 3, 16, 16))
        received.extend([total_steps, image_size, crops_per_iteration, score.ndim])
        return torch.zeros(3, 8, 8), None

    stubs = {
        "lucent.optvis.param": SimpleNamespace(image=lambda size: f"image of {size}"),
        "lucent.optvis.render": SimpleNamespace(render_vis=render_vis),
        "horama": SimpleNamespace(fourier=fourier),
    }
    monkeypatch.setattr(_contestants, "import_module", stubs.__getitem__)
    pictures = []
    for peer in (_contestants.Lucent(), _contestants.Horama()):
        peer.load()
        peer.prepare(network)
        pictures.append(peer.render(_contestants.Job("features.2", 5, size=8, steps=7))[0])
    assert received == ["features_2:5", "image of 8", (7,), 7, 8, 2, 0]
    assert pictures[0].shape == (3, 8, 8)
    assert torch.all(pictures[0] == 0.25)
    # Zeros are the mean color to the network.
    assert pictures[1][:, 0, 0].tolist() == pytest.approx(MEAN)
    assert STD == (0.229, 0.224, 0.225)
    assert not network.get_submodule("features.2")._forward_hooks


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step", "peers", "sweep", "memory", "imports", "gpu"])
def test_the_command_runs_in_small(name: str, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert all(json.loads(file.read_text())["parts"].values())
    assert done.stdout.startswith("processor ")
