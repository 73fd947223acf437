"""Paint the content of one photo in the style of another.

Distill's "Differentiable Image Parameterizations" (2018) shows that style transfer, known to work on VGG networks only,
works on others as well once the picture is a decorrelated spectrum seen through random views. Content is what a middle
layer sees at each place; style is which units of several layers fire together, wherever that is. Look for the outlines
of the one photo drawn in strokes of the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch.nn import functional

import featviz_pl as fv
from featviz_pl.objectives import Content, Style


def main(arguments: list[str] | None = None) -> None:
    """Render one picture from two photos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument("--photo", required=True, help="a picture file: the content")
    parser.add_argument("--style", required=True, help="a picture file: the style")
    parser.add_argument("--content-layer", default="features.5")
    parser.add_argument(
        "--style-layers", nargs="+", default=["features.1", "features.4", "features.5", "features.7", "features.8"]
    )
    parser.add_argument("--weight", type=float, default=400.0, help="of the content; Lucid has 100")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="11_style.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    photo = fv.io.read_picture(options.photo)
    side = min(photo.shape[-2:])
    top, left = (photo.shape[-2] - side) // 2, (photo.shape[-1] - side) // 2
    square = photo[None, :, top : top + side, left : left + side]
    content = functional.interpolate(square, size=options.size, mode="bilinear", antialias=True)[0].clamp(0, 1)

    objective = Style(options.style_layers, fv.io.read_picture(options.style)) + options.weight * Content(
        options.content_layer, content
    )
    result = fv.render(network, objective, size=options.size, preset="lucid", steps=options.steps, seed=options.seed)
    fv.io.save_png(result.images[0], options.output, {"example": Path(__file__).name, "pictures": result.provenance})


if __name__ == "__main__":
    main()
