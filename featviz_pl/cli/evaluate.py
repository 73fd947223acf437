"""The command ``featviz evaluate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from featviz_pl.cli.arguments import (
    MANY,
    MAX_WORKERS,
    add_json_argument,
    add_network_arguments,
    load_network,
    quiet_stdout,
    whole,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``featviz evaluate`` takes."""
    add = parser.add_argument
    add("pictures", nargs="+", metavar="PICTURES", help="PNG files, or folders of them such as that of a sweep")
    target = "one for all or one for each (what the files say unless given)"
    add("--target", nargs="+", metavar="T", help=target)
    add("--judge", metavar="NAME", help="an independent classifier that is asked for the class")
    add("--judge-weights", metavar="W", help="enum name, 'none', or a file (default: DEFAULT)")
    add("--photos", metavar="DIR", help="folder of photos to compare with")
    activations = "of photos, from `featviz stats` with --network and --layer (measured unless given)"
    add("--activations", metavar="FILE", help=activations)
    limit = "read at most so many photos, evenly spread"
    add("--limit", type=whole("limit"), metavar="N", help=limit)
    workers = "processes that read photos beside this one (default: 0)"
    add("--workers", type=whole("workers", 0, MAX_WORKERS), default=0, metavar="N", help=workers)
    add("--views", type=whole("views", most=MANY), default=16, help="held-out views of each picture (default: 16)")
    add("-o", "--output", metavar="FILE", help="write the table too: .csv, or .json with everything")
    add_json_argument(parser)
    purpose = "that of the pictures unless given: "
    add_network_arguments(parser, "--network", purpose=purpose, size_help="of photos, where pictures differ")


def run(options: argparse.Namespace) -> int:
    """Measure pictures, print the table, and return the exit code."""
    output = _check(options)
    from featviz_pl import networks
    from featviz_pl.cli.progress import photo_progress
    from featviz_pl.metrics.evaluation import check_photos, evaluate, picture_files

    files = picture_files(options.pictures)
    for path in files:
        if not path.is_file():
            raise ValueError(f"pictures: there is no file {str(path)!r}")
    if options.network is None:
        options.network = _network_of(files)
    activations = check_photos(options.photos, options.activations, options.limit)  # before a network is loaded
    network, judge = load_network(options), None
    if options.size is not None:
        network = network.replace(size=options.size)
    if options.judge is not None:
        with quiet_stdout():
            judge = networks.load_network(options.judge, options.judge_weights or "DEFAULT")
    arguments = {name: getattr(options, name) for name in ("photos", "views", "limit", "workers")}
    with photo_progress(leave=False) as progress:
        evaluation = evaluate(
            files, network, options.target, judge=judge, activations=activations, progress=progress, **arguments
        )
    for note in evaluation.notes:
        print(f"featviz evaluate: {note}", file=sys.stderr)
    if output is not None:
        evaluation.save(output)
    print(evaluation.to_json() if options.json else evaluation.table())
    return 0


def _check(options: argparse.Namespace) -> Path | None:
    """Refuse what needs no picture to be refused; return where the table goes."""
    if options.judge is None and options.judge_weights is not None:
        raise ValueError("judge_weights: belong to --judge NAME, which is not given")
    if options.limit is not None and options.photos is None:
        raise ValueError("limit: is of --photos DIR, which is not given")
    if options.output is None:
        return None
    from featviz_pl.metrics.evaluation import check_table_path

    return check_table_path(options.output)


def _network_of(files: list[Path]) -> str:
    """Return the name of the network that all pictures say they were made with, where that is the embedded one.

    A function that a file names is not called: pictures come from anywhere, and it could be any program. Nor is what a
    file says a reason to download weights.
    """
    from featviz_pl.metrics.evaluation import file_provenance
    from featviz_pl.networks import network_names
    from featviz_pl.networks.loading import EMBEDDED

    names = {origin.get("network") for origin in map(file_provenance, files)}
    if len(names) > 1:
        listed = ", ".join(sorted(repr(name) if name else "none" for name in names))
        raise ValueError(
            f"network: the pictures name different ones ({listed}); give --network NAME, or evaluate them apart"
        )
    (name,) = names or {None}
    if name is None:
        raise ValueError("network: the pictures name none; give --network NAME")
    if name not in network_names():
        raise ValueError(f"network: the pictures name {name!r}, which is not loaded by itself; give --network NAME")
    if name != EMBEDDED:
        raise ValueError(
            f"network: the pictures name {name!r}, whose weights may have to be downloaded; give --network {name}"
        )
    return str(name)
