"""Feature visualization as a LightningModule: the image is the model, the frozen network is the loss."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from featviz_pl import __version__
from featviz_pl.ascent import Ascent, Step, non_finite, require_finite
from featviz_pl.images import FourierImage, Image
from featviz_pl.io import as_saved, save_png, sheet
from featviz_pl.networks import FrozenNetwork, as_network
from featviz_pl.numerics._checks import finite_number, whole_number
from featviz_pl.objectives import Objective, parse_target
from featviz_pl.transforms import Views

OptimizerMaker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerMaker = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
LOG_EVERY = 25  # steps between values for a progress bar: each costs a fifth of a millisecond, and on a GPU a synchronisation


class StepSource:
    """Count the steps of one run: sized, no Sequence, resumable. Nothing is loaded from disk.

    Args:
        steps: how many.

    Example:
        >>> list(StepSource(3))
        [0, 1, 2]
    """

    def __init__(self, steps: int) -> None:
        self.steps, self._next, self._resumed = steps, 0, False

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        if not self._resumed:
            self._next = 0
        self._resumed = False
        while self._next < self.steps:
            self._next += 1
            yield self._next - 1

    def state_dict(self) -> dict[str, int]:
        """Return where the run is."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue there."""
        self._next, self._resumed = int(state["next"]), True


