"""Walk from one channel to another in pictures that line up.

Distill's "Feature Visualization" (2017) and "Differentiable Image Parameterizations" (2018) interpolate between two
objectives over a batch. Rendered apart, neighbouring pictures are alike in kind, but everything in them is somewhere
else. Low-resolution parts that all pictures share, and a reward for activations like the neighbours', keep each thing
in its place. Look along the lower row for one shape that slowly turns into another.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import featviz_pl as fv
from featviz_pl.images import FourierImage, SharedImage
from featviz_pl.objectives import Alignment, Channel, Interpolation


def main(arguments: list[str] | None = None) -> None:
    """Render six pictures on the way without alignment, and below them six with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument("--layer", default="features.9")
    parser.add_argument("--units", type=int, nargs=2, default=[40, 42])
    parser.add_argument(
        "--align", nargs="+", default=["features.5", "features.7"], help="layers in which neighbours are to agree"
    )
    parser.add_argument(
        "--weight", type=float, default=0.0003, help="of the alignment; Lucid has 0.1, for smaller activations"
    )
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="06_interpolation.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    first, last = (Channel(options.layer, unit) for unit in options.units)
    way = Interpolation(first, last, count=6)
    aligned = way + options.weight * Alignment(options.align)
    spectrum = FourierImage(options.size, count=6, decay=1.0)
    results = [
        fv.render(network, objective, image=image, preset="lucid", steps=options.steps, seed=options.seed)
        for objective, image in ((way, spectrum), (aligned, SharedImage(spectrum)))
    ]
    sheet = fv.io.contact_sheet(torch.cat([result.images for result in results]), columns=6)
    origin = {"example": Path(__file__).name, "pictures": [entry for result in results for entry in result.provenance]}
    fv.io.save_png(sheet, options.output, origin)


if __name__ == "__main__":
    main()
