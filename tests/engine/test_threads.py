"""How many threads a process takes where several share a machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from toys import QUIET, toy

from featviz_pl.engine import threads as room
from featviz_pl.engine.threads import available_cores, fair_threads, fewer_threads, local_processes
from featviz_pl.sweep import FeatureSweep, FeatureTargets


@pytest.fixture(autouse=True)
def eight_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Begin with eight threads on eight cores, without a limit of a container."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("processes", "limit", "present", "expected"),
    [
        (1, "max", 8, 8),
        (2, "max", 8, 4),
        (3, "max", 8, 2),
        (9, "max", 8, 1),
        (1, "200000", 8, 2),
        (2, "250000", 8, 1),
        (2, "max", 3, 3),
    ],
)
def test_each_process_takes_its_share_and_never_more_than_it_had(
    processes: int, limit: str, present: int, expected: int, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit} 100000\n")
    torch.set_num_threads(present)
    assert fair_threads(processes) == expected
    with fewer_threads(processes):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == present


def test_threads_are_given_back_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), fewer_threads(4):
        _ = 1 // 0
    assert torch.get_num_threads() == 8


@pytest.mark.parametrize(
    ("variable", "processes", "expected"),
    [
        ("8", 1, 8),
        ("8", 2, 8),
        ("4", 2, 1),
        ("1", 2, 8),
    ],  # the third is what Lightning sets for two processes on eight cores
)
def test_a_users_number_of_threads_is_respected_and_lightnings_is_not(
    variable: str, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert fair_threads(processes) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
    ids=str,
)
def test_the_limit_of_a_container_is_read(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert available_cores() == expected


def test_processes_elsewhere_do_not_count() -> None:
    assert local_processes(None) == 1
    assert local_processes(SimpleNamespace(world_size=1, num_devices=1)) == 1
    assert local_processes(SimpleNamespace(world_size=8, num_devices=4)) == 4


def test_a_sweep_computes_with_its_share_says_so_once_and_gives_the_rest_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    class Outside(Callback):
        def on_predict_batch_start(self, *arguments: Any) -> None:
            seen.append(-torch.get_num_threads())

    (tmp_path / "cpu.max").write_text("200000 100000\n")
    sweep = FeatureSweep(toy(), steps=1, size=8)
    sweep.on_render_step = lambda _: seen.append(torch.get_num_threads())
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        Trainer(**{**QUIET, "callbacks": [Outside()]}).predict(
            sweep, FeatureTargets("features.5:0-3", 2), return_predictions=False
        )
    assert seen == [-8, 2, -8, 2]
    assert [record.message for record in caplog.records if "share" in record.message] == [
        "1 processes share 2 cores: 2 threads in each"
    ]
