"""Save pictures while they are optimized."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from featviz_pl.io import save_animation, save_png
from featviz_pl.io.sheets import sheet
from featviz_pl.numerics.checks import whole_number
from featviz_pl.objectives.target_syntax import picture_names
from featviz_pl.training import FeatureVisualization
from featviz_pl_callbacks._support import make_writable, visualization
from featviz_pl_callbacks.image_logging import log_targets


class ImageSnapshot(Callback):
    """Save the pictures at an interval of steps and at the end, with their provenance; animate the snapshots.

    Several pictures make one contact sheet for each snapshot, and at the end also a file each. A run that is
    interrupted or fails saves its final pictures too. Only the first process writes.

    Args:
        folder: for the files; created when missing.
        every: the interval, or the list of steps at which to save, each 1 or more.
        animate: join the snapshots at the end.

    Raises:
        ValueError: when a step is below 1, or, at setup, when the folder cannot be written.

    Example:
        >>> ImageSnapshot("out", every=[32, 128, 512]).at(128), ImageSnapshot("out", every=32).at(48)
        (True, False)

    Logs: ``pictures/<target>`` and ``pictures/<target>/score`` of each picture, and the sheet of several as
    ``pictures``, at the steps of the file names.

    Writes:
        ==========================  ==================================  =============================================
        file                        content                             when
        ==========================  ==================================  =============================================
        ``step-000032.png``         the picture, or a sheet of all      at each listed step
        ``final.png``               the same, with the score            at the end, on an interrupt and on a failure
        ``final-<picture>.png``     each picture alone, of several      with ``final.png``
        ``animation.webp``          the snapshots, then the last state  with ``final.png``
        ==========================  ==================================  =============================================
    """

    def __init__(self, folder: str | os.PathLike[str], every: int | Sequence[int] = 64, animate: bool = True) -> None:
        super().__init__()
        self.folder = Path(folder)
        steps = every if isinstance(every, Sequence) else [every]
        self.steps = tuple(whole_number("every", step) for step in steps)
        self.periodic = not isinstance(every, Sequence)
        self.animate = animate
        self._last_step = 0
        self._frames: list[str] = []

    def at(self, step: int) -> bool:
        """Return whether the pictures after `step` optimizer steps are saved."""
        return step > 0 and (step % self.steps[0] == 0 if self.periodic else step in self.steps)

    @property
    def state_key(self) -> str:
        """Key in checkpoints, different for two instances."""
        return self._generate_state_key(folder=str(self.folder), every=list(self.steps))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"latest": self._last_step, "frames": list(self._frames)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_step, self._frames = int(state_dict["latest"]), list(state_dict["frames"])

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        visualization(self, pl_module)
        self._last_step, self._frames = 0, []
        if trainer.is_global_zero:
            make_writable(self.folder)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._last_step or not self.at(step):  # an accumulated step ends several batches
            return
        self._last_step = step
        if trainer.is_global_zero:
            module = visualization(self, pl_module)
            images = module.images
            name = f"step-{step:06d}.png"
            save_png(sheet(images), self.folder / name, module.sheet_provenance(steps=step))
            self._frames.append(name)
            if trainer.loggers:
                log_targets(trainer, "pictures", images, module.targets, module.scores().tolist(), step, sheet(images))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, visualization(self, pl_module))

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.global_step > 0:
            failed = not isinstance(exception, KeyboardInterrupt)
            with suppress(OSError):  # a full disk must not hide the first exception
                self._finish(trainer, visualization(self, pl_module), failed)

    def _finish(self, trainer: Trainer, module: FeatureVisualization, failed: bool = False) -> None:
        if not trainer.is_global_zero:
            return
        step, images = trainer.global_step, module.images
        scores = [None] * len(images) if failed else module.scores().tolist()  # a network that failed may fail again
        save_png(sheet(images), self.folder / "final.png", module.sheet_provenance(steps=step, score=scores))
        if len(images) > 1:
            for index, name in enumerate(picture_names(module.targets)):
                provenance = module.provenance(index, steps=step, score=scores[index])
                save_png(images[index], self.folder / f"final-{name}.png", provenance)
        frames = [self.folder / name for name in [*self._frames, "final.png"] if (self.folder / name).is_file()]
        if self.animate and len(frames) > 1:
            save_animation(frames, self.folder / "animation.webp")
