"""Show what a channel looks for, and what its opposite is.

Distill's "Feature Visualization" (2017) sets minimal beside maximal pictures of a unit: what pushes it down is a
feature as well, often one that is at home in the same photos or the opposite in color or curvature. The layer must be
one before its rectifier, which would hide all that is negative. Look for pairs that are opposites and not merely
without the feature.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import featviz_pl as fv
from featviz_pl.objectives import Channel


def main(arguments: list[str] | None = None) -> None:
    """Render channels in the first row and their negatives below."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument("--layer", default="features.7.expand3x3")
    parser.add_argument("--units", type=int, nargs="+", default=[0, 4, 5, 10])
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="04_negative_positive.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    channels = Channel(options.layer, options.units)
    results = [
        fv.render(network, objective, size=options.size, preset="lucid", steps=options.steps, seed=options.seed)
        for objective in (channels, -channels)
    ]
    sheet = fv.io.contact_sheet(torch.cat([result.images for result in results]), columns=len(options.units))
    origin = {"example": Path(__file__).name, "pictures": [entry for result in results for entry in result.provenance]}
    fv.io.save_png(sheet, options.output, origin)


if __name__ == "__main__":
    main()
