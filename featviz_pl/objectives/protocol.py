"""What an objective asks for, and what it is given: the protocol between objectives and whoever runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor


class Network(Protocol):
    """A frozen network, to which objectives only refer."""

    def weights_hash(self) -> str:
        """Return what tells its weights from others."""


class Scorer(Protocol):
    """What an activation's gradient can be asked of: an objective that names its sources and scores an observation."""

    def sources(self) -> list[Source]:
        """Return the activations that it reads."""

    def check(self, setting: Setting) -> None:
        """Refuse a run that cannot work."""

    def __call__(self, observation: Observation) -> Tensor:
        """Return the score of each picture and view (N, V)."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Name pictures whose activations an objective compares with.

    Args:
        image: (N, C, H, W) or (1, C, H, W) in [0, 1]; one picture serves all. With `together`, any number (R, C, H, W).
        through_views: show it through the same views as the picture, at every step; otherwise it is read once, as it
            is.
        together: the pictures are one set that every rendered picture is compared with: read as it is, its activation
            is (1, R, …).
    """

    image: Tensor
    through_views: bool = False
    together: bool = False


@dataclass(frozen=True)
class Source:
    """Name one activation: a layer, of the run's network or another one, for the run's views or for a reference picture.

    Args:
        layer: dotted module name, or ``"output"``.
        network: another network than the run's (whatever stands for one), or None.
        reference: another picture than the run's, or None.
        gradient_of: ask for the gradient of this objective by the activation, detached, instead of the activation
            itself.
    """

    layer: str
    network: object | None = None
    reference: Reference | None = None
    gradient_of: Scorer | None = None


@dataclass(frozen=True)
class Setting:
    """Describe the run to an objective before the first step, so that it can refuse what cannot work.

    Args:
        shapes: of every source that the objective asked for, without the axes of pictures and views.
        count: number of pictures.
        picture: (C, H, W) of each.
        class_names: of the network's output, empty where unknown.
        alpha: whether the last channel of the pictures says how opaque they are.
        class_names_of: the same for every other network.
    """

    shapes: Mapping[Source, tuple[int, ...]]
    count: int
    picture: tuple[int, int, int]
    class_names: tuple[str, ...] = ()
    alpha: bool = False
    class_names_of: Mapping[object, tuple[str, ...]] = field(default_factory=dict)

    def for_network(self, network: object) -> Setting:
        """Return the same setting as it looks to objectives that take this network for the run's."""
        if network is None:
            return self
        return replace(
            self, shapes=_for_network(self.shapes, network), class_names=self.class_names_of.get(network, ())
        )


@dataclass
class Observation:
    """Hold what one step has observation.

    Args:
        pictures: (N, C, H, W) in [0, 1], as they are.
        activations: (N, V, …) for every source; a reference read as it is has V = 1, or V = R for a set of R pictures.
        class_names: of the network's output.
        terms: filled during evaluation: the score (N, V) of every term by name, detached.
        views: (N, V, C, h, w) that gave the activations; the pictures as they are unless given.
        step: which step this is; None where nothing is optimised, so running states stay as they are.
        class_names_of: the class names of every other network.
    """

    pictures: Tensor
    activations: Mapping[Source, Tensor]
    class_names: tuple[str, ...] = ()
    terms: dict[str, Tensor] = field(default_factory=dict)
    views: Tensor | None = None
    step: int | None = None
    class_names_of: Mapping[object, tuple[str, ...]] = field(default_factory=dict)

    def activation(self, source: Source) -> Tensor:
        """Return the activation of a source, in float32 at least."""
        value = self.activations[source]
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    def network_input(self) -> Tensor:
        """Return the views (N, V, C, h, w)."""
        return self.pictures[:, None] if self.views is None else self.views

    def record(self, name: str, score: Tensor) -> None:
        """Keep a term's score for whoever logs; a name that is taken gets a number."""
        unique, number = name, 2
        while unique in self.terms:
            unique, number = f"{name}.{number}", number + 1
        self.terms[unique] = score.detach()

    def without_logging(self) -> Observation:
        """Return the same observation for an evaluation on the side: nothing is recorded, running states stay."""
        return replace(self, terms={}, step=None)

    def for_network(self, network: object) -> Observation:
        """Return the same observation as it looks to objectives that take this network for the run's; the record is shared."""
        if network is None:
            return self
        return replace(
            self, activations=_for_network(self.activations, network), class_names=self.class_names_of.get(network, ())
        )


def _for_network(values: Mapping[Source, Any], network: object) -> dict[Source, Any]:
    """Name the network's own sources as if it were the run's, in place of the run's; other networks are still there by name."""
    named = {source: value for source, value in values.items() if source.network is not None}
    return named | {
        replace(source, network=None): value for source, value in named.items() if source.network == network
    }
