"""Many features, many devices: a sweep renders every unit of whole layers, as a prediction of Lightning's."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from featviz_pl import __version__
from featviz_pl._starting import planned, read_start, start_digest
from featviz_pl._sweep_memory import MOST_ON_ACCELERATOR, MOST_ON_CPU, free_memory, kept_bytes, largest_batch
from featviz_pl._sweep_targets import ListedNetwork, TargetBatch, TargetBatches, batches_of, parse_sweep, resolve_units
from featviz_pl.ascent import Ascent, Step, ascend
from featviz_pl.checkpoints import optimizer_description, sums, unsaved
from featviz_pl.images import Image
from featviz_pl.io import as_saved
from featviz_pl.networks import FrozenNetwork, LayerInfo, as_network
from featviz_pl.networks.shadow import OUTPUT
from featviz_pl.numerics._checks import finite_number, size_pair, whole_number
from featviz_pl.objectives import Channel, Objective
from featviz_pl.presets import DEFAULT_PRESET, Recipe, image_class, recipe
from featviz_pl.statistics import Statistics
from featviz_pl.statistics.arguments import as_statistics, image_arguments
from featviz_pl.transforms import Compose, Views

__all__ = ["FeatureSweep", "FeatureTargets", "Rendered", "TargetBatch"]

OptimizerMaker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
TERMINATED = 128 + signal.SIGTERM


@dataclass
class Rendered:
    """Hold the pictures of one batch of a sweep, without padding.

    Args:
        images: (N, C, H, W) in [0, 1], in the 256 levels of a file.
        targets: what each looks for, ``layer:unit``.
        scores: the objective on each picture, without views.
        provenance: of each picture.
        failures: for each, why it failed, or None.
    """

    images: Tensor
    targets: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str | None] = field(default_factory=list)


class FeatureTargets(LightningDataModule):
    """Name the units that a `FeatureSweep` renders, and divide them over processes.

    Batches have one size, lie within one layer, and the last of a layer is filled with repetitions, which are not given out. Batch i
    belongs to process ``i % processes``: nothing is communicated, shares may be uneven, and each unit is rendered once.

    Args:
        targets: one or several of ``"features.9"`` (every unit of a layer), ``"features.9:3,5"``, ``"features.*:0-63"`` (a pattern
            over layers), or a file that ends in ``.txt`` with one of these on each line.
        batch_size: pictures that are rendered together, or ``"auto"``: as many as fit into memory, 8 at most on a CPU and 64
            elsewhere. A sweep that goes on in a folder keeps the folder's.

    Raises:
        ValueError: when a target does not parse; at setup when there is no such layer or unit, or fewer units than processes.

    Example:
        >>> targets = FeatureTargets(["0", "2:0-1"], batch_size=4)
        >>> network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
        >>> targets.resolve(FrozenNetwork(network).layers(16))
        >>> [(batch.layer, batch.units, batch.padding) for batch in targets.batches()]
        [('0', (0, 1, 2, 3), 0), ('0', (4, 5, 4, 5), 2), ('2', (0, 1, 0, 1), 2)]
    """

    def __init__(self, targets: str | Sequence[str], batch_size: int | str = "auto") -> None:
        super().__init__()
        self.asked = parse_sweep(targets)
        self.batch_size: int | None = None
        if batch_size != "auto":
            if isinstance(batch_size, str):
                raise ValueError(f"batch_size must be 'auto' or a number of pictures, got {batch_size!r}")
            self.batch_size = whole_number("batch_size", batch_size)
        self.units: dict[str, tuple[int, ...]] = {}  # of each layer that is swept
        self.layer_units: dict[str, int] = {}  # how many each of these layers has
        self.finished: Callable[[str], bool] | None = None  # set by the FeatureWriter

    def resolve(self, layers: Sequence[LayerInfo]) -> None:
        """Look up the layers and units."""
        self.units = resolve_units(self.asked, layers)
        self.layer_units = {layer.name: layer.units for layer in layers if layer.name in self.units}

    @property
    def count(self) -> int:
        """Number of units."""
        return sum(map(len, self.units.values()))

    def targets(self) -> list[str]:
        """Return every target, ``layer:unit``, in the order in which they are rendered."""
        return [f"{layer}:{unit}" for layer, units in self.units.items() for unit in units]

    def batches(self, rank: int = 0, ranks: int = 1) -> list[TargetBatch]:
        """Return the batches of one process."""
        if self.batch_size is None:
            raise RuntimeError("the batch size is not known before the sweep begins")
        return batches_of(self.units, self.batch_size)[rank::ranks]

    def setup(self, stage: str) -> None:
        """Resolve the targets with the network of the sweep."""
        self.bind(_sweep_of(self.trainer), self.trainer.world_size if self.trainer else 1)

    def bind(self, sweep: FeatureSweep, ranks: int) -> None:
        """Resolve the targets with the network of a sweep, once.

        Raises:
            ValueError: when there is no such layer or unit, or fewer units than processes.
        """
        if not self.units:
            self.resolve(sweep.network.layers(sweep.views_size))
        if self.count < ranks:
            raise ValueError(f"devices: {self.count} targets cannot be divided over {ranks} processes; give at most {self.count}")

    def predict_dataloader(self) -> TargetBatches:
        """Return this process's batches."""
        trainer = self.trainer
        assert trainer is not None
        if self.batch_size is None:
            self.batch_size = int(trainer.strategy.broadcast(_sweep_of(trainer).fitting_batch(self, trainer)))
        return TargetBatches(self.batches(trainer.global_rank, trainer.world_size), self.finished)


