"""Pictures as arguments of objectives: tensors or files, checked, and named so that a formula tells two apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from featviz_pl.images.base import check_pictures
from featviz_pl.io import read_picture
from featviz_pl.objectives.vector_arguments import content

PictureArgument = Tensor | str | Sequence[Tensor | str]  #: a tensor, a file, a folder of files, or a list of these
ROUNDING = 1e-4  # beyond [0, 1]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Hold pictures that were given to an objective.

    Args:
        each: the pictures (C, H, W) in [0, 1], of any sizes.
        names: one for each, with a hash of its content: what is drawn for a picture must not depend on where its file
            lies.
        formula: what was given, as a formula has it.
    """

    each: tuple[Tensor, ...]
    names: tuple[str, ...]
    formula: str

    def stacked(self, argument: str) -> Tensor:
        """Return all pictures as one tensor (N, C, H, W).

        Raises:
            ValueError: when they have different shapes.
        """
        shapes = sorted({tuple(picture.shape) for picture in self.each})
        if len(shapes) > 1:
            raise ValueError(
                f"{argument}: the pictures have different shapes, {shapes[0]} and {shapes[1]}; resize them to one"
            )
        return torch.stack(self.each)

    def of_each_shape(self) -> list[Tensor]:
        """Return the pictures as tensors (R, C, H, W), one for each shape."""
        groups: dict[tuple[int, ...], list[Tensor]] = {}
        for picture in self.each:
            groups.setdefault(tuple(picture.shape), []).append(picture)
        return [torch.stack(group) for group in groups.values()]


def given_pictures(argument: str, given: PictureArgument) -> Pictures:
    """Read what was given for an argument: a tensor (C, H, W) or (N, C, H, W), a file, a folder, or a list of these.

    Files are read as RGB, those of a folder in the order of their names.

    Raises:
        TypeError: for anything else.
        ValueError: when a file cannot be read, a folder holds no picture, or values lie outside [0, 1].

    Example:
        >>> given_pictures("image", torch.zeros(2, 3, 4, 4)).formula
        '<2 pictures 3 x 4 x 4 ec320cbf>'
    """
    if isinstance(given, (str, os.PathLike)):
        return _from_path(argument, os.fspath(given))
    if isinstance(given, Tensor):
        return _from_tensor(argument, given)
    if not isinstance(given, Sequence):
        raise TypeError(
            f"{argument} must be a tensor (C, H, W) or (N, C, H, W) in [0, 1], the path of a picture or a folder, or a list of these, "
            f"got {type(given).__name__}"
        )
    if not given:
        raise ValueError(f"{argument} must hold at least one picture")
    parts = [given_pictures(argument, one) for one in given]
    return Pictures(
        tuple(picture for part in parts for picture in part.each),
        tuple(name for part in parts for name in part.names),
        f"[{', '.join(part.formula for part in parts)}]",
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


def _from_tensor(argument: str, given: Tensor) -> Pictures:
    with torch.inference_mode(False):  # an objective made during a validation must also serve a training
        given = given.detach()
        clamped = given.clamp(0, 1) if given.is_floating_point() else given
        if given.numel() and bool(
            (given - clamped).abs().max() < ROUNDING
        ):  # what is left of a picture that was resized
            given = clamped
        checked = check_pictures(argument, given).clone()
        pictures = checked.float() if checked.dtype in (torch.float16, torch.bfloat16) else checked
    names = tuple(_name(picture) for picture in pictures)
    formula = names[0] if len(names) == 1 else f"<{len(names)} pictures {_shape(pictures[0])} {content(pictures)}>"
    return Pictures(tuple(pictures), names, formula)


def _name(picture: Tensor) -> str:
    return f"<picture {_shape(picture)} {content(picture)}>"


def _shape(picture: Tensor) -> str:
    return " x ".join(str(length) for length in picture.shape)
