"""Pictures on disk: whole or absent, with their origin, alone, in sheets and in motion."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

__all__ = [
    "as_saved",
    "contact_sheet",
    "read_picture",
    "read_provenance",
    "save_animation",
    "save_png",
    "to_pillow",
    "to_uint8",
]

PROVENANCE_KEY = "featviz_pl"


def to_uint8(image: Tensor) -> Tensor:
    """Round pictures in [0, 1] to the 256 levels that a file holds.

    Shape:
        any -> the same, uint8

    Example:
        >>> to_uint8(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0, 128, 255]
    """
    return (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def as_saved(image: Tensor) -> Tensor:
    """Return pictures as they will be read back from a file, in the precision of the input.

    Example:
        >>> round(as_saved(torch.tensor(0.5)).item() * 255, 3)
        128.0
    """
    return to_uint8(image).to(image.dtype) / 255


def displayable(image: Tensor) -> Tensor:
    """Return a picture (C, H, W) with 1, 3 or 4 channels: as it is, or its channels as grey panels side by side.

    Example:
        >>> displayable(torch.rand(7, 4, 6)).shape
        torch.Size([1, 4, 42])
    """
    if image.ndim != 3:
        raise ValueError(f"image must be one picture (C, H, W), got shape {tuple(image.shape)}")
    return image if image.shape[0] in (1, 3, 4) else torch.cat(list(image), dim=1)[None]


def to_pillow(image: Tensor) -> Pillow.Image:
    """Turn one picture (C, H, W) into a Pillow image: grey, RGB or RGBA; other numbers of channels as grey panels side by side.

    Example:
        >>> to_pillow(torch.rand(3, 4, 6)).size, to_pillow(torch.rand(7, 4, 6)).size
        ((6, 4), (42, 4))
    """
    levels = to_uint8(displayable(image)).cpu().permute(1, 2, 0).numpy()
    return Pillow.fromarray(np.ascontiguousarray(levels[..., 0] if levels.shape[-1] == 1 else levels))


def check_output(path: str | os.PathLike[str], suffix: str = ".png") -> Path:
    """Return the path when a file of that kind can be written there, trying it out; leave nothing behind.

    Raises:
        ValueError: when the ending is wrong, the path is a folder, or its folder cannot be made or written.
    """
    chosen = Path(path)
    if chosen.suffix.lower() != suffix:
        raise ValueError(f"output: {str(path)!r} must end in {suffix}")
    if chosen.is_dir():
        raise ValueError(f"output: {str(path)!r} is a folder; give the path of a file")
    folder = chosen.parent
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"output: cannot write {str(path)!r}: {error.strerror or error}") from error
    return chosen


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], None]) -> Path:
    """Write a file under a temporary name beside its place, then rename it: readers see all of it or none."""
    chosen = Path(path)
    chosen.parent.mkdir(parents=True, exist_ok=True)
    temporary = chosen.with_name(f".{chosen.stem[:100]}.{os.getpid()}.part")
    try:
        write(temporary)
        os.replace(temporary, chosen)
    finally:
        temporary.unlink(missing_ok=True)
    return chosen


def save_png(image: Tensor, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> Path:
    """Save one picture (C, H, W) in [0, 1] as PNG, with its origin in a text chunk.

    Args:
        image: the picture.
        path: ends in .png; missing folders are made.
        provenance: plain values, the same for equal runs; see `read_provenance`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_provenance(save_png(torch.rand(3, 4, 4), f"{folder}/a.png", {"seed": 0}))
        {'seed': 0}
    """
    chosen = check_output(path)
    info = PngInfo()
    if provenance is not None:
        info.add_text(PROVENANCE_KEY, json.dumps(provenance, sort_keys=True, ensure_ascii=True))
    return write_whole(chosen, lambda temporary: to_pillow(image).save(temporary, format="PNG", pnginfo=info))


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return where a picture came from: network, target, seed and so on.

    Raises:
        ValueError: when the file is no PNG of this library.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_provenance(save_png(torch.rand(1, 4, 4), f"{folder}/a.png", {"target": "features.9:33"}))["target"]
        'features.9:33'
    """
    try:
        with Pillow.open(path) as picture:
            picture.load()
            text = picture.info.get(PROVENANCE_KEY)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(f"path: cannot read {str(path)!r}: {error}") from error
    if text is None:
        raise ValueError(f"path: {str(path)!r} carries no provenance of featviz_pl")
    origin: dict[str, Any] = json.loads(text)
    return origin


