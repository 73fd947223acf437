"""Contract cases of the metrics of one target's activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from metric_case import MetricCase
from torch import Tensor
from toys import toy

from featviz_pl.metrics import Activation, ActivationPercentile, HeldOutActivation, PhotoActivations
from featviz_pl.networks import FrozenNetwork

TARGETS = ("features.0:3", "output:wolf", "features.5:0", "output:1", "features.0:1@2,5")
CLASSES = ("fox", "wolf", "owl", "cat", "dog")


def network() -> FrozenNetwork:
    """Build a toy in float64, so that the size of a batch does not show in the last digits."""
    return FrozenNetwork(
        toy().double(), mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.25], size=12, classes=CLASSES, name="toy"
    )


def photos() -> PhotoActivations:
    """Make up how 21 photos excite the toy, near to how noise does."""
    generator = torch.Generator().manual_seed(1)
    values = {"features.0": 0.5, "features.5": 0.2, "output": 0.3}
    held = {
        layer: reach * torch.randn(21, width, generator=generator, dtype=torch.float64)
        for (layer, reach), width in zip(values.items(), (6, 8, 5))
    }
    guest = network()
    names = [f"{index}.png" for index in range(21)]
    return PhotoActivations(
        held,
        names,
        network=guest.name,
        weights_hash=guest.weights_hash(),
        size=12,
        mean=guest.mean,
        std=guest.std,
        classes=CLASSES,
    )


def pictures(count: int) -> Tensor:
    """Return noise, the same for the same index."""
    return torch.stack(
        [torch.rand(3, 10, 12, generator=torch.Generator().manual_seed(index)) for index in range(count)]
    )


def inputs(targets: tuple[str, ...]) -> Callable[[int], tuple[Any, ...]]:
    """Return pictures and their targets."""
    return lambda count: (pictures(count), [targets[index % len(targets)] for index in range(count)])


def _mistakes(make: Callable[..., Any]) -> list[tuple[Callable[[], Any], str]]:
    return [
        (
            lambda: make().update(pictures(1), "features.50:1"),
            "layer: the network has no layer 'features.50'; did you mean 'features.5'",
        ),
        (lambda: make().update(pictures(1), "features.0:6"), "unit: 'features.0' has 6 units, 0 to 5; there is no 6"),
        (lambda: make().update(pictures(1), "output:wolv"), "class: unknown class 'wolv'; did you mean 'wolf'"),
        (
            lambda: make().update(pictures(2), "features.0:1,2"),
            "targets: 'features.0:1,2' names 2 units; give each picture a target",
        ),
        (lambda: make().update(pictures(2), ["features.0:1"]), "targets: 1 do not fit 2 pictures"),
        (lambda: make().update(pictures(1)), "targets: 0 do not fit 1 pictures"),
        (lambda: make().update(pictures(1), 33), "targets must be a target such as 'features.9:33'"),
        (lambda: make().update(pictures(1), "features.0:"), "target: 'features.0:' does not parse"),
        (lambda: make().update(pictures(1) * torch.nan, "features.0:1"), "pictures: NaN in 1 of 1"),
        (lambda: make().update(pictures(1)[:, :1].repeat(1, 5, 1, 1), "features.0:1"), "channels: pictures have 5"),
    ]


def activation(**arguments: Any) -> Activation:
    """Build the metric of the clean picture."""
    return Activation(network(), **arguments)


def held_out(**arguments: Any) -> HeldOutActivation:
    """Build the metric under three views."""
    return HeldOutActivation(network(), views=3, **arguments)


def percentile(**arguments: Any) -> ActivationPercentile:
    """Build the metric against the photos."""
    return ActivationPercentile(network(), photos(), **arguments)


CASES = [
    MetricCase(
        "Activation",
        activation,
        inputs(TARGETS),
        lower=None,
        upper=None,
        higher_is_better=True,
        bad=_mistakes(activation),
    ),
    MetricCase(
        "HeldOutActivation",
        held_out,
        inputs(TARGETS),
        lower=None,
        upper=None,
        higher_is_better=True,
        bad=[
            *_mistakes(held_out),
            (lambda: HeldOutActivation(network(), views=0), "views must be at least 1"),
            (lambda: HeldOutActivation(network(), seed=-1), "seed must be at least 0"),
            (lambda: HeldOutActivation(network(), transforms="lucid"), "transforms must be a transform"),  # type: ignore[arg-type]
        ],
    ),
    MetricCase(
        "ActivationPercentile",
        percentile,
        inputs(TARGETS[:4]),
        lower=0.0,
        upper=100.0,
        higher_is_better=True,
        bad=[
            (
                lambda: percentile().update(pictures(1), "features.2:1"),
                "target: the photos were not measured at 'features.2'; did you",
            ),
            (
                lambda: percentile().update(pictures(1), "features.0:6"),
                "unit: 'features.0' has 6 units, 0 to 5; there is no 6",
            ),
            (
                lambda: percentile().update(pictures(1), "output:wolv"),
                "class: unknown class 'wolv'; did you mean 'wolf'",
            ),
            (lambda: percentile().update(pictures(1), "features.0"), "target: 'features.0' is no channel or class"),
            (
                lambda: percentile().update(pictures(1), "features.0:1@2,3"),
                "target: 'features.0:1@2,3' is no channel or class",
            ),
            (lambda: ActivationPercentile(toy(seed=1), photos()), "photos: they were measured with 'toy'"),
            (lambda: ActivationPercentile(toy().double(), photos()), "photos: they were measured with mean="),
            (lambda: ActivationPercentile(network(), "nowhere.pt"), "path: there is no file 'nowhere.pt'"),
        ],
    ),
]
