"""Classes that configurations in the tests name by ``configured.Class``."""

from __future__ import annotations

import os
import signal
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.training import FeatureVisualization


class Labelled(FeatureVisualization):
    """Put a word into the provenance of the pictures.

    Args:
        word: what it says.
    """

    def __init__(self, *args: Any, word: str = "none", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra_provenance["word"] = word


class Sweep(FeatureSweep):
    """Sweep as always."""


class FirstTargets(FeatureTargets):
    """Take the first unit of every layer.

    Args:
        layers: of the network.
    """

    def __init__(self, layers: list[str]) -> None:
        super().__init__([f"{layer}:0" for layer in layers], batch_size=1)


class InterruptAfter(Callback):
    """Press Ctrl-C after some steps, or batches of a sweep.

    Args:
        steps: how many.
    """

    def __init__(self, steps: int = 1) -> None:
        self.steps = steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == self.steps:
            raise KeyboardInterrupt

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        if batch_idx + 1 == self.steps:
            raise KeyboardInterrupt


class TerminateAfter(InterruptAfter):
    """End the process, as clusters do, after some steps, or batches of a sweep."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        if batch_idx + 1 == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)
