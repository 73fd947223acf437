"""Jobs on several processes: started as a program, so that forks come from a process without threads, and `ddp` can start it again.

``ranks.py FOLDER STRATEGY RANKS:JOB…`` runs the jobs one after the other. Every process writes what it saw to
``FOLDER/<ranks>-<job>-<rank>.pt``: the gradients of each step, the views that it evaluated, the weights at the end,
logged values, the error.
"""

from __future__ import annotations

import functools
import json
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from guests import Breakable, Switch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from toys import QUIET, toy

from featviz_pl.callbacks import Augmentation
from featviz_pl.images import FourierImage, PixelImage
from featviz_pl.objectives import Channel, Neuron, TotalVariation
from featviz_pl.training import FeatureVisualization
from featviz_pl.transforms import Jitter
from featviz_pl_callbacks.distributed_views import DistributedViews

Cosine = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=20)


class Infinite(Breakable):
    """Give infinity, with a gradient that is finite, once the switch is thrown."""

    def __init__(self) -> None:
        super().__init__(Switch(torch.inf))


class Seen(Callback):
    """Keep what one process saw, and write it at the end, a bad one too."""

    def __init__(self, folder: Path, job: str) -> None:
        self.folder, self.job = folder, job
        self.gradients: list[Tensor] = []
        self.views: list[int] = []
        self.losses: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FeatureVisualization)
        problem, views = pl_module._ascent, self.views
        given = problem._observer.draw

        def draw(seed: int, step: int, progress: float, keys: Any, indices: Any) -> Any:
            views.extend([100 * step + index for index in indices])
            return given(seed, step, progress, keys, indices)

        problem._observer.draw = draw  # type: ignore[method-assign]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        assert isinstance(pl_module, FeatureVisualization)
        assert pl_module.last is not None
        self.gradients.append(torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]))
        self.losses.append(float(pl_module.last.loss))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._write(trainer, pl_module, f"{type(exception).__name__}: {exception}")

    def _write(self, trainer: Trainer, module: LightningModule, error: str) -> None:
        watch = next((c for c in trainer.callbacks if isinstance(c, DistributedViews)), None)  # type: ignore[attr-defined]
        seen = {
            "gradients": self.gradients,
            "views": self.views,
            "losses": self.losses,
            "weights": [parameter.detach().clone() for parameter in module.parameters()],
            "logged": {name: float(value) for name, value in trainer.callback_metrics.items()},
            "scores": {} if watch is None else watch.scores,
            "steps": trainer.global_step,
            "error": error,
        }
        torch.save(seen, self.folder / f"{trainer.world_size}-{self.job}-{trainer.global_rank}.pt")


class InRank(Callback):
    """Do something in one process, before one batch."""

    def __init__(self, rank: int, step: int, do: Callable[[LightningModule], None]) -> None:
        self.rank, self.step, self.do = rank, step, do

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == self.rank and batch_idx == self.step:
            self.do(pl_module)


def spot() -> tuple[FeatureVisualization, Augmentation]:
    """Build a run in which a picture is seen by few views only: one bright pixel, which the shifts rarely bring to the neuron."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    with torch.no_grad():
        convolution = net[0]
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        convolution.weight.fill_(2.0)
        convolution.bias.fill_(-1.0)
    picture = torch.full((1, 7, 7), 0.2)
    picture[:, 3, 3] = 0.9
    image = PixelImage.from_image(picture)
    return FeatureVisualization(net, Neuron("1", 0, (3, 3)), image=image, seed=3), Augmentation(Jitter(1), views=8)


def job(name: str, folder: Path) -> tuple[FeatureVisualization, list[Callback], dict[str, Any]]:
    """Return module, callbacks and arguments of the Trainer."""
    wide: dict[str, Any] = {"precision": "64-true", "max_steps": 3}
    objective = Channel("features.5", [1, 4]) - 1e-4 * TotalVariation()
    model = FeatureVisualization(toy(), objective, image=FourierImage(12), seed=3, scheduler=Cosine)
    kind, _, detail = name.partition("-")
    if kind == "views":
        return (
            model,
            [Augmentation("article", views=int(detail)), DistributedViews(every=3)],
            {**wide, "log_every_n_steps": 1, "logger": CSVLogger(str(folder))},
        )
    if kind == "accumulated":
        return model, [Augmentation("article", views=4)], {**wide, "accumulate_grad_batches": 3}
    if kind == "dead":
        return (*_listed(*spot()), wide | {"max_steps": 1})
    if kind == "long":
        return model, [Augmentation("lucid", views=4), DistributedViews(every=20)], {"max_steps": 100}
    if kind == "apart":
        other = InRank(1, 4, _change)
        return model, [Augmentation("lucid", views=4), DistributedViews(every=3), other], {"max_steps": 20}
    if kind == "infinite":
        broken = FeatureVisualization(Infinite(), "output:0", image=FourierImage(8), seed=3)
        throw = InRank(1, 2, lambda module: setattr(module.network.module.switch, "on", True))  # type: ignore[union-attr]
        return broken, [Augmentation("lucid", views=2), throw], {"max_steps": 6}
    if kind in ("whole", "interrupted", "continued"):
        keep = OnExceptionCheckpoint(folder, "interrupted")
        press = [InRank(1, 4, _press)] if kind == "interrupted" else []
        return model, [Augmentation("lucid", views=3), *press, keep], {"max_steps": 12, "enable_checkpointing": True}
    raise ValueError(name)


def _listed(model: FeatureVisualization, views: Callback) -> tuple[FeatureVisualization, list[Callback]]:
    return model, [views]


def _press(module: LightningModule) -> None:
    signal.raise_signal(signal.SIGINT)


def _change(module: LightningModule) -> None:
    with torch.no_grad():
        next(module.parameters()).flatten()[0] += 1e-7


def run(name: str, folder: Path, **arguments: Any) -> FeatureVisualization:
    """Run one job."""
    model, callbacks, own = job(name, folder)
    trainer = Trainer(**{**QUIET, **own, **arguments, "callbacks": [*callbacks, Seen(folder, name)]})
    path = str(folder / "interrupted.ckpt") if name == "continued" else None
    trainer.fit(model, ckpt_path=path, weights_only=True)
    return model


def main() -> None:
    """Run the jobs."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance.treespec, LeafSpec.* is deprecated", category=FutureWarning
    )
    warnings.filterwarnings(
        "ignore",
        message=".*was called without a model|.*there is no last checkpoint available|.*Checkpoint directory .* exists and is not empty",
    )
    torch.set_num_threads(1)
    folder, strategy, *jobs = sys.argv[1:]
    for ranks, name in (wanted.split(":") for wanted in jobs):
        try:
            model = run(name, Path(folder), devices=int(ranks), strategy=strategy)
        except (Exception, SystemExit) as error:
            print("FAILED", name, type(error).__name__)
        else:
            print(
                "PROVENANCE",
                json.dumps({"job": name, "ranks": int(ranks), **model.provenance(steps=model.steps_taken)}),
            )


if __name__ == "__main__":
    main()
