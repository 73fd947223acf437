"""Stop runs whose score does not rise any more."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from featviz_pl.numerics.checks import finite_number, whole_number
from featviz_pl_callbacks._support import visualization


class StopOnPlateau(Callback):
    """Stop when the best score has not risen for a number of steps.

    Lightning's ``EarlyStopping`` checks at the end of an epoch, and a run is one epoch. The score is the mean over
    pictures, averaged over the steps since the last check.

    Args:
        patience: optimizer steps without a rise after which the run stops, 1 or more.
        min_delta: the rise that counts, relative to the absolute best score, 0 or more.
        every: steps between two checks (each costs a synchronization on a GPU), 1 or more.

    Example:
        >>> StopOnPlateau(patience=100, min_delta=0.01).patience
        100

    Logs: nothing; sets ``trainer.should_stop``.
    """

    def __init__(self, patience: int = 100, min_delta: float = 0.005, every: int = 10) -> None:
        super().__init__()
        self.patience = whole_number("patience", patience)
        self.min_delta = finite_number("min_delta", min_delta, least=0.0)
        self.every = whole_number("every", every)
        self._reset()

    def _reset(self) -> None:
        self.best, self.best_step = -math.inf, 0
        self._sum: Any = 0.0  # of the scores since the last check
        self._count = self._last_step = 0

    @property
    def state_key(self) -> str:
        """Key in checkpoints, different for two instances."""
        return self._generate_state_key(patience=self.patience, min_delta=self.min_delta, every=self.every)

    @override
    def state_dict(self) -> dict[str, Any]:
        state = {"best": self.best, "best_step": self.best_step, "sum": float(self._sum)}
        return {**state, "read": self._count, "latest": self._last_step}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step, self._sum = (state_dict[name] for name in ("best", "best_step", "sum"))
        self._count, self._last_step = state_dict["read"], state_dict["latest"]

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Each process sums over its share of the views, and the first one writes the checkpoint that all of them load.
        total = visualization(self, pl_module).over_ranks(torch.as_tensor(self._sum))
        checkpoint["callbacks"][self.state_key]["sum"] = float(total)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        visualization(self, pl_module)
        self._reset()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, step = visualization(self, pl_module), trainer.global_step
        if module.last is None or step == self._last_step:  # an accumulated step ends several batches
            return
        self._last_step = step
        self._sum, self._count = self._sum + module.last.scores.mean(), self._count + 1
        if self._count < self.every:
            return
        score = float(module.over_ranks(torch.as_tensor(self._sum) / self._count))
        self._sum, self._count = 0.0, 0
        if self.best == -math.inf or score > self.best + self.min_delta * abs(self.best):
            self.best, self.best_step = score, step
        elif step - self.best_step >= self.patience:
            trainer.should_stop = True
