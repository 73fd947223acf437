"""Pictures that are not optimised."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.images.base import Image, check_pictures
from featviz_pl.io import read_picture
from featviz_pl.numerics.checks import size_pair, whole_number
from featviz_pl.numerics.resampling import resize


class FixedImage(Image):
    """Show given pictures and train nothing, beside optimized ones in a `StackImage`.

    The pictures are not saved in checkpoints: pass them again to resume a run.

    Shape:
        () -> (N, C, H, W)

    Args:
        picture: (C, H, W) or (N, C, H, W) in [0, 1], or the path of a picture file or several.
        size: to which the pictures are resampled, one number or (height, width); their own unless given.
        channels: of picture files: 1, 3 or 4; 3 unless given, 4 with `alpha`. A tensor has its own.
        alpha: whether the last channel is the opacity.

    Raises:
        ValueError: when a file is no picture, values lie outside [0, 1], or files differ in size and `size` is not
            given.

    Example:
        >>> FixedImage(torch.full((3, 4, 6), 0.25))().shape
        torch.Size([1, 3, 4, 6])
    """

    picture: Tensor

    def __init__(
        self,
        picture: str | Sequence[str] | Tensor,
        size: int | Sequence[int] | None = None,
        *,
        channels: int | None = None,
        alpha: bool = False,
    ) -> None:
        if channels is None and alpha and not isinstance(picture, Tensor):
            channels = 4
        pictures = as_pictures("picture", picture, channels, None if size is None else size_pair("size", size))
        super().__init__(tuple(pictures.shape[-2:]), pictures.shape[1])
        self.alpha = bool(alpha)
        with torch.inference_mode(False):
            self.register_buffer("picture", pictures.to(self._precision, copy=True), persistent=False)
        self.initialized.fill_(True)

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.picture)

    def allocate(self, count: int) -> None:
        """Raise ValueError for any number but that of the pictures."""
        if whole_number("count", count) != self.count:
            raise ValueError(f"count: the image holds {self.count} fixed pictures, but {count} are asked for")

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw nothing."""

    def start_from(self, image: Tensor) -> None:
        """Raise ValueError: fixed pictures do not change."""
        raise ValueError("image: fixed pictures cannot be started; build a FixedImage of this picture")

    def forward(self) -> Tensor:
        """Return a copy of the pictures."""
        return self.picture.clone()

    def extra_repr(self) -> str:
        """Return the shape of the pictures, not their source."""
        return f"picture={shape_of(self.picture)}{', alpha=True' if self.alpha else ''}"


def as_pictures(
    argument: str,
    picture: str | Sequence[str] | Tensor,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Return pictures (N, C, H, W), detached, from a tensor or from files, with 3 channels unless given."""
    if isinstance(picture, Tensor):
        pictures = check_pictures(argument, picture.detach())
        if channels is not None and pictures.shape[1] != channels:
            raise ValueError(f"{argument}: pictures of {pictures.shape[1]} channels do not fit {channels}")
        return pictures if size is None else resize(pictures, size).clamp(0, 1)
    paths = [picture] if isinstance(picture, (str, os.PathLike)) else picture
    if not isinstance(paths, Sequence) or not paths or not all(isinstance(path, (str, os.PathLike)) for path in paths):
        raise TypeError(f"{argument} must be a tensor or the path of a picture file or several, got {picture!r}")
    read = [read_picture(path, 3 if channels is None else channels, argument)[None] for path in paths]
    if size is not None:
        read = [resize(file, size).clamp(0, 1) for file in read]
    sizes = sorted({tuple(file.shape[-2:]) for file in read})
    if len(sizes) > 1:
        raise ValueError(f"{argument}: the files have {sizes[0]} and {sizes[1]} pixels; give the size of all pictures")
    return torch.cat(read)


def with_alpha(pictures: Tensor, channels: int) -> Tensor:
    """Return pictures (N, C, H, W) with as many channels, the last alpha: opaque where they have one channel less."""
    if pictures.shape[1] != channels - 1:
        return pictures
    return torch.cat([pictures, torch.ones_like(pictures[:, :1])], dim=1)


def shape_of(pictures: Tensor) -> str:
    """Return the shape of a tensor, for `repr`."""
    return f"Tensor{tuple(pictures.shape)}"
