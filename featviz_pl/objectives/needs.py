"""What an objective asks for, and what it is given: the protocol between objectives and whoever runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """Name a picture whose activations an objective compares with.

    Args:
        image: (N, C, H, W) or (1, C, H, W) in [0, 1]; one picture serves all.
        through_views: show it through the same views as the picture, at every step; otherwise it is read once, as it is.
    """

    image: Tensor
    through_views: bool = False


@dataclass(frozen=True)
class Source:
    """Name one activation: a layer, of the run's network or another one, for the run's views or for a reference picture.

    Args:
        layer: dotted module name, or ``"output"``.
        network: another network than the run's (whatever stands for one), or None.
        reference: another picture than the run's, or None.
    """

    layer: str
    network: object | None = None
    reference: Reference | None = None


@dataclass(frozen=True)
class Setting:
    """Describe the run to an objective before the first step, so that it can refuse what cannot work.

    Args:
        shapes: of every source that the objective asked for, without the axes of pictures and views.
        count: number of pictures.
        picture: (C, H, W) of each.
        class_names: of the network's output, empty where unknown.
    """

    shapes: Mapping[Source, tuple[int, ...]]
    count: int
    picture: tuple[int, int, int]
    class_names: tuple[str, ...] = ()


@dataclass
class Observation:
    """Hold what one step has seen.

    Args:
        pictures: (N, C, H, W) in [0, 1], as they are.
        activations: (N, V, …) for every source; a reference read as it is has V = 1.
        class_names: of the network's output.
        terms: filled during evaluation: the score (N, V) of every term by name, detached.
    """

    pictures: Tensor
    activations: Mapping[Source, Tensor]
    class_names: tuple[str, ...] = ()
    terms: dict[str, Tensor] = field(default_factory=dict)

    def activation(self, source: Source) -> Tensor:
        """Return the activation of a source, in float32 at least."""
        value = self.activations[source]
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    def record(self, name: str, score: Tensor) -> None:
        """Keep a term's score for whoever logs; a name that is taken gets a number."""
        unique, number = name, 2
        while unique in self.terms:
            unique, number = f"{name}.{number}", number + 1
        self.terms[unique] = score.detach()
