"""The command ``featviz sweep``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featviz_pl.cli.arguments import (
    MANY,
    RUN_OPTIONS,
    add_json_argument,
    add_network_arguments,
    add_run_arguments,
    check_run_options,
    load_network,
    trainer_arguments,
    whole,
)
from featviz_pl.cli.exit_codes import SOME_FAILED, STOPPED

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from featviz_pl.callbacks import FeatureWriter
    from featviz_pl.sweep import FeatureSweep, FeatureTargets
    from featviz_pl.sweep.photo_sheets import PhotoSummary
    from featviz_pl.sweep.photos import PhotoSource
    from featviz_pl_callbacks.feature_writer import SweepSummary

_LISTED = 5  # failures that are named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``featviz sweep`` takes."""
    add = parser.add_argument
    add_network_arguments(parser, default=None)
    layers = "layer:all (every unit), layer:0-63, layer:3,5, 'features.*:0-63', or a FILE.txt of these"
    add("layers", nargs="+", metavar="LAYERS", help=layers)
    output = "folder of the pictures; a sweep there goes on"
    add("-o", "--output", required=True, metavar="DIR", help=output)
    add_run_arguments(parser)
    photos = "show beside each picture the photos in DIR that excite the unit most; or those TopActivations wrote"
    add("--photos", metavar="DIR", help=photos)
    count = "photos beside each picture (default: 6)"
    add("--photo-count", type=whole("photo_count"), metavar="N", help=count)
    batch_size = "pictures in a batch, or auto (default: auto)"
    add("--batch-size", type=_batch_size, default="auto", metavar="N", help=batch_size)
    overwrite = "remove the pictures of an earlier sweep in DIR and begin anew"
    add("--overwrite", action="store_true", help=overwrite)
    add_json_argument(parser)


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else whole("batch_size", most=MANY)(text)


def run(options: argparse.Namespace) -> int:
    """Run a sweep and return its exit code: 0, 3 when units failed, 130 for Ctrl-C, 143 for a termination."""
    from featviz_pl.cli.progress import announced, quiet_lightning
    from featviz_pl.sweep import FeatureSweep, FeatureTargets

    targets = FeatureTargets(options.layers, options.batch_size)
    check_run_options(options)
    devices = trainer_arguments(options)
    source = _photo_source(options)
    quiet_lightning()
    sweep = FeatureSweep(load_network(options), **{name: getattr(options, name) for name in RUN_OPTIONS})
    trainer, writer = _trainer(options, devices, _precision(options, sweep, targets))
    if source is not None and trainer.is_global_zero:  # refused before anything is rendered
        targets.bind(sweep, trainer.world_size)
        source.check(targets.units, sweep.network.channels)
    began = time.perf_counter()
    with announced("featviz sweep", "featviz_pl.networks"):
        stopped = _predict(trainer, sweep, targets, writer)
    if not trainer.is_global_zero:  # Lightning would kill the first process for another exit code before it reports
        return 0
    photos: PhotoSummary | None = None
    if source is not None and not stopped:
        try:
            photos = _photo_sheets(source, trainer, sweep, targets, writer)
        except KeyboardInterrupt:
            stopped = signal.SIGINT
    if stopped:
        return report_stopped("featviz sweep", stopped)
    summary = require_complete(writer)
    _report(options, sweep, summary, time.perf_counter() - began, photos)
    return report_failures("featviz sweep", summary)


def _photo_source(options: argparse.Namespace) -> PhotoSource | None:
    """Return the source of ``--photos``."""
    if options.photos is None:
        if options.photo_count is not None:
            raise ValueError("photo_count: belongs to --photos DIR, which is not given")
        return None
    from featviz_pl.sweep.photos import PhotoFolder, photo_source

    source = photo_source(options.photos, options.photo_count)
    if isinstance(source, PhotoFolder) and Path(options.output).resolve().is_relative_to(source.folder.resolve()):
        raise ValueError(
            f"photos: the output folder {options.output!r} lies in {options.photos!r}, and the pictures would count as "
            "photos the next time; give an output folder elsewhere"
        )
    return source


def _precision(options: argparse.Namespace, sweep: FeatureSweep, targets: FeatureTargets) -> Any:
    """Return the precision of the Trainer; ``auto`` is that of the sweep which goes on, or measured."""
    from featviz_pl.engine.precision import AUTO, fastest_precision
    from featviz_pl.sweep.manifest import read_manifest
    from featviz_pl.training.device import device_to_measure

    if options.precision != AUTO:
        return options.precision
    settings = None if options.overwrite else read_manifest(options.output).settings
    if settings is not None and "precision" in settings:
        return str(settings["precision"])
    device = device_to_measure(options.accelerator, options.devices, options.num_nodes)
    targets.bind(sweep, 1)
    layer, units = list(targets.units.items())[-1]  # the deepest needs most
    fastest = fastest_precision(sweep.ascent(layer, units[: targets.batch_size or 1], device), sweep.steps)
    print(f"featviz sweep: {fastest}", file=sys.stderr)
    return fastest.name


