"""Runs over toy networks that several test files share."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from toys import QUIET, toy

from featviz_pl.images import FourierImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel
from featviz_pl.training import FeatureVisualization


def build(
    units: int | list[int] = 2, network: nn.Module | FrozenNetwork | None = None, size: int = 12, **arguments: Any
) -> FeatureVisualization:
    """Build a run over a toy network."""
    return FeatureVisualization(
        network or toy(),
        Channel("features.5", units),
        image=FourierImage(size),
        **{"steps": 5, "preset": "lucid", **arguments},
    )


def fit(
    model: FeatureVisualization, max_steps: int = 5, callbacks: Any = (), ckpt_path: str | None = None, **arguments: Any
) -> Trainer:
    """Fit quietly."""
    trainer = Trainer(**{**QUIET, "max_steps": max_steps, "callbacks": list(callbacks), **arguments})
    trainer.fit(model, ckpt_path=ckpt_path, weights_only=True)
    return trainer


class Record(Callback):
    """Remember, for every batch, its index, the optimizer steps taken after it, the learning rate and the pictures before it."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.steps: list[int] = []
        self.rates: list[float] = []
        self.scores: list[float] = []
        self.before: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, FeatureVisualization)
        self.batches.append(int(batch))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.before.append(pl_module.images.clone())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, FeatureVisualization)
        assert pl_module.last is not None
        self.steps.append(trainer.global_step)
        self.scores.append(float(pl_module.last.scores.mean()))


def weights(model: FeatureVisualization) -> Tensor:
    """Copy the weights of the image."""
    (weight,) = model.image.parameters()
    return weight.detach().clone()
