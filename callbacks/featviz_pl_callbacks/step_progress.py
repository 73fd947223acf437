"""A progress bar that counts optimisation steps."""

from __future__ import annotations

import math
import sys
from typing import Any, Protocol

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from typing_extensions import override

from featviz_pl.numerics.checks import whole_number


class _Bar(Protocol):
    def update(self, done: int, text: str) -> None: ...
    def close(self) -> None: ...


class StepProgressBar(ProgressBar):
    """Show the steps done and left, the speed and the logged values; the total is right after a resume too.

    Lightning's own bars count batches of the current epoch and start from 0 when a run resumes in the middle of it.
    Drawn by Rich where it is installed, by tqdm otherwise, on stderr.

    Args:
        refresh_rate: steps between two updates, 1 or more.

    Example:
        >>> StepProgressBar(refresh_rate=20).refresh_rate
        20
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__()
        self.refresh_rate = whole_number("refresh_rate", refresh_rate)
        self._enabled = True
        self._bar: _Bar | None = None

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled:
            total = (
                trainer.max_steps
                if trainer.max_steps > 0
                else trainer.num_training_batches / trainer.accumulate_grad_batches
            )
            self._bar = _new_bar(None if math.isinf(total) else math.ceil(total), trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None and trainer.global_step % self.refresh_rate == 0:
            self._bar.update(trainer.global_step, self._text(trainer, pl_module))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close(trainer, pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close(trainer, pl_module)

    @override
    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)
        return metrics

    def _text(self, trainer: Trainer, module: LightningModule) -> str:
        values = self.get_metrics(trainer, module).items()
        return ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values
        )

    def _close(self, trainer: Trainer, module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(trainer.global_step, self._text(trainer, module))
            self._bar.close()
            self._bar = None


class _RichBar:
    def __init__(self, total: int | None, done: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._progress = Progress(TextColumn("optimising"), *columns, console=Console(stderr=True))
        self._progress.start()
        self._task = self._progress.add_task("optimising", total=total, completed=done, text="")

    def update(self, done: int, text: str) -> None:
        self._progress.update(self._task, completed=done, text=text)

    def close(self) -> None:
        self._progress.stop()


class _TqdmBar:
    def __init__(self, total: int | None, done: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, initial=done, unit="step", desc="optimising", file=sys.stderr, dynamic_ncols=True)

    def update(self, done: int, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def _new_bar(total: int | None, done: int) -> _Bar:
    try:
        return _RichBar(total, done)
    except ImportError:
        return _TqdmBar(total, done)
