"""Read picture files: one reader for starts, references, masks, evaluated pictures and photos."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from featviz_pl.io.files import open_regular
from featviz_pl.numerics.checks import first_line
from featviz_pl.numerics.color import on_grey

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")
MOST_PIXELS = 178_956_970  # of one picture: what Pillow decodes without suspecting a decompression bomb
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112  # of EXIF
_TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}


class UnreadableError(ValueError):
    """Report that a file holds no picture that can be read."""


def read_picture(path: str | os.PathLike[str], channels: int = 3, argument: str = "path") -> Tensor:
    """Read a picture (channels, H, W) in [0, 1]: grey for one channel, RGB for three, RGBA for four.

    The first frame of a JPEG, PNG, WebP, TIFF, GIF, BMP, PNM, AVIF or JPEG 2000 is turned upright by its EXIF
    orientation. Grey pictures of 16 bits and of floating-point numbers in [0, 1] keep their precision. Transparent
    pictures are put on grey (0.5) unless alpha is read too. Color profiles are not applied, so that inks (CMYK) are
    converted by ``(1 - ink) (1 - black)`` alone.

    Args:
        path: of the file.
        channels: 1, 3 or 4.
        argument: that names the path in errors; none where it is empty.

    Raises:
        UnreadableError: when the file is missing, damaged, no regular file, no picture, or larger than 178 megapixels;
            a ``ValueError``.
        ValueError: for other numbers of channels.

    Example:
        >>> import tempfile
        >>> from featviz_pl.io import save_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_picture(save_png(torch.ones(3, 4, 6), f"{folder}/a.png"), channels=1).shape
        torch.Size([1, 4, 6])
    """
    if channels not in _MODES:
        raise ValueError(f"channels: picture files hold 1, 3 or 4, not {channels}")
    try:
        return picture_tensor(open_picture(path), channels)
    except UnreadableError as error:
        prefix = f"{argument}: " if argument else ""
        raise UnreadableError(f"{prefix}cannot read a picture from {os.fspath(path)!r}: {error}") from error


def open_picture(path: str | os.PathLike[str]) -> Pillow.Image:
    """Decode the first frame of a picture file, turned upright.

    Raises:
        UnreadableError: with the reason.
    """
    try:
        with open_regular(path) as file:
            picture = _identified(file)
            if not 0 < picture.width * picture.height <= MOST_PIXELS:
                raise UnreadableError(f"{picture.width} x {picture.height} pixels, at most {MOST_PIXELS} are read")
            picture.load()
    except UnreadableError:
        raise
    except OSError as error:
        raise UnreadableError(error.strerror or first_line(error)) from error
    except Exception as error:  # decoders raise anything on damaged files
        raise UnreadableError(f"it is damaged ({first_line(error)})") from error
    turn = None
    with suppress(Exception):  # damaged EXIF
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    return picture if turn is None else picture.transpose(turn)


def _identified(file: BinaryIO) -> Pillow.Image:
    """Open a picture as `PIL.Image.open` does, which would warn of large pictures on stderr, and of known formats only."""
    Pillow.init()
    prefix = file.read(16)
    for name in FORMATS:
        factory, accept = Pillow.OPEN.get(name, (None, None))
        with suppress(SyntaxError, IndexError, TypeError, KeyError, EOFError):
            accepted = factory is not None and (accept is None or accept(prefix))
            if factory is not None and accepted and not isinstance(accepted, str):  # a text says what is not installed
                file.seek(0)
                return factory(file, "")
    raise UnreadableError(f"it is damaged or none of {', '.join(FORMATS)}")


def picture_tensor(picture: Pillow.Image, channels: int) -> Tensor:
    """Return a Pillow image as (channels, H, W) in [0, 1], as `read_picture` does.

    Raises:
        UnreadableError: when its numbers have no known white.

    Example:
        >>> picture_tensor(Pillow.new("CMYK", (4, 2), (0, 255, 255, 0)), 3)[:, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    if picture.mode.startswith(("I", "F")):
        grey = torch.from_numpy(_wide_levels(picture))
        return torch.cat([grey.expand(min(channels, 3), -1, -1), torch.ones_like(grey)[: channels // 4]])
    try:
        if channels == 4 or not picture.has_transparency_data:
            return _tensor(picture.convert(_MODES[channels]))
        transparent = picture.convert("RGBA")
        return on_grey(_tensor(transparent if channels == 3 else transparent.convert("LA")))
    except (ValueError, OSError) as error:
        raise UnreadableError(f"mode {picture.mode}: {first_line(error)}") from error


def _tensor(picture: Pillow.Image) -> Tensor:
    levels = np.array(picture)
    return torch.from_numpy(levels.reshape(*levels.shape[:2], -1)).permute(2, 0, 1).to(torch.float32).div_(255)


def _wide_levels(picture: Pillow.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return grey pictures (1, H, W) of 16 bits or floating-point numbers."""
    values = np.array(picture)[None].astype(np.float64)
    white = 1.0 if picture.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= white):  # also for NaN
        raise UnreadableError(
            f"its values from {values.min():g} to {values.max():g} do not lie between 0 and {white:g}"
        )
    return (values / white).astype(np.float32)
