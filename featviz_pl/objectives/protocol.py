"""The protocol between objectives and the code that runs them: sources, and what one step observed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor


class Network(Protocol):
    """A frozen network, to which objectives only refer."""

    def weights_hash(self) -> str:
        """Return a hash of the weights."""


class Scorer(Protocol):
    """An objective whose gradient by an activation is a source: it names its own sources and scores an observation."""

    def sources(self) -> list[Source]:
        """Return the activations that it reads."""

    def check(self, setting: Setting) -> None:
        """Raise ValueError for a run that cannot work."""

    def __call__(self, observation: Observation) -> Tensor:
        """Return the score of each picture and view (N, V)."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Name pictures whose activations an objective compares with.

    Args:
        image: (N, C, H, W) or (1, C, H, W) in [0, 1]; one picture serves all. With `together`, any number (R, C, H, W).
        through_views: read it through the same views as the picture, at every step; otherwise once, without views.
        together: the pictures are one set that every rendered picture is compared with: read without views, its
            activation is (1, R, …).
    """

    image: Tensor
    through_views: bool = False
    together: bool = False


@dataclass(frozen=True)
class Source:
    """Name one activation: a layer of the run's or another network, for the run's views or for a reference picture.

    Args:
        layer: dotted module name, or ``"output"``.
        network: another network than the run's (a name, a module or a frozen network), or None.
        reference: another picture than the run's, or None.
        gradient_of: an objective whose gradient by the activation, detached, is read instead of the activation.
    """

    layer: str
    network: object | None = None
    _: KW_ONLY
    reference: Reference | None = None
    gradient_of: Scorer | None = None


@dataclass(frozen=True)
class Setting:
    """Describe the run to an objective before the first step, so that it can refuse what cannot work.

    Args:
        shapes: of every source of the objective, without the axes of pictures and views.
        count: number of pictures.
        picture: (C, H, W) of each.
        class_names: of the network's output, empty where unknown.
        alpha: whether the last channel of the pictures is their opacity.
        class_names_of: the same for every other network.
    """

    shapes: Mapping[Source, tuple[int, ...]]
    count: int
    picture: tuple[int, int, int]
    _: KW_ONLY
    class_names: tuple[str, ...] = ()
    alpha: bool = False
    class_names_of: Mapping[object, tuple[str, ...]] = field(default_factory=dict)

    def for_network(self, network: object) -> Setting:
        """Return the same setting for objectives that take this network for the run's."""
        if network is None:
            return self
        shapes, class_names = _as_run_network(self.shapes, network), self.class_names_of.get(network, ())
        return replace(self, shapes=shapes, class_names=class_names)


@dataclass
class Observation:
    """Hold the pictures, views and activations of one step.

    Args:
        pictures: (N, C, H, W) in [0, 1], without views.
        activations: (N, V, …) for every source; a reference without views has V = 1, a set of R pictures V = R.
        class_names: of the network's output.
        terms: filled during evaluation: the score (N, V) of every term by name, detached; with `PerPicture` of some
            pictures only.
        views: (N, V, C, h, w) of the activations; None where the network was shown the pictures themselves.
        step: index of the step; None outside of an optimization, where running states do not change.
        class_names_of: the class names of every other network.
    """

    pictures: Tensor
    activations: Mapping[Source, Tensor]
    _: KW_ONLY
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
        """Return the views (N, V, C, h, w), or the pictures as one view."""
        return self.pictures[:, None] if self.views is None else self.views

    def record(self, name: str, score: Tensor) -> None:
        """Record a term's score for logging; a name that exists gets a number."""
        unique, number = name, 2
        while unique in self.terms:
            unique, number = f"{name}.{number}", number + 1
        self.terms[unique] = score.detach()

    def without_logging(self) -> Observation:
        """Return the same observation for an auxiliary evaluation, which records nothing and changes no state."""
        return replace(self, terms={}, step=None)

    def for_network(self, network: object) -> Observation:
        """Return the same observation for objectives that take this network for the run's; `terms` is shared."""
        if network is None:
            return self
        activations, class_names = _as_run_network(self.activations, network), self.class_names_of.get(network, ())
        return replace(self, activations=activations, class_names=class_names)


def _as_run_network(values: Mapping[Source, Any], network: object) -> dict[Source, Any]:
    """Return the values of other networks, and once more those of this one as if it were the run's."""
    named = {source: value for source, value in values.items() if source.network is not None}
    renamed = {replace(source, network=None): value for source, value in named.items() if source.network == network}
    return named | renamed
