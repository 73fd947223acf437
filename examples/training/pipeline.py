"""Add what every unit looks for to a pipeline that trains, tests and exports: the last lines of `main` are new.

    python examples/training/pipeline.py --data DATA

The sweep writes a picture for each unit, a sheet for each layer and a manifest to ``runs/pipeline/features``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from classifier import Classifier, Photos  # type: ignore[import-not-found]
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

import featviz_pl as fv
from featviz_pl.callbacks import FeatureWriter, SweepProgressBar


def main(arguments: list[str] | None = None) -> None:
    """Train, test, export; then render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder that holds imagenette2-160/")
    parser.add_argument("--download", action="store_true", help="fetch the photos into it")
    parser.add_argument("--output", type=Path, default=Path("runs/pipeline"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=96, help="of photos and features, in pixels")
    parser.add_argument("--steps", type=int, default=128, help="of each feature")
    parser.add_argument("--layers", nargs="+", default=["net.layer2:all", "output:all"])
    parser.add_argument("--workers", type=int, default=2, help="processes that read photos")
    options = parser.parse_args(arguments)

    # The pipeline as it was.
    torch.manual_seed(0)
    model, photos = Classifier(), Photos(options.data, options.size, workers=options.workers, download=options.download)
    trainer = Trainer(
        max_epochs=options.epochs, logger=CSVLogger(options.output, name="logs"), enable_checkpointing=False
    )
    trainer.fit(model, photos)
    trainer.test(model, photos)
    torch.save(model.net.state_dict(), options.output / "network.pt")

    # What is new: every unit of some layers. Each run trains another network, so its pictures replace those of the run
    # before.
    sweep = fv.FeatureSweep(model, size=options.size, steps=options.steps)
    writer = FeatureWriter(options.output / "features", overwrite=True)
    last = Trainer(callbacks=[writer, SweepProgressBar()], logger=False, enable_checkpointing=False)
    last.predict(sweep, fv.FeatureTargets(options.layers), return_predictions=False)


if __name__ == "__main__":
    main()
