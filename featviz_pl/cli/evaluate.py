"""The command ``featviz evaluate``. Heavy libraries are imported when it runs."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featviz_pl.networks import FrozenNetwork


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``featviz evaluate`` takes besides the network."""
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURES", help="PNG files, or folders of them such as that of a sweep"
    )
    parser.add_argument(
        "--target", nargs="+", metavar="T", help="one for all or one for each (what the files say unless given)"
    )
    parser.add_argument("--judge", metavar="NAME", help="an independent classifier that is asked for the class")
    parser.add_argument("--judge-weights", metavar="W", help="enum name, 'none', or a file (default: DEFAULT)")
    parser.add_argument("--photos", metavar="DIR", help="folder of photos to compare with")
    parser.add_argument(
        "--activations",
        metavar="FILE",
        help="of photos, from `featviz stats` with --network and --layer (measured unless given)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="read at most so many photos, evenly spread")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read photos beside this one (default: 0)"
    )
    parser.add_argument("--views", type=int, default=16, help="held-out views of each picture (default: 16)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the table too: .csv, or .json with everything")
    parser.add_argument("--json", action="store_true", help="print one line of JSON on stdout, and nothing else there")


def run_evaluate(options: argparse.Namespace, load: Callable[[], FrozenNetwork]) -> int:
    """Measure pictures, print the table, and return the exit code.

    Args:
        options: of the command line; where they name no network, that of the pictures is put in.
        load: gives the network; called when everything else that is cheap to check has been checked.
    """
    output = _check(options)
    from featviz_pl.cli.progress import photo_progress
    from featviz_pl.metrics.evaluation import check_photos, evaluate, picture_files
    from featviz_pl.networks import load_network

    files = picture_files(options.pictures)
    for path in files:
        if not path.is_file():
            raise ValueError(f"pictures: there is no file {str(path)!r}")
    if options.network is None:
        options.network = _network_of(files)
    activations = check_photos(options.photos, options.activations, options.limit)  # before a network is loaded
    network, judge = load(), None
    if options.size is not None:
        network = network.replace(size=options.size)
    if options.judge is not None:
        with redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):  # a download is announced there
            judge = load_network(options.judge, options.judge_weights or "DEFAULT")
    with photo_progress(leave=False) as progress:
        found = evaluate(
            list(files),
            network,
            options.target,
            judge=judge,
            photos=options.photos,
            activations=activations,
            views=options.views,
            limit=options.limit,
            workers=options.workers,
            progress=progress,
        )
    for note in found.notes:
        print(f"featviz evaluate: {note}", file=sys.stderr)
    if output is not None:
        found.save(output)
    print(found.to_json() if options.json else found.table())
    return 0


def _check(options: argparse.Namespace) -> Path | None:
    """Refuse what needs no picture to be refused; return where the table goes."""
    for name, least in (("views", 1), ("limit", 1), ("workers", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
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
    if name not in network_names():
        said = (
            "the pictures name none" if name is None else f"the pictures name {name!r}, which is not loaded by itself"
        )
        raise ValueError(f"network: {said}; give --network NAME")
    if name != EMBEDDED:
        raise ValueError(
            f"network: the pictures name {name!r}, whose weights may have to be downloaded; give --network {name}"
        )
    return str(name)
