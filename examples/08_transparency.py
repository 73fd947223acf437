"""Let a channel say what in its picture matters, by transparency.

Distill's "Differentiable Image Parameterizations" (2018) optimises how opaque each pixel is beside its color, shows
the picture on noise that changes with every view, and rewards transparency: what stays opaque is what the channel
needs, and the rest, which ordinary visualization fills with anything, is left out. Look for the checkerboard between
the things that the channel looks for.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import featviz_pl as fv
from featviz_pl.images import AlphaImage, FourierImage
from featviz_pl.objectives import AlphaMean, Channel
from featviz_pl.transforms import Choice, Compose, Crop


def main(arguments: list[str] | None = None) -> None:
    """Render channels with alpha and show them on a checkerboard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument(
        "--layer", default="features.12.expand1x1", help="before a rectifier: noise may leave a unit off"
    )
    parser.add_argument("--units", type=int, nargs="+", default=[5, 20, 25, 4])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--steps", type=int, default=384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="08_transparency.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    # The article's picture is scaled by 0.6 to 1.1 and seen through a window of half its side. Noise lies behind all
    # views.
    window = Crop("anywhere", side=Choice([0.5 / scale for scale in (0.6, 0.7, 0.8, 0.9, 1.0, 1.1)]))
    views = Compose([window], size=options.size // 2)
    channel = Channel(options.layer, options.units)
    objective = channel * (1 - AlphaMean()) + 0.5 * channel * (1 - AlphaMean(of_views=False))

    recipe = replace(fv.presets.lucid(), name="transparency", transforms=views, lr=0.03)
    result = fv.render(
        network,
        objective,
        image=AlphaImage(image=FourierImage(options.size, decay=1.0)),
        preset=recipe,
        steps=options.steps,
        seed=options.seed,
    )
    colors, alpha = result.images[:, :3], result.images[:, 3:]
    rows = torch.arange(options.size) // 8
    board = 0.75 + 0.25 * ((rows[:, None] + rows) % 2)
    sheet = fv.io.contact_sheet(colors * alpha + board * (1 - alpha), columns=len(options.units))
    fv.io.save_png(sheet, options.output, {"example": Path(__file__).name, "pictures": result.provenance})


if __name__ == "__main__":
    main()
