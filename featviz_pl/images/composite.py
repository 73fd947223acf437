"""What images that are made of other images have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from featviz_pl.images.base import Image


class CompositeImage(Image):
    """Delegate to other images what a run asks for; a part that was started already is left alone, as it would be by itself.

    A new one implements `parts` and `constructor`, and calls `follow_parts` at the end of its constructor.
    """

    @property
    @abstractmethod
    def parts(self) -> Sequence[Image]:
        """The images that this one is made of."""

    @abstractmethod
    def constructor(self) -> str:
        """Return the arguments with which this image can be built, as text."""

    def follow_parts(self) -> None:
        """Take over from the parts whether they are transparent, rest in some steps and were started."""
        self.alpha = any(part.alpha for part in self.parts)
        self.has_idle_parameters = any(part.has_idle_parameters for part in self.parts)
        self.initialized.fill_(all(bool(part.initialized) for part in self.parts))

    def advance(self, step: int, steps: int) -> None:
        """Tell the parts which of how many steps comes next."""
        for part in self.parts:
            part.advance(step, steps)

    def __repr__(self) -> str:
        """Show the call that builds this image."""
        return f"{type(self).__name__}({self.constructor()})"
