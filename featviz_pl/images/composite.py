"""What images that are made of other images have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch

from featviz_pl.images.base import Image


class CompositeImage(Image):
    """Delegate to the images that this one is made of; parts that have been started already stay as they are.

    A subclass implements `parts`, `start_from`, `forward` and `extra_repr`, which returns the arguments of the
    constructor, and calls `update_from_parts` at the end of its constructor.
    """

    @property
    @abstractmethod
    def parts(self) -> Sequence[Image]:
        """The images that this one is made of."""

    def update_from_parts(self) -> None:
        """Set `alpha`, `has_idle_parameters` and `initialized` to those of the parts."""
        self.alpha = any(part.alpha for part in self.parts)
        self.has_idle_parameters = any(part.has_idle_parameters for part in self.parts)
        self.initialized.fill_(all(bool(part.initialized) for part in self.parts))

    @property
    def count(self) -> int | None:
        """Number of pictures, or None before it is known."""
        return self.parts[0].count

    def allocate(self, count: int) -> None:
        """Allocate every part for `count` pictures."""
        for part in self.parts:
            part.allocate(count)

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the parts in order, each picture's from its own CPU generator."""
        for part in self.parts:
            part.initialize(len(generators), generators)

    def advance(self, step: int, steps: int) -> None:
        """Advance the parts."""
        for part in self.parts:
            part.advance(step, steps)

    def __repr__(self) -> str:
        """Return the constructor."""
        return f"{type(self).__name__}({self.extra_repr()})"
