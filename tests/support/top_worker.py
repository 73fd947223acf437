"""Photos that excite units, on one process or two: ``top_worker.py FOLDER JOB RANKS`` writes what each process found.

Jobs: ``toy`` are 23 small pictures; ``photos`` the validation photos of ../shared, shown to SqueezeNet, or as many as
``photos-1000`` says.
"""

from __future__ import annotations

import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from toys import QUIET, SHARED, toy

from featviz_pl_callbacks.top_activations import TopActivations

PIXELS = 160
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Looker(LightningModule):
    """Show pictures to a network, as people's modules do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.net(batch[0])


def pictures(count: int = 23, side: int = 16) -> Tensor:
    """Return small pictures in [0, 1], of 256 levels."""
    levels = torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(7))
    return levels.float() / 255


def photos() -> Dataset[Any]:
    """Return the validation photos, normalised."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    chain = v2.Compose(
        [v2.PILToTensor(), v2.CenterCrop(PIXELS), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    folder: Dataset[Any] = ImageFolder(str(SHARED / "data" / "imagenette2-160" / "val"), chain)
    return folder


def squeezenet() -> nn.Module:
    """Return SqueezeNet with its real weights."""
    from torchvision.models import squeezenet1_0

    net: nn.Module = squeezenet1_0()
    net.load_state_dict(torch.load(SHARED / "weights" / "squeezenet1_0.pth", weights_only=True))
    return net


def job(name: str) -> tuple[Looker, DataLoader[Any], TopActivations]:
    """Return module, data and callback."""
    if name == "toy":
        return (
            Looker(toy()),
            DataLoader(TensorDataset(pictures()), 4),
            TopActivations(["net.features.5:all", "net.head:1,3"], k=3, seed=5),
        )
    kind, _, count = name.partition("-")
    assert kind == "photos"
    data: Any = photos()
    some = Subset(data, range(0, len(data), len(data) // int(count))) if count else data
    return Looker(squeezenet()), DataLoader(some, 25), TopActivations("net.features.9:all", k=9, mean=MEAN, std=STD)


class Write(Callback):
    """Write what another callback has found in this process."""

    def __init__(self, path: Path, watched: TopActivations) -> None:
        self.path, self.watched = path, watched

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(
            self.watched.results, self.path.with_name(f"{self.path.name}-{trainer.world_size}-{trainer.global_rank}.pt")
        )


def main() -> None:
    """Run one job."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance.treespec, LeafSpec.* is deprecated", category=FutureWarning
    )
    warnings.filterwarnings(
        "ignore", message=".*does not have many workers.*|.*recommended to use .*devices=1.*|.*DistributedSampler.*"
    )
    torch.set_num_threads(1)
    folder, name, ranks = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    module, loader, callback = job(name)
    if len(sys.argv) > 4:
        callback.folder = Path(sys.argv[4])
    strategy: Any = DDPStrategy(start_method="fork", process_group_backend="gloo") if ranks > 1 else "auto"
    trainer = Trainer(**QUIET, devices=ranks, strategy=strategy, callbacks=[callback, Write(folder / name, callback)])
    began = time.monotonic()
    trainer.validate(module, loader, verbose=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name} on {ranks}: {time.monotonic() - began:.1f} s, at most {peak:.0f} MiB")


if __name__ == "__main__":
    main()
