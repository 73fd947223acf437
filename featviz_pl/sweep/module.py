"""Many features, many devices: a sweep renders every unit of whole layers, as a prediction of Lightning's."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from featviz_pl.engine import Ascent, ascend
from featviz_pl.engine.threads import available_cores, fair_threads, fewer_threads, local_processes
from featviz_pl.images import Image
from featviz_pl.io import as_saved
from featviz_pl.io.provenance import provenance
from featviz_pl.networks import FrozenNetwork, as_network
from featviz_pl.networks.layer_address import OUTPUT
from featviz_pl.numerics.checks import learning_rate, whole_number
from featviz_pl.objectives import Channel, Objective, Target
from featviz_pl.presets import DEFAULT_PRESET, Recipe, recipe
from featviz_pl.statistics import Statistics
from featviz_pl.statistics.arguments import as_statistics
from featviz_pl.sweep.batch_size import automatic_batch_size
from featviz_pl.sweep.datamodule import FeatureTargets
from featviz_pl.sweep.start import prepare_start
from featviz_pl.sweep.targets import ListedNetwork, TargetBatch
from featviz_pl.training.checkpoint import optimizer_description, sums, unsaved
from featviz_pl.training.initial_image import initial_image, read_start, start_digest
from featviz_pl.training.stopping import TERMINATED
from featviz_pl.transforms import Views

OptimizerMaker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass
class RenderedBatch:
    """Hold the pictures of one batch of a sweep, without padding.

    Args:
        images: (N, C, H, W) in [0, 1], in the 256 levels of a file.
        targets: ``layer:unit`` of each.
        scores: the objective on each picture, without views.
        provenance: of each picture.
        failures: for each, why it failed, or None.

    Example:
        >>> RenderedBatch(torch.zeros(1, 3, 8, 8), ["output:1"], [0.5], [{"seed": 0}], [None]).targets
        ['output:1']
    """

    images: Tensor
    targets: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str | None] = field(default_factory=list)


class FeatureSweep(LightningModule):
    """Render units of a network in batches: ``Trainer.predict`` with a `FeatureTargets`, and a `FeatureWriter` that saves them.

    Each batch is a bare loop of optimisation on the Trainer's device and in its precision. Every draw is keyed by the
    seed and the target, and every batch has one shape, so a picture is the same whatever stands beside it, on any
    number of processes and after any number of restarts (with one number of threads: another adds up in another order).
    A unit that fails is reported with its reason and does its companions no harm. Where several processes share the
    cores of a machine, each computes with its share of them.

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
        stats: measured colors and spectrum, or their file from ``featviz stats``, for the parameterization of the
            recipe.

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
        *,
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
        self.lr = self.recipe.lr if lr is None else learning_rate(lr)
        self.optimizer = optimizer
        statistics = None if stats is None else as_statistics(stats, self.network.channels)
        channels = image.channels if isinstance(image, Image) else self.network.channels
        pictures = None if start is None else read_start(start, channels)
        first = initial_image(self.recipe, self.network, image, size, pictures, statistics)
        self._start = prepare_start(first, self.recipe.make_views(self.network, views), pictures)
        self._stats = None if statistics is None else statistics.digest
        self.on_render_step: Callable[[int], None] | None = None  # called after every step; set by a progress bar
        self._network_dtype: torch.dtype | None = None
        self._copy: FrozenNetwork | None = None  # of the network, on the device of the run
        self._listed: ListedNetwork | None = None
        self._weights_hash: str | None = None
        self._settings: dict[str, Any] = {}
        self._parent = 0

    @property
    def image(self) -> Image:
        """The parameterization of which every batch gets a copy."""
        return self._start.image

    @property
    def views(self) -> Views:
        """How the pictures are seen; those of outputs may be seen otherwise, see `views_of`."""
        return self._start.views

    def views_of(self, layer: str) -> Views:
        """Return how the pictures of a layer's units are seen."""
        return self.recipe.for_layers([layer]).make_views(self.network, self.views.count)

    @property
    def views_size(self) -> tuple[int, int]:
        """Size in which the network sees the pictures."""
        return self.views.transforms.output_size(self.image.size)

    def settings(self, precision: str = "32-true") -> dict[str, Any]:
        """Return everything that decides what the pictures look like, but the targets: plain values, equal for equal sweeps."""
        if self._weights_hash is None:
            self._weights_hash = self.network.weights_hash()
        values = {
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
        if self.recipe.output_overrides:
            values |= {
                "views_of_outputs": repr(self.views_of(OUTPUT)),
                "optimizer_of_outputs": self._described_optimizer(OUTPUT),
            }
        values |= {} if self._start.decoded_start is None else {"start": start_digest(self._start.decoded_start)}
        values |= {} if self._stats is None else {"stats": self._stats}
        values |= {"compile": True} if self.network.compile else {}
        with torch.no_grad():
            values["constants"] = {
                name: [f"{mean:.4g}" for mean in sums(tensor)] for name, tensor in unsaved(self.image).items()
            }
        return provenance(values)

    def _described_optimizer(self, layer: str) -> dict[str, Any]:
        """Return what decides how the pictures of a layer's units are optimised."""
        with torch.inference_mode(False):
            optimizer = self._make_optimizer([nn.Parameter(torch.zeros(1))], layer)
            scheduler = self.recipe.make_scheduler(optimizer, self.steps)
        lr = float(optimizer.defaults.get("lr", self.lr))
        return {**optimizer_description(optimizer), "lr": lr, "scheduler": scheduler and type(scheduler).__name__}

    def origin(self, target: str) -> dict[str, Any]:
        """Return what the provenance of a target's picture says besides the settings, all but its score."""
        parsed = Target.parse(target)
        return {"target": target, "objective": self._objective(parsed.layer, parsed.unit).portable_formula()}

    def _objective(self, layer: str, units: int | Sequence[int]) -> Objective:
        objective: Objective = Channel(layer, units)
        if self.recipe.make_objective is None:
            return objective
        if self._listed is None:
            self._listed = ListedNetwork(self.network)
        return self.recipe.make_objective(objective, self._listed, self.views_size, self._start.decoded_start)

    def _make_optimizer(self, parameters: Iterable[nn.Parameter], layer: str) -> torch.optim.Optimizer:
        if self.optimizer is None:
            return self.recipe.for_layers([layer]).make_optimizer(parameters, self.lr)
        return (
            self.optimizer(parameters, lr=self.lr) if isinstance(self.optimizer, type) else self.optimizer(parameters)
        )

    def ascent(self, layer: str, units: Sequence[int], device: torch.device | str) -> Ascent:
        """Return the problem of one batch on a device; outside of a run, where it is measured, nothing is compiled."""
        network = self.network.compiled(False) if self._copy is None else self._copy
        image, objective = self._start.copy_image(len(units)), self._objective(layer, list(units))
        ascent = Ascent(image, network, objective, self.seed, self.views_of(layer))
        ascent.initialize()
        ascent.image.to(device=device, dtype=self._network_dtype)
        ascent.prepare(device, self._network_dtype)
        return ascent

    def automatic_batch_size(self, targets: FeatureTargets, trainer: Trainer) -> int:
        """Return how many pictures a batch should hold on this device: see `FeatureTargets`."""
        precision, device = trainer.strategy.precision_plugin, trainer.strategy.root_device
        precision.convert_module(self)  # as Lightning does a little later
        with torch.inference_mode(False), torch.enable_grad(), precision.predict_step_context():
            size = automatic_batch_size(partial(self.ascent, device=device), targets.units, device, trainer.world_size)
        rank_zero_info(f"batch size {size}")
        return size

    # What Lightning calls, in its order.

    def on_predict_start(self) -> None:
        """Bring the network to the device, once for all batches."""
        with torch.inference_mode(False):
            module = self.network.reader().module.to(device=self.device, dtype=self._network_dtype)
        self._copy = self.network.replace(module=module)
        self._parent = os.getppid()
        self._settings = self.settings(str(self.trainer.precision))
        processes = local_processes(self.trainer)
        if fair_threads(processes) < torch.get_num_threads():
            rank_zero_info(
                f"{processes} processes share {available_cores()} cores: {fair_threads(processes)} threads in each"
            )

    def on_predict_end(self) -> None:
        """Drop the copy of the network."""
        self._copy = None

    def predict_step(self, batch: TargetBatch, batch_idx: int = 0) -> RenderedBatch:
        """Render one batch."""
        if not batch.units:
            return RenderedBatch(torch.empty(0, self.image.channels, *self.image.size))
        failures: dict[int, str] = {}
        with torch.inference_mode(False), torch.enable_grad(), fewer_threads(local_processes(self._trainer)):
            ascent = self.ascent(batch.layer, batch.units, self.device)
            ascend(
                ascent,
                self.steps,
                partial(self._make_optimizer, layer=batch.layer),
                on_step=lambda step, _: self._after_step(step),
                failures=failures,
                scheduler=self.recipe.make_scheduler,
            )
            with torch.no_grad():
                pictures = as_saved(ascent.decode())
            scores = ascent.scores(pictures).tolist()[: len(batch.targets)]
        for index, score in enumerate(scores):
            if not math.isfinite(score):
                failures.setdefault(index, "the score of the picture is not finite")
        settings = {**self._settings, "batch_size": len(batch.units)}
        return RenderedBatch(
            pictures[: len(scores)].cpu(),
            batch.targets,
            scores,
            [{**settings, **self.origin(target), "score": score} for target, score in zip(batch.targets, scores)],
            [failures.get(index) for index in range(len(scores))],
        )

    def _after_step(self, index: int) -> None:
        """Call the progress bar; stop on SIGTERM, or when the process that started this one has ended."""
        if self.on_render_step is not None:
            self.on_render_step(index)
        if (trainer := self._trainer) is not None:
            if trainer.received_sigterm:  # Lightning only records it
                raise SystemExit(TERMINATED)
            if trainer.local_rank > 0 and os.getppid() != self._parent:  # what started this process was killed
                raise SystemExit(TERMINATED)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeatureSweep:
        """Remember the precision: it is that of the network; pictures keep float32 at least."""
        single, double = fn(torch.empty(0)).dtype, fn(torch.empty(0, dtype=torch.float64)).dtype
        if single == double:  # a cast, not a move
            self._network_dtype = single
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the copy of the network behind: it is made anew where the module arrives."""
        return {**super().__getstate__(), "_copy": None, "on_render_step": None}
