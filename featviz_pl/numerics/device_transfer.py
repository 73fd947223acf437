"""The one door through which what is drawn or computed on the CPU goes to the device of the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from featviz_pl.numerics.jit_tracing import untraced

Door = Callable[[Tensor, torch.device], Tensor]

# Of this thread. The thread of a backward pass has the plain one: nothing may go through the door in a gradient's hook.
_door: ContextVar[Door | None] = ContextVar("featviz_pl_door", default=None)


class TransferError(RuntimeError):
    """Say that a step sends other things to the device than the one before it."""


def to_device(held: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor from the CPU to a device, without waiting for it; inside a context of `Transfers`, what that says.

    Precision is changed before, on the CPU: the same numbers then arrive on every device.

    Args:
        held: on the CPU; what is elsewhere, and so was computed by the step itself, is moved as always.
        device: of the pictures.

    Example:
        >>> to_device(torch.ones(2), torch.device("cpu")).tolist()
        [1.0, 1.0]
    """
    door = _door.get()
    if door is not None and held.device.type == "cpu":
        return door(held, device)
    with untraced():
        # Memory that is not pinned is read before the call returns. Only CUDA promises that.
        return held.to(device, non_blocking=device.type == "cuda")


def numbers_on(device: torch.device, numbers: Sequence[float], dtype: torch.dtype | None = None) -> Tensor:
    """Bring plain numbers to a device, through the same door.

    Example:
        >>> numbers_on(torch.device("cpu"), [3, 5])
        tensor([3, 5])
    """
    with untraced():
        held = torch.tensor(numbers, dtype=dtype, device="cpu")
    return to_device(held, device)


class Transfers:
    """Keep what goes through the door in one step in buffers that stay where they are, so that other steps can use them.

    A step that is captured in a graph reads the same memory whenever it is replayed. `recording` makes a buffer for
    each transfer, in their order; `reading` gives them out untouched; `feeding` fills the first of them with what
    another step sends.

    Example:
        >>> def step(draw, device="cpu"):
        ...     return 2 * to_device(torch.tensor([draw]), torch.device(device))
        >>> transfers = Transfers()
        >>> with transfers.recording():
        ...     recorded = step(1.0)
        >>> with transfers.feeding():
        ...     shape = step(5.0, device="meta").shape  # nothing is computed there but shapes
        >>> with transfers.reading():
        ...     recorded, step(1.0), shape  # its own draw is not looked at
        (tensor([2.]), tensor([10.]), torch.Size([1]))
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._fed: int | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Give every transfer a buffer of its own."""
        self._buffers.clear()
        self._fed = None

        def record(held: Tensor, device: torch.device) -> Tensor:
            self._buffers.append(torch.empty(held.shape, dtype=held.dtype, device=device))
            return self._buffers[-1].copy_(held, non_blocking=True)

        with _standing_at(record):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Give out the buffers in the order in which they were recorded, and copy nothing.

        Raises:
            TransferError: when the transfers are not those that were recorded.
        """
        place = 0

        def give(held: Tensor, device: torch.device) -> Tensor:
            nonlocal place
            place += 1
            return self._fitting(place, held)

        with _standing_at(give):
            yield
        if place != len(self._buffers):
            raise TransferError(f"{len(self._buffers)} tensors went to the device at first, and {place} now")

    @contextmanager
    def feeding(self) -> Iterator[None]:
        """Copy every transfer into its buffer, and answer it with a shape on the meta device.

        It may be fewer than were recorded, if they are as many every time: the others stay as they are.

        Raises:
            TransferError: when the transfers are not those that were recorded.
        """
        place = 0

        def feed(held: Tensor, device: torch.device) -> Tensor:
            nonlocal place
            place += 1
            self._fitting(place, held).copy_(held, non_blocking=True)
            return torch.empty_like(held, device="meta")

        with _standing_at(feed):
            yield
        if self._fed not in (None, place):
            raise TransferError(f"{self._fed} tensors were drawn at first, and {place} now")
        self._fed = place

    def _fitting(self, number: int, held: Tensor) -> Tensor:
        """Return the buffer of the transfer of this number, counted from 1."""
        if number > len(self._buffers):
            raise TransferError(f"{len(self._buffers)} tensors went to the device at first, and more do now")
        buffer = self._buffers[number - 1]
        if buffer.shape != held.shape or buffer.dtype != held.dtype:
            was, now = (f"{tuple(one.shape)} of {one.dtype}" for one in (buffer, held))
            raise TransferError(f"tensor {number} that goes to the device was {was} at first, and is {now} now")
        return buffer


@contextmanager
def _standing_at(door: Door) -> Iterator[None]:
    token = _door.set(door)
    try:
        yield
    finally:
        _door.reset(token)
