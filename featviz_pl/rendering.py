"""Render pictures with one call."""

from __future__ import annotations

import base64
import copy
import html
import io
import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from featviz_pl.callbacks import Augmentation, DistributedViews, StepProgressBar
from featviz_pl.engine import Ascent
from featviz_pl.engine.modes import default_modes
from featviz_pl.engine.precision import AUTO, FULL, REDUCED, fastest_precision
from featviz_pl.images import Image
from featviz_pl.io import as_saved, save_png, to_pillow
from featviz_pl.io.files import check_output
from featviz_pl.io.sheets import sheet
from featviz_pl.networks import FrozenNetwork, as_network, load_network
from featviz_pl.numerics.host_memory import return_freed_memory
from featviz_pl.numerics.resampling import resize
from featviz_pl.objectives import Objective, Target
from featviz_pl.objectives.target_syntax import parse_objective, picture_names
from featviz_pl.presets import DEFAULT_PRESET, Recipe, recipe
from featviz_pl.statistics import Statistics
from featviz_pl.statistics.arguments import as_statistics
from featviz_pl.training import FeatureVisualization
from featviz_pl.training.device import device_to_measure
from featviz_pl.training.initial_image import initial_image, read_start, start_digest
from featviz_pl.training.quiet import quiet
from featviz_pl.training.stopping import TERMINATED, run_until_stopped
from featviz_pl_callbacks.render_checkpoint import RenderCheckpoint, checkpoint_to_resume

# Defaults of render() without arguments, chosen by eye.
FIRST_TARGET, FIRST_SIZE, FIRST_STEPS = "output:church", 128, 128


@dataclass
class RenderResult:
    """Hold rendered pictures; shows itself in a notebook.

    Args:
        images: (N, C, H, W) in [0, 1], in the 256 levels of a file.
        scores: the objective on each picture, without views.
        targets: of each picture.
        provenance: of each picture.
        seconds: that the run took.
        interrupted: whether it was stopped before its last step.
        is_writer: whether this process is the one that writes files, of a run on several.
    """

    images: Tensor
    scores: list[float]
    targets: list[str]
    provenance: list[dict[str, Any]] = field(repr=False)
    seconds: float
    interrupted: bool = False
    is_writer: bool = True

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Save the picture as PNG with its origin; of several, a sheet under this name and each beside it. Return the pictures' paths."""
        chosen = check_output(path)
        if len(self.images) == 1:
            return [save_png(self.images[0], chosen, self.provenance[0])]
        paths = [
            save_png(image, chosen.with_name(f"{chosen.stem}-{name}.png"), origin)
            for image, name, origin in zip(self.images, picture_names(self.targets), self.provenance)
        ]
        save_png(sheet(self.images), chosen, {**self.provenance[0], "target": self.targets, "score": self.scores})
        return paths

    def _repr_html_(self) -> str:
        """Show the pictures with their targets and scores."""
        figures = []
        for image, target, score in zip(self.images, self.targets, self.scores):
            buffer = io.BytesIO()
            to_pillow(image).save(buffer, format="PNG")
            data = base64.b64encode(buffer.getvalue()).decode()
            figures.append(
                f'<figure style="display:inline-block"><img src="data:image/png;base64,{data}">'
                f"<figcaption>{html.escape(target)}: {score:.4g}</figcaption></figure>"
            )
        return "".join(figures)