def _sweep_of(trainer: Trainer | None) -> FeatureSweep:
    module = None if trainer is None else trainer.lightning_module
    if not isinstance(module, FeatureSweep):
        raise TypeError(f"FeatureTargets belong to a FeatureSweep, not to {type(module).__name__}")
    return module


class FeatureSweep(LightningModule):
    """Render units of a network in batches: ``Trainer.predict`` with a `FeatureTargets`, and a `FeatureWriter` that saves them.

    Each batch is a bare loop of optimisation on the Trainer's device and in its precision. Every draw is keyed by the seed and the
    target, and every batch has one shape, so a picture is the same whatever stands beside it, on any number of processes and after
    any number of restarts. A unit that fails is reported with its reason and does its companions no harm.

    Args:
        network: a name, an ``nn.Module`` that takes pictures in [0, 1], or a `FrozenNetwork`.
        preset: a recipe, or its name, that fixes what is not given below.
        image: a parameterization, or its name, of which every batch gets a copy.
        size: of the pictures, one number or (height, width); the preset's, or the network's own.
        views: per step.
        steps: of each picture, 1 or more.
        lr: learning rate.
        optimizer: a class (gets `lr`), or a function that makes an optimizer of the parameters.
        seed: of every draw, 0 or more.
        start: a picture, or its file, from which every picture starts.
        stats: measured colours and spectrum, or their file from ``featviz stats``, for the parameterization of the recipe.

    Raises:
        ValueError: when a name is unknown, a number impossible, or the statistics or the start do not fit.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        >>> sweep = FeatureSweep(net, steps=2, size=16)
        >>> rendered = Trainer(accelerator="cpu", **quiet).predict(sweep, FeatureTargets("1:0-4", batch_size=3))
        >>> [(batch.targets, tuple(batch.images.shape)) for batch in rendered]
        [(['1:0', '1:1', '1:2'], (3, 3, 16, 16)), (['1:3', '1:4'], (2, 3, 16, 16))]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(
        self,
        network: FrozenNetwork | nn.Module | str = "embedded",
        preset: str | Recipe = DEFAULT_PRESET,
        image: Image | str | None = None,
        size: int | Sequence[int] | None = None,
        views: int | None = None,
        steps: int | None = None,
        lr: float | None = None,
        optimizer: OptimizerMaker | None = None,
        seed: int = 0,
        start: str | os.PathLike[str] | Tensor | None = None,
        stats: str | os.PathLike[str] | Statistics | None = None,
    ) -> None:
        super().__init__()
        self.network = as_network(network)  # no nn.Module: it stays out of checkpoints and DDP
        self.recipe = recipe(preset)
        self.steps = self.recipe.steps if steps is None else whole_number("steps", steps)
        self.seed = whole_number("seed", seed, least=0)
        self.lr = self.recipe.lr if lr is None else finite_number("lr", lr, above=0.0)
        self.optimizer = optimizer
        seen = self._seen(self.recipe.transforms, self.recipe.views if views is None else whole_number("views", views))
        measured = None if stats is None else as_statistics(stats, self.network.channels)
        self._plan = planned(self._described(image, size, start, measured), seen, start)
        self._stats = None if measured is None else measured.digest
        self.on_render_step: Callable[[int], None] | None = None  # told of every step; set by a progress bar
        self._network_dtype: torch.dtype | None = None
        self._guest: FrozenNetwork | None = None
        self._listed: ListedNetwork | None = None
        self._weights_hash: str | None = None
        self._settings: dict[str, Any] = {}
        self._parent = 0

    def _seen(self, transforms: Compose, count: int) -> Views:
        if self.recipe.size_of_views == "network" and self.network.size is not None:
            transforms = Compose(transforms.listed(), self.network.size)
        return Views(transforms, count)

    def _described(self, image: Image | str | None, size: int | Sequence[int] | None, start: Any, stats: Statistics | None) -> Image:
        if isinstance(image, Image):
            if size is not None and size_pair("size", size) != image.size:
                raise ValueError(f"size: {size} differs from that of the image, {image.size}; give one of them")
            if stats is not None:
                raise ValueError("stats: the image is built already; give it color=… and, where it takes one, spectrum=…")
            return image
        make = self.recipe.image if image is None else image_class(image)
        own = self.recipe.size or self.network.size or 224 if start is None else read_start(start, self.network.channels).shape[-2:]
        measured = {} if stats is None else image_arguments(make, stats)
        return make(size=size_pair("size", own if size is None else size), channels=self.network.channels, **measured)

    @property
    def image(self) -> Image:
        """The parameterization of which every batch gets a copy."""
        return self._plan.image

    @property
    def views(self) -> Views:
        """How the pictures are seen; those of outputs may be seen otherwise, see `views_of`."""
        return self._plan.views

    def views_of(self, layer: str) -> Views:
        """Return how the pictures of a layer's units are seen."""
        suited = self.recipe.suited([layer])
        return self.views if suited is self.recipe else self._seen(suited.transforms, self.views.count)

    @property
    def views_size(self) -> tuple[int, int]:
        """Size in which the network sees the pictures."""
        return self.views.transforms.output_size(self.image.size)

    def settings(self, precision: str = "32-true") -> dict[str, Any]:
        """Return everything that decides what the pictures look like, but the targets: plain values, equal for equal sweeps."""
        if self._weights_hash is None:
            self._weights_hash = self.network.weights_hash()
        values = {
            "featviz_pl": __version__,
            "torch": torch.__version__.partition("+")[0],
            "network": self.network.name,
            "weights": self._weights_hash,
            "mean": self.network.mean,
            "std": self.network.std,
            "preset": self.recipe.name,
            "size": self.image.size,
            "image": repr(self.image),
            "views": repr(self.views),
            "seed": self.seed,
            "steps": self.steps,
            **self._described_optimizer(""),
            "precision": precision,
        }
        if self.recipe.of_outputs:
            values |= {"views_of_outputs": repr(self.views_of(OUTPUT)), "optimizer_of_outputs": self._described_optimizer(OUTPUT)}
        values |= {} if self._plan.begun is None else {"start": start_digest(self._plan.begun)}
        values |= {} if self._stats is None else {"stats": self._stats}
        with torch.no_grad():
            values["constants"] = {name: [f"{mean:.4g}" for mean in sums(held)] for name, held in unsaved(self.image).items()}
        return dict(json.loads(json.dumps(values)))

    def _described_optimizer(self, layer: str) -> dict[str, Any]:
        """Return what decides how the pictures of a layer's units are optimised."""
        with torch.inference_mode(False):
            made = self._make_optimizer([nn.Parameter(torch.zeros(1))], layer)
            schedule = None if self.recipe.scheduler is None else type(self.recipe.scheduler(made, self.steps)).__name__
        return {**optimizer_description(made), "lr": float(made.defaults.get("lr", self.lr)), "scheduler": schedule}

    def origin(self, target: str) -> dict[str, Any]:
        """Return what the provenance of a target's picture says besides the settings, all but its score."""
        layer, _, unit = target.rpartition(":")
        return {"target": target, "objective": self._objective(layer, int(unit)).origin()}

    def _objective(self, layer: str, units: int | Sequence[int]) -> Objective:
        objective: Objective = Channel(layer, units)
        if self.recipe.wrap is None:
            return objective
        if self._listed is None:
            self._listed = ListedNetwork(self.network)
        return self.recipe.wrap(objective, self._listed, self.views_size, self._plan.begun)

    def _make_optimizer(self, parameters: Iterable[nn.Parameter], layer: str) -> torch.optim.Optimizer:
        if self.optimizer is None:
            return self.recipe.suited([layer]).make_optimizer(parameters, self.lr)
        return self.optimizer(parameters, lr=self.lr) if isinstance(self.optimizer, type) else self.optimizer(parameters)

    def problem(self, layer: str, units: Sequence[int], device: torch.device | str) -> Ascent:
        """Make what one batch solves, on a device."""
        held = self.network if self._guest is None else self._guest
        image = copy.deepcopy(self.image)
        if self._plan.start is not None:
            image.allocate(len(units))
            image.start_from(self._plan.start)
        made = Ascent(image, held, self._objective(layer, list(units)), self.seed, self.views_of(layer))
        made.initialize()
        made.image.to(device=device, dtype=self._network_dtype)
        made.prepare(device, self._network_dtype)
        return made

    def fitting_batch(self, targets: FeatureTargets, trainer: Trainer) -> int:
        """Return how many pictures one batch can hold on this device: one step of the deepest layer tells what a picture needs."""
        device = trainer.strategy.root_device
        layer, units = list(targets.units.items())[-1]
        with torch.inference_mode(False), torch.enable_grad():
            one = kept_bytes(self.problem(layer, units[:1], device))
        on_cpu = device.type == "cpu"
        share = free_memory(device) // (trainer.num_devices if on_cpu else 1)
        even = -(-targets.count // trainer.world_size)  # so that no process is left without work
        widest = max(map(len, targets.units.values()))
        return largest_batch(one, share, min(MOST_ON_CPU if on_cpu else MOST_ON_ACCELERATOR, even, widest))

    # What Lightning calls, in its order.

    def on_predict_start(self) -> None:
        """Bring the network to the device, once for all batches."""
        own = self.network
        with torch.inference_mode(False):
            module = own.shadow().module.to(device=self.device, dtype=self._network_dtype)
        self._guest = FrozenNetwork(module, own.mean, own.std, own.size, own.classes, own.name)
        self._parent = os.getppid()
        self._settings = self.settings(str(self.trainer.precision))

    def on_predict_end(self) -> None:
        """Let the copy of the network go."""
        self._guest = None

    def predict_step(self, batch: TargetBatch, batch_idx: int = 0) -> Rendered:
        """Render one batch; nothing is done for one whose pictures are all there."""
        if not batch.wanted:
            return Rendered(torch.empty(0, self.image.channels, *self.image.size))
        with torch.inference_mode(False), torch.enable_grad():
            problem = self.problem(batch.layer, batch.units, self.device)
            schedulers: list[torch.optim.lr_scheduler.LRScheduler] = []

            def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
                made = self._make_optimizer(parameters, batch.layer)
                if self.recipe.scheduler is not None:
                    schedulers.append(self.recipe.scheduler(made, self.steps))
                return made

            def on_step(index: int, step: Step) -> None:
                for scheduler in schedulers:
                    scheduler.step()
                self._after_step(index)

            failures: dict[int, str] = {}
            ascend(problem, self.steps, optimizer, on_step=on_step, failures=failures)
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                pictures = as_saved(problem.image())
            scores = problem.scores(pictures).tolist()
            wanted = list(batch.wanted)
            pictures = pictures[wanted].cpu()
        for place in wanted:
            if not abs(scores[place]) < float("inf"):
                failures.setdefault(place, "the score of the picture is not finite")
        names = [batch.targets[place] for place in wanted]
        own = [scores[place] for place in wanted]
        held = {**self._settings, "batch_size": len(batch.units)}
        origins = [{**held, **self.origin(name), "score": score} for name, score in zip(names, own)]
        return Rendered(pictures, names, own, origins, [failures.get(place) for place in wanted])

    def _after_step(self, index: int) -> None:
        """Tell the progress bar, and stop when this process has been asked to, or stands alone."""
        if self.on_render_step is not None:
            self.on_render_step(index)
        trainer = self._trainer
        if trainer is not None:
            if trainer.received_sigterm:  # Lightning only notes it
                raise SystemExit(TERMINATED)
            if trainer.local_rank > 0 and os.getppid() != self._parent:  # what started this process was killed
                raise SystemExit(TERMINATED)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeatureSweep:
        """Remember the precision asked for: it is meant for the network, the pictures keep float32 at least."""
        single, double = fn(torch.empty(0)).dtype, fn(torch.empty(0, dtype=torch.float64)).dtype
        if single == double:  # a cast, not a move
            self._network_dtype = single
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the copy of the network behind: it is made anew where the module arrives."""
        return {**super().__getstate__(), "_guest": None, "on_render_step": None}
