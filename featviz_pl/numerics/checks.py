"""Argument checks: errors name the argument, its value, and what would be right."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

from featviz_pl.numerics.host_memory import BYTES_PER_WEIGHT, require_memory


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, or its class where it has none.

    Example:
        >>> first_line(KeyError()), first_line(ValueError("size: too small\nin line 3"))
        ('KeyError', 'size: too small')
    """
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def near(name: str, names: Iterable[str], at_most: int = 3) -> str:
    """Return part of a sentence that lists names similar to `name`, or the first ones when none is."""
    known = list(names)
    close = difflib.get_close_matches(name, known, at_most, cutoff=0.5)
    close = close or [entry for entry in known if name and (name in entry or entry in name)][:at_most]
    if close:
        return f"did you mean {', '.join(map(repr, close))}?"
    return f"known: {', '.join(known[:12])}{', …' if len(known) > 12 else ''}"


def unknown(argument: str, kind: str, name: str, names: Iterable[str]) -> ValueError:
    """Return the error for a name that is not among the known ones."""
    return ValueError(f"{argument}: unknown {kind} {name!r}; {near(name, names)}")


def whole_number(argument: str, value: Any, least: int = 1, most: int = 2**63 - 1) -> int:
    """Return a whole number of at least `least` and at most `most`, or raise."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{argument} must be a whole number of at least {least}, got {value!r}")
    number = int(value.__index__())
    if number < least:
        raise ValueError(f"{argument} must be at least {least}, got {number}")
    if number > most:
        shown = str(number) if number < 10**40 else "more than 40 digits"
        raise ValueError(f"{argument} must be at most {most}, got {shown}")
    return number


def learning_rate(value: Any) -> float:
    """Return a learning rate: above 0, and small enough for float32, or raise."""
    return finite_number("lr", value, above=0.0, most=3.4e38)


def finite_number(
    argument: str, value: Any, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> float:
    """Return a finite number of at least `least`, above `above` and at most `most`, or raise."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{argument} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < least or number <= above or number > most:
        lower = f"above {above:g}" if above > -math.inf else f"at least {least:g}" if least > -math.inf else ""
        bounds = [bound for bound in (lower, f"at most {most:g}" if most < math.inf else "") if bound]
        raise ValueError(f"{argument} must be {' and '.join(bounds) or 'finite'}, got {value!r}")
    return number


def size_pair(argument: str, value: Any) -> tuple[int, int]:
    """Return ``(height, width)`` from one whole number or two, if memory could hold one channel of so many pixels."""
    sides = value if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(sides) != 2:
        raise ValueError(f"{argument} must be one number or (height, width), got {value!r}")
    height, width = (whole_number(argument, side) for side in sides)
    require_memory(argument, f"{height} x {width} pixels", height * width * BYTES_PER_WEIGHT)
    return height, width
