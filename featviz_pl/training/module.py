"""Feature visualization as a LightningModule: the image is the model, the frozen network is the loss."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from featviz_pl.engine import Ascent, Step
from featviz_pl.engine.ascent import trained_parameters
from featviz_pl.engine.distributed import all_over_ranks, max_over_ranks, mean_over_ranks
from featviz_pl.engine.modes import trainer_autocast
from featviz_pl.engine.step import non_finite, require_finite
from featviz_pl.images import Image
from featviz_pl.io import as_saved, save_png
from featviz_pl.io.provenance import provenance
from featviz_pl.io.sheets import sheet
from featviz_pl.networks import FrozenNetwork, as_network
from featviz_pl.numerics.checks import learning_rate, whole_number
from featviz_pl.objectives import Objective, Target
from featviz_pl.objectives.target_syntax import parse_objective
from featviz_pl.presets import DEFAULT_PRESET, Recipe, recipe
from featviz_pl.training.checkpoint import (
    KEY,
    description,
    require_same,
    require_same_run,
    reschedule,
    whole_steps,
)
from featviz_pl.training.initial_image import initial_image
from featviz_pl.training.signals import DeferredSignals, RestoreSignals
from featviz_pl.training.steps import StepSource as StepSource
from featviz_pl.transforms import Views

OptimizerMaker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerMaker = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
SIGNAL_CHECK_INTERVAL = 8  # steps between two exchanges of received signals by several processes
LOG_EVERY = 25  # steps between values for a progress bar: each costs 0.2 ms, and on a GPU a synchronization


class FeatureVisualization(LightningModule):
    """Optimize pictures that maximize an objective on a frozen network.

    ``loss = -sum over pictures of the mean over views of objective(network(view(picture)))``. Automatic optimization:
    clipping, accumulation, precision, schedulers and any optimizer work as in every other training. The module brings
    its own steps, so ``Trainer(max_steps=256).fit(model)`` is enough; views come from the `Augmentation` callback.
    With ``Augmentation()`` the pictures are those of `featviz_pl.render` with the same arguments.

    Logged, every ``log_every_n_steps`` of the Trainer (25 without a logger): ``loss``, ``score`` (mean over pictures)
    and ``score/<term>`` for each term of the objective, over the views of all processes. The network is no part of
    checkpoints, optimizers, DDP or the summary, and stays as it was given.

    On several processes each evaluates its share of the views, and the gradient is that of all views.
    ``fit(ckpt_path=…)`` goes on exactly, after Ctrl-C too: a step that has begun is finished first. A run that is
    extended by a larger ``max_steps`` is the same as one that was as long from the start, unless something follows the
    progress of the run: a schedule of the views, an image that grows, a learning-rate schedule over a number of steps.
    Those are functions of step and number of steps, and go on as in the longer run from where they are.

    Args:
        network: a name, an ``nn.Module`` that takes pictures in [0, 1], or a `FrozenNetwork`.
        objective: maximized, or the shorthand of a target such as ``"features.9:33"``.
        image: trained, or the name of a parameterization; the preset's unless given.
        size: of the pictures in pixels, one number or (height, width); the preset's or the network's unless given.
        preset: a recipe, or its name, for all that is not given.
        steps: of a run whose Trainer sets no ``max_steps``, 1 or more; the preset's unless given.
        seed: of every draw, 0 or more.
        optimizer: a class such as ``torch.optim.SGD`` (gets `lr`), or a function that makes one of the parameters; the
            preset's unless given.
        lr: learning rate; the preset's unless given.
        scheduler: makes a learning-rate scheduler of the optimizer; stepped after every step. Unless given, the
            preset's over all steps of the run, and none beside an `optimizer`.

    Raises:
        ValueError: when the objective does not parse, asks for another number of pictures than the image holds, or a
            name is unknown.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> model = FeatureVisualization(net, "1:4", size=16)
        >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        >>> Trainer(max_steps=2, accelerator="cpu", **quiet).fit(model)
        >>> model.images.shape
        torch.Size([1, 3, 16, 16])

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def __init__(
        self,
        network: FrozenNetwork | nn.Module | str = "embedded",
        objective: Objective | Target | str | Sequence[Objective | Target | str] = "output:0",
        *,
        image: Image | str | None = None,
        size: int | Sequence[int] | None = None,
        preset: str | Recipe = DEFAULT_PRESET,
        steps: int | None = None,
        seed: int = 0,
        optimizer: OptimizerMaker | None = None,
        lr: float | None = None,
        scheduler: SchedulerMaker | None = None,
    ) -> None:
        super().__init__()
        self.network = as_network(network)  # no nn.Module: it stays out of checkpoints, optimizers and DDP
        self.image = initial_image(recipe(preset), self.network, image, size)
        objective = parse_objective(
            "objective", objective, lambda layer: self.network.count_units(layer, self.image.size)
        )
        self.recipe = recipe(preset).for_layers(source.layer for source in objective.sources())
        self.steps = self.recipe.steps if steps is None else whole_number("steps", steps)
        self.seed = whole_number("seed", seed, least=0)
        self.lr = self.recipe.lr if lr is None else learning_rate(lr)
        self.save_hyperparameters(  # of this class: a subclass may take others
            {"steps": self.steps, "seed": self.seed, "lr": self.lr}
            | ({"preset": preset} if isinstance(preset, str) else {})
        )
        self.objective = self._with_recipe_terms(objective)
        self.optimizer, self.scheduler = optimizer, scheduler
        maker: Any = optimizer or self.recipe.optimizer
        # Optimizer, learning rate, scheduler, views and steps of the latest run, for the provenance.
        self._run: dict[str, Any] = {
            "optimizer": getattr(getattr(maker, "func", maker), "__name__", "custom"),
            "lr": self.lr,
        }
        self.extra_provenance: dict[str, Any] = {}  # entries of the provenance of every picture
        self.views: Views | None = None  # see set_views
        self.last: Step | None = None  # the latest step's scores, for callbacks
        self._ascent = self._new_ascent()
        self._network_dtype: torch.dtype | None = None
        self._first_bad_step: Tensor | None = None  # on an accelerator; -1 while there is none
        self._signals = DeferredSignals()
        self.example_input_array = ()  # lets summaries and graph loggers run `forward`

    def _with_recipe_terms(self, objective: Objective) -> Objective:
        """Return an objective with the terms of the recipe, some of which compare with the first picture."""
        if self.recipe.make_objective is None:
            return objective
        size = self.recipe.make_views(self.network).transforms.size or self.image.size
        is_started = bool(self.image.initialized)
        start = self.images[:, : self.image.channels - self.image.alpha] if is_started else None
        return self.recipe.make_objective(objective, self.network, size, start)

    def _new_ascent(self) -> Ascent:
        return Ascent(self.image, self.network, self.objective, self.seed, self.views)

    def set_views(self, views: Views | None) -> None:
        """Set the views of a run, None for the pictures as they are; the `Augmentation` callback does.

        They are no submodule: a checkpoint must load without the callback that brought them.
        """
        self.__dict__["views"] = views

    @property
    def targets(self) -> list[str]:
        """The target of each picture."""
        return list(self._ascent.targets)

    @property
    def images(self) -> Tensor:
        """The pictures as they are now, (N, C, H, W) in [0, 1], detached."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            pictures: Tensor = self.image()
        return pictures

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole run, counting accumulated ones."""
        trainer = self._trainer
        if trainer is None:
            return self.steps
        return (trainer.max_steps if trainer.max_steps > 0 else self.steps) * trainer.accumulate_grad_batches

    @property
    def steps_taken(self) -> int:
        """Number of optimizer steps of these pictures, also those in other processes or before a checkpoint."""
        steps = 0 if self._trainer is None else self._trainer.global_step
        return int(steps or self._run.get("steps", 0))

    @property
    def views_of_this_rank(self) -> range:
        """The indices of the views that this process evaluates in each step."""
        total, ranks = (self.views.count, self.trainer.world_size) if self.views is not None else (1, 1)
        return range(self.trainer.global_rank if ranks > 1 else 0, total, ranks)

    @property
    def _rank_weight(self) -> float:
        """The factor with which a mean over processes is the mean over all views, also of uneven numbers of views."""
        views = self.views_of_this_rank
        return len(views) * views.step / views.stop

    def over_ranks(self, values: Tensor) -> Tensor:
        """Return the mean over all views of each process's mean over its views; every process must call it."""
        return mean_over_ranks(values * self._rank_weight, self.trainer.world_size)

    def forward(self) -> Tensor:
        """Decode the pictures, without views and network."""
        with warnings.catch_warnings():
            if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
                # For a graph logger: the graph is of these pictures, so what depends on their shape may be fixed.
                warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            pictures: Tensor = self.image()
        return pictures

    def scores(self, pictures: Tensor | None = None) -> Tensor:
        """Score pictures (N,), those of the module unless given, as they are saved: in 256 levels, without views."""
        with torch.autocast(self.device.type, enabled=False):
            self._prepare()
            return self._ascent.scores(as_saved(self.images if pictures is None else pictures))

    def _prepare(self) -> None:
        if not self._ascent.prepared:
            self._ascent.prepare(self.device, self._network_dtype)

    def provenance(self, index: int = 0, **more: Any) -> dict[str, Any]:
        """Return the provenance of picture `index`: plain values, equal for equal runs."""
        values = {
            "network": self.network.name,
            "weights": self._ascent.weights_hash(),
            "target": self.targets[index],
            "objective": self.objective.portable_formula(),
            "image": repr(self.image),
            "views": self._run.get("views", "None"),
            "seed": self.seed,
            **{name: value for name, value in self._run.items() if name not in ("views", "steps")},
            "preset": self.recipe.name,
        }
        return provenance({**values, **self.extra_provenance, **more})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the picture, or a sheet of all of them, as PNG with its provenance."""
        steps = {"steps": self.steps_taken} if self._trainer is not None or self.steps_taken else {}
        return save_png(sheet(self.images), path, self.sheet_provenance(score=self.scores().tolist(), **steps))

    def sheet_provenance(self, **more: Any) -> dict[str, Any]:
        """Return the provenance of the picture, or of a sheet of all of them: targets and scores are lists then."""
        if len(self.targets) > 1:
            return self.provenance(target=self.targets, **more)
        return self.provenance(**{name: value[0] if isinstance(value, list) else value for name, value in more.items()})

    # What Lightning calls, in its order.

    def setup(self, stage: str) -> None:
        """Draw the pictures; a checkpoint that is loaded next replaces them."""
        self._ascent = self._new_ascent()
        self._ascent.initialize()
        self._run["steps"] = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description of the run, with which one that goes on is compared."""
        checkpoint[KEY] = description(self.image, self.objective, self.seed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another run, and go on between two optimizer steps."""
        require_same(checkpoint, self.image, self.objective, self.seed)
        if self._trainer is None:  # the pictures are loaded, no run goes on
            return
        require_same_run(checkpoint, self.optimizer or self.recipe.optimizer, repr(self.views))
        whole_steps(checkpoint, self._trainer.accumulate_grad_batches)
        if self.optimizer is None and self.scheduler is None:
            optimizer = self.make_optimizer([nn.Parameter(torch.zeros(1))])
            reschedule(checkpoint, optimizer, self._make_scheduler(optimizer))

    def get_extra_state(self) -> Tensor:
        """Return what the run did, as JSON in a tensor: processes that it was spawned from load it with the weights."""
        return torch.tensor(list(json.dumps({**self._run, "steps": self.steps_taken}).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Load what a run did."""
        self._run = json.loads(bytes(state.tolist()))

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of these parameters: the given one, or the recipe's."""
        if self.optimizer is None:
            return self.recipe.make_optimizer(parameters, self.lr)
        with_lr = {"lr": self.lr} if isinstance(self.optimizer, type) else {}
        return self.optimizer(parameters, **with_lr)

    def _make_scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler | None:
        if self.scheduler is not None:
            return self.scheduler(optimizer)
        if self.optimizer is not None:
            return None
        accumulated = 1 if self._trainer is None else self._trainer.accumulate_grad_batches
        return self.recipe.make_scheduler(optimizer, self.total_steps // accumulated)

    def configure_optimizers(self) -> Any:
        """Make the optimizer of the image's parameters, and its scheduler where there is one."""
        optimizer = self.make_optimizer(trained_parameters(self.image))
        scheduler = self._make_scheduler(optimizer)
        self._run = {
            "optimizer": type(optimizer).__name__,
            "lr": float(optimizer.defaults.get("lr", self.lr)),
            "views": repr(self.views),
            "steps": self._run.get("steps", 0),
        }
        if scheduler is None:
            return optimizer
        self._run["scheduler"] = type(scheduler).__name__
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "step"}
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            # Lightning steps these after it has saved checkpoints, and without the value: see `lr_scheduler_step`.
            config |= {"reduce_on_plateau": False, "frequency": self._log_every() or LOG_EVERY}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler; one that follows a value gets the loss over the views of all processes."""
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) and self.last is not None:
            scheduler.step(float(self.over_ranks(self.last.loss)))
        else:
            super().lr_scheduler_step(scheduler, metric)

    def train_dataloader(self) -> StepSource:
        """Return the steps of the run: one run is one epoch."""
        return StepSource(self.total_steps)

    def configure_callbacks(self) -> list[Callback]:
        """Return a callback that restores signal handlers after a run that fails."""
        return [RestoreSignals(self._signals)]

    def on_fit_start(self) -> None:
        """Copy the networks to the device of the run, and check everything that can be checked before the first step."""
        self.last = self._first_bad_step = None
        with trainer_autocast("32-true", self.device.type):
            self._prepare()
        if self.trainer.global_step >= self.trainer.max_steps > 0:
            warnings.warn(
                f"this Trainer has already taken its {self.trainer.max_steps} steps and will take none; make a new "
                "Trainer for each run",
                stacklevel=2,
            )
        ranks = self.trainer.world_size
        if self.views is not None and self.views.count < ranks:
            raise ValueError(
                f"views: {self.views.count} views cannot be divided over {ranks} processes; give at least as many"
            )
        find_unused = getattr(self.trainer.strategy, "_ddp_kwargs", {}).get("find_unused_parameters", False)
        if ranks > 1 and self.image.has_idle_parameters and not find_unused:
            raise ValueError(
                f"image: some parameters of {type(self.image).__name__} get no gradient in some steps; on several "
                "processes use Trainer(strategy='ddp_find_unused_parameters_true')"
            )
        if ranks > 1 and any(node.joint_views for node in self.objective.optimized()):
            raise ValueError(
                "objective: it needs all views at once (joint_views), so they cannot be divided over processes"
            )

    def on_train_start(self) -> None:
        """Defer Ctrl-C and the signals of a cluster to the end of the step in which they come."""
        self._signals.install()

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Return the loss of one step over the views of this process."""
        views = self.views_of_this_rank
        over_ranks = None if len(views) == views.stop else all_over_ranks
        with trainer_autocast(self.trainer.precision, self.device.type):
            self._prepare()  # Lightning's learning rate finder runs before `on_fit_start`
            step = self._ascent.step(batch, self.total_steps, views, over_ranks)
        self.last, loss = replace(step, loss=step.loss.detach()), step.loss
        if self.trainer.world_size > 1:
            # A score that is not finite in one process must stop all of them: through the gradient, which they share.
            is_finite = torch.isfinite(self.last.loss)
            loss = loss * self._rank_weight * torch.ones_like(self.last.loss).masked_fill(~is_finite, torch.nan)
        every = self._log_every()
        if every and (batch_idx + 1) % every == 0:
            self._raise_non_finite()
            self._log(step)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        """Deliver a signal that came during the optimizer step that has just ended."""
        interval = 1 if self.trainer.world_size == 1 else SIGNAL_CHECK_INTERVAL
        if (batch_idx + 1) % (interval * self.trainer.accumulate_grad_batches) == 0:
            self._deliver_signal()

    def on_train_end(self) -> None:
        """Restore the signal handlers."""
        self._deliver_signal()
        self._signals.restore()

    def _deliver_signal(self) -> None:
        """Deliver a signal in all processes after the same step: the checkpoint that it may start needs all of them."""
        if number := max_over_ranks(self._signals.first, self.trainer.world_size, self.device):
            self._signals.deliver(number)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a non-finite step changes the pictures: at once on a CPU, with the next logged step on a GPU."""
        if self.last is None:
            return
        has_scaler = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # it skips infinite steps
        gradients = [] if has_scaler else [p.grad for p in self.image.parameters() if p.grad is not None]
        if self.device.type == "cpu":
            require_finite(self.trainer.global_step, self.last.loss, gradients)
        else:
            self._mask_non_finite(self.last.loss, gradients)

    def on_train_epoch_end(self) -> None:
        """End after one pass: a Trainer without ``max_steps`` would go on for 1,000."""
        self._raise_non_finite()
        self.trainer.should_stop = True

    def _log_every(self) -> int:
        """Return the number of steps between two logged values, 0 for no logging."""
        if self.trainer.barebones:
            return 0
        return int(getattr(self.trainer, "log_every_n_steps", LOG_EVERY)) if self.trainer.loggers else LOG_EVERY

    def _log(self, step: Step) -> None:
        """Log means over the views of all processes: schedulers and callbacks must act in all of them alike."""
        means = [step.loss.detach(), step.scores.mean(), *(scores.mean() for scores in step.terms.values())]
        values = self.over_ranks(torch.stack([value.to(step.loss.dtype) for value in means])).cpu()
        for name, value in zip(("loss", "score", *(f"score/{name}" for name in step.terms)), values):
            self.log(name, value, prog_bar=name == "loss")

    @torch.no_grad()
    def _mask_non_finite(self, loss: Tensor, gradients: list[Tensor]) -> None:
        """Set the gradients of a non-finite step to zero, and record it on the device, without waiting for that."""
        finite = torch.isfinite(loss).all()
        for gradient in gradients:
            finite = finite & torch.isfinite(gradient).all()
        for gradient in gradients:
            gradient.copy_(torch.where(finite, gradient, torch.zeros_like(gradient)))
        step = torch.full_like(finite, self.trainer.global_step, dtype=torch.long)
        first = torch.full_like(step, -1) if self._first_bad_step is None else self._first_bad_step
        self._first_bad_step = torch.where((first < 0) & ~finite, step, first)

    def _raise_non_finite(self) -> None:
        """Raise for a step that `_mask_non_finite` recorded; this waits for the device."""
        if self._first_bad_step is not None and (step := int(self._first_bad_step)) >= 0:
            raise non_finite(step, "score or the gradient")

    # Moves, casts and copies.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeatureVisualization:
        """Record a cast, which is meant for the network: the image keeps float32 at least."""
        single, double = fn(torch.empty(0)).dtype, fn(torch.empty(0, dtype=torch.float64)).dtype
        if single == double:  # a cast, not a move
            self._network_dtype = single
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._ascent.apply_(fn)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out copies of networks and signal handlers."""
        return {**super().__getstate__(), "_ascent": None, "last": None, "_first_bad_step": None, "_signals": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state, with a new `Ascent`."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._ascent, self._signals = self._new_ascent(), DeferredSignals()
