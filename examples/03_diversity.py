"""Show several things that excite the same channel.

Distill's "Feature Visualization" (2017) renders a batch of pictures of one unit and rewards them for differing, by the
cosine between the Gram matrices of their activations: what looked like a unit for one thing turns out to fire for
several. Look for kinds of texture in the second row that the first row, four runs from four starts, does not have.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import featviz_pl as fv
from featviz_pl.images import FourierImage
from featviz_pl.objectives import Channel, Diversity


def main(arguments: list[str] | None = None) -> None:
    """Render four pictures of one channel without diversity, and below them four with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument("--layer", default="features.7")
    parser.add_argument("--unit", type=int, default=24)
    parser.add_argument(
        "--weight", type=float, default=2000.0, help="of the diversity; the article has 100, for smaller activations"
    )
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="03_diversity.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    channel = Channel(options.layer, options.unit)
    results = [
        fv.render(
            network,
            objective,
            image=FourierImage(options.size, count=4, decay=1.0),
            preset="lucid",
            steps=options.steps,
            seed=options.seed,
        )
        for objective in (channel, channel + options.weight * Diversity(options.layer))
    ]
    sheet = fv.io.contact_sheet(torch.cat([result.images for result in results]), columns=4)
    origin = {"example": Path(__file__).name, "pictures": [entry for result in results for entry in result.provenance]}
    fv.io.save_png(sheet, options.output, origin)


if __name__ == "__main__":
    main()
