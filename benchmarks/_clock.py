"""When the steps of a Trainer end."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks._device import now


class StepTimes(Callback):
    """Note the time at the end of every step, when the device has done its work."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *more: Any) -> None:
        self.times.append(now(trainer.strategy.root_device))
