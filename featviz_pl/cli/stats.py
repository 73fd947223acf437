"""The command ``featviz stats``. Heavy libraries are imported when it runs."""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featviz_pl.networks import FrozenNetwork

_FEW = 500  # photos that are read sooner than further processes are started
_MOST_WORKERS = 16
_SIZE = 128  # of a spectrum
_BATCH_SIZE = 32
_WEIGHTS = "DEFAULT"  # unless given


def add_stats_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``featviz stats`` takes besides the network."""
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="folder of photos, by classes or not")
    parser.add_argument(
        "--dataset", metavar="NAME", help="in place of SOURCE: a data set of torchvision, such as CIFAR10"
    )
    parser.add_argument("--root", metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--split", metavar="NAME", help="of the data set, such as train or test (its own default unless given)"
    )
    parser.add_argument(
        "--download", action="store_true", help="download the data set where it is missing; nothing is otherwise"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="further argument of the data set; repeatable",
    )
    parser.add_argument(
        "--layer",
        action="append",
        metavar="LAYER",
        help="of --network: record the photos' activations there; repeatable",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="file to write (default: stats.pt; activations.pt with --network)"
    )
    parser.add_argument("--channels", type=int, choices=(1, 3), help="3 for color, 1 for grayscale (default: 3)")
    parser.add_argument("--limit", type=int, metavar="N", help="read at most so many photos, evenly spread")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that read photos (as many as help unless given)"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="photos at once in the network (default: 32)")
    parser.add_argument("--compact", action="store_true", help="store the spectrum in half precision")
    parser.add_argument("--json", action="store_true", help="print one line of JSON on stdout, and nothing else there")


def run_stats(options: argparse.Namespace, load: Callable[[], FrozenNetwork]) -> int:
    """Measure photos and return the exit code.

    Args:
        options: of the command line.
        load: gives the network; called only where activations are asked for.
    """
    from featviz_pl.io.files import check_output

    output = check_output(options.output or ("stats.pt" if options.network is None else "activations.pt"), ".pt")
    _check(options)
    began = time.perf_counter()
    report = _statistics(options, output) if options.network is None else _activations(options, output, load)
    report = {
        "path": str(output),
        "source": options.source or options.dataset,
        **report,
        "seconds": round(time.perf_counter() - began, 3),
    }
    done, skipped = report.pop("done"), report.pop("skipped")
    print(json.dumps(report) if options.json else f"{output}: {done} in {report['seconds']:.1f} s; {skipped}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what needs no photo to be refused."""
    if (options.source is None) == (options.dataset is None):
        raise ValueError("source: give a folder of photos, or --dataset NAME with --root DIR, and not both")
    if options.dataset is None:
        for name in ("root", "split", "download", "option"):
            if getattr(options, name):
                raise ValueError(f"{name}: belongs to --dataset NAME, not to a folder of photos")
    for name, least in (("limit", 1), ("workers", 0), ("batch_size", 1)):
        if getattr(options, name) is not None and getattr(options, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(options, name)}")
    if options.network is None:
        for name in ("layer", "weights", "mean", "std", "batch_size"):
            if getattr(options, name) not in (None, _WEIGHTS):
                raise ValueError(f"{name}: belongs to --network NAME, whose activations are then recorded")
        return
    for name in ("channels", "compact"):
        if getattr(options, name):
            raise ValueError(f"{name}: belongs to colors and spectrum, which are measured without --network")
    if options.dataset is not None:
        raise ValueError(
            "dataset: activations are recorded with the photos' files; give a folder of photos in place of --dataset"
        )
    if not options.layer:
        raise ValueError(
            "layer: say where to record, for example --layer features.9; `featviz layers NETWORK` lists the layers"
        )


def _statistics(options: argparse.Namespace, output: Path) -> dict[str, Any]:
    """Measure colors and spectrum, and write them."""
    from featviz_pl.cli.progress import photo_progress
    from featviz_pl.io.photos import photo_paths
    from featviz_pl.statistics import dataset_statistics, folder_statistics, load_statistics
    from featviz_pl.statistics.datasets import torchvision_dataset

    size = _SIZE if options.size is None else options.size
    arguments = {"size": size, "channels": options.channels or 3, "limit": options.limit}
    if options.dataset is None:
        count = len(photo_paths(options.source, options.limit))
        with photo_progress("readings") as progress:
            found = folder_statistics(options.source, **arguments, workers=_workers(options, count), progress=progress)
    else:
        with _no_chatter():
            dataset = torchvision_dataset(
                options.dataset, options.root, options.split, options.download, _pairs(options.option)
            )
        count = min(len(dataset), options.limit or len(dataset))
        with photo_progress("readings") as progress:
            found = dataset_statistics(dataset, **arguments, workers=_workers(options, count), progress=progress)
    found.save(output, options.compact)
    least = " x ".join(map(str, found.spectrum.size))
    return {
        "photos": count - found.unreadable,
        "pixels": found.count,
        "unreadable": found.unreadable,
        "too_small": found.too_small,
        "size": list(found.spectrum.size),
        "channels": found.channels,
        "mean": found.mean.tolist(),
        "matrix": found.matrix.tolist(),
        "digest": load_statistics(output).digest,  # of the file: in half precision it holds another spectrum
        "done": f"{count - found.unreadable} photos, {found.count} pixels,",
        "skipped": f"{found.unreadable} unreadable, {found.too_small} smaller than {least} and left out of the spectrum",
    }


def _activations(options: argparse.Namespace, output: Path, load: Callable[[], FrozenNetwork]) -> dict[str, Any]:
    """Record the activations of layers on every photo, and write them."""
    from featviz_pl.cli.progress import photo_progress
    from featviz_pl.io.photos import photo_paths
    from featviz_pl.metrics import measure_activations

    count = len(photo_paths(options.source, options.limit))  # before a network is loaded
    workers = _workers(options, count)
    chosen = {
        "size": options.size,
        "limit": options.limit,
        "batch_size": options.batch_size or _BATCH_SIZE,
        "workers": workers,
    }
    with photo_progress("readings") as progress:
        found = measure_activations(load(), options.source, options.layer, **chosen, progress=progress)
    found.save(output)
    return {
        "network": options.network,
        "layers": list(found.layers),
        "photos": len(found.paths),
        "unreadable": found.unreadable,
        "enlarged": found.enlarged,
        "done": f"{len(found.paths)} photos in {', '.join(found.layers)} of {options.network}",
        "skipped": f"{found.unreadable} unreadable, {found.enlarged} smaller than the network's input and enlarged",
    }


def _workers(options: argparse.Namespace, photos: int) -> int:
    """Return how many processes read photos: as many as there are processors, none besides this one where photos are few."""
    if options.workers is not None:
        return int(options.workers)
    if photos <= _FEW:
        return 0
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, _MOST_WORKERS)


def _pairs(texts: list[str]) -> dict[str, Any]:
    """Turn ``KEY=VALUE`` into arguments: numbers, truth values and tuples as in Python, everything else as text."""
    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"option: must be KEY=VALUE, such as size=160px, got {text!r}")
        pairs[key] = value
        with suppress(ValueError, SyntaxError):
            pairs[key] = ast.literal_eval(value)
    return pairs


@contextmanager
def _no_chatter() -> Iterator[None]:
    """Keep what data sets print off stdout, which is for results, and off an stderr that nobody watches."""
    watched = sys.stderr.isatty()
    with (
        redirect_stdout(sys.stderr if watched else io.StringIO()),
        redirect_stderr(sys.stderr if watched else io.StringIO()),
    ):
        yield
