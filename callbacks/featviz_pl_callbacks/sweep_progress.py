"""A progress bar that counts features."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from featviz_pl.sweep import FeatureSweep
from featviz_pl_callbacks import _progress_bar as progress
from featviz_pl_callbacks._support import sweep_and_targets


class SweepProgressBar(progress.CountingProgressBar):
    """Show the features done and left of a sweep, the time left, and how many are rendered in a minute.

    Counts those of the first process, which has as many as any other, and its share of the features of earlier runs,
    which are done. Drawn by Rich where it is installed, by tqdm otherwise, on stderr.

    Args:
        refresh_rate: optimization steps between two updates, 1 or more.

    Example:
        >>> SweepProgressBar(refresh_rate=20).refresh_rate
        20
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate)
        self._done = self._rendered = self._ranks = self._steps = 0
        self._started: float | None = None

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled:
            return
        sweep, targets = sweep_and_targets(self, trainer, pl_module)
        self._started, self._rendered, self._ranks, self._steps = None, 0, trainer.world_size, sweep.steps
        self._done = sum(target in targets.finished for target in targets.targets()) // self._ranks
        left = sum(len(batch.targets) for batch in targets.batches(trainer.global_rank, self._ranks))
        self._bar = progress.new_bar(self._done + left, self._done)
        sweep.on_render_step = self._on_step

    @override
    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._started is None and batch.units:
            self._started = time.monotonic()

    def _on_step(self, step: int) -> None:
        if self._bar is not None and (step + 1) % self.refresh_rate == 0:
            self._bar.update(self._done, self._text(f"step {step + 1} of {self._steps}"))

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._done += len(outputs.targets)
        self._rendered += len(outputs.targets)
        if self._bar is not None:
            self._bar.update(self._done, self._text())

    def _text(self, step: str = "") -> str:
        texts = [step] if step else []
        seconds = 0.0 if self._started is None else time.monotonic() - self._started
        if self._rendered and seconds > 0:
            speed = self._rendered * self._ranks * 60 / seconds
            devices = f" on {self._ranks} devices" if self._ranks > 1 else ""
            texts.append(f"{speed:.3g} features per minute{devices}")
        return ", ".join(texts)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, FeatureSweep):
            pl_module.on_render_step = None
        self._close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_predict_end(trainer, pl_module)
