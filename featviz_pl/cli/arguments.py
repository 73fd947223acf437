"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import io
import sys
from contextlib import redirect_stdout
from typing import Any


def _size(text: str) -> Any:
    """Read ``224`` or ``96x128`` (height x width)."""
    try:
        parts = [int(part) for part in text.lower().split("x")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2):
        raise argparse.ArgumentTypeError(f"size must be a number of pixels or HEIGHTxWIDTH, got {text!r}")
    return parts[0] if len(parts) == 1 else tuple(parts)


def _network_arguments(
    parser: argparse.ArgumentParser,
    name: str = "network",
    default: str | None = "embedded",
    purpose: str = "",
    size: str = "of the picture (the network's own unless given)",
) -> None:
    what = f"{purpose}embedded, a torchvision classifier, or package.module:factory"
    if name.startswith("-"):
        parser.add_argument(name, metavar="NAME", help=what)
    elif default is not None:
        parser.add_argument(name, nargs="?", default=default, help=f"{what} (default: {default})")
    else:
        parser.add_argument(name, help=what)
    parser.add_argument(
        "--weights", default="DEFAULT", help="enum name, 'none' for random weights, or a file (default: DEFAULT)"
    )
    parser.add_argument(
        "--mean", type=float, nargs="+", help="subtracted from pictures in [0, 1], one or one per channel"
    )
    parser.add_argument("--std", type=float, nargs="+", help="by which they are then divided")
    parser.add_argument("--size", type=_size, help=f"{size}: pixels, or HEIGHTxWIDTH")


def _network(options: argparse.Namespace) -> Any:
    from featviz_pl.networks import load_network

    # torch announces a download, and a factory may say anything, on stdout, which is for results.
    with redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        loaded = load_network(options.network, options.weights, getattr(options, "compile", False))
    if options.mean is None and options.std is None:
        return loaded
    mean = options.mean if options.mean is not None else loaded.mean
    std = options.std if options.std is not None else loaded.std
    return loaded.replace(mean=mean, std=std)
