"""Trainings of other people's making, with and without a FeatureMonitor; as a program, over two processes.

``monitored.py FOLDER JOB…`` runs jobs on two processes, one after the other. Every process writes what it ended with to
``FOLDER/<job>-<rank>.pt``. A job is ``hook/accumulate/precision/kind``, where the hook ``none`` stands for no monitor.
"""
# ruff: noqa: NPY002 - what must stay as it was is the global generator

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from toys import QUIET

from featviz_pl_callbacks.feature_monitor import FeatureMonitor

HOOKS = ("train_epoch_end", "validation_end", "steps")
ACCUMULATED = (1, 3)
PRECISIONS = ("32-true", "bf16-mixed")
RANKS = (1, 2)
KINDS = ("norm", "dropout", "compiled")
EPOCHS = 2


class AlwaysDrawing(nn.Module):
    """Draw from the global generator in evaluation mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.1, training=True)


def network(kind: str = "norm") -> nn.Module:
    """Build a classifier: convolution, batch norm, rectifier, something that draws, convolution, rectifier, mean, linear."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        draws = AlwaysDrawing() if kind == "dropout" else nn.Identity()
        norm = nn.SyncBatchNorm(6) if kind == "sync" else nn.BatchNorm2d(6)
        layers = [
            nn.Conv2d(3, 6, 3, padding=1),
            norm,
            nn.ReLU(inplace=True),
            draws,
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(inplace=True),
        ]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 4))
    compiled: nn.Module = torch.compile(net, backend="aot_eager") if kind == "compiled" else net  # type: ignore[assignment]
    return compiled


class Classifier(LightningModule):
    """Train a network as people do, with augmentations that draw from all three global generators."""

    net: Any

    def __init__(self, kind: str = "norm") -> None:
        super().__init__()
        self.kind = kind
        self.net = network(kind)
        self.losses: list[float] = []

    def on_fit_start(self) -> None:
        random.seed(2 + self.global_rank)  # here, because Python seeds it anew after a fork
        np.random.seed(3 + self.global_rank)
        torch.manual_seed(4 + self.global_rank)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.SyncBatchNorm):  # in training it works on GPUs only
                part.eval()
        return self

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        if random.random() < 0.5:
            x = x.flip(3)
        x = x * float(np.random.uniform(0.8, 1.0)) + 0.01 * torch.randn_like(x)
        loss = functional.cross_entropy(self(x), y)
        self.losses.append(loss.item())
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", functional.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.02)


def loaders(size: int = 12) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return batches for training, shuffled by the global generator, and for validation."""
    generator = torch.Generator().manual_seed(1)
    pictures, labels = (
        torch.rand(16, 3, size, size, generator=generator) * 0.9,
        torch.randint(0, 4, (16,), generator=generator),
    )
    data = TensorDataset(pictures, labels)
    return DataLoader(data, 2, shuffle=True), DataLoader(data, 8)


def monitor(hook: str, folder: Path, **arguments: Any) -> FeatureMonitor:
    """Make a monitor that fires in one hook."""
    when: dict[str, Any] = {"every_n_steps": 2} if hook == "steps" else {"when": hook}
    targets = ["net.4:0-2", "net.1:3", "net.9:1"]
    return FeatureMonitor(targets, **{"steps": 2, "folder": str(folder), "on_error": "raise", **when, **arguments})


class Seen(Callback):
    """Keep what a process ended with."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        python = random.getstate()
        numpy: Any = np.random.get_state()
        self.seen = {
            "weights": {name: value.clone() for name, value in pl_module.state_dict().items()},
            "gradients": [None if p.grad is None else p.grad.clone() for p in pl_module.parameters()],
            "optimizer": trainer.optimizers[0].state_dict()["state"],
            "generators": [
                torch.get_rng_state(),
                list(python[1]),
                torch.tensor(np.asarray(numpy[1]).astype(np.int64)),
                int(numpy[2]),
            ],
            "logged": {name: float(value) for name, value in trainer.logged_metrics.items()},
            "losses": pl_module.losses,
            "modes": {name: part.training for name, part in pl_module.named_modules()},
            "hooks": {name: len(p._forward_hooks) + len(p._forward_pre_hooks) for name, p in pl_module.named_modules()},
            "steps": trainer.global_step,
        }


