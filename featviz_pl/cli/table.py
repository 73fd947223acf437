"""Tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns as wide as they need to be, the last one as it is.

    Example:
        >>> print_table([("layer", "units"), ("stem", "16")])
        layer  units
        stem   16
    """
    widths = [max(map(len, column)) for column in zip(*rows)][:-1]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]))
