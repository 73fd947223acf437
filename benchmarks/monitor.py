"""State what a FeatureMonitor costs, as a share of the epoch: a ResNet-18 on 128 px, rendered once per epoch.

    python benchmarks/monitor.py --units 8 --steps 64

A few batches are trained with a monitor that renders several times among them; medians of a batch and of a rendering
give the share for an epoch of any length (Imagenette's 9,469 photos in batches of 64 unless given). Batches are ready
in memory, so loading hides nothing: with photos from a disk the share is smaller. Measure on a quiet machine.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18
from typing_extensions import override

from featviz_pl.callbacks import FeatureMonitor


class Classifier(LightningModule):
    """Train a ResNet-18 from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


class TimedMonitor(FeatureMonitor):
    """Note how long each rendering takes, with logging and saving."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.seconds: list[float] = []

    @override
    def _render(self, trainer: Trainer, module: LightningModule) -> None:
        began = time.perf_counter()
        super()._render(trainer, module)
        self.seconds.append(time.perf_counter() - began)


class BatchTimes(Callback):
    """Note how long each batch takes; it must stand before the monitor."""

    def __init__(self) -> None:
        self.began = 0.0
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=8, help="of layer3")
    parser.add_argument("--steps", type=int, default=64, help="of each picture")
    parser.add_argument("--size", type=int, default=128, help="of photos and pictures")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--photos", type=int, default=9469, help="of an epoch")
    parser.add_argument("--renderings", type=int, default=3)
    parser.add_argument("--between", type=int, default=3, help="batches between two renderings")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--precision", default="32-true")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(options.batch_size, 3, options.size, options.size, generator=generator)
    batch = (pictures, torch.randint(0, 10, (options.batch_size,), generator=generator))
    batches = options.renderings * options.between
    loader: DataLoader[Any] = DataLoader([batch] * batches, batch_size=None)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        targets = f"net.layer3:0-{options.units - 1}"
        monitor = TimedMonitor(
            targets, steps=options.steps, every_n_steps=options.between, folder=folder, on_error="raise"
        )
        clock = BatchTimes()
        trainer = Trainer(
            max_epochs=1,
            accelerator=options.accelerator,
            precision=options.precision,
            devices=1,
            callbacks=[clock, monitor],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(Classifier(), loader)
    seconds, rendering = statistics.median(clock.seconds[1:]), statistics.median(monitor.seconds)
    count = -(-options.photos // options.batch_size)
    epoch = seconds * count
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, python {sys.version.split()[0]}, {options.accelerator}"
    )
    print(f"a batch of {options.batch_size}: {seconds:.3f} s; an epoch of {count} batches: {epoch:.1f} s")
    print(
        f"{options.units} units, {options.steps} steps, {options.size} px: {rendering:.2f} s, {rendering / epoch:.1%} of the epoch"
    )


if __name__ == "__main__":
    main()
