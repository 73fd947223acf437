"""Go on with a render that was interrupted: a checkpoint beside its output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from featviz_pl.io.torch_files import read_torch_file
from featviz_pl.numerics.checks import whole_number
from featviz_pl.training import FeatureVisualization
from featviz_pl.training.checkpoint import optimizer_description

_KEY = "featviz_pl render"


class RenderCheckpoint(Callback):
    """Keep one checkpoint of a render, every so many steps and when it is interrupted, and refuse to go on from that of another.

    The file is whole or absent. It is kept after the run, so that nothing is lost before the picture is saved: see
    `discard`.

    Args:
        path: of the checkpoint.
        every: optimizer steps between two writes, 1 or more.

    Raises:
        ValueError: when a run goes on from a checkpoint of a render with other arguments; it names them.

    Example:
        >>> RenderCheckpoint(checkpoint_beside("out/feature.png")).path.name
        'feature.ckpt'
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 50) -> None:
        super().__init__()
        self.path, self.every = Path(path), whole_number("every", every)
        self._latest = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._latest = trainer.global_step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step != self._latest and step % self.every == 0:
            self._save(trainer)
        self._latest = step

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Where Lightning forks or spawns the processes, this runs in the one that started them, which has taken no
        # step.
        if isinstance(exception, KeyboardInterrupt) and trainer.global_step > 0:
            self._save(trainer)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = _arguments(trainer, pl_module)

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        there, here = checkpoint.get(_KEY, {}), _arguments(trainer, pl_module)
        different = [
            f"{name} {there.get(name)!r} there, {here.get(name)!r} here"
            for name in here
            if there.get(name) != here.get(name)
        ]
        if different:
            raise ValueError(
                f"resume: {str(self.path)!r} is of another render ({'; '.join(different)}); give the same, or delete the file"
            )

    def _save(self, trainer: Trainer) -> None:
        part = self.path.with_name(f".{self.path.name}.part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            part.replace(self.path)


def checkpoint_beside(output: str | os.PathLike[str]) -> Path:
    """Return where a render with this output keeps its checkpoint."""
    return Path(output).with_suffix(".ckpt")


def checkpoint_to_resume(path: str | os.PathLike[str]) -> str | None:
    """Return the checkpoint to go on from, None where there is none yet.

    Raises:
        ValueError: when the file is no checkpoint of a render.
    """
    if not Path(path).exists():
        return None
    checkpoint = read_torch_file(path, "resume", "delete the file to start anew")
    if not isinstance(checkpoint, dict) or _KEY not in checkpoint:
        raise ValueError(
            f"resume: {os.fspath(path)!r} is no checkpoint of a render; move it away, or choose another output"
        )
    return os.fspath(path)


def discard(path: str | os.PathLike[str]) -> None:
    """Remove a checkpoint that is no longer needed."""
    Path(path).unlink(missing_ok=True)


def _arguments(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Return what makes a render the picture that it is, besides image, objective and seed, which the module compares."""
    assert isinstance(module, FeatureVisualization)
    # The run's optimizer does not exist yet when a checkpoint is compared.
    optimizer = module.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    return {
        "network": module.network.name,
        "weights": module._ascent.weights_hash(),
        "views": repr(module._ascent.views),  # the callback may have taken those of the module back
        **optimizer_description(optimizer),
        "lr": module.lr,
        "steps": trainer.max_steps,
        "preset": module.recipe.name,
        **{name: str(value) for name, value in module.extra_provenance.items()},
    }
