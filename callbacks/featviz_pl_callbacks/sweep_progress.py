"""A progress bar that counts features."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from typing_extensions import override

from featviz_pl.numerics.checks import whole_number
from featviz_pl.sweep import FeatureSweep
from featviz_pl_callbacks import step_progress as progress
from featviz_pl_callbacks.feature_writer import _sweep_and_targets


class SweepProgressBar(ProgressBar):
    """Show the features done and left of a sweep, the time left, and how many are made in a minute.

    Counts those of the first process, which has as many as any other, and its share of what was there already, which is
    done. Drawn by Rich where it is installed, by tqdm otherwise, on stderr.

    Args:
        refresh_rate: optimisation steps between two updates, 1 or more.

    Example:
        >>> SweepProgressBar(refresh_rate=20).refresh_rate
        20
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__()
        self.refresh_rate = whole_number("refresh_rate", refresh_rate)
        self._enabled = True
        self._bar: progress._Bar | None = None
        self._done = self._made = self._ranks = self._steps = 0
        self._began: float | None = None

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled:
            return
        sweep, targets = _sweep_and_targets(self, trainer, pl_module)
        self._began, self._ranks, self._steps = None, trainer.world_size, sweep.steps
        self._made, self._done = (
            0,
            sum(target in targets.finished for target in targets.targets()) // trainer.world_size,
        )
        own = targets.batches(trainer.global_rank, trainer.world_size)
        self._bar = progress._new_bar(self._done + sum(len(batch.targets) for batch in own), self._done)
        sweep.on_render_step = self._on_step

    @override
    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        if self._began is None and batch.units:
            self._began = time.monotonic()

    def _on_step(self, step: int) -> None:
        if self._bar is not None and (step + 1) % self.refresh_rate == 0:
            self._bar.update(self._done, self._text(f"step {step + 1} of {self._steps}"))

    @override
    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        self._done += len(outputs.targets)
        self._made += len(outputs.targets)
        if self._bar is not None:
            self._bar.update(self._done, self._text())

    def _text(self, step: str = "") -> str:
        parts = [step] if step else []
        seconds = 0.0 if self._began is None else time.monotonic() - self._began
        if self._made and seconds > 0:
            speed = self._made * self._ranks * 60 / seconds
            parts.append(f"{speed:.3g} features per minute" + (f" on {self._ranks} devices" if self._ranks > 1 else ""))
        return ", ".join(parts)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close(pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close(pl_module)

    def _close(self, module: LightningModule) -> None:
        if isinstance(module, FeatureSweep):
            module.on_render_step = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None
