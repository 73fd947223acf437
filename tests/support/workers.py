"""Run visualizations on two processes: started as a program, so that the forks come from a process without threads.

Prints one line of JSON: the largest difference between one process and two, and the error of a run with too few views.
"""

from __future__ import annotations

import json
import warnings

import torch
from lightning.pytorch import Callback, Trainer
from toys import QUIET, toy

from featviz_pl.callbacks import Augmentation
from featviz_pl.images import FourierImage
from featviz_pl.objectives import Channel, TotalVariation
from featviz_pl.training import FeatureVisualization


def run(views: int | None, devices: int) -> torch.Tensor:
    """Render two units in double precision and return the pictures."""
    objective = Channel("features.5", [1, 4]) - 1e-4 * TotalVariation()
    model = FeatureVisualization(toy(), objective, image=FourierImage(12), seed=3)
    model.double()
    callbacks: list[Callback] = [] if views is None else [Augmentation("article", views=views)]
    strategy = "ddp_fork" if devices > 1 else "auto"
    Trainer(max_steps=4, devices=devices, strategy=strategy, callbacks=callbacks, precision="64-true", **QUIET).fit(
        model
    )
    return model.images


def main() -> None:
    """Compare, and print what was found."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance.treespec, LeafSpec.* is deprecated", category=FutureWarning
    )
    torch.set_num_threads(1)
    start = FeatureVisualization(toy(), Channel("features.5", [1, 4]), image=FourierImage(12), seed=3)
    start.setup("fit")
    alone, fewer = run(3, 1), run(2, 1)
    shared, unaugmented = run(3, 2), run(None, 2)
    try:
        run(1, 2)
        refusal = ""
    except Exception as error:
        refusal = f"{type(error).__name__}: {error}"
    report = {
        "difference": float((alone - shared).abs().max()),
        "moved": float((alone - start.images).abs().max()),
        "of other views": float((alone - fewer).abs().max()),
        "without views": float((run(None, 1) - unaugmented).abs().max()),
        "refusal": refusal,
    }
    print("REPORT", json.dumps(report))


if __name__ == "__main__":
    main()
