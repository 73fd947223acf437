"""The command ``featviz stats``."""

from __future__ import annotations

import argparse
import ast
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from featviz_pl.cli.arguments import (
    MANY,
    MAX_WORKERS,
    add_json_argument,
    add_network_arguments,
    load_network,
    quiet_stdout,
    whole,
)

_SIZE = 128  # of a spectrum
_BATCH_SIZE = 32
_WEIGHTS = "DEFAULT"  # unless given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``featviz stats`` takes."""
    add = parser.add_argument
    add("source", nargs="?", metavar="SOURCE", help="folder of photos, by classes or not")
    dataset = "in place of SOURCE: a data set of torchvision, such as CIFAR10"
    add("--dataset", metavar="NAME", help=dataset)
    add("--root", metavar="DIR", help="folder of the data set")
    split = "of the data set, such as train or test (its own default unless given)"
    add("--split", metavar="NAME", help=split)
    download = "download the data set where it is missing; nothing is otherwise"
    add("--download", action="store_true", help=download)
    option = "further argument of the data set; repeatable"
    add("--option", action="append", default=[], metavar="KEY=VALUE", help=option)
    layer = "of --network: record the photos' activations there; repeatable"
    add("--layer", action="append", metavar="LAYER", help=layer)
    output = "file to write (default: stats.pt; activations.pt with --network)"
    add("-o", "--output", metavar="FILE", help=output)
    add("--channels", type=int, choices=(1, 3), help="3 for color, 1 for grayscale (default: 3)")
    limit = "read at most so many photos, evenly spread"
    add("--limit", type=whole("limit"), metavar="N", help=limit)
    workers = "processes that read photos (as many as help unless given)"
    add("--workers", type=whole("workers", 0, MAX_WORKERS), metavar="N", help=workers)
    batch_size = "photos at once in the network (default: 32)"
    add("--batch-size", type=whole("batch_size", most=MANY), metavar="N", help=batch_size)
    add("--compact", action="store_true", help="store the spectrum in half precision")
    add_json_argument(parser)
    size_help = "of the spectrum (128), or of what the network sees (its own)"
    add_network_arguments(parser, "--network", purpose="record activations of ", size_help=size_help)


def run(options: argparse.Namespace) -> int:
    """Measure photos and return the exit code."""
    from featviz_pl.io.files import check_output

    output = check_output(options.output or ("stats.pt" if options.network is None else "activations.pt"), ".pt")
    _check(options)
    began = time.perf_counter()
    report, done, skipped = (_statistics if options.network is None else _activations)(options, output)
    seconds = time.perf_counter() - began
    if options.json:
        source = options.source or options.dataset
        print(json.dumps({"path": str(output), "source": source, **report, "seconds": round(seconds, 3)}))
    else:
        print(f"{output}: {done} in {seconds:.1f} s; {skipped}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what needs no photo to be refused."""
    if (options.source is None) == (options.dataset is None):
        raise ValueError("source: give a folder of photos, or --dataset NAME with --root DIR, and not both")
    with_dataset, with_network = options.dataset is not None, options.network is not None
    for names, allowed, owner in (
        (("root", "split", "download", "option"), with_dataset, "--dataset NAME, not to a folder of photos"),
        (
            ("layer", "weights", "mean", "std", "batch_size"),
            with_network,
            "--network NAME, whose activations are then recorded",
        ),
        (
            ("channels", "compact"),
            not with_network,
            "colors and spectrum, which are measured without --network",
        ),
    ):
        for name in names:
            if not allowed and getattr(options, name) and getattr(options, name) != _WEIGHTS:
                raise ValueError(f"{name}: belongs to {owner}")
    if with_network and with_dataset:
        raise ValueError(
            "dataset: activations are recorded with the photos' files; give a folder in place of --dataset"
        )
    if with_network and not options.layer:
        raise ValueError(
            "layer: say where to record, for example --layer features.9; `featviz layers NETWORK` lists the layers"
        )


Report = tuple[dict[str, Any], str, str]  # values for JSON, and what was done and skipped in words


def _statistics(options: argparse.Namespace, output: Path) -> Report:
    """Measure colors and spectrum, and write them."""
    from featviz_pl.cli.progress import photo_progress
    from featviz_pl.io.photos import photo_paths
    from featviz_pl.statistics import dataset_statistics, folder_statistics, load_statistics
    from featviz_pl.statistics.datasets import torchvision_dataset

    size = _SIZE if options.size is None else options.size
    arguments = {"size": size, "channels": options.channels or 3, "limit": options.limit}
    dataset = None
    if options.dataset is not None:
        with quiet_stdout(stderr=True):
            named = pairs(options.option)
            dataset = torchvision_dataset(options.dataset, options.root, options.split, options.download, named)
    count = len(photo_paths(options.source, options.limit)) if dataset is None else len(dataset)
    count = min(count, options.limit or count)
    with photo_progress("readings") as progress:
        measure, source = (folder_statistics, options.source) if dataset is None else (dataset_statistics, dataset)
        statistics = measure(source, **arguments, workers=_workers(options, count), progress=progress)
    statistics.save(output, options.compact)
    unreadable, too_small, size = statistics.unreadable, statistics.too_small, statistics.spectrum.size
    report = {
        "photos": count - unreadable,
        "pixels": statistics.count,
        "unreadable": unreadable,
        "too_small": too_small,
        "size": list(size),
        "channels": statistics.channels,
        "mean": statistics.mean.tolist(),
        "matrix": statistics.matrix.tolist(),
        "digest": load_statistics(output).digest,  # of the file: in half precision it holds another spectrum
    }
    smaller = f"{too_small} smaller than {' x '.join(map(str, size))} and left out of the spectrum"
    done = f"{count - unreadable} photos, {statistics.count} pixels,"
    return report, done, f"{unreadable} unreadable, {smaller}"


def _activations(options: argparse.Namespace, output: Path) -> Report:
    """Record the activations of layers on every photo, and write them."""
    from featviz_pl.cli.progress import photo_progress
    from featviz_pl.io.photos import photo_paths
    from featviz_pl.metrics import measure_activations

    workers = _workers(options, len(photo_paths(options.source, options.limit)))  # before a network is loaded
    arguments = {"size": options.size, "limit": options.limit, "batch_size": options.batch_size or _BATCH_SIZE}
    network = load_network(options)
    with photo_progress("readings") as progress:
        activations = measure_activations(
            network, options.source, options.layer, **arguments, workers=workers, progress=progress
        )
    activations.save(output)
    report = {
        "network": options.network,
        "layers": list(activations.layers),
        "photos": len(activations.paths),
        "unreadable": activations.unreadable,
        "enlarged": activations.enlarged,
    }
    done = f"{len(activations.paths)} photos in {', '.join(activations.layers)} of {options.network}"
    enlarged = f"{activations.enlarged} smaller than the network's input and enlarged"
    return report, done, f"{activations.unreadable} unreadable, {enlarged}"


def _workers(options: argparse.Namespace, photos: int) -> int:
    """Return how many processes read photos besides this one."""
    from featviz_pl.io.photos import useful_workers

    return useful_workers(photos) if options.workers is None else int(options.workers)


def pairs(texts: list[str]) -> dict[str, Any]:
    """Turn ``KEY=VALUE`` into arguments: numbers, truth values and tuples as in Python, everything else as text."""
    arguments: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"option: must be KEY=VALUE, such as size=160px, got {text!r}")
        arguments[key] = value
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            arguments[key] = ast.literal_eval(value)
    return arguments