@default_modes()
@quiet()
def render(
    network: str | nn.Module | FrozenNetwork = "embedded",
    target: str | Target | Objective | Sequence[str | Target | Objective] | None = None,
    *,
    weights: str = "DEFAULT",
    steps: int | None = None,
    size: int | Sequence[int] | None = None,
    views: int | None = None,
    seed: int = 0,
    preset: str | Recipe = DEFAULT_PRESET,
    lr: float | None = None,
    image: str | Image | None = None,
    start: str | os.PathLike[str] | Tensor | None = None,
    stats: str | os.PathLike[str] | Statistics | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | os.PathLike[str] | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    num_nodes: int = 1,
    precision: Any = "32-true",
    compile: bool = False,  # noqa: A002 - torch's name
    progress: bool = False,
) -> RenderResult:
    """Render what a target of a network responds to, in one call.

    The same as fitting a `FeatureVisualization` with a `Trainer` and an `Augmentation`, without what Lightning logs.

    Args:
        network: a name, ``"package.module:factory"``, an ``nn.Module`` or a `FrozenNetwork`.
        target: the shorthand of a target, any objective, or a list of these, one for each picture. Without one, the
            embedded network shows a class of its own choice, at 128 px and in 128 steps unless these are given.
        weights: for a network by name; see `load_network`.
        steps: of the optimisation; the preset's unless given.
        size: of the picture, one number or (height, width); the network's own unless given, or that of `start`.
        views: per step; the preset's number unless given.
        seed: of every draw.
        preset: a recipe by name.
        lr: learning rate; the preset's unless given.
        image: name of a parameterization (``"fourier"``, ``"pixel"``), or one that is built; the preset's unless given.
        start: a picture, or its file, from which to start.
        stats: measured colors and spectrum, or their file from ``featviz stats``, for the parameterization of the
            recipe.
        callbacks: further Lightning callbacks.
        resume: file of a checkpoint that is kept during the run; where it exists, the run goes on from there.
        accelerator: of the Trainer.
        devices: of the Trainer.
        num_nodes: of the Trainer.
        precision: of the Trainer; only the network runs in less than float32. ``"auto"`` measures whether
            ``"bf16-mixed"`` is faster here, without compiling, and logs what it found.
        compile: let the run use ``torch.compile`` on the network; False leaves that to a `FrozenNetwork` of yours,
            which says what it costs. Objectives may bring networks of their own, with flags of their own.
        progress: show a progress bar.

    Raises:
        ValueError: when anything is asked for that cannot work, before the first step.
        SystemExit: with code 143, when the process is told to end (SIGTERM).

    Example:
        >>> result = render(nn.Conv2d(3, 4, 3), "output:2", steps=3, size=16, accelerator="cpu")
        >>> result.images.shape, result.targets
        (torch.Size([1, 3, 16, 16]), ['output:2'])
    """
    frozen = load_network(network, weights) if isinstance(network, str) else as_network(network)
    frozen = frozen.compiled() if compile else frozen
    if target is None:
        if frozen.name != "embedded":
            raise ValueError(
                "target: say what to look for, for example 'features.9:33'; `featviz layers NETWORK` lists the layers"
            )
        target = FIRST_TARGET
        size = FIRST_SIZE if size is None and image is None and start is None else size
        steps = FIRST_STEPS if steps is None else steps
    channels = image.channels if isinstance(image, Image) else frozen.channels
    pictures = None if start is None else read_start(start, channels)
    statistics = None if stats is None else as_statistics(stats, frozen.channels)
    # A copy: an image that is built may serve the caller's next render too.
    image = copy.deepcopy(initial_image(recipe(preset), frozen, image, size, pictures, statistics))
    objective = parse_objective("target", target, lambda layer: frozen.count_units(layer, image.size))
    if pictures is not None:
        image.allocate(objective.count() or image.count or len(pictures))
        image.start_from(resize(pictures, image.size).clamp(0, 1))
    model = FeatureVisualization(frozen, objective, image=image, preset=preset, steps=steps, seed=seed, lr=lr)
    augmentation = Augmentation(views=views)
    if precision == AUTO:
        precision = _measured_precision(model, augmentation, accelerator, devices, num_nodes, resume)
    model.extra_provenance = {"precision": str(precision)}
    if frozen.compile:  # it rounds elsewhere
        model.extra_provenance["compile"] = True
    if start is not None:
        model.extra_provenance["start"] = start_digest(model.images)
    if statistics is not None:
        model.extra_provenance["stats"] = statistics.digest
    ckpt_path = None if resume is None else checkpoint_to_resume(resume)
    if not all(isinstance(callback, Callback) for callback in callbacks):
        raise TypeError(f"callbacks must be Lightning callbacks, got {callbacks!r}")
    default_callbacks: list[Callback] = [augmentation]
    default_callbacks += [StepProgressBar()] if progress else []
    default_callbacks += [] if resume is None else [RenderCheckpoint(resume)]
    default_callbacks += [DistributedViews()] if str(devices) != "1" or num_nodes > 1 else []
    trainer = Trainer(
        max_steps=model.steps,
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=precision,
        callbacks=[*default_callbacks, *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        log_every_n_steps=min(50, model.steps),
    )
    began = time.perf_counter()
    stopped = run_until_stopped(trainer, partial(trainer.fit, model, ckpt_path=ckpt_path, weights_only=True))
    if stopped == signal.SIGTERM:
        raise SystemExit(TERMINATED)
    if stopped and trainer.global_step == 0:
        raise KeyboardInterrupt
    result = _result(model, trainer, time.perf_counter() - began, interrupted=stopped is not None)
    return_freed_memory()
    return result


def _measured_precision(
    model: FeatureVisualization,
    augmentation: Augmentation,
    accelerator: str,
    devices: int | str,
    num_nodes: int,
    resume: Any,
) -> str:
    """Measure in which precision the run is fastest, on a copy of its image."""
    device = device_to_measure(accelerator, devices, num_nodes)
    if resume is not None and Path(resume).exists():
        raise ValueError(
            f"precision: 'auto' may choose otherwise than the run that goes on; give '{FULL}' or '{REDUCED}'"
        )
    image = copy.deepcopy(model.image).to(device)
    fastest = fastest_precision(
        Ascent(image, model.network.compiled(False), model.objective, model.seed, augmentation.views_for(model)),
        model.steps,
    )
    logging.getLogger(__name__).info("%s", fastest)
    return fastest.name


def _result(model: FeatureVisualization, trainer: Trainer, seconds: float, interrupted: bool) -> RenderResult:
    model.cpu()
    images = as_saved(model.images)
    scores = [float(score) for score in model.scores()]
    provenance = [model.provenance(index, score=score, steps=model.steps_taken) for index, score in enumerate(scores)]
    # A Trainer and its module refer to one another, and Python collects cycles late: free what is large.
    model._ascent.release()
    model.zero_grad()
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
    return RenderResult(images, scores, model.targets, provenance, seconds, interrupted, trainer.is_global_zero)
