"""Show what two channels look for alone and together.

Distill's "Feature Visualization" (2017) asks how units interact: it optimises the sum of two channels, and the result
is sometimes both features side by side, more often a new thing made of both. Look for how the third picture of each row
mixes shapes of the first with colors or textures of the second.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import featviz_pl as fv
from featviz_pl.objectives import Channel


def main(arguments: list[str] | None = None) -> None:
    """Render one row for each pair: the first channel, the second, their sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument("--layer", default="features.9")
    parser.add_argument("--pairs", type=int, nargs="+", default=[42, 26, 40, 56, 3, 10], help="units, two for each row")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="05_joint_neurons.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    firsts, seconds = options.pairs[::2], options.pairs[1::2]
    first, second = Channel(options.layer, firsts), Channel(options.layer, seconds)
    results = [
        fv.render(network, objective, size=options.size, preset="lucid", steps=options.steps, seed=options.seed)
        for objective in (first, second, first + second)
    ]
    rows = torch.stack([result.images for result in results], dim=1)  # (pairs, 3, C, H, W)
    origins = [origin for row in zip(*(result.provenance for result in results)) for origin in row]
    fv.io.save_png(
        fv.io.contact_sheet(rows.flatten(0, 1), columns=3),
        options.output,
        {"example": Path(__file__).name, "pictures": origins},
    )


if __name__ == "__main__":
    main()
