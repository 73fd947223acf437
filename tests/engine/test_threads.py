"""How many threads a process takes where several share a machine."""

from __future__ import annotations

import math
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
from featviz_pl.engine.threads import available_cores, fair_threads, fewer_threads, processes_here
from featviz_pl.sweep import FeatureSweep, FeatureTargets


@pytest.fixture(autouse=True)
def eight_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin with eight threads on eight cores, of which nobody has said anything."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(room, "_affinity", lambda: 8)
    monkeypatch.setattr(room, "_quota", lambda: math.inf)
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("processes", "quota", "present", "expected"),
    [
        (1, math.inf, 8, 8),
        (2, math.inf, 8, 4),
        (3, math.inf, 8, 2),
        (9, math.inf, 8, 1),
        (1, 2.0, 8, 2),
        (2, 2.5, 8, 1),
        (2, math.inf, 3, 3),
    ],
)
def test_each_process_takes_its_share_and_never_more_than_it_had(
    processes: int, quota: float, present: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_quota", lambda: quota)
    torch.set_num_threads(present)
    assert fair_threads(processes) == expected
    with fewer_threads(processes) as threads:
        assert threads == torch.get_num_threads() == expected
    assert torch.get_num_threads() == present


def test_threads_are_given_back_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), fewer_threads(4):
        _ = 1 // 0
    assert torch.get_num_threads() == 8


@pytest.mark.parametrize(
    ("asked", "processes", "expected"),
    [
        ("8", 1, 8),
        ("8", 2, 8),
        ("4", 2, 1),
        ("1", 2, 8),
    ],  # the third is what Lightning sets for two processes on eight cores
)
def test_a_users_number_of_threads_is_respected_and_lightnings_is_not(
    asked: str, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(room, "_quota", lambda: 2.0)
    assert fair_threads(processes) == expected


GROUPS: list[tuple[str, dict[str, str], float]] = [
    ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
    ("0::/\n", {"cpu.max": "250000 100000"}, 2.5),
    ("0::/a/b\n", {"cpu.max": "400000 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
    ("0::/a\n", {}, math.inf),
    (
        "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
        {"cpu/x/cpu.cfs_quota_us": "300000", "cpu/x/cpu.cfs_period_us": "100000"},
        3.0,
    ),
    ("3:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, math.inf),
    ("2:memory:/x\n", {"memory/x/cpu.max": "1 100000"}, math.inf),
    ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
]


@pytest.mark.parametrize(("own", "files", "expected"), GROUPS)
def test_what_a_container_is_allowed_is_read(
    own: str, files: dict[str, str], expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    monkeypatch.setattr(room, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(room, "_OWN_GROUP", tmp_path / "own")
    assert room._quota() == expected
    monkeypatch.setattr(room, "_affinity", lambda: 16)
    assert available_cores() == (16 if expected == math.inf else math.ceil(expected))


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(room, "_OWN_GROUP", tmp_path / "none")
    assert room._quota() == math.inf
    assert room._affinity() <= (os.cpu_count() or 1)


def test_processes_elsewhere_do_not_count() -> None:
    assert processes_here(None) == 1
    assert processes_here(SimpleNamespace(world_size=1, num_devices=1)) == 1
    assert processes_here(SimpleNamespace(world_size=8, num_devices=4)) == 4


def test_a_sweep_computes_with_its_share_says_so_once_and_gives_the_rest_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    class Outside(Callback):
        def on_predict_batch_start(self, *arguments: Any) -> None:
            seen.append(-torch.get_num_threads())

    monkeypatch.setattr(room, "_quota", lambda: 2.0)
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
