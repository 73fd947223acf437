"""A progress bar that counts optimization steps."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from featviz_pl_callbacks import _progress_bar as progress


class StepProgressBar(progress.CountingProgressBar):
    """Show the steps done and left, the speed and the logged values; the total is right after a resume too.

    Lightning's bars count batches of the current epoch and start from 0 when a run resumes in the middle of it. Drawn
    by Rich where it is installed, by tqdm otherwise, on stderr.

    Args:
        refresh_rate: steps between two updates, 1 or more.

    Example:
        >>> StepProgressBar(refresh_rate=20).refresh_rate
        20
    """

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled:
            steps = trainer.max_steps
            total = steps if steps > 0 else trainer.num_training_batches / trainer.accumulate_grad_batches
            self._bar = progress.new_bar(None if math.isinf(total) else math.ceil(total), trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.refresh_rate == 0:
            self._update(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._update(trainer, pl_module)
        self._close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    @override
    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)
        return metrics

    def _update(self, trainer: Trainer, module: LightningModule) -> None:
        if self._bar is not None:
            metrics = self.get_metrics(trainer, module)
            texts = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in metrics.items()]
            self._bar.update(trainer.global_step, ", ".join(texts))
