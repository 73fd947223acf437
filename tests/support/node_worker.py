"""Tasks on several processes, under any launcher: ``node_worker.py FOLDER NODES STRATEGY DEVICES:TASK…``, one after the other.

A task is a job of ranks.py, or one of `TASKS`. Every process prints how each ended; what it saw is in files of the
folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ranks
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from toys import QUIET, toy

from featviz_pl.callbacks import Augmentation, DistributedViews, FeatureWriter
from featviz_pl.cli.main import main as command_line
from featviz_pl.images import FourierImage
from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.training import FeatureVisualization

UNITS = [
    "features.0:all",
    "features.1:0-1",
    "features.[235]:all",
    "head:all",
]  # 6 + 2 + 3 x 8 + 5 = 37 units in 14 batches of 3
MESSAGE = "the device of the second process is lost"


class Rendered(Callback):
    """Keep what this process rendered, in ``rendered-<processes>-<rank>.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.targets = folder, list[str]()

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        self.targets += [batch.targets[place] for place in batch.wanted]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (self.folder / f"rendered-{trainer.world_size}-{trainer.global_rank}.json").write_text(json.dumps(self.targets))


class InSecond(Callback):
    """Let something happen to the second process of a sweep, once it has rendered a batch."""

    def __init__(self, happens: Callable[[LightningModule], None]) -> None:
        self.happens = happens

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *more: Any) -> None:
        if trainer.global_rank == 1:
            self.happens(pl_module)


def lose(module: LightningModule) -> None:
    """Fail, as a device does."""
    raise RuntimeError(MESSAGE)


def die(module: LightningModule) -> None:
    """Be killed, as for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(happens: Callable[[LightningModule], None]) -> Callable[..., None]:
    """Return a training in which something happens to the second process in its fifth step."""

    def train(folder: Path, **arguments: Any) -> None:
        model = FeatureVisualization(toy(), "features.5:1", image=FourierImage(12), seed=3)
        callbacks = [Augmentation("lucid", views=4), DistributedViews(every=3), ranks.InRank(1, 4, happens)]
        Trainer(**{**QUIET, **arguments, "callbacks": callbacks, "max_steps": 5000}).fit(model)

    return train


def predict(folder: Path, *callbacks: Callback, **arguments: Any) -> None:
    """Render 37 units."""
    trainer = Trainer(**{**QUIET, **arguments, "callbacks": [FeatureWriter(folder), *callbacks]})
    trainer.predict(FeatureSweep(toy(), steps=3, size=10), FeatureTargets(UNITS, 3), return_predictions=False)


def sweep(folder: Path, **arguments: Any) -> None:
    """Render them into ``atlas-<processes>``."""
    predict(folder / f"atlas-{arguments['num_nodes'] * arguments['devices']}", Rendered(folder), **arguments)


def killed_sweep(folder: Path, **arguments: Any) -> None:
    """Lose the second process on the way."""
    predict(folder / "killed", InSecond(die), **arguments)


def other_version(folder: Path, **arguments: Any) -> None:
    """Try to go on in a folder of another version."""
    (folder / "other").mkdir(exist_ok=True)
    (folder / "other" / "manifest.jsonl").write_text('{"featviz_sweep": 9, "settings": {}}\n')
    predict(folder / "other", **arguments)


def no_locks(folder: Path, **arguments: Any) -> None:
    """Sweep on a file system that cannot lock files."""

    def refuse(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    held, fcntl.flock = fcntl.flock, refuse
    try:
        predict(folder / "no-locks", **arguments)
    finally:
        fcntl.flock = held


def command(folder: Path, **arguments: Any) -> None:
    """Render them as a user does."""
    flags = [
        "--steps",
        "3",
        "--size",
        "10",
        "--batch-size",
        "3",
        "--accelerator",
        "cpu",
        "--json",
        "-o",
        str(folder / "command"),
    ]
    where = ["--num-nodes", str(arguments["num_nodes"]), "--devices", str(arguments["devices"])]
    code = command_line(["sweep", "toys:toy", *UNITS, *flags, *where])
    if code:
        raise RuntimeError(f"exit code {code}")


TASKS: dict[str, Callable[..., None]] = {
    "sweep": sweep,
    "killed sweep": killed_sweep,
    "other version": other_version,
    "no locks": no_locks,
    "command": command,
    "lost": train_until(lose),
    "killed": train_until(die),
}


def say(line: str) -> None:
    """Print a line in one piece: torchrun starts Python unbuffered, and several processes write into one pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Do the tasks, and say how each ended."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance.treespec, LeafSpec.* is deprecated", category=FutureWarning
    )
    torch.set_num_threads(1)
    folder, nodes, strategy, *tasks = sys.argv[1:]
    for devices, name in (task.split(":") for task in tasks):
        arguments = {"num_nodes": int(nodes), "devices": int(devices), "strategy": strategy}
        try:
            if name in TASKS:
                TASKS[name](Path(folder), **arguments)
            else:
                ranks.run(name, Path(folder), **arguments)
        except (Exception, SystemExit) as error:
            say(f"FAILED {name}: {' '.join(str(error).split())}")
            if (
                os.environ.get("TORCHELASTIC_RUN_ID") or strategy == "ddp"
            ):  # then this is one of the processes, and the others ask it
                traceback.print_exc()
                os._exit(1)
        else:
            say(f"DONE {name}")


if __name__ == "__main__":
    main()
