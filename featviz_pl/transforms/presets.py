"""Named ranges of views, as published."""

from __future__ import annotations

from collections.abc import Callable

from featviz_pl.numerics._checks import unknown
from featviz_pl.transforms.compose import Compose
from featviz_pl.transforms.geometry import Jitter, Pad, Rotate, Scale


def lucid() -> Compose:
    """Return Lucid's standard transforms.

    Pad by 12 grey pixels, jitter by 8, scale by 0.90 to 1.10 in steps of 0.02, rotate by -10 to 10 degrees or, five chances more,
    not at all, jitter by 4. Lucid's jitters are random crops: here shifts of the same range.

    Example:
        >>> lucid().listed()[1]
        Jitter(4)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (lucid/optvis/transform.py)
    """
    factors = [round(0.90 + 0.02 * step, 2) for step in range(11)]
    degrees = [float(angle) for angle in range(-10, 11)] + [0.0] * 5
    return Compose([Pad(12, "constant", value=0.5), Jitter(4), Scale(factors), Rotate(degrees), Jitter(2)])


def article() -> Compose:
    """Return the views of the article this library starts from.

    Shifts of up to 8 pixels after reflection padding, whole numbers of half-degrees from -8 to 8 (so up to 4 degrees), scales of
    0.95, 0.975, 1, 1.025 and 1.05; four of them at a time.

    Example:
        >>> article().listed()[2]
        Rotate([-4, -3.5, -3, 3, 3.5, 4; 17 values])
    """
    degrees = [half / 2 for half in range(-8, 9)]
    return Compose([Pad(9, "reflect"), Jitter(8), Rotate(degrees), Scale([0.95, 0.975, 1.0, 1.025, 1.05])])


# Name: (maker of the transforms, number of views the source uses).
PRESETS: dict[str, tuple[Callable[[], Compose], int]] = {"lucid": (lucid, 1), "article": (article, 4)}


def view_preset(name: str) -> tuple[Compose, int]:
    """Return the transforms and the number of views of a preset.

    Raises:
        ValueError: when there is no such preset.

    Example:
        >>> view_preset("article")[1]
        4
    """
    if name not in PRESETS:
        raise unknown("transforms", "preset", name, PRESETS)
    make, views = PRESETS[name]
    return make(), views
