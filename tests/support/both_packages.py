"""Trainings written once and run by either package; as a program, over two processes.

``both_packages.py FOLDER PACKAGE`` runs each on two processes. Every process writes what it ended with to
``FOLDER/<training>-<rank>.pt``.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from toys import QUIET, toy

from featviz_pl import callbacks, compat
from featviz_pl.images import FourierImage
from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.training import FeatureVisualization

LIGHTNING, PYTORCH_LIGHTNING = "lightning.pytorch", "pytorch_lightning"
OURS: dict[str, Any] = {
    "FeatureVisualization": FeatureVisualization,
    "FeatureSweep": FeatureSweep,
    "FeatureTargets": FeatureTargets,
    **{name: getattr(callbacks, name) for name in callbacks.__all__},
}


def ours(package: str, name: str, **arguments: Any) -> Any:
    """Make a module or callback of this library as users of a package do."""
    return (OURS[name] if package == LIGHTNING else getattr(compat, name))(**arguments)


def trainer(package: str, *listed: Any, **arguments: Any) -> Any:
    """Make a quiet Trainer of a package."""
    return importlib.import_module(package).Trainer(**{**QUIET, "callbacks": list(listed), **arguments})


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Make an optimizer whose rate does not depend on the number of steps."""
    return torch.optim.Adam(parameters, lr=0.05)


def visualization(package: str) -> Any:
    """Make a run that renders two units."""
    return ours(
        package,
        "FeatureVisualization",
        network=toy(),
        objective="features.5:1,4",
        image=FourierImage(48),
        seed=3,
        optimizer=adam,
    )


def classifier(package: str) -> Any:
    """Make somebody's training: batch norm, dropout, and a draw in each step."""

    class Classifier(importlib.import_module(package).LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(5)
                self.net = nn.Sequential(
                    nn.Conv2d(3, 6, 3),
                    nn.BatchNorm2d(6),
                    nn.ReLU(),
                    nn.Dropout(0.2),
                    nn.Flatten(),
                    nn.Linear(6 * 100, 4),
                )

        def on_fit_start(self) -> None:
            torch.manual_seed(4)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = functional.cross_entropy(self.net(batch[0] + 0.01 * torch.randn_like(batch[0])), batch[1])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.net(batch[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 0.02)

    return Classifier()


def data(side: int = 12) -> DataLoader[Any]:
    """Return batches of small pictures."""
    generator = torch.Generator().manual_seed(1)
    levels, labels = (
        torch.randint(0, 256, (16, 3, side, side), generator=generator),
        torch.randint(0, 4, (16,), generator=generator),
    )
    return DataLoader(TensorDataset(levels.float() / 255, labels), 4)


def monitor(package: str, folder: Path) -> Any:
    """Make a monitor of somebody's training."""
    targets = ["net.0:0-2", "net.1:3"]
    return ours(
        package, "FeatureMonitor", targets=targets, steps=2, folder=str(folder), on_error="raise", every_n_steps=3
    )


def ended(module: Any, held: Any) -> dict[str, Any]:
    """Return what a training left behind."""
    return {
        "weights": {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)},
        "optimizer": held.optimizers[0].state_dict()["state"],
        "generator": torch.get_rng_state(),
        "logged": {name: float(value) for name, value in held.logged_metrics.items() if "per_second" not in name},
        "steps": held.global_step,
    }


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Return where two nested results differ in any bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{name}: {sorted(one.keys() ^ other.keys())}"]
        return [path for key in one for path in differences(one[key], other[key], f"{name}.{key}")]
    same = torch.equal(one, other) if isinstance(one, Tensor) else one == other
    return [] if same else [name]


class _Write:
    """Write at the end of a training what a process ended with."""

    def __init__(self, path: Path, watched: Any = None) -> None:
        self.path, self.watched = path, watched

    def on_train_end(self, held: Any, module: Any) -> None:
        more = {"images": getattr(self.watched, "images", None), "scores": getattr(self.watched, "scores", None)}
        torch.save({**ended(module, held), **more}, f"{self.path}-{held.global_rank}.pt")

    def on_validation_end(self, held: Any, module: Any) -> None:
        if self.watched is not None and held.state.fn == "validate":
            found = {
                target: [(one.photo, one.score, one.box) for one in unit.top]
                for target, unit in self.watched.results.items()
            }
            torch.save(found, f"{self.path}-{held.global_rank}.pt")


def writer(package: str, path: Path, watched: Any = None) -> Any:
    """Make the callback that writes what a process ended with."""
    return type("Write", (_Write, importlib.import_module(package).Callback), {})(path, watched)


def over_two(package: str, folder: Path) -> None:
    """Run every training on two processes."""
    two: dict[str, Any] = {"devices": 2, "strategy": "ddp_fork"}
    torch.manual_seed(4)  # else each program begins with a seed of its own
    views = ours(package, "DistributedViews", every=2)
    augmentation = ours(package, "Augmentation", transforms="lucid", views=4)
    trainer(package, augmentation, views, writer(package, folder / "views", views), max_steps=4, **two).fit(
        visualization(package)
    )
    for name, listed in (("without", []), ("with", [monitor(package, folder / "monitor")])):
        write = writer(package, folder / name, listed[0] if listed else None)
        trainer(package, *listed, write, max_epochs=2, **two).fit(classifier(package), data(), data())
    top = ours(package, "TopActivations", targets="net.0:all", k=2)
    trainer(package, top, writer(package, folder / "top", top), **two).validate(
        classifier(package), data(), verbose=False
    )
    sweep = ours(package, "FeatureSweep", network=toy(), steps=2, size=10)
    files = ours(package, "FeatureWriter", folder=folder / "atlas")
    targets = ours(package, "FeatureTargets", targets=["features.5:all", "head:1"], batch_size=3)
    trainer(package, files, **two).predict(sweep, targets, return_predictions=False)


def main() -> None:
    """Run the trainings."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance.treespec, LeafSpec.* is deprecated", category=FutureWarning
    )
    warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*recommended to use .*devices=1.*")
    torch.set_num_threads(1)
    over_two(sys.argv[2], Path(sys.argv[1]))


if __name__ == "__main__":
    main()
