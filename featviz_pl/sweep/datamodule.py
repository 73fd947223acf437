"""The units of a sweep, as batches for its Trainer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from lightning.pytorch import LightningDataModule, Trainer

from featviz_pl.networks import FrozenNetwork, LayerInfo
from featviz_pl.numerics.checks import whole_number
from featviz_pl.objectives import Target
from featviz_pl.sweep.targets import TargetBatch, TargetBatches, batches_of, parse_sweep, resolve_units


@runtime_checkable
class Sweep(Protocol):
    """What `FeatureTargets` asks of the module of a sweep."""

    network: FrozenNetwork

    @property
    def views_size(self) -> tuple[int, int]:
        """Size in which the network sees the pictures."""

    def automatic_batch_size(self, targets: FeatureTargets, trainer: Trainer) -> int:
        """Return the batch size for these targets."""


class FeatureTargets(LightningDataModule):
    """Name the units that a `FeatureSweep` renders, and divide them over processes.

    Batches have one size, lie within one layer, and the last of a layer is filled with repetitions, which are not given
    out. Batch i belongs to process ``i % processes``: nothing is communicated, shares may be uneven, and each unit is
    rendered once. What is there already when a sweep goes on has no place in any batch.

    Args:
        targets: one or several of ``"features.9:all"`` (every unit of a layer), ``"features.9:3,5"``,
            ``"features.*:0-63"`` (a pattern over layers), or a file that ends in ``.txt`` with one of these on each line.
        batch_size: pictures that are rendered together, or ``"auto"``: 4 on a CPU, and on an accelerator as many as fit
            into its memory, 64 at most. A sweep that goes on in a folder keeps the folder's.

    Raises:
        ValueError: when a target does not parse; at setup when there is no such layer or unit, or fewer units than
            processes.

    Example:
        >>> from torch import nn
        >>> targets = FeatureTargets(["0:all", "2:0-1"], batch_size=4)
        >>> network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
        >>> targets.resolve(FrozenNetwork(network).layers(16))
        >>> [(batch.layer, batch.units, batch.padding) for batch in targets.batches()]
        [('0', (0, 1, 2, 3), 0), ('0', (4, 5, 4, 5), 2), ('2', (0, 1, 0, 1), 2)]
    """

    def __init__(self, targets: str | Target | Sequence[str | Target], batch_size: int | str = "auto") -> None:
        super().__init__()
        self.requested = parse_sweep(targets)
        self.batch_size: int | None = None
        if batch_size != "auto":
            if isinstance(batch_size, str):
                raise ValueError(f"batch_size must be 'auto' or a number of pictures, got {batch_size!r}")
            self.batch_size = whole_number("batch_size", batch_size)
        self.units: dict[str, tuple[int, ...]] = {}  # of each layer that is swept
        self.layer_units: dict[str, int] = {}  # how many each of these layers has
        self.finished: Collection[str] = frozenset()  # targets that need no rendering; set by the FeatureWriter

    def resolve(self, layers: Sequence[LayerInfo]) -> None:
        """Look up the layers and units."""
        self.units = resolve_units(self.requested, layers)
        self.layer_units = {layer.name: layer.units for layer in layers if layer.name in self.units}

    @property
    def count(self) -> int:
        """Number of units."""
        return sum(map(len, self.units.values()))

    def targets(self) -> list[str]:
        """Return every target, ``layer:unit``, in the order in which they are rendered."""
        return [f"{layer}:{unit}" for layer, units in self.units.items() for unit in units]

    def batches(self, rank: int = 0, ranks: int = 1) -> list[TargetBatch]:
        """Return the batches of one process, of what is not finished."""
        if self.batch_size is None:
            raise RuntimeError("the batch size is not known before the sweep begins")
        left = {
            layer: [unit for unit in units if f"{layer}:{unit}" not in self.finished]
            for layer, units in self.units.items()
        }
        return batches_of(left, self.batch_size)[rank::ranks]

    def setup(self, stage: str) -> None:
        """Resolve the targets with the network of the sweep."""
        self.bind(_sweep_of(self.trainer), self.trainer.world_size if self.trainer else 1)

    def bind(self, sweep: Sweep, ranks: int) -> None:
        """Resolve the targets with the network of a sweep, once.

        Raises:
            ValueError: when there is no such layer or unit, or fewer units than processes.
        """
        if not self.units:
            self.resolve(sweep.network.layers(sweep.views_size))
        if self.count < ranks:
            raise ValueError(
                f"devices: {self.count} targets cannot be divided over {ranks} processes; give at most {self.count}"
            )

    def predict_dataloader(self) -> TargetBatches:
        """Return this process's batches."""
        trainer = self.trainer
        assert trainer is not None
        if self.batch_size is None:
            size = _sweep_of(trainer).automatic_batch_size(self, trainer) if trainer.is_global_zero else 0
            self.batch_size = int(trainer.strategy.broadcast(size))
        return TargetBatches(self.batches(trainer.global_rank, trainer.world_size))


def _sweep_of(trainer: Trainer | None) -> Sweep:
    module = None if trainer is None else trainer.lightning_module
    if not isinstance(module, Sweep):
        raise TypeError(f"FeatureTargets belong to a FeatureSweep, not to {type(module).__name__}")
    return module
