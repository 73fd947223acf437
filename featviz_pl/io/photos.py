"""Photos in folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from featviz_pl.numerics.checks import whole_number

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif")


_MODES = {1: "L", 3: "RGB"}


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


def read_photo(path: str, channels: int) -> Tensor:
    """Return a photo (channels, H, W) in [0, 1].

    Raises:
        UnreadableError: when the file is no photo of 8 bits per channel, or is damaged.
    """
    try:
        with Pillow.open(path) as photo:
            return decoded(photo, channels)
    except Exception as error:  # decoders raise anything on damaged files
        raise UnreadableError(f"{os.path.basename(path)}: {error}") from error


def decoded(photo: Pillow.Image, channels: int) -> Tensor:
    """Return a photo that Pillow holds as (channels, H, W) in [0, 1]; palettes, CMYK and transparency are converted.

    Raises:
        ValueError: when it has more than 8 bits per channel.

    Example:
        >>> decoded(Pillow.new("CMYK", (4, 2), (0, 255, 255, 0)), 3)[:, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    if photo.mode.startswith(("I", "F")):
        raise ValueError(f"more than 8 bits per channel (mode {photo.mode})")  # Pillow would clip it
    opaque = photo.convert("RGBA") if "transparency" in photo.info else photo
    levels = np.array(opaque.convert(_MODES[channels]))
    return torch.from_numpy(levels.reshape(*levels.shape[:2], channels)).permute(2, 0, 1).to(torch.float32) / 255


def check_photo_channels(channels: int) -> None:
    """Refuse numbers of channels that photos do not have."""
    if channels not in _MODES:
        raise ValueError(f"channels must be 1 or 3 for photos, got {channels!r}")


class UnreadableError(ValueError):
    """Say that one photo cannot be read; it is skipped and counted."""
