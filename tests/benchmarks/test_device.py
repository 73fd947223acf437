"""Where the benchmarks of speed run: on the processor unless they are told otherwise. No GPU is needed."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import pytest
import torch

from benchmarks import _device, _field, _worker, gpu, memory, peers, step, sweep
from benchmarks._networks import TINY

GPU = torch.device("cuda", 0)  # named, never used


def test_a_missing_accelerator_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    messages = {"gpu": "torch finds no GPU on this machine", "abacus": "'abacus' is none of cpu, gpu, auto"}
    for name, message in messages.items():
        for benchmark in (step, peers, sweep, memory, gpu):
            monkeypatch.setattr(sys, "argv", [str(benchmark.__file__), "--accelerator", name])
            with pytest.raises(SystemExit) as ended:
                benchmark.main()
            assert ended.value.code == 2
            assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "present", "expected"),
    [
        ("cpu", "cuda", "cpu"),
        ("gpu", "cuda", "cuda:0"),
        ("auto", "cuda", "cuda:0"),
        ("auto", "", "cpu"),
        ("gpu", "mps", "mps:0"),
    ],
)
def test_the_first_device_of_an_accelerator(
    name: str, present: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: bool(present))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(present) if present else None)
    assert str(_device.device_of(name)) == expected


def test_a_gpu_is_waited_for_and_a_processor_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    before = _device.now(torch.device("cpu"))
    assert waited == []
    assert _device.now(GPU) >= before
    assert waited == [GPU]


def test_a_library_on_a_gpu_reports_the_memory_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = _worker.Desk("fake_peers:Steady", "auto")
    desk.load()
    assert desk.contestant.accelerator == "auto"
    monkeypatch.setattr(_device, "allocated", lambda _: 3.0)
    monkeypatch.setattr(_device, "most_allocated", lambda _: 5.0)
    assert desk.memory() == {"now": 3.0, "peak": 5.0}


def test_every_library_gets_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Told:
        def __init__(self, name: str, python: str, accelerator: str) -> None:
            told.append((name, accelerator))
            self.about: dict[str, Any] = {"threads": 1, "versions": {}}

        def ask(self, do: str, **arguments: Any) -> None:
            """Nothing is asked of it."""

        def __enter__(self) -> Told:
            return self

        def __exit__(self, *error: object) -> None:
            """Nothing is open."""

    monkeypatch.setattr(_field, "Worker", Told)
    with _field.Field(["one", "other"], argparse.Namespace(python="", network=TINY, weights="none", accelerator="gpu")):
        assert told == [("one", "gpu"), ("other", "gpu")]