def _trainer(options: argparse.Namespace, devices: dict[str, Any], precision: Any) -> tuple[Trainer, FeatureWriter]:
    from lightning.pytorch import Trainer

    from featviz_pl.callbacks import FeatureWriter, SweepProgressBar

    progress = sys.stderr.isatty()
    writer = FeatureWriter(options.output, options.overwrite)
    trainer = Trainer(
        **devices,
        precision=precision,
        callbacks=[writer, *([SweepProgressBar()] if progress else [])],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
    )
    return trainer, writer


def _predict(
    trainer: Trainer, sweep: FeatureSweep, targets: FeatureTargets, writer: FeatureWriter
) -> signal.Signals | None:
    """Sweep, and return the signal that stopped it, or None."""
    from featviz_pl.training.stopping import run_until_stopped

    if trainer.is_global_zero:  # before other processes are started: what is refused here is refused in one line
        writer.claim(trainer, sweep, targets)
    return run_until_stopped(trainer, lambda: trainer.predict(sweep, targets, return_predictions=False))


def _photo_sheets(
    source: PhotoSource, trainer: Trainer, sweep: FeatureSweep, targets: FeatureTargets, writer: FeatureWriter
) -> PhotoSummary:
    from featviz_pl.cli.progress import photo_progress
    from featviz_pl.sweep.photo_sheets import save_photo_sheets

    with photo_progress(leave=False) as progress:
        return save_photo_sheets(writer.folder, source, sweep, targets, trainer.strategy.root_device, progress)


def _report(
    options: argparse.Namespace, sweep: FeatureSweep, summary: SweepSummary, seconds: float, photos: PhotoSummary | None
) -> None:
    """Print what the sweep has rendered, and what the photos of its sheets lack."""
    done = summary.rendered + summary.skipped
    if options.json:
        report: dict[str, Any] = {
            "path": options.output,
            "network": options.network,
            "target": options.layers[0] if len(options.layers) == 1 else options.layers,
            "steps": sweep.steps,
            "seed": options.seed,
            "score": sum(summary.scores) / len(summary.scores) if summary.scores else None,
            "seconds": round(seconds, 3),
            "done": summary.rendered,
            "skipped": summary.skipped,
            "failed": len(summary.failed),
        }
        if photos is not None:
            report |= {
                "photos": options.photos,
                "photo_sheets": photos.sheets,
                "photo_sheets_new": photos.new,
                "photos_read": None if photos.photos is None else photos.photos - len(photos.unreadable),
                "photos_unreadable": len(photos.unreadable),
                "without_photos": len(photos.without),
            }
        print(json.dumps(report))
    else:
        beside = "" if photos is None else f", {photos.sheets} sheets with photos"
        counts = f"{done} pictures of {options.network}, {summary.rendered} of them new{beside}"
        print(f"{options.output}: {counts}, in {seconds:.1f} s")
    if photos is not None and photos.unreadable:
        why = f" ({photos.reason})" if photos.reason else ""
        unreadable = f"{len(photos.unreadable)} photos cannot be read: {_listed(photos.unreadable)}{why}"
        print(f"featviz sweep: {unreadable}", file=sys.stderr)
    if photos is not None and photos.without:
        without = f"{len(photos.without)} units have no photos: {_listed(photos.without)}"
        print(f"featviz sweep: {without}", file=sys.stderr)


# What every sweep reports, also that of `featviz predict`.


def report_stopped(program: str, stopped: signal.Signals) -> int:
    """Say that a sweep was stopped, and return the exit code."""
    text = f"{STOPPED[stopped]}; what is done is whole, and the same command goes on from there"
    print(f"{program}: {text}", file=sys.stderr)
    return 128 + stopped


def require_complete(writer: FeatureWriter) -> SweepSummary:
    """Return the summary of a sweep that has ended.

    Raises:
        ValueError: when units are missing.
    """
    summary = writer.summary
    assert summary is not None
    if summary.missing:
        raise ValueError(
            f"{len(summary.missing)} of the units are missing ({_listed(summary.missing)}): a process of the sweep has "
            "ended early; the same command goes on from there"
        )
    return summary


def report_failures(program: str, summary: SweepSummary) -> int:
    """Name the units that failed, count lines of the manifest that were skipped, and return the exit code."""
    if summary.skipped_lines:
        form = "of another form, or with a path out of the folder"
        print(f"{program}: {summary.skipped_lines} lines of the manifest were skipped: {form}", file=sys.stderr)
    if not summary.failed:
        return 0
    reasons = _listed([f"{target}: {reason}" for target, reason in summary.failed.items()], "; ")
    print(f"{program}: {len(summary.failed)} units failed: {reasons}", file=sys.stderr)
    return SOME_FAILED


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    more = [f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return separator.join([*names[:_LISTED], *more])
