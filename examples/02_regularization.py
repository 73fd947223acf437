"""Show one channel under each family of regularisation.

Distill's "Feature Visualization" (2017) holds four pictures of one unit side by side. Without regularisation, ascent
ends in noise that excites the unit all the same. Penalties on high frequencies take the noise away, and fine detail
with it; views that are moved at random ask for a picture that works wherever it is; Fourier coefficients and
decorrelated colors let coarse structure grow as fast as fine. Look for the noise in the first picture and for what
each other one makes of it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import featviz_pl as fv
from featviz_pl.images import FourierImage, PixelImage
from featviz_pl.objectives import L1, BlurDistance, Channel, TotalVariation
from featviz_pl.transforms import Choice, Compose, Jitter, Pad, Rotate, Scale


def main(arguments: list[str] | None = None) -> None:
    """Render the four pictures, from left to right: none, frequency penalty, robustness, preconditioning."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument("--layer", default="features.7")
    parser.add_argument("--unit", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="02_regularization.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    channel = Channel(options.layer, options.unit)
    # The constants are those of the article's notebook.
    penalised = channel - 0.05 * L1(center=0.5) - 0.25 * TotalVariation() - 1.0 * BlurDistance()
    none = Compose([])
    moved = Compose(
        [
            Pad(2, "constant"),
            Jitter(1),
            Scale(Choice([1.1 ** (n / 10) for n in range(-10, 11)])),
            Rotate(Choice(range(-5, 6))),
        ]
    )
    pixels = PixelImage(options.size, color="none")

    lucid = fv.presets.lucid()
    results = [
        fv.render(
            network,
            objective,
            image=image,
            preset=replace(lucid, name=name, transforms=views),
            steps=options.steps,
            seed=options.seed,
        )
        for name, objective, image, views in [
            ("none", channel, pixels, none),
            ("frequency penalty", penalised, pixels, none),
            ("robustness", channel, pixels, moved),
            ("preconditioning", channel, FourierImage(options.size, decay=1.0), lucid.transforms),
        ]
    ]
    sheet = fv.io.contact_sheet(torch.cat([result.images for result in results]), columns=4)
    origin = {"example": Path(__file__).name, "pictures": [result.provenance[0] for result in results]}
    fv.io.save_png(sheet, options.output, origin)


if __name__ == "__main__":
    main()
