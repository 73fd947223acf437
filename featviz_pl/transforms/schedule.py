"""Schedules of the strength of views: pure functions of the progress, so that a resumed run needs no state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from featviz_pl.numerics.checks import finite_number, unknown


class Schedule(ABC):
    """Map the progress of the run, from 0 to 1, to the strength of the views, from 0 (none) to 1 (as drawn)."""

    @abstractmethod
    def strength(self, progress: float) -> float:
        """Return the strength at a progress in [0, 1]."""

    def __repr__(self) -> str:
        """Show the class and its numbers."""
        return f"{type(self).__name__}({', '.join(f'{name}={value:g}' for name, value in vars(self).items())})"

    def __eq__(self, schedule: object) -> bool:
        """Compare by kind and numbers."""
        return type(self) is type(schedule) and vars(self) == vars(schedule)

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash((type(self), tuple(vars(self).values())))


class Linear(Schedule):
    """Go in a straight line from `start` to `end`.

    Args:
        start: strength at the first step, 0 or more.
        end: strength at the last step, 0 or more.

    Example:
        >>> Linear(0.0, 1.0).strength(0.25)
        0.25
    """

    def __init__(self, start: float = 0.0, end: float = 1.0) -> None:
        self.start, self.end = finite_number("start", start, least=0.0), finite_number("end", end, least=0.0)

    def strength(self, progress: float) -> float:
        """Return the point of the line."""
        return self.start + (self.end - self.start) * progress


class Cosine(Linear):
    """Go along half a cosine from `start` to `end`: slow, fast, slow.

    Args:
        start: strength at the first step, 0 or more.
        end: strength at the last step, 0 or more.

    Example:
        >>> round(Cosine(0.0, 1.0).strength(0.5), 6)
        0.5
    """

    def strength(self, progress: float) -> float:
        """Return the point of the curve."""
        return super().strength(0.5 - 0.5 * math.cos(math.pi * progress))


class WarmUp(Schedule):
    """Rise in a straight line from 0 to 1 over the first part of the run, then stay.

    Args:
        share: of the run that the rise takes, in (0, 1].

    Example:
        >>> WarmUp(0.5).strength(0.25), WarmUp(0.5).strength(0.75)
        (0.5, 1.0)
    """

    def __init__(self, share: float = 0.1) -> None:
        self.share = finite_number("share", share, above=0.0, most=1.0)

    def strength(self, progress: float) -> float:
        """Return the height of the ramp."""
        return min(1.0, progress / self.share)


SCHEDULES: dict[str, type[Schedule]] = {"linear": Linear, "cosine": Cosine, "warmup": WarmUp}


def schedule_named(schedule: str | Schedule | None) -> Schedule | None:
    """Resolve a schedule's name; pass on a schedule or None.

    Raises:
        ValueError: when the name is unknown.
        TypeError: when it is neither a name nor a schedule.
    """
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise unknown("schedule", "schedule", schedule, SCHEDULES)
        return SCHEDULES[schedule]()
    if schedule is not None and not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule or one of {list(SCHEDULES)}, got {type(schedule).__name__}")
    return schedule
