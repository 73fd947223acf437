"""Keep a training unchanged while something else is computed in the middle of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

_Value = TypeVar("_Value")

# By name, because both packages of Lightning have their own classes, and DeepSpeed need not be installed.
_SHARDED = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}
_SUPPORTED_OVER_RANKS = {"DDPStrategy"}


def check_strategy(name: str, strategy: Any, ranks: int) -> None:
    """Refuse strategies under which no process has the whole network.

    Raises:
        ValueError: naming the strategy.
    """
    classes, kind = {base.__name__ for base in type(strategy).__mro__}, type(strategy).__name__
    if classes & _SHARDED:
        raise ValueError(
            f"strategy: {name} needs whole layers, and {kind} shards them; train with strategy='ddp' or on one device, "
            f"or leave {name} out"
        )
    if ranks > 1 and not classes & _SUPPORTED_OVER_RANKS:
        raise ValueError(f"strategy: {name} does not support {kind}; use strategy='ddp' or one device")


@contextmanager
def undisturbed(module: LightningModule, device: torch.device) -> Iterator[None]:
    """Restore modes and random numbers at the end; inside, gradients are enabled and precision is full.

    Algorithms may be non-deterministic inside: on a GPU some of this library's have no alternative, and the training
    does not depend on them.
    """
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global generator
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    on_gpu = device.type == "cuda"
    try:
        for submodule, _ in modes:  # in case a copy calls the original, it must not update statistics
            submodule.training = False
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
            torch.use_deterministic_algorithms(True, warn_only=warn_only)
        for submodule, training in modes:
            submodule.training = training
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        if on_gpu:
            torch.cuda.empty_cache()  # for the training


def gathered(value: _Value, trainer: Trainer) -> list[_Value]:
    """Return the values of all processes, in every process; a collective operation."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values