def train(
    hook: str,
    accumulate: int = 1,
    precision: str = "32-true",
    kind: str = "norm",
    folder: Path | None = None,
    **arguments: Any,
) -> tuple[dict[str, Any], FeatureMonitor | None]:
    """Train, and return what the training ended with, and its monitor."""
    assert folder is not None
    watch = None if hook == "none" else monitor(hook, folder)
    seen = Seen()
    callbacks = [*([] if watch is None else [watch]), *arguments.pop("callbacks", []), seen]
    module = arguments.pop("module") if "module" in arguments else Classifier(kind)
    given = {
        **QUIET,
        "max_epochs": EPOCHS,
        "accumulate_grad_batches": accumulate,
        "precision": precision,
        "log_every_n_steps": 1,
    }
    trainer = Trainer(**{**given, "default_root_dir": str(folder), **arguments, "callbacks": callbacks})
    trainer.fit(module, *loaders())
    return seen.seen, watch


def parts(value: Any, name: str = "training") -> dict[str, Any]:
    """Return the leaves of nested containers by their paths."""
    if isinstance(value, dict):
        return {path: leaf for key, part in value.items() for path, leaf in parts(part, f"{name}.{key}").items()}
    if isinstance(value, (list, tuple)):
        return {path: leaf for key, part in enumerate(value) for path, leaf in parts(part, f"{name}.{key}").items()}
    return {name: value}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return where two trainings differ in any bit."""
    first, second = parts(one), parts(other)
    assert first.keys() == second.keys()
    return [
        name
        for name in first
        if not (
            torch.equal(first[name], second[name]) if isinstance(first[name], Tensor) else first[name] == second[name]
        )
    ]


class Write(Callback):
    """Write what a process ended with, its pictures too."""

    def __init__(self, path: Path, seen: Seen, watch: FeatureMonitor | None) -> None:
        self.path, self.seen, self.watch = path, seen, watch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, "")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._write(trainer, f"{type(exception).__name__}: {exception}")

    def _write(self, trainer: Trainer, error: str) -> None:
        images = {} if self.watch is None else self.watch.images
        report = {**self.seen.seen, "images": images, "error": error}
        torch.save(report, self.path.with_name(f"{self.path.name}-{trainer.global_rank}.pt"))


class BreaksInOne(nn.Module):
    """Fail in the second process, whenever it is shown anything but the training's and the validation's batches."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and len(x) != 8 and torch.distributed.get_rank() == 1:
            raise RuntimeError("on purpose")
        return x


def job_name(hook: str, accumulate: int, precision: str, kind: str) -> str:
    """Return the file name part of a job."""
    return f"{hook}.{accumulate}.{precision}.{kind}"


def run(job: str, folder: Path) -> None:
    """Run one job on two processes."""
    hook, accumulate, precision, kind = job.split("/")
    arguments: dict[str, Any] = {"on_error": "warn"} if kind == "broken-warn" else {}
    watch = (
        None
        if hook == "none"
        else monitor(hook, folder / job_name(hook, int(accumulate), precision, kind), **arguments)
    )
    seen = Seen()
    module = Classifier(kind)
    if kind.startswith("broken"):
        module.net[3] = BreaksInOne()
    write = Write(folder / job_name(hook, int(accumulate), precision, kind), seen, watch)
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo")
    trainer = Trainer(
        **{
            **QUIET,
            "max_epochs": EPOCHS,
            "accumulate_grad_batches": int(accumulate),
            "precision": precision,
            "log_every_n_steps": 1,
        },
        devices=2,
        strategy=strategy,
        default_root_dir=str(folder),
        callbacks=[*([] if watch is None else [watch]), seen, write],
    )
    trainer.fit(module, *loaders())


def main() -> None:
    """Run the jobs."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance.treespec, LeafSpec.* is deprecated", category=FutureWarning
    )
    warnings.filterwarnings("ignore", message=".*on purpose.*")
    torch.set_num_threads(1)
    folder, *jobs = sys.argv[1:]
    for job in jobs:
        try:
            run(job, Path(folder))
        except (Exception, SystemExit) as error:
            print("FAILED", job, type(error).__name__, error)


if __name__ == "__main__":
    main()
