"""Show what the layers of a network keep of a photo, and what they make of it.

Distill's "Building Blocks of Interpretability" (2018) and "Activation Atlas" (2019) look at the activations of one
photo rather than at units. An inversion is a picture with the same activations as the photo: what it lacks, the layer
has forgotten. A caricature has activations as long as possible in the photo's direction: what the layer saw is
exaggerated. Look at how fine detail goes first and places go last, from left to right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn import functional

import featviz_pl as fv
from featviz_pl.objectives import Caricature, Inversion


def main(arguments: list[str] | None = None) -> None:
    """Render the inversions of a photo in the first row, one for each layer, and its caricatures below."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument("--photo", required=True, help="a picture file")
    parser.add_argument("--inversions", nargs="+", default=["features.12", "classifier.1", "output"], help="layers")
    parser.add_argument("--caricatures", nargs="+", default=["features.7", "features.9", "features.12"], help="layers")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="09_inversion_and_caricature.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    photo = fv.io.read_picture(options.photo)
    side = min(photo.shape[-2:])
    top, left = (photo.shape[-2] - side) // 2, (photo.shape[-1] - side) // 2
    square = photo[None, :, top : top + side, left : left + side]
    reference = functional.interpolate(square, size=options.size, mode="bilinear", antialias=True)[0].clamp(0, 1)

    results = [
        fv.render(network, objective, size=options.size, preset="lucid", steps=options.steps, seed=options.seed)
        for objective in [
            *(Inversion(layer, reference) for layer in options.inversions),
            *(Caricature(layer, reference) for layer in options.caricatures),
        ]
    ]
    sheet = fv.io.contact_sheet(torch.cat([result.images for result in results]), columns=len(options.inversions))
    origin = {"example": Path(__file__).name, "pictures": [result.provenance[0] for result in results]}
    fv.io.save_png(sheet, options.output, origin)


if __name__ == "__main__":
    main()
