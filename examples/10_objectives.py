"""Show the objectives of feature visualization side by side.

Distill's "Feature Visualization" (2017) begins with a row of things that can be optimised: a neuron at one place, a
channel everywhere, a layer as DeepDream does, a class before the softmax (logit) and after it (probability). Look for
the one thing in the middle of the first picture and the pattern of the second, and for how much less there is to
recognise in the last picture than in the one before it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import featviz_pl as fv
from featviz_pl.objectives import Channel, ClassLogit, ClassProbability, DeepDream, Neuron


def main(arguments: list[str] | None = None) -> None:
    """Render, from left to right: neuron, channel, layer, class logit, class probability."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--weights", default="DEFAULT", help="a file; torchvision's are downloaded unless given")
    parser.add_argument("--layer", default="features.9")
    parser.add_argument("--unit", type=int, default=40)
    parser.add_argument("--label", type=int, default=130, help="class; 130 is the flamingo of ImageNet")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="10_objectives.png")
    options = parser.parse_args(arguments)

    network = fv.load_network(options.network, options.weights)
    objectives = [
        Neuron(options.layer, options.unit),
        Channel(options.layer, options.unit),
        DeepDream(options.layer),
        ClassLogit(options.label),
        ClassProbability(options.label),
    ]
    results = [
        fv.render(network, objective, size=options.size, preset="lucid", steps=options.steps, seed=options.seed)
        for objective in objectives
    ]
    sheet = fv.io.contact_sheet(torch.cat([result.images for result in results]), columns=len(results))
    origin = {"example": Path(__file__).name, "pictures": [result.provenance[0] for result in results]}
    fv.io.save_png(sheet, options.output, origin)


if __name__ == "__main__":
    main()
