"""Pictures on disk: whole or absent, with their origin, alone, in sheets and in motion."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from featviz_pl.io.files import check_output, write_whole
from featviz_pl.io.provenance import PROVENANCE_KEY


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


def save_png(image: Tensor, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> Path:
    """Save one picture (C, H, W) in [0, 1] as PNG, with its origin in a text chunk.

    Args:
        image: the picture.
        path: ends in .png; missing folders are made.
        provenance: plain values, the same for equal runs; see `read_provenance`.

    Example:
        >>> import tempfile
        >>> from featviz_pl.io import read_provenance
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_provenance(save_png(torch.rand(3, 4, 4), f"{folder}/a.png", {"seed": 0}))
        {'seed': 0}
    """
    return write_png(to_pillow(image), check_output(path), provenance)


def write_png(picture: Pillow.Image, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> Path:
    """Write a Pillow image as PNG with its provenance; the file is whole or absent."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            encode_png(picture, file, provenance)

    return write_whole(path, write)


def encode_png(picture: Pillow.Image, file: IO[bytes], provenance: Mapping[str, Any] | None = None) -> None:
    """Write a Pillow image as PNG, with its provenance in a text chunk, to an open file."""
    info = PngInfo()
    if provenance is not None:
        info.add_text(PROVENANCE_KEY, json.dumps(provenance, sort_keys=True, ensure_ascii=True))
    picture.save(file, format="PNG", pnginfo=info)
