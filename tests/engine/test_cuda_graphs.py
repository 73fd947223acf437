"""How CUDA is asked to capture, as far as that can be seen without it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from featviz_pl.engine.cuda_graphs import CudaGraphs


class Told:
    """Stand for torch.cuda, and write down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.mode = 0
        self.Stream = lambda _: FakeStream(self, "own")
        self.current_stream = lambda _: FakeStream(self, "theirs")
        self.CUDAGraph = lambda: FakeGraph(self)

    def get_sync_debug_mode(self) -> int:
        return self.mode

    def set_sync_debug_mode(self, mode: int) -> None:
        self.mode = mode

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.calls.append(("on", device.index))
        yield

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        self.calls.append(("on stream", stream.name))
        yield

    @contextmanager
    def graph(self, graph: FakeGraph, stream: FakeStream, capture_error_mode: str) -> Iterator[None]:
        self.calls.append(("begin", stream.name, capture_error_mode))
        yield
        self.calls.append(("end",))


class FakeStream:
    def __init__(self, told: Told, name: str) -> None:
        self.told, self.name = told, name

    def wait_stream(self, other: FakeStream) -> None:
        self.told.calls.append((self.name, "waits for", other.name))


class FakeGraph:
    def __init__(self, told: Told) -> None:
        self.told = told

    def replay(self) -> None:
        self.told.calls.append(("replay",))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    made = Told()
    monkeypatch.setattr(torch, "cuda", made)
    return made


GPU = torch.device("cuda", 1)
WAITED = [("own", "waits for", "theirs"), ("on stream", "own"), ("theirs", "waits for", "own")]


def test_torch_takes_what_it_is_told() -> None:
    assert {"cuda_graph", "stream", "capture_error_mode"} <= inspect.signature(torch.cuda.graph).parameters.keys()
    assert "debug_mode" in inspect.signature(torch.cuda.set_sync_debug_mode).parameters
    assert '"warn"' in inspect.getsource(torch.cuda.set_sync_debug_mode)


def test_a_rehearsal_takes_place_on_a_stream_of_its_own_and_listens(told: Told) -> None:
    modes: list[Any] = []
    CudaGraphs(GPU).rehearse(lambda: modes.append(told.mode))
    assert (modes, told.mode) == (["warn"], 0)
    assert told.calls == WAITED


def test_what_waits_for_the_device_is_refused_before_the_capture(told: Told) -> None:
    def waits() -> None:
        warnings.warn("called a synchronizing CUDA operation (Triggered internally at …)", stacklevel=1)

    with pytest.raises(RuntimeError, match="it waits for the device"):
        CudaGraphs(GPU).rehearse(waits)


def test_a_rehearsal_that_fails_leaves_the_mode_and_the_streams_in_order(told: Told) -> None:
    def fails() -> None:
        raise KeyError

    told.mode = 1
    with pytest.raises(KeyError):
        CudaGraphs(GPU).rehearse(fails)
    assert told.mode == 1
    assert told.calls == WAITED


def test_a_capture_is_of_this_thread_alone_and_a_replay_runs_no_python(told: Told) -> None:
    ran: list[int] = []

    def function() -> object:
        ran.append(0)
        return object()

    replay = CudaGraphs(GPU).capture(function)
    assert told.calls == [("on", 1), ("begin", "own", "thread_local"), ("end",)]
    assert replay() is replay()
    assert len(ran) == 1
    assert told.calls[3:] == [("replay",)] * 2
