"""Observations for objectives that compare with references, networks small enough to follow by hand, and pictures on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from featviz_pl.engine import Ascent
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Objective, Observation, Source
from featviz_pl.transforms import Compose, Jitter, Rotate, Views

SIZE = 12  # of the pictures of `bound`


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Draw numbers of both signs in double precision."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    """Draw pictures in double precision, away from black and white."""
    return (
        torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.8 + 0.1
    )


def read_shape(source: Source, shape: tuple[int, ...], count: int, views: int) -> tuple[int, ...]:
    """Return the shape that a run hands out for a source."""
    if source.reference is None:
        return (count, views, *shape)
    references = len(source.reference.image)
    return (
        (1, references, *shape)
        if source.reference.together
        else (references, views if source.reference.through_views else 1, *shape)
    )


def observed(
    objective: Objective,
    shapes: Mapping[str, tuple[int, ...]],
    count: int = 1,
    views: int = 1,
    seed: int = 0,
    step: int | None = None,
) -> Observation:
    """Fill an observation for an objective with drawn activations."""
    read = {
        source: numbers(*read_shape(source, shapes[source.layer], count, views), seed=seed + index)
        for index, source in enumerate(objective.sources())
    }
    return Observation(pictures(count, seed=seed), read, step=step)


def small(seed: int = 7) -> nn.Sequential:
    """Build a network in double precision that rectifies out of place, so that its parts can be run one by one."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.Tanh(), nn.Conv2d(5, 3, 3)
        ).double()


def run_parts(network: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    """Return what every part gives for pictures (B, C, H, W), on one graph."""
    results: dict[str, Tensor] = {}
    for name, part in network.named_children():
        x = part(x)
        results[name] = x
    return results


def moving(count: int = 3) -> Views:
    """Make views that move and turn the picture."""
    return Views(Compose([Jitter(2), Rotate((-20, 20))]), count=count)


def bound(
    objective: Objective, start: Tensor, views: Views | None = None, network: nn.Module | None = None, seed: int = 1
) -> Ascent:
    """Bind pictures in double precision to the small network."""
    image = PixelImage(tuple(start.shape[-2:]), count=len(start), color="none")
    image.double()
    image.start_from(start)
    made = Ascent(image, FrozenNetwork(network or small()), objective, seed=seed, views=views)
    made.initialize()
    made.prepare(dtype=torch.float64)
    return made


def views_of(made: Ascent, images: Tensor, step: int, steps: int) -> Tensor:
    """Show pictures (N, C, H, W) as a step shows the run's, (N, V, C, h, w)."""
    if made.views is None:
        return images[:, None]
    drawn = made.views.sample(made.seed, step, made.view_keys)
    return made.views.apply(images, drawn, step / (steps - 1))


def weight_gradient(made: Ascent, loss: Tensor) -> Tensor:
    """Return the gradient by the weights of the image."""
    assert isinstance(made.image, PixelImage)
    assert made.image.weight is not None
    (gradient,) = torch.autograd.grad(loss, made.image.weight)
    return gradient


def from_yaml(value: Any) -> Any:
    """Build an objective from what a configuration file holds."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=Objective)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return instantiate(parser.parse_object({"objective": value})).objective
