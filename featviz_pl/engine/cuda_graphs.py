"""Functions captured in CUDA graphs. All that the captured step knows of CUDA is here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

_WAITS = "called a synchronizing CUDA operation"  # what torch says of one

Result = TypeVar("Result")


class Graphs(Protocol):
    """Repeat the device's part of a function without running its Python."""

    def rehearse(self, function: Callable[[], object]) -> None:
        """Run a function as it will be captured.

        Raises:
            Exception: whatever says that it cannot be.
        """

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Return what does the device's part again, from the same memory, and returns the same result objects, overwritten."""


class CudaGraphs:
    """Capture on a stream of its own, so that neither other streams nor other threads take notice.

    Args:
        device: with CUDA.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def rehearse(self, function: Callable[[], object]) -> None:
        """Run the function: libraries make their plans and workspaces now, and what waits for the device is found out.

        A capture that fails leaves torch's generators and allocator in doubtful states, so what can be known is asked
        before. Only warned of: the mode is that of all threads, and an error could hit one that may wait.

        Raises:
            RuntimeError: when something in it waits for the device.
        """
        here, mode = torch.cuda.current_stream(self._device), torch.cuda.get_sync_debug_mode()
        self._stream.wait_stream(here)
        with warnings.catch_warnings(record=True) as heard, torch.cuda.stream(self._stream):
            warnings.simplefilter("always")
            try:
                torch.cuda.set_sync_debug_mode("warn")
                function()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
                here.wait_stream(self._stream)
        if any(_WAITS in str(one.message) for one in heard):
            raise RuntimeError("it waits for the device")

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Capture the function, and return what replays it on the stream of whoever calls."""
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: others, such as those of a training around it, may do what a capture must not.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            result = function()

        def replay() -> Result:
            graph.replay()
            return result

        return replay
