"""Evaluate at the end of a run on two processes: started as a program, so that the forks come from a process without threads.

``evaluation_worker.py FOLDER`` writes what each process saw to ``FOLDER/<rank>.json``, and prints the refusal of a run
whose judge does not have the class.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from metric_cases_transfer import color_judge
from toys import QUIET, toy

from featviz_pl.callbacks import Augmentation, PictureEvaluation
from featviz_pl.images import FourierImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.training import FeatureVisualization


class Seen(Callback):
    """Write what one process saw."""

    def __init__(self, folder: Path, evaluation: PictureEvaluation) -> None:
        self.folder, self.evaluation = folder, evaluation

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FeatureVisualization)
        found = self.evaluation.result
        seen = {"rows": None if found is None else found.rows, "pictures": pl_module.images.double().sum().item()}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(seen))


def run(target: str, folder: Path) -> None:
    """Run on two processes."""
    network = FrozenNetwork(toy(), classes=["red", "green", "blue", "c", "d"])
    model = FeatureVisualization(network, target, image=FourierImage(40), seed=3)
    evaluation = PictureEvaluation(folder / "table", judge=color_judge(), views=2)
    callbacks = [Augmentation("lucid", views=2), evaluation, Seen(folder, evaluation)]
    Trainer(**{**QUIET, "max_steps": 4, "devices": 2, "strategy": "ddp_fork", "callbacks": callbacks}).fit(model)


def main() -> None:
    """Run, and print what was refused."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance.treespec, LeafSpec.* is deprecated", category=FutureWarning
    )
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    run("output:0-1", folder)
    try:
        run("output:c", folder / "refused")
    except Exception as error:
        print("REFUSED", error)


if __name__ == "__main__":
    main()
