"""Constants of graphs that ``torch.jit.trace`` records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def untraced() -> Iterator[None]:
    """Compute constants of a graph that ``torch.jit.trace`` records: random numbers, maps and sizes.

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
