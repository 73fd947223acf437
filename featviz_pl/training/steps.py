"""The steps of a run, as the data of its training."""

from __future__ import annotations

from collections.abc import Iterator


class StepSource:
    """Count the steps of one run: sized, no Sequence, resumable. Nothing is loaded from disk.

    Args:
        steps: how many.

    Example:
        >>> list(StepSource(3))
        [0, 1, 2]
    """

    def __init__(self, steps: int) -> None:
        self.steps, self._next, self._resumed = steps, 0, False

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        if not self._resumed:
            self._next = 0
        self._resumed = False
        while self._next < self.steps:
            self._next += 1
            yield self._next - 1

    def state_dict(self) -> dict[str, int]:
        """Return where the run is."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue there."""
        self._next, self._resumed = int(state["next"]), True
