"""Photos in folders."""

from __future__ import annotations

import os
from pathlib import Path

from featviz_pl.numerics.checks import whole_number

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif")


def photo_paths(folder: str | os.PathLike[str], limit: int | None = None) -> list[str]:
    """Return the image files of a folder and its subfolders, sorted, or so many of them evenly spread.

    Raises:
        ValueError: when the folder is missing or holds none.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"folder: there is no folder {str(folder)!r}")
    found = sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(_SUFFIXES) and not name.startswith(".")
    )
    if not found:
        raise ValueError(f"folder: {str(folder)!r} holds no image files ({', '.join(_SUFFIXES)})")
    return [found[index] for index in spread(len(found), limit)]


def spread(count: int, limit: int | None) -> list[int]:
    """Return the numbers below `count`, or at most `limit` of them, evenly spread.

    Example:
        >>> spread(10, 4), spread(3, 4)
        ([0, 2, 5, 7], [0, 1, 2])
    """
    taken = count if limit is None else min(count, whole_number("limit", limit))
    return [index * count // taken for index in range(taken)]


def check_photo_channels(channels: int) -> None:
    """Refuse numbers of channels that photos do not have."""
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3 for photos, got {channels!r}")
