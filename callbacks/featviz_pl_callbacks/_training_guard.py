"""What keeps a training as it is while something else is computed in the middle of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

_Share = TypeVar("_Share")

# By name, because both namespaces of Lightning have their own classes, and DeepSpeed need not be installed.
_DIVIDES_PARAMETERS = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}
_KNOWN_OVER_RANKS = {"DDPStrategy"}


def check_strategy(name: str, strategy: Any, ranks: int) -> None:
    """Refuse strategies under which no process holds the whole network.

    Raises:
        ValueError: naming the strategy.
    """
    kinds = {kind.__name__ for kind in type(strategy).__mro__}
    if kinds & _DIVIDES_PARAMETERS:
        raise ValueError(
            f"strategy: under {type(strategy).__name__} no process holds whole layers, and {name} needs them; train with strategy='ddp' "
            f"or on one device, or leave {name} out"
        )
    if ranks > 1 and not kinds & _KNOWN_OVER_RANKS:
        raise ValueError(
            f"strategy: {name} does not know how {type(strategy).__name__} divides the work; use strategy='ddp' or one device"
        )


@contextmanager
def undisturbed(module: LightningModule, device: torch.device) -> Iterator[None]:
    """Leave modes and random numbers as they were, whatever happens inside; gradients can be taken inside, in full precision.

    Algorithms may be non-deterministic inside: on a GPU some of ours have no other, and nothing of the training depends
    on them.
    """
    modes = [(part, part.training) for part in module.modules()]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global generator is what must stay
    deterministic, only_warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    on_gpu = device.type == "cuda"
    try:
        for part, _ in modes:  # should a copy reach the original after all, it would write no statistics
            part.training = False
        if deterministic:
            torch.use_deterministic_algorithms(False)
        with (
            torch.random.fork_rng(devices=[device] if on_gpu else []),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield
    finally:
        if deterministic:
            torch.use_deterministic_algorithms(True, warn_only=only_warns)
        for part, training in modes:
            part.training = training
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if on_gpu:
            torch.cuda.empty_cache()  # the training finds the memory that it had


def gathered(share: _Share, trainer: Trainer) -> list[_Share]:
    """Return what every process holds, in all of them; each must call this at the same place."""
    if trainer.world_size == 1:
        return [share]
    shares: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(shares, share)
    return shares
