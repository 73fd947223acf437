"""Draw channels with small networks from coordinates to color.

Distill's "Differentiable Image Parameterizations" (2018) trains a compositional pattern-producing network (CPPN) in
place of pixels: the pictures are smooth, with clean curves like those of vector graphics, and can be drawn at any size
afterwards. Look for the edges: the first row holds the pictures as the channels saw them, enlarged; the second the same
networks evaluated at twice the size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch.nn import functional

import featviz_pl as fv
from featviz_pl.callbacks import StepProgressBar
from featviz_pl.images import CPPNImage
from featviz_pl.objectives import Channel


def main(arguments: list[str] | None = None) -> None:
    """Train one network for each channel, without views; draw the pictures at two sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument(
        "--layer", default="features.12.expand1x1", help="before a rectifier: a flat picture has no gradient after it"
    )
    parser.add_argument("--units", type=int, nargs="+", default=[2, 25, 4])
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="07_cppn.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    objective, image = Channel(options.layer, options.units), CPPNImage(options.size)
    model = fv.FeatureVisualization(
        network, objective, image=image, preset="lucid", steps=options.steps, seed=options.seed, lr=0.005
    )
    trainer = Trainer(
        max_steps=options.steps,
        callbacks=[StepProgressBar()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model)

    with torch.no_grad():
        twice = image.pictures_at(2 * options.size)
    enlarged = functional.interpolate(model.images, scale_factor=2.0, mode="bilinear")
    sheet = fv.io.contact_sheet(torch.cat([enlarged, twice]), columns=len(options.units))
    origins = [
        model.provenance(index, steps=options.steps, score=float(score)) for index, score in enumerate(model.scores())
    ]
    fv.io.save_png(sheet, options.output, {"example": Path(__file__).name, "pictures": origins})


if __name__ == "__main__":
    main()
