"""Pictures as arguments of objectives: tensors or files, checked, with names that tell their contents apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from featviz_pl.images.base import check_pictures
from featviz_pl.io import read_picture
from featviz_pl.objectives.formula import content_hash

PictureArgument = Tensor | str | Sequence[Tensor | str]  #: a tensor, a file, a folder of files, or a list of these
ROUNDING = 1e-4  # beyond [0, 1]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Hold the pictures of an argument.

    Args:
        tensors: the pictures (C, H, W) in [0, 1], of any sizes.
        names: one for each, with a hash of its content: random numbers keyed by a target must not depend on where its
            file lies.
        text: of the argument in a formula.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...]
    text: str

    def __len__(self) -> int:
        return len(self.tensors)

    def formula(self) -> str:
        """Return the text of the argument."""
        return self.text

    def stacked(self, argument: str) -> Tensor:
        """Return all pictures as one tensor (N, C, H, W).

        Raises:
            ValueError: when they have different shapes.
        """
        shapes = sorted({tuple(picture.shape) for picture in self.tensors})
        if len(shapes) > 1:
            raise ValueError(
                f"{argument}: the pictures have different shapes, {shapes[0]} and {shapes[1]}; resize them to one"
            )
        return torch.stack(self.tensors)

    def by_shape(self) -> list[Tensor]:
        """Return the pictures as tensors (R, C, H, W), one for each shape."""
        groups: dict[tuple[int, ...], list[Tensor]] = {}
        for picture in self.tensors:
            groups.setdefault(tuple(picture.shape), []).append(picture)
        return [torch.stack(group) for group in groups.values()]


def load_pictures(argument: str, value: PictureArgument) -> Pictures:
    """Load the pictures of an argument: a tensor (C, H, W) or (N, C, H, W), a file, a folder, or a list of these.

    Files are read as RGB, those of a folder in the order of their names.

    Raises:
        TypeError: for anything else.
        ValueError: when a file cannot be read, a folder holds no picture, or values lie outside [0, 1].

    Example:
        >>> load_pictures("image", torch.zeros(2, 3, 4, 4)).formula()
        '<2 pictures 3 x 4 x 4 ec320cbf>'
    """
    if isinstance(value, (str, os.PathLike)):
        return _from_path(argument, os.fspath(value))
    if isinstance(value, Tensor):
        return _from_tensor(argument, value)
    if not isinstance(value, Sequence):
        raise TypeError(
            f"{argument} must be a tensor (C, H, W) or (N, C, H, W) in [0, 1], the path of a picture or a folder, or a "
            f"list of these, got {type(value).__name__}"
        )
    if not value:
        raise ValueError(f"{argument} must hold at least one picture")
    parts = [load_pictures(argument, part) for part in value]
    return Pictures(
        tuple(picture for part in parts for picture in part.tensors),
        tuple(name for part in parts for name in part.names),
        f"[{', '.join(part.text for part in parts)}]",
    )


def _from_path(argument: str, path: str) -> Pictures:
    files = [path]
    if Path(path).is_dir():
        files = [str(file) for file in sorted(Path(path).iterdir()) if file.suffix.lower() in SUFFIXES]
        if not files:
            raise ValueError(f"{argument}: the folder {path!r} holds no pictures ({', '.join(SUFFIXES)})")
    with torch.inference_mode(False):
        pictures = tuple(read_picture(file, argument=argument) for file in files)
    return Pictures(pictures, tuple(_name(picture) for picture in pictures), repr(path))


def _from_tensor(argument: str, value: Tensor) -> Pictures:
    with torch.inference_mode(False):  # an objective that is made during a validation must also serve a training
        value = value.detach()
        clamped = value.clamp(0, 1) if value.is_floating_point() else value
        if value.numel() and bool((value - clamped).abs().max() < ROUNDING):  # such as a picture that was resized
            value = clamped
        checked = check_pictures(argument, value).clone()
        pictures = checked.float() if checked.dtype in (torch.float16, torch.bfloat16) else checked
    names = tuple(_name(picture) for picture in pictures)
    formula = names[0] if len(names) == 1 else f"<{len(names)} pictures {_shape(pictures[0])} {content_hash(pictures)}>"
    return Pictures(tuple(pictures), names, formula)


def _name(picture: Tensor) -> str:
    return f"<picture {_shape(picture)} {content_hash(picture)}>"


def _shape(picture: Tensor) -> str:
    return " x ".join(str(length) for length in picture.shape)
