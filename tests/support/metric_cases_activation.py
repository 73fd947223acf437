"""Contract cases of the metrics of one target's activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from metric_case import MetricCase, Mistake
from torch import Tensor
from toys import toy

from featviz_pl.metrics import Activation, ActivationPercentile, HeldOutActivation, PhotoActivations
from featviz_pl.networks import FrozenNetwork

TARGETS = ("features.0:3", "output:wolf", "features.5:0", "output:1", "features.0:1@2,5")
CLASSES = ("fox", "wolf", "owl", "cat", "dog")
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.2, 0.25]


def network() -> FrozenNetwork:
    """Build a toy in float64, so that results do not depend on the batch size."""
    return FrozenNetwork(toy().double(), mean=MEAN, std=STD, size=12, classes=CLASSES, name="toy")


def photos() -> PhotoActivations:
    """Invent activations of 21 photos, of the size that noise has."""
    generator = torch.Generator().manual_seed(1)
    layers = {"features.0": (0.5, 6), "features.5": (0.2, 8), "output": (0.3, 5)}
    values = {
        layer: scale * torch.randn(21, width, generator=generator, dtype=torch.float64)
        for layer, (scale, width) in layers.items()
    }
    toy_network = network()
    origin: dict[str, Any] = {"network": "toy", "weights_hash": toy_network.weights_hash(), "classes": CLASSES}
    names = [f"{index}.png" for index in range(21)]
    return PhotoActivations(values, names, size=12, mean=MEAN, std=STD, **origin)


def pictures(count: int) -> Tensor:
    """Return noise, the same for the same index."""
    generators = (torch.Generator().manual_seed(index) for index in range(count))
    return torch.stack([torch.rand(3, 10, 12, generator=generator) for generator in generators])


def inputs(targets: tuple[str, ...]) -> Callable[[int], tuple[Any, ...]]:
    """Return pictures and their targets."""
    return lambda count: (pictures(count), [targets[index % len(targets)] for index in range(count)])


def activation(**arguments: Any) -> Activation:
    """Build the metric of the clean picture."""
    return Activation(network(), **arguments)


def held_out(**arguments: Any) -> HeldOutActivation:
    """Build the metric under three views."""
    return HeldOutActivation(network(), views=3, **arguments)


def percentile(**arguments: Any) -> ActivationPercentile:
    """Build the metric against the photos."""
    return ActivationPercentile(network(), photos(), **arguments)


def _mistakes(make: Callable[..., Any], *messages: tuple[Any, str], count: int = 1) -> list[Mistake]:
    """Return updates with targets that are refused, and the messages."""

    def update(targets: Any) -> Callable[[], None]:
        return lambda: make().update(pictures(count), targets)

    return [(update(targets), message) for targets, message in messages]


def _bad_targets(make: Callable[..., Any]) -> list[Mistake]:
    return [
        *_mistakes(
            make,
            ("features.50:1", "layer: the network has no layer 'features.50'; did you mean 'features.5'"),
            ("features.0:6", "unit: 'features.0' has 6 units, 0 to 5; there is no 6"),
            ("output:wolv", "class: unknown class 'wolv'; did you mean 'wolf'"),
            ("features.0:1,2", "targets: 'features.0:1,2' names 2 units"),
            ((), "targets: 0 do not fit 1 pictures"),
            (33, "targets must be a target such as 'features.9:33'"),
            ("features.0:", "target: 'features.0:' does not parse"),
        ),
        *_mistakes(make, (["features.0:1"], "targets: 1 do not fit 2 pictures"), count=2),
        (lambda: make().update(pictures(1).repeat(1, 2, 1, 1)[:, :5], "features.0:1"), "channels: pictures have 5"),
    ]


CASES = [
    MetricCase("Activation", activation, inputs(TARGETS), None, None, True, mistakes=_bad_targets(activation)),
    MetricCase(
        *("HeldOutActivation", held_out, inputs(TARGETS), None, None, True),
        mistakes=[
            *_bad_targets(held_out),
            (lambda: HeldOutActivation(network(), views=0), "views must be at least 1"),
            (lambda: HeldOutActivation(network(), seed=-1), "seed must be at least 0"),
            (lambda: HeldOutActivation(network(), transforms="lucid"), "transforms must be a transform"),  # type: ignore[arg-type]
        ],
    ),
    MetricCase(
        *("ActivationPercentile", percentile, inputs(TARGETS[:4]), 0.0, 100.0, True),
        mistakes=[
            *_mistakes(
                percentile,
                ("features.2:1", "target: the photos were not measured at 'features.2'; did you"),
                ("features.0:6", "unit: 'features.0' has 6 units, 0 to 5; there is no 6"),
                ("output:wolv", "class: unknown class 'wolv'; did you mean 'wolf'"),
                ("features.0", "target: 'features.0' is no channel or class"),
                ("features.0:1@2,3", "target: 'features.0:1@2,3' is no channel or class"),
            ),
            (lambda: ActivationPercentile(toy(seed=1), photos()), "photos: they were measured with 'toy'"),
            (lambda: ActivationPercentile(toy().double(), photos()), "photos: they were measured with mean="),
            (lambda: ActivationPercentile(network(), "nowhere.pt"), "path: there is no file 'nowhere.pt'"),
        ],
    ),
]
