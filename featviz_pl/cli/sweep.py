"""The command ``featviz sweep``. Heavy libraries are imported when it runs."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featviz_pl.cli.exit_codes import SOME_FAILED, STOPPED

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from featviz_pl.callbacks import FeatureWriter
    from featviz_pl.networks import FrozenNetwork
    from featviz_pl.sweep import FeatureSweep, FeatureTargets
    from featviz_pl.sweep.photo_sheets import PhotoSummary
    from featviz_pl.sweep.photos import PhotoSource

_SHOWN = 5  # failures that are named


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``featviz sweep`` takes besides the network."""
    parser.add_argument(
        "layers",
        nargs="+",
        metavar="LAYERS",
        help="layer:all (every unit), layer:0-63, layer:3,5, 'features.*:0-63', or a FILE.txt of these",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="folder of the pictures; a sweep there goes on"
    )
    parser.add_argument("--steps", type=int, help="optimisation steps of each picture (the preset's unless given)")
    parser.add_argument("--views", type=int, help="views per step (the preset's unless given)")
    parser.add_argument("--seed", type=int, default=0, help="of every draw (default: 0)")
    parser.add_argument(
        "--preset", default="featviz", help="named recipe; `featviz presets` lists them (default: featviz)"
    )
    parser.add_argument("--lr", type=float, help="learning rate (the preset's unless given)")
    parser.add_argument(
        "--image", metavar="NAME", help="parameterization: fourier, pixel, maco … (the preset's unless given)"
    )
    parser.add_argument("--start", metavar="PICTURE", help="picture file from which every picture starts")
    parser.add_argument(
        "--stats", metavar="FILE", help="from `featviz stats`: colors of your own photos, and with maco their spectrum"
    )
    parser.add_argument(
        "--photos",
        metavar="DIR",
        help="show beside each picture the photos in DIR that excite the unit most; or those TopActivations wrote",
    )
    parser.add_argument("--photo-count", type=int, metavar="N", help="photos beside each picture (default: 6)")
    parser.add_argument(
        "--batch-size",
        type=_batch_size,
        default="auto",
        metavar="N",
        help="pictures in a batch, or auto (default: auto)",
    )
    parser.add_argument("--accelerator", default="auto", help="of the Lightning Trainer (default: auto)")
    parser.add_argument("--devices", default="1", help="of the Lightning Trainer (default: 1)")
    parser.add_argument("--num-nodes", type=int, default=1, help="of the Lightning Trainer (default: 1)")
    parser.add_argument(
        "--precision", default="32-true", help="of the network: bf16-mixed, auto (measured) … (default: 32-true)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="use torch.compile on the network: a minute or more before the first step",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="remove the pictures of an earlier sweep in DIR and begin anew"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON on stdout, and nothing else there")


def _batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"batch size must be auto or a number of pictures, got {text!r}") from None


