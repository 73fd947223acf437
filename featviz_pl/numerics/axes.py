"""Which axis of an activation counts units."""

from __future__ import annotations

from collections.abc import Sequence


def unit_axis(shape: Sequence[int]) -> int:
    """Return the axis that counts the units of an activation (…): channels (C, H, W), token features (T, F), or features (F,).

    Example:
        >>> unit_axis((64, 8, 8)), unit_axis((197, 768)), unit_axis((1000,))
        (0, 1, 0)
    """
    return 1 if len(shape) == 2 else 0
