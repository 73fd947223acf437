"""``benchmarks/scaling.py``: its arithmetic, and that it runs in small."""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"
SUPPORT = Path(__file__).resolve().parents[1] / "support"
IN_SMALL = {
    **{"--network": "toys:toy", "--layer": "features.5", "--size": "10", "--steps": "2", "--features": "4"},
    **{"--fit-steps": "3", "--memory-size": "32", "--rounds": "1"},
}


def test_features_per_minute_are_those_of_all_processes_from_the_first_to_the_last() -> None:
    speed = runpy.run_path(str(SCRIPT))["speed"]
    options = argparse.Namespace(features=6)
    reports = [{"sweep": {"4": [100.0, 130.0]}}, {"sweep": {"4": [105.0, 136.0]}}]
    assert speed(options, reports[:1], 4) == pytest.approx(12.0)
    assert speed(options, reports, 4) == pytest.approx(20.0)


def test_ratios_are_taken_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = runpy.run_path(str(SCRIPT))["measure"]
    waits = iter([10.0, 12.5, 30.0, 30.0, 20.0, 25.0])  # one and two processes, alternately; the second round is noisy

    def program(arguments: list[str], processes: int) -> list[dict[str, Any]]:
        wait = next(waits)
        report: dict[str, Any] = {"sweep": {"2": [0.0, wait]}, "fit": {"ddp": 0.03, "alone": 0.02}}
        return [report | {"memory": [[52, 700.0], [100, 710.0], [500, 711.5]]}] * processes

    def unrelated(arguments: list[str], count: int) -> list[dict[str, Any]]:
        return [{"sweep": {"2": [0.0, 10.0]}}] * count

    monkeypatch.setitem(measure.__globals__, "program", program)
    monkeypatch.setitem(measure.__globals__, "unrelated", unrelated)
    result = measure(argparse.Namespace(rounds=3, most=2, batch_sizes=[2], features=5), [])
    expected = {"one": 15.0, "efficiency": 0.8, "unrelated": 60.0, "of the machine's": 0.4}
    assert {name: result["sweep"][2][name] for name in expected} == pytest.approx(expected)
    assert (result["step"]["cost"], result["memory"]["growth"]) == pytest.approx((0.01, 1.5))


@pytest.mark.slow
def test_the_benchmark_runs_in_small_and_the_memory_of_a_long_sweep_is_flat() -> None:
    arguments = [word for pair in IN_SMALL.items() for word in pair]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(SCRIPT), *arguments, "--batch-sizes", "1", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert set(result) == {"processes", "sweep", "step", "memory"}
    assert set(result["sweep"]) == {"1", "2"}
    assert all(value > 0 for values in result["sweep"].values() for value in values.values())
    assert result["memory"]["readings"][-1][0] == 500
    assert result["memory"]["growth"] < 10  # MiB; what the 100 batches in between need for their gradients is 600
