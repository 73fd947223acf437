"""The command ``featviz layers``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from featviz_pl.cli.arguments import add_json_argument, add_network_arguments, load_network
from featviz_pl.cli.table import print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``featviz layers`` takes."""
    add_network_arguments(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """List the layers of a network, and return the exit code."""
    layers = load_network(options).layers(options.size)
    if options.json:
        print(json.dumps([asdict(layer) for layer in layers]))
    else:
        rows = [
            (layer.name, layer.kind, " x ".join(map(str, layer.shape)), str(layer.units), layer.axes)
            for layer in layers
        ]
        print_table([("layer", "kind", "shape", "units", "axes"), *rows])
    return 0
