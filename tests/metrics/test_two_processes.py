"""Metrics that several processes update compute what a single process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from metric_case import MetricCase, all_cases, numbers

pytestmark = pytest.mark.slow
COUNT = 6


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[float] | str]]:
    """Return the results of two processes in every row: one pair of programs for all, as they start slowly."""
    store = tmp_path_factory.mktemp("processes") / "store"
    program = Path(__file__).with_name("two_processes.py")
    path = os.pathsep.join([str(Path(__file__).parents[1] / "support"), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(program), str(rank), "2", str(store), str(COUNT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        )
        for rank in range(2)
    ]
    results = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=400)
            assert process.returncode == 0, err
            line = next(line for line in out.splitlines() if line.startswith("REPORT"))
            results.append(json.loads(line.partition(" ")[2]))
    finally:
        for process in processes:
            process.kill()
    return results


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("way", ["unequal", "all to one"])
def test_two_processes_compute_what_one_does(
    case: MetricCase, way: str, reports: list[dict[str, list[float] | str]]
) -> None:
    metric = case.make(**({"reduction": "none"} if case.per_picture else {}))
    metric.update(*case.inputs(COUNT))
    for report in reports:
        result = report[f"{case.name}, {way}"]
        assert isinstance(result, list), result
        torch.testing.assert_close(numbers(result), numbers(metric.compute()), rtol=1e-5, atol=1e-6)
