"""The device that a Trainer will use."""

from __future__ import annotations

from typing import Any

import torch

from featviz_pl.engine.precision import FULL, REDUCED


def device_to_measure(accelerator: str, devices: int | str, num_nodes: int) -> torch.device:
    """Return the device of a Trainer with these arguments, for a measurement before there is one.

    Raises:
        ValueError: when the Trainer has several processes, which could choose differently.
    """
    from lightning.pytorch import Trainer

    if str(devices) != "1" or num_nodes > 1:
        raise ValueError(
            f"precision: 'auto' is measured in one process, not on devices={devices}; give '{FULL}' or '{REDUCED}'"
        )
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    return Trainer(accelerator=accelerator, devices=devices, **quiet).strategy.root_device