def read_picture(path: str | os.PathLike[str], channels: int = 3) -> Tensor:
    """Read a picture (channels, H, W) in [0, 1]; grey for one channel, RGB for three, RGBA for four.

    Raises:
        ValueError: when the file is missing or no picture, or there is no such number of channels in a picture file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_picture(save_png(torch.ones(3, 4, 6), f"{folder}/a.png"), channels=1).shape
        torch.Size([1, 4, 6])
    """
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise ValueError(f"channels: picture files hold 1, 3 or 4, not {channels}")
    try:
        with Pillow.open(path) as picture:
            levels = np.array(picture.convert(modes[channels]))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(f"path: cannot read a picture from {str(path)!r}: {error}") from error
    return torch.from_numpy(levels.reshape(*levels.shape[:2], channels)).permute(2, 0, 1).float() / 255


def contact_sheet(images: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Lay pictures out in rows on white.

    Shape:
        (N, C, H, W) -> (C, height, width)

    Args:
        images: the pictures, all of one size.
        columns: per row; the layout nearest to a square unless given.
        gap: white pixels between pictures.

    Example:
        >>> contact_sheet(torch.rand(5, 3, 8, 8), columns=3).shape
        torch.Size([3, 18, 28])
    """
    count, channels, height, width = images.shape
    across = columns or _columns(count, height / width)
    down = math.ceil(count / across)
    sheet = images.new_ones(channels, down * (height + gap) - gap, across * (width + gap) - gap)
    for index, image in enumerate(images.detach()):
        top, left = index // across * (height + gap), index % across * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def _columns(count: int, aspect: float) -> int:
    """Return the number of columns that leaves the fewest places empty, of those that make the sheet square or somewhat wider."""
    square = math.ceil(math.sqrt(count * aspect))
    return min(range(square, square + square // 4 + 1), key=lambda across: (-count % across, across))


def sheet(images: Tensor) -> Tensor:
    """Return the one picture (C, H, W) of a batch, or a contact sheet of several.

    Example:
        >>> sheet(torch.rand(1, 3, 8, 8)).shape, sheet(torch.rand(4, 3, 8, 8)).shape
        (torch.Size([3, 8, 8]), torch.Size([3, 18, 18]))
    """
    return images[0] if len(images) == 1 else contact_sheet(images)


def picture_names(targets: Sequence[str]) -> list[str]:
    """Return a short file name part for each picture: its unit or class where these differ, else its number.

    Example:
        >>> picture_names(["features.9:3", "features.9:12"]), picture_names(["a:1", "b:1"])
        (['3', '12'], ['0', '1'])
    """
    names = [re.sub(r"[^\w,@-]+", "-", target.rpartition(":")[2]).strip("-") for target in targets]
    if len(set(names)) == len(names) and all(names):
        return names
    width = len(str(len(names) - 1))
    return [f"{index:0{width}d}" for index in range(len(names))]


def save_animation(frames: Sequence[Path], path: str | os.PathLike[str], milliseconds: int = 120) -> Path:
    """Join picture files of one size into an animated WebP that holds its last frame longer.

    Args:
        frames: picture files, in order.
        path: ends in .webp.
        milliseconds: that each frame is shown.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frames = [save_png(torch.full((3, 4, 4), grey), f"{folder}/{grey}.png") for grey in (0.2, 0.8)]
        ...     save_animation(frames, f"{folder}/both.webp").name
        'both.webp'
    """
    chosen = check_output(path, ".webp")
    pictures = []
    for frame in frames:
        with Pillow.open(frame) as picture:
            pictures.append(picture.convert("RGB"))
    times = [milliseconds] * (len(pictures) - 1) + [10 * milliseconds]

    def write(temporary: Path) -> None:
        pictures[0].save(
            temporary, format="WEBP", save_all=True, append_images=pictures[1:], duration=times, loop=0, quality=90, minimize_size=True
        )

    return write_whole(chosen, write)
