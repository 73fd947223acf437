"""Train a classifier on Imagenette and watch its features form: one line in `callbacks`.

    python examples/training/classifier.py --data DATA       # DATA holds imagenette2-160/; --download fetches it (94
    MB) tensorboard --logdir runs

After every epoch TensorBoard shows what four channels and four classes look for; ``runs/features`` keeps the sheets
and, at the end, the film. Ten epochs end at four of five held-out photos right.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import Imagenette
from torchvision.transforms import v2

from featviz_pl.callbacks import FeatureMonitor

Batch = tuple[Tensor, Tensor]

TARGETS = ["net.layer3:8-11", "output:1,4,8,9"]  # the classes: English springer, church, golf ball, parachute


class Photos(LightningDataModule):
    """Serve Imagenette: 9,469 photos to train on, 3,925 held out, ten classes."""

    def __init__(
        self, root: str, size: int = 96, batch_size: int = 64, workers: int = 2, download: bool = False
    ) -> None:
        super().__init__()
        self.root, self.download = root, download
        self.batches: dict[str, Any] = {
            "batch_size": batch_size,
            "num_workers": workers,
            "persistent_workers": workers > 0,
        }
        floats = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        self.seen_in_training = v2.Compose(
            [v2.RandomResizedCrop(size, scale=(0.35, 1)), v2.RandomHorizontalFlip(), *floats]
        )
        self.seen_later = v2.Compose([v2.Resize(round(size * 7 / 6)), v2.CenterCrop(size), *floats])

    def prepare_data(self) -> None:
        if self.download and not Path(self.root, "imagenette2-160").exists():
            Imagenette(self.root, size="160px", download=True)

    def setup(self, stage: str) -> None:
        self.train = Imagenette(self.root, "train", "160px", transform=self.seen_in_training)
        self.held_out = Imagenette(self.root, "val", "160px", transform=self.seen_later)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, shuffle=True, **self.batches)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.held_out, **self.batches)

    test_dataloader = val_dataloader


class Block(nn.Module):
    """Halve the resolution, by two convolutions and by a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first, second = (
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.residual = nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), second, nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.residual(x))


class Classifier(LightningModule):
    """Classify photos in [0, 1] with a small residual network."""

    def __init__(self, width: int = 32, classes: int = 10, lr: float = 0.004) -> None:
        super().__init__()
        self.save_hyperparameters()
        parts: dict[str, nn.Module] = {
            "stem": nn.Sequential(nn.Conv2d(3, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            "layer1": Block(width, 2 * width),
            "layer2": Block(2 * width, 4 * width),
            "layer3": Block(4 * width, 8 * width),
            "head": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes)),
        }
        self.net = nn.Sequential(OrderedDict(parts))

    def forward(self, photos: Tensor) -> Tensor:
        scores: Tensor = self.net((photos - 0.45) / 0.25)
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean(), prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), weight_decay=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.hparams["lr"], total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def main(arguments: list[str] | None = None) -> None:
    """Train, and keep the checkpoint, the features of every epoch and their film."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder that holds imagenette2-160/")
    parser.add_argument("--download", action="store_true", help="fetch the photos into it")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=96, help="of photos and features, in pixels")
    parser.add_argument("--steps", type=int, default=64, help="of each feature after each epoch")
    parser.add_argument(
        "--precision", default="32-true", help="of the training; bf16-mixed is faster on newer processors"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that read photos")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=options.epochs,
        logger=TensorBoardLogger(options.output, name="classifier"),
        callbacks=[FeatureMonitor(TARGETS, steps=options.steps, folder=options.output / "features")],
        precision=options.precision,
        enable_checkpointing=False,
    )
    trainer.fit(Classifier(), Photos(options.data, options.size, workers=options.workers, download=options.download))
    trainer.save_checkpoint(options.output / "classifier.ckpt")


if __name__ == "__main__":
    main()