class FeatureVisualization(LightningModule):
    """Optimise pictures until units of a frozen network fire.

    ``loss = -sum over pictures of the mean over views of objective(network(view(picture)))``. Automatic optimisation: clipping,
    accumulation, precision, schedulers and any optimizer work as in every other training. The module brings its own steps, so
    ``Trainer(max_steps=512).fit(model)`` is enough; views come from the `Augmentation` callback.

    Logged, every ``log_every_n_steps`` of the Trainer (25 without a logger): ``loss``, ``score`` (mean over pictures) and
    ``score/<term>`` for each term of the objective. The network is no part of checkpoints, optimizers, DDP or the summary, and stays
    as it was given.

    Args:
        network: a name, an ``nn.Module`` that takes pictures in [0, 1], or a `FrozenNetwork`.
        objective: what is maximised, or the shorthand of a target such as ``"features.9:33"``.
        image: what is trained; a `FourierImage` of the network's size unless given.
        steps: of a run whose Trainer sets no ``max_steps``, 1 or more.
        seed: of every draw, 0 or more.
        optimizer: a class such as ``torch.optim.SGD`` (gets `lr`), or a function that makes an optimizer of the parameters; Adam
            unless given.
        lr: learning rate.
        scheduler: makes a learning-rate scheduler of the optimizer; stepped after every step.

    Raises:
        ValueError: when the objective does not parse or asks for another number of pictures than the image holds.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> model = FeatureVisualization(net, "1:4", FourierImage(16))
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
        objective: Objective | str = "output:0",
        image: Image | None = None,
        steps: int = 512,
        seed: int = 0,
        optimizer: OptimizerMaker | None = None,
        lr: float = 0.05,
        scheduler: SchedulerMaker | None = None,
    ) -> None:
        super().__init__()
        self.steps, self.seed = whole_number("steps", steps), whole_number("seed", seed, least=0)
        self.lr = finite_number("lr", lr, above=0.0)
        self.save_hyperparameters("steps", "seed", "lr")
        self.network = as_network(network)  # no nn.Module: it stays out of checkpoints, optimizers and DDP
        self.objective = parse_target(objective) if isinstance(objective, str) else objective
        if not isinstance(self.objective, Objective):
            raise TypeError(f"objective must be an Objective or a target such as 'features.9:33', got {type(objective).__name__}")
        self.image = FourierImage(self.network.size or 224, channels=self.network.channels) if image is None else image
        if not isinstance(self.image, Image):
            raise TypeError(f"image must be an Image, got {type(image).__name__}")
        self.optimizer, self.scheduler = optimizer, scheduler
        maker: Any = optimizer or torch.optim.Adam
        # What the provenance says of optimizer, learning rate and scheduler; a run puts in what it really made.
        self._optimised_by: dict[str, Any] = {"optimizer": getattr(getattr(maker, "func", maker), "__name__", "own"), "lr": self.lr}
        self.origin: dict[str, Any] = {}  # what else the provenance of every picture says, such as the preset
        self.views: Views | None = None  # set by the Augmentation callback
        self.last: Step | None = None  # the latest step's scores, for callbacks
        self._problem: Ascent = self._new_problem()
        self._network_dtype: torch.dtype | None = None
        self._first_bad_step: Tensor | None = None  # on an accelerator; -1 while there is none
        self.example_input_array = ()  # lets summaries and graph loggers run `forward`

    def _new_problem(self) -> Ascent:
        return Ascent(self.image, self.network, self.objective, self.seed, self.views)

    @property
    def targets(self) -> list[str]:
        """What each picture looks for."""
        return list(self._problem.targets)

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

    def forward(self) -> Tensor:
        """Decode the pictures: no views, no network."""
        pictures: Tensor = self.image()
        return pictures

    def scores(self, pictures: Tensor | None = None) -> Tensor:
        """Score the pictures (N,) as they are saved, in 256 levels and without views; the module's own unless given."""
        problem = self._problem
        if not problem.prepared:
            problem.prepare(self.device, self._network_dtype)
        return problem.scores(as_saved(self.images if pictures is None else pictures))

    def provenance(self, index: int = 0, **more: Any) -> dict[str, Any]:
        """Return where picture `index` comes from: plain values, equal for equal runs."""
        return {
            "featviz_pl": __version__,
            "torch": torch.__version__.partition("+")[0],
            "network": self.network.name,
            "weights": self._problem.weights_hash(),
            "target": self.targets[index],
            "objective": repr(self.objective),
            "image": repr(self.image),
            "views": repr(self._problem.views),
            "seed": self.seed,
            **self._optimised_by,
            **self.origin,
            **more,
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the picture, or a sheet of all of them, as PNG with its origin."""
        steps = {} if self._trainer is None else {"steps": self._trainer.global_step}  # unknown in a module that has only been loaded
        return save_png(sheet(self.images), path, self.sheet_provenance(score=self.scores().tolist(), **steps))

    def sheet_provenance(self, **more: Any) -> dict[str, Any]:
        """Return where the picture, or the sheet of all of them, comes from: for several, targets and scores are lists."""
        if len(self.targets) > 1:
            return self.provenance(target=self.targets, **more)
        return self.provenance(**{name: value[0] if isinstance(value, list) else value for name, value in more.items()})

    # What Lightning calls, in its order.

    def setup(self, stage: str) -> None:
        """Bind the views and draw the pictures; a checkpoint that is loaded next replaces them."""
        self._problem = self._new_problem()
        self._problem.initialize()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other pictures, in words."""
        held, own = checkpoint["state_dict"].get("image.weight"), self.image.weight
        if held is not None and own is not None and held.shape != own.shape:
            raise ValueError(
                f"checkpoint: it holds {len(held)} pictures with weights {tuple(held.shape[1:])}, this run has {len(own)} with "
                f"{tuple(own.shape[1:])}; give the units, the kind of image and the size with which it was made"
            )

    def configure_optimizers(self) -> Any:
        """Make the optimizer of the image's parameters, and the scheduler where one was given."""
        parameters = [parameter for parameter in self.image.parameters() if parameter.requires_grad]
        if self.optimizer is None:
            optimizer: torch.optim.Optimizer = torch.optim.Adam(parameters, lr=self.lr)
        elif isinstance(self.optimizer, type):
            optimizer = self.optimizer(parameters, lr=self.lr)
        else:
            optimizer = self.optimizer(parameters)
        self._optimised_by = {"optimizer": type(optimizer).__name__, "lr": float(optimizer.defaults.get("lr", self.lr))}
        if self.scheduler is None:
            return optimizer
        plan: dict[str, Any] = {"scheduler": self.scheduler(optimizer), "interval": "step"}
        if isinstance(plan["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau):
            plan |= {"monitor": "loss", "strict": False, "frequency": self._log_every() or LOG_EVERY}
        self._optimised_by["scheduler"] = type(plan["scheduler"]).__name__
        return {"optimizer": optimizer, "lr_scheduler": plan}

    def train_dataloader(self) -> StepSource:
        """Return the steps of the run: one run is one epoch."""
        return StepSource(self.total_steps)

    def on_fit_start(self) -> None:
        """Check everything that can be checked, once, where the run takes place."""
        self.last = self._first_bad_step = None
        self._problem.prepare(self.device, self._network_dtype)
        if self.trainer.global_step >= self.trainer.max_steps > 0:
            warnings.warn(
                f"this Trainer has already taken its {self.trainer.max_steps} steps and will take none; make a new Trainer for each run",
                stacklevel=2,
            )
        if self.views is not None and self.views.count < self.trainer.world_size:
            raise ValueError(
                f"views: {self.views.count} views cannot be divided over {self.trainer.world_size} processes; give at least as many"
            )
        divided = self.trainer.world_size > 1 and any(node.joint_views for node in self.objective.walk())
        if divided:
            raise ValueError("objective: it needs all views at once (joint_views), so they cannot be divided over processes")

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Return the loss of one step over this process's share of the views."""
        total = 1 if self.views is None else self.views.count
        ranks = self.trainer.world_size if self.views is not None else 1
        own = range(self.trainer.global_rank if ranks > 1 else 0, total, ranks)
        step = self._problem.step(batch, self.total_steps, own)
        self.last = replace(step, loss=step.loss.detach())
        # The mean over ranks of these losses is the loss over all views, also where the shares are uneven.
        loss: Tensor = step.loss * (len(own) * ranks / total)
        every = self._log_every()
        if every and (batch_idx + 1) % every == 0:
            self._raise_non_finite()
            self._log(step, loss)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a non-finite step reaches the pictures: at once on a CPU, with the next logged step on a GPU."""
        if self.last is None:
            return
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # a scaler skips infinite steps by itself
        gradients = [] if scaled else [p.grad for p in self.image.parameters() if p.grad is not None]
        if self.device.type == "cpu":
            require_finite(self.trainer.global_step, self.last.loss, gradients)
        else:
            self._mask_non_finite(self.last.loss, gradients)

    def on_train_epoch_end(self) -> None:
        """End after one pass: a Trainer without ``max_steps`` would go on for 1,000."""
        self._raise_non_finite()
        self.trainer.should_stop = True

    def _log_every(self) -> int:
        """Return the steps between two logged values, 0 where nothing is to be logged."""
        if self.trainer.barebones:
            return 0
        return int(getattr(self.trainer, "log_every_n_steps", LOG_EVERY)) if self.trainer.loggers else LOG_EVERY

    def _log(self, step: Step, loss: Tensor) -> None:
        self.log("loss", loss.detach().cpu(), prog_bar=True)
        self.log("score", step.scores.mean().cpu())
        for name, scores in step.terms.items():
            self.log(f"score/{name}", scores.mean().cpu())

    @torch.no_grad()
    def _mask_non_finite(self, loss: Tensor, gradients: list[Tensor]) -> None:
        """Keep a non-finite step out of the picture without waiting for the device; remember the first such step there."""
        finite = torch.isfinite(loss).all()
        for gradient in gradients:
            finite = finite & torch.isfinite(gradient).all()
        for gradient in gradients:
            gradient.copy_(torch.where(finite, gradient, torch.zeros_like(gradient)))
        step = torch.full_like(finite, self.trainer.global_step, dtype=torch.long)
        first = torch.full_like(step, -1) if self._first_bad_step is None else self._first_bad_step
        self._first_bad_step = torch.where((first < 0) & ~finite, step, first)

    def _raise_non_finite(self) -> None:
        """Raise for a step that `_mask_non_finite` kept out; this waits for the device."""
        if self._first_bad_step is not None and (step := int(self._first_bad_step)) >= 0:
            raise non_finite(step, "score or the gradient")

    # What must travel with the module, and what must not.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeatureVisualization:
        """Remember the precision asked for: it is meant for the network, the image keeps float32 at least."""
        single, double = fn(torch.empty(0)).dtype, fn(torch.empty(0, dtype=torch.float64)).dtype
        if single == double:  # a cast, not a move
            self._network_dtype = single
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._problem.apply_(fn)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave shadows behind: they are made anew where the module arrives."""
        state = dict(super().__getstate__())
        return {**state, "_problem": None, "last": None, "_first_bad_step": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, and bind image, network and objective again."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._problem = self._new_problem()
