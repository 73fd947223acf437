"""What compiled functions have to be told."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext


def differentiable_again() -> AbstractContextManager[object]:
    """Let a backward pass leave a compiled function's graph whole.

    To save memory, the backward of what ``torch.compile`` made may overwrite what the forward kept, and torch refuses
    ``retain_graph=True`` for it. Compile inside this context, and keep graphs inside it.

    Example:
        >>> import torch
        >>> number = torch.ones(1, requires_grad=True)
        >>> with differentiable_again():
        ...     first = torch.autograd.grad(root := number.square(), number, retain_graph=True)
        >>> torch.autograd.grad(root, number) == first
        True
    """
    config = sys.modules.get("torch._functorch.config")  # not imported: nothing is compiled
    known = hasattr(config, "donated_buffer")
    made: AbstractContextManager[object] = (
        config.patch(donated_buffer=False) if config is not None and known else nullcontext()
    )
    return made
