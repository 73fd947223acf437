"""The arithmetic of the benchmarks of speed."""

from __future__ import annotations

import argparse
import doctest
import json
import math
import sys
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import _report
from benchmarks._networks import build, truncated
from benchmarks.peers import LADDER, first_to_reach
from benchmarks.sweep import shares


@pytest.mark.parametrize("name", ["_device", "_networks", "_rates", "_report", "_where", "gpu", "peers", "sweep"])
def test_examples_in_docstrings_hold(name: str) -> None:
    results = doctest.testmod(import_module(f"benchmarks.{name}"))
    assert results.attempted > results.failed == 0


def test_runs_alternate_and_those_that_fail_are_left_out() -> None:
    turns: list[str] = []

    def run(name: str) -> float:
        turns.append(name)
        if name == "fails":
            raise _report.TurnError("fails: no more")
        return float(len(turns))

    assert _report.alternate({"a": partial(run, "a"), "b": partial(run, "b")}, 2) == {"a": [1, 3], "b": [2, 4]}
    turns.clear()
    failed: dict[str, str] = {}
    runs = {"fails": partial(run, "fails"), "works": partial(run, "works")}
    assert _report.alternate(runs, 2, failed) == {"works": [2, 3]}
    assert (failed, turns) == ({"fails": "fails: no more"}, ["fails", "works", "works"])
    with pytest.raises(_report.TurnError, match="no more"):
        _report.alternate({"fails": runs["fails"]}, 1)


def test_ratios_are_taken_within_a_round() -> None:
    # In the second round the machine was ten times slower for both: the medians, 12 and 5, would give 2.4.
    assert _report.ratio([10.0, 120.0, 12.0], [5.0, 60.0, 4.0]) == pytest.approx(2.0)


def test_the_first_steps_are_left_out_of_the_median() -> None:
    times = [0.0, 1.0, 2.0, 2.010, 2.022, 2.036]  # two slow steps, then 10, 12 and 14 ms
    assert _report.median_step(times, warm_up=2) == pytest.approx(12.0)
    assert _report.median_step([0.0, 0.004], warm_up=2) == pytest.approx(4.0)
    assert math.isnan(_report.median_step([0.0], warm_up=2))


def test_a_table_has_a_column_for_each_key_of_any_row() -> None:
    rows: list[dict[str, Any]] = [
        {"library": "a", "ms": 1.239},
        {"library": "another", "ms": 10.0, "times": 8},
        {"library": "third", "ms": None},
    ]
    assert _report.table(rows).splitlines() == [
        "| library |    ms | times |",
        "| :------ | ----: | ----: |",
        "| a       |  1.24 |       |",
        "| another | 10.00 |     8 |",
        "| third   |       |       |",
    ]


def test_units_are_divided_over_rounds_without_one_left_out() -> None:
    assert shares(range(7), 3) == [[0, 3, 6], [1, 4], [2, 5]]


def test_numbers_of_steps_are_tried_from_the_smallest_until_one_is_enough() -> None:
    tried: list[int] = []

    def score(steps: int) -> float:
        tried.append(steps)
        return {8: 1.0, 11: 2.0, 16: 1.5, 23: 3.0}[steps]

    assert first_to_reach(2.5, LADDER, score) == 23
    assert tried == [8, 11, 16, 23]
    assert first_to_reach(9.0, (8, 11), score) is None
    ratios = [later / earlier for earlier, later in pairwise(LADDER)]
    assert ratios == pytest.approx([2**0.5] * 6 + [2**0.25] * 12, rel=0.03)


def test_a_report_names_the_machine_and_is_written_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["/somewhere/benchmarks/step.py", "--quick"])
    options = argparse.Namespace(json=str(file), rounds=1)
    result = _report.report(options, {"step": [{"layer": "a", "ms": 1.0}], "nothing": []}, ["left out: b"])
    assert json.loads(file.read_text()) == result
    assert (result["command"], result["settings"]) == ("python -m benchmarks.step --quick", {"rounds": 1})
    machine = result["machine"]
    assert (machine["torch"], machine["threads"]) == (_report.installed("torch"), torch.get_num_threads())
    assert machine["cores"] >= 1
    printed = capsys.readouterr().out
    assert "| layer |   ms |" in printed
    assert "nothing" not in printed
    assert printed.endswith("left out: b\n")


def test_the_limit_is_frozen_truncated_and_leaves_the_network_alone() -> None:
    network = build("tiny")
    bare = truncated(network, "features.2", torch.bfloat16)
    assert not any(parameter.requires_grad for parameter in bare.parameters())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in network.parameters())
    first = bare[0]
    assert isinstance(first, torch.nn.Conv2d)
    assert first.weight.dtype == torch.bfloat16
    assert first.weight.is_contiguous(memory_format=torch.channels_last)
    picture = torch.rand(1, 3, 32, 32)
    exact = truncated(network, "features.2")(picture)
    features: torch.nn.Sequential = network.features  # type: ignore[assignment]
    assert torch.allclose(exact, features[:3](picture), atol=1e-6)


def test_random_weights_are_the_same_each_time_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = build("tiny"), build("tiny")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
