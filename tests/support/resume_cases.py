"""Runs that are resumed: every combination of optimizer, scheduler, callbacks and what else a Trainer can do.

As a program: ``resume_cases.py FOLDER CASE…`` does so on two processes, and prints what differed.
"""

from __future__ import annotations

import functools
import itertools
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import QUIET, toy

import featviz_pl.training.module
from featviz_pl.callbacks import Augmentation, ImageSnapshot, StopOnPlateau
from featviz_pl.images import FourierImage
from featviz_pl.objectives import Channel, Objective, Style, TotalVariation
from featviz_pl.training import FeatureVisualization
from featviz_pl_callbacks.distributed_views import DistributedViews

STEPS = 12
DIRECTORY = "The dirpath has changed"  # what ModelCheckpoint says of it


def one_cycle(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Make a cycle of rates, and of momentum where the optimizer has one."""
    cycled = bool({"momentum", "betas"} & optimizer.defaults.keys())
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=STEPS, cycle_momentum=cycled)


OPTIMIZERS: dict[str, Any] = {
    "Adam": torch.optim.Adam,
    "AdamW": functools.partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1, amsgrad=True),
    "momentum": functools.partial(torch.optim.SGD, lr=0.5, momentum=0.9, nesterov=True),
    "NAdam": torch.optim.NAdam,
    "LBFGS": functools.partial(torch.optim.LBFGS, lr=0.3, max_iter=3),
}
SCHEDULERS: dict[str, Any] = {
    "no scheduler": None,
    "cosine": functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=STEPS),
    "one cycle": one_cycle,
    # Never content: every reading after the first halves the rate.
    "plateau": functools.partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=1e3, threshold_mode="abs"
    ),
}
CALLBACKS = ("no callbacks", "views", "snapshots", "stop", "distributed", "all")
EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 3},
    "bf16": {"precision": "bf16-mixed"},
    "clipped": {"gradient_clip_val": 0.01},
    "running": {},
}


class Case(NamedTuple):
    """Name one combination."""

    optimizer: str
    scheduler: str
    callbacks: str
    extra: str

    def works(self) -> bool:
        """Say whether Lightning has it: its LBFGS evaluates a step several times, which goes with neither of these."""
        return not (self.optimizer == "LBFGS" and self.extra in ("bf16", "accumulated"))

    def stops_early(self) -> bool:
        """Say whether `StopOnPlateau` ends it."""
        return self.callbacks in ("stop", "all")

    def made(self, folder: Path, processes: int = 1) -> tuple[FeatureVisualization, list[Callback], dict[str, Any]]:
        """Return the module, the callbacks and the arguments of the Trainer."""
        wanted: Objective = Channel("features.5", [1, 6]) - 1e-4 * TotalVariation()
        if self.extra == "running" and processes == 1:
            wanted = wanted + 0.1 * Style("features.1", torch.linspace(0, 1, 3 * 8 * 8).view(3, 8, 8), average=0.8)
        optimizer, scheduler = OPTIMIZERS[self.optimizer], SCHEDULERS[self.scheduler]
        model = FeatureVisualization(
            toy(), wanted, image=FourierImage(8), seed=2, optimizer=optimizer, scheduler=scheduler
        )
        listed: list[Callback] = []
        if self.callbacks in ("views", "all") or processes > 1:
            listed.append(Augmentation("article", views=3, schedule="cosine"))
        if self.callbacks in ("snapshots", "all"):
            listed.append(ImageSnapshot(folder.parent / "pictures", every=4, animate=False))
        if self.stops_early():
            listed.append(
                StopOnPlateau(6, min_delta=1e6, every=2)
            )  # the first reading, at step 2, is the best: it ends at 8
        if self.callbacks in ("distributed", "all"):
            listed.append(DistributedViews(every=3))
        return model, listed, EXTRAS[self.extra]

    def fit(self, folder: Path, checkpoint: Path | None = None, **arguments: Any) -> None:
        """Run it with a checkpoint after every step."""
        model, callbacks, own = self.made(folder, arguments.get("devices", 1))
        keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        given = {
            **QUIET,
            "max_steps": STEPS,
            "enable_checkpointing": True,
            **own,
            **arguments,
            "callbacks": [*callbacks, keep],
        }
        Trainer(**given).fit(model, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)

    def last(self) -> int:
        """Return the step with which it ends."""
        return 8 if self.stops_early() else STEPS


EVERY = [
    case
    for case in (Case(*parts) for parts in itertools.product(OPTIMIZERS, SCHEDULERS, CALLBACKS, EXTRAS))
    if case.works()
]


def pairwise() -> list[Case]:
    """Return cases in which every two values that can occur together do."""
    missing = {pair for case in EVERY for pair in itertools.combinations(case, 2)}
    chosen: list[Case] = []
    while missing:
        best = max(EVERY, key=lambda case: len(missing & set(itertools.combinations(case, 2))))
        missing -= set(itertools.combinations(best, 2))
        chosen.append(best)
    return chosen


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Yield where two checkpoints differ, tensors bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield where
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{where}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other)):
            yield from differences(left, right, f"{where}/{index}")
    elif one != other:
        yield f"{where}: {one!r} and {other!r}"


def compared(one: Path, other: Path) -> list[str]:
    """Return where two checkpoints differ, besides the folders that callbacks write into."""
    held = [torch.load(path, weights_only=True) for path in (one, other)]
    for checkpoint in held:
        own = checkpoint["callbacks"].items()
        checkpoint["callbacks"] = [state for key, state in own if not key.startswith("ModelCheckpoint")]
    return list(differences(*held))


def main() -> None:
    """Resume the given cases on two processes."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance.treespec, LeafSpec.* is deprecated", category=FutureWarning
    )
    warnings.filterwarnings("ignore", message=DIRECTORY)
    torch.set_num_threads(1)
    featviz_pl.training.module.LOG_EVERY = 2
    folder, *numbers = sys.argv[1:]
    for number in numbers:
        case, whole, again = EVERY[int(number)], Path(folder, number, "whole"), Path(folder, number, "again")
        case.fit(whole, devices=2, strategy="ddp_fork")
        case.fit(again, whole / "step=5.ckpt", devices=2, strategy="ddp_fork")
        end = f"step={case.last()}.ckpt"
        print("COMPARED", number, compared(whole / end, again / end))


if __name__ == "__main__":
    main()
