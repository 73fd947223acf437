"""Save the pictures of a sweep: a file for each unit, a manifest, and a contact sheet for each layer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from typing_extensions import override

from featviz_pl.io import save_png
from featviz_pl.io.files import layer_folder
from featviz_pl.io.sheets import save_sheet
from featviz_pl.numerics.digest import digest
from featviz_pl.objectives import Target
from featviz_pl.sweep import FeatureSweep, FeatureTargets, RenderedBatch
from featviz_pl.sweep.folder import SweepFolder
from featviz_pl.sweep.manifest import Entry, picture_entry, picture_path, read_manifest, read_origin
from featviz_pl.sweep.targets import by_layer
from featviz_pl_callbacks._support import sweep_and_targets


@dataclass
class SweepSummary:
    """The outcome of a sweep for its targets.

    Args:
        rendered: number of pictures of this run.
        skipped: number of pictures of earlier runs.
        failed: targets that failed, in earlier runs too, with their reasons.
        missing: targets without a picture or a reason, because the run was stopped.
        scores: of all pictures.
        skipped_lines: lines of an earlier manifest that had another form or a path out of the folder.
    """

    rendered: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    skipped_lines: int = 0


class _NoInterval:
    """Interval of a writer that keeps Lightning from looking for batch indices, which only its own DataLoaders have."""

    on_batch = on_epoch = False


class FeatureWriter(BasePredictionWriter):
    """Save every picture of a `FeatureSweep` as soon as its batch is done, and continue a sweep that was stopped.

    Pictures are whole or absent, and carry their provenance. A picture whose file is whole and whose provenance fits is
    not rendered again. Units that failed are in the manifest with their reason, and not tried again. Two sweeps at once
    in one folder are refused, and so are other settings than those of the pictures in it.

    Args:
        folder: for the files; created when missing.
        overwrite: remove the pictures and the manifest of an earlier sweep in the folder first.

    Raises:
        ValueError: at setup, when the folder cannot be written, is in use, or holds pictures of other settings.
        TypeError: at setup, when there is no `FeatureSweep` with `FeatureTargets`.

    Example:
        >>> import tempfile, torch
        >>> from featviz_pl.sweep.module import FeatureSweep, FeatureTargets
        >>> quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
        >>> sweep = FeatureSweep(torch.nn.Conv2d(3, 4, 3), steps=2, size=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = FeatureWriter(folder)
        ...     trainer = Trainer(accelerator="cpu", callbacks=[writer], **quiet)
        ...     _ = trainer.predict(sweep, FeatureTargets("output:all", batch_size=2), return_predictions=False)
        ...     print(sorted(path.name for path in writer.folder.rglob("[!.]*.*") if path.is_file()))
        ['0.png', '1.png', '2.png', '3.png', 'manifest.jsonl', 'output.png']

    Writes:
        =====================================  ================================================  ==================
        file                                   content                                           when
        =====================================  ================================================  ==================
        ``<layer>/<unit>.png``                 the picture                                       after its batch
        ``<layer>/<unit // 1000>/<unit>.png``  the same, in layers of more than 1,000 units      after its batch
        ``manifest.<rank>.jsonl``              a line for each unit of one process               after its batch
        ``manifest.jsonl``                     the settings, and at the end a line for each unit  start and end
        ``<layer>.png``                        all pictures of the layer                         at the end
        =====================================  ================================================  ==================
    """

    def __init__(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        super().__init__("batch")
        self.interval: Any = _NoInterval
        self.folder = Path(folder)
        self._files = SweepFolder(self.folder)
        self.overwrite = overwrite
        self.summary: SweepSummary | None = None  # of the first process, at the end
        self._settings: Entry | None = None  # of the sweep, batch size included
        self._failed: dict[str, str] = {}
        self._sweep: FeatureSweep | None = None
        self._targets: FeatureTargets | None = None

    def claim(self, trainer: Trainer, sweep: FeatureSweep, targets: FeatureTargets) -> None:
        """Lock the folder in the first process of a sweep, before others start; `setup` does so itself.

        Raises:
            ValueError: when the sweep cannot begin.
        """
        targets.bind(sweep, trainer.world_size)
        earlier = self._files.claim(self.overwrite)  # settings of an earlier run
        try:
            size = targets.batch_size
            if size is None and earlier is not None:
                size = earlier.get("batch_size")
            if size is None:
                size = sweep.automatic_batch_size(targets, trainer)
            settings = {**sweep.settings(str(trainer.precision)), "batch_size": int(size)}
            self._files.resume_or_start(settings, earlier)
        except BaseException:
            self._files.close()
            raise
        self._settings = settings

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._sweep, self._targets = sweep_and_targets(self, trainer, pl_module)
        refusal: Exception | None = None
        finished: frozenset[str] = frozenset()
        if trainer.is_global_zero:
            try:
                if self._settings is None:
                    self.claim(trainer, self._sweep, self._targets)
                entries = read_manifest(self.folder).entries
                self._failed = {target: entry["failed"] for target, entry in entries.items() if "failed" in entry}
                finished = frozenset(filter(self.is_finished, self._targets.targets()))
            except (ValueError, OSError) as error:
                refusal = error
        # All processes raise or agree on what is left: one that waited for a process that has gone would hang.
        self._settings, finished, refusal = trainer.strategy.broadcast((self._settings, finished, refusal))
        if refusal is not None:
            raise refusal
        assert self._settings is not None
        self._targets.batch_size = self._settings["batch_size"]
        self._targets.finished = finished
        self._files.join(trainer.global_rank)

    def is_finished(self, target: str) -> bool:
        """Return whether a target needs no rendering: its picture is whole and of this sweep, or it failed before."""
        return target in self._failed or self._finished(target) is not None

    def _finished(self, target: str) -> Entry | None:
        """Return the manifest's entry of a picture, read from its file; None without a picture of this sweep."""
        assert self._sweep is not None
        assert self._settings is not None
        path = self._path(target)
        origin = read_origin(path)
        expected = {**self._settings, **self._sweep.origin(target)}
        if origin is None or {key: value for key, value in origin.items() if key != "score"} != expected:
            return None
        return picture_entry(self.folder, path, origin)

    def _path(self, target: str) -> Path:
        assert self._targets is not None
        return picture_path(self.folder, target, self._targets.layer_units[Target.parse(target).layer])

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.write_on_batch_end(trainer, pl_module, outputs, None, batch, batch_idx, dataloader_idx)

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: RenderedBatch,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        for image, target, origin, failure in zip(
            prediction.images, prediction.targets, prediction.provenance, prediction.failures
        ):
            if failure is None:
                path = save_png(image, self._path(target), origin)
                self._files.record(picture_entry(self.folder, path, origin))
            else:
                self._files.record({"target": target, "failed": failure})

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._files.wait_for(
            trainer.world_size if trainer.is_global_zero else 1
        ):  # no locks on this file system
            trainer.strategy.barrier("sweep")
        if trainer.is_global_zero:
            self._finish()
        self._files.close()

    def _finish(self) -> None:
        assert self._targets is not None
        assert self._settings is not None
        targets = self._targets.targets()
        entries = read_manifest(self.folder).entries
        lost = [entry for target in targets if target not in entries and (entry := self._finished(target)) is not None]
        rendered = self._files.rendered()
        entries = self._files.merge(self._settings, lost)
        results = {target: entries[target] for target in targets if target in entries}
        pictures = {target for target, entry in results.items() if "failed" not in entry}
        self.summary = SweepSummary(
            rendered=len(pictures & rendered),
            skipped=len(pictures - rendered),
            failed={target: entry["failed"] for target, entry in results.items() if "failed" in entry},
            missing=[target for target in targets if target not in results],
            scores=[results[target]["score"] for target in targets if target in pictures],
            skipped_lines=self._files.skipped_lines,
        )
        layers = by_layer(entries)
        for layer in self._targets.units:
            self._save_sheet(layer, layers.get(layer, []), entries)

    def _save_sheet(self, layer: str, targets: list[str], entries: dict[str, Entry]) -> None:
        """Save a contact sheet of a layer, unless the sheet on disk has the same pictures."""
        folder = layer_folder(self.folder, layer)
        path = folder.with_name(f"{folder.name}.png")
        files = {target: self.folder / entries[target]["path"] for target in targets if "failed" not in entries[target]}
        files = {target: file for target, file in files.items() if file.is_file()}  # a user may delete some
        pictures = digest([json.dumps([[target, entries[target].get("score")] for target in files])])
        if (read_origin(path) or {}).get("pictures") != pictures:
            provenance = {**(self._settings or {}), "target": layer, "pictures": pictures}
            save_sheet([files.get(target) for target in targets], path, provenance)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    def __repr__(self) -> str:
        """Return the constructor call."""
        return f"FeatureWriter({str(self.folder)!r}, overwrite={self.overwrite})"

    def _release(self) -> None:
        self._files.close()
        if self._targets is not None:
            self._targets.finished = frozenset()
        self._settings = self._sweep = self._targets = None
