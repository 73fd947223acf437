"""Pictures in motion."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from featviz_pl.io.files import check_output, write_whole
from featviz_pl.io.reading import open_picture


def save_animation(frames: Sequence[Path], path: str | os.PathLike[str], milliseconds: int = 120) -> Path:
    """Join picture files of one size into an animated WebP that holds its last frame longer.

    Args:
        frames: picture files, in order.
        path: ends in .webp.
        milliseconds: that each frame is shown.

    Example:
        >>> import tempfile, torch
        >>> from featviz_pl.io import save_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frames = [save_png(torch.full((3, 4, 4), grey), f"{folder}/{grey}.png") for grey in (0.2, 0.8)]
        ...     save_animation(frames, f"{folder}/both.webp").name
        'both.webp'
    """
    output = check_output(path, ".webp")
    pictures = [open_picture(frame).convert("RGB") for frame in frames]
    times = [milliseconds] * (len(pictures) - 1) + [10 * milliseconds]

    def write(temporary: Path) -> None:
        pictures[0].save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=times,
            loop=0,
            quality=90,
            minimize_size=True,
        )

    return write_whole(output, write)