def run_sweep(options: argparse.Namespace, load: Callable[[], FrozenNetwork]) -> int:
    """Run a sweep and return its exit code: 0, 3 when units failed, 130 for Ctrl-C, 143 for a termination.

    Args:
        options: of the command line.
        load: gives the network; called when everything else that is cheap to check has been checked.
    """
    from featviz_pl.cli.progress import announced
    from featviz_pl.io import read_picture
    from featviz_pl.presets import image_class, recipe
    from featviz_pl.statistics.arguments import as_statistics
    from featviz_pl.sweep import FeatureSweep, FeatureTargets

    # What needs no network is refused before one is loaded or downloaded.
    targets = FeatureTargets(options.layers, options.batch_size)
    recipe(options.preset)
    if options.image is not None:
        image_class(options.image)
    if options.start is not None:
        read_picture(options.start, argument="start")
    if options.stats is not None:
        as_statistics(options.stats)
    for name in ("steps", "views", "num_nodes"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
    names = ("preset", "image", "size", "views", "steps", "lr", "seed", "start", "stats")
    chosen = {name: getattr(options, name) for name in names}
    source = _photo_source(options)
    sweep = FeatureSweep(load(), **chosen)
    trainer, writer = _trainer(options, _precision(options, sweep, targets))
    if source is not None and trainer.is_global_zero:  # refused before anything is rendered
        targets.bind(sweep, trainer.world_size)
        source.check(targets.units, sweep.network.channels)
    began = time.perf_counter()
    with announced("featviz sweep", "featviz_pl.networks"):
        stopped = _predict(trainer, sweep, targets, writer)
    if (
        not trainer.is_global_zero
    ):  # the first process reports; Lightning would kill it for another's exit code before it has
        return 0
    photos: PhotoSummary | None = None
    if source is not None and not stopped:
        from featviz_pl.cli.progress import photo_progress
        from featviz_pl.sweep.photo_sheets import save_photo_sheets

        try:
            with photo_progress(leave=False) as progress:
                photos = save_photo_sheets(
                    writer.folder, source, sweep, targets, trainer.strategy.root_device, progress
                )
        except KeyboardInterrupt:
            stopped = signal.SIGINT
    if stopped:
        print(
            f"featviz sweep: {STOPPED[stopped]}; what is done is whole, and the same command goes on from there",
            file=sys.stderr,
        )
        return 128 + stopped
    return _report(options, sweep, writer, time.perf_counter() - began, photos)


def _photo_source(options: argparse.Namespace) -> PhotoSource | None:
    """Return the photos that are asked for; what is wrong with them is refused here."""
    if options.photos is None:
        if options.photo_count is not None:
            raise ValueError("photo_count: belongs to --photos DIR, which is not given")
        return None
    from featviz_pl.sweep.photos import PhotoFolder, photo_source

    source = photo_source(options.photos, options.photo_count)
    if isinstance(source, PhotoFolder) and Path(options.output).resolve().is_relative_to(source.folder.resolve()):
        raise ValueError(
            f"photos: the output folder {str(options.output)!r} lies in {str(options.photos)!r}, and the pictures would count as photos "
            "the next time; give an output folder elsewhere"
        )
    return source


def _precision(options: argparse.Namespace, sweep: FeatureSweep, targets: FeatureTargets) -> Any:
    """Return the precision of the Trainer; ``auto`` is that of the sweep which goes on, or measured."""
    from featviz_pl.engine.precision import AUTO, fastest_precision
    from featviz_pl.sweep.folder import read_manifest
    from featviz_pl.training.device import device_to_measure

    if options.precision != AUTO:
        return str(options.precision)
    held, _ = (None, {}) if options.overwrite else read_manifest(options.output)
    if held is not None and "precision" in held:
        return str(held["precision"])
    device = device_to_measure(options.accelerator, options.devices, options.num_nodes)
    targets.bind(sweep, 1)
    layer, units = list(targets.units.items())[-1]  # the deepest needs most
    found = fastest_precision(sweep.problem(layer, units[: targets.batch_size or 1], device), sweep.steps)
    print(f"featviz sweep: {found}", file=sys.stderr)
    return found.name


def _trainer(options: argparse.Namespace, precision: Any) -> tuple[Trainer, FeatureWriter]:
    import logging

    from lightning.pytorch import Callback, Trainer

    from featviz_pl.callbacks import FeatureWriter, SweepProgressBar

    for name in ("lightning.pytorch", "lightning.fabric"):  # stdout and stderr are ours here
        logging.getLogger(name).setLevel(logging.ERROR)
    progress = sys.stderr.isatty()
    writer = FeatureWriter(options.output, options.overwrite)
    callbacks: list[Callback] = [writer, *([SweepProgressBar()] if progress else [])]
    trainer = Trainer(
        accelerator=options.accelerator,
        devices=int(options.devices) if options.devices.lstrip("-").isdigit() else options.devices,
        num_nodes=options.num_nodes,
        precision=precision,
        callbacks=callbacks,
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


def _report(
    options: argparse.Namespace,
    sweep: FeatureSweep,
    writer: FeatureWriter,
    seconds: float,
    photos: PhotoSummary | None = None,
) -> int:
    summary = writer.summary
    assert summary is not None
    if summary.missing:
        raise ValueError(
            f"{len(summary.missing)} of the units are missing ({', '.join(summary.missing[:_SHOWN])}): a process of the sweep has ended "
            "early; the same command goes on from there"
        )
    done = summary.rendered + summary.skipped
    report: dict[str, Any] = {
        "path": str(options.output),
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
    if options.json:
        print(json.dumps(report))
    else:
        beside = "" if photos is None else f", {photos.sheets} sheets with photos"
        print(
            f"{options.output}: {done} pictures of {options.network}, {summary.rendered} of them new{beside}, in {seconds:.1f} s"
        )
    if photos is not None:
        _say_what_is_missing(photos)
    if summary.failed:
        named = "; ".join(f"{target}: {reason}" for target, reason in list(summary.failed.items())[:_SHOWN])
        more = f"; and {len(summary.failed) - _SHOWN} more, all in the manifest" if len(summary.failed) > _SHOWN else ""
        print(f"featviz sweep: {len(summary.failed)} units failed: {named}{more}", file=sys.stderr)
        return SOME_FAILED
    return 0


def _say_what_is_missing(photos: PhotoSummary) -> None:
    """Name photos that could not be read, and units that have none."""
    if photos.unreadable:
        why = f" ({photos.reason})" if photos.reason else ""
        print(
            f"featviz sweep: {len(photos.unreadable)} photos cannot be read: {_named(photos.unreadable)}{why}",
            file=sys.stderr,
        )
    if photos.without:
        print(f"featviz sweep: {len(photos.without)} units have no photos: {_named(photos.without)}", file=sys.stderr)


def _named(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
