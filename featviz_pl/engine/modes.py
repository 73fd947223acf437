"""The caller's modes of torch, which must not change a picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch


@contextmanager
def trainer_autocast(precision: object, device_type: str) -> Iterator[None]:
    """Leave autocast to a Trainer of this precision: without mixed precision, that of the caller is off."""
    with nullcontext() if "mixed" in str(precision) else torch.autocast(device_type, enabled=False):
        yield


@contextmanager
def default_modes() -> Iterator[None]:
    """Compute with gradients, without inference mode and autocast, and with the CPU as the default device.

    All of these are modes of one thread; they are as before afterwards.

    Example:
        >>> with torch.inference_mode(), default_modes():
        ...     (2 * torch.ones(1, requires_grad=True)).requires_grad
        True
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        if torch.get_default_device().type != "cpu":  # a default device makes every call slower, also that of the CPU
            stack.enter_context(torch.device("cpu"))
        yield
