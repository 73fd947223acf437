"""What must not be part of a graph that is being traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def untraced() -> Iterator[None]:
    """Keep what happens inside out of a graph that ``torch.jit.trace`` records: its results are constants there.

    For draws, maps and sizes, which a graph of a view cannot follow and tracing would warn of.

    Example:
        >>> with untraced():
        ...     sizes = torch.ones(1, 3, 4, 5).shape
        >>> sizes
        torch.Size([1, 3, 4, 5])
    """
    if not tracing():
        yield
        return
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def tracing() -> bool:
    """Return whether ``torch.jit.trace`` is recording."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
