"""Pictures of which a region is optimized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from featviz_pl.images.base import Image, check_pictures
from featviz_pl.images.composite import CompositeImage
from featviz_pl.images.fixed import as_pictures, shape_of, with_alpha
from featviz_pl.numerics.checks import unknown


class MaskedImage(CompositeImage):
    """Optimize a region of a picture: ``mask * image() + (1 - mask) * picture``.

    Picture and mask are not saved in checkpoints: pass them again to resume a run.

    Shape:
        () -> (N, C, H, W)

    Args:
        image: the picture where the mask is 1.
        picture: the picture where it is 0: (C, H, W) or (N, C, H, W) in [0, 1] in the size of `image`, or the path of
            a picture file or several, which are resampled to it. Where `image` is transparent, a picture without alpha
            is opaque.
        mask: (H, W), (1, H, W) or (N, 1, H, W) in [0, 1], or the path of a grey picture file or several.
        start: of an image that has not been started: ``"picture"``, or ``"drawn"`` for the first weights of `image`.

    Raises:
        ValueError: when shapes do not fit, values lie outside [0, 1] or the mask is 0 everywhere.

    Example:
        >>> from featviz_pl.images import FourierImage
        >>> mask = torch.zeros(8, 8); mask[2:6, 2:6] = 1
        >>> image = MaskedImage(FourierImage(8), torch.full((3, 8, 8), 0.25), mask)
        >>> image.initialize(1, torch.Generator().manual_seed(0))
        >>> image()[0, 0, 0, 0].item()
        0.25
    """

    picture: Tensor
    mask: Tensor

    def __init__(
        self,
        image: Image,
        picture: str | Sequence[str] | Tensor,
        mask: str | Sequence[str] | Tensor,
        *,
        start: Literal["picture", "drawn"] = "picture",
    ) -> None:
        if not isinstance(image, Image):
            raise TypeError(f"image must be an Image, got {type(image).__name__}")
        if start not in ("picture", "drawn"):
            raise unknown("start", "start", str(start), ["picture", "drawn"])
        super().__init__(image.size, image.channels)
        files = not isinstance(picture, Tensor)
        pictures = as_pictures("picture", picture, image.channels if files else None, image.size if files else None)
        if image.alpha:
            pictures = with_alpha(pictures, image.channels)
        if tuple(pictures.shape[1:]) != (image.channels, *image.size):
            raise ValueError(
                f"picture: shape {tuple(pictures.shape[1:])} does not fit an image of {(image.channels, *image.size)}"
            )
        masks = _as_masks(mask, image.size)
        if len({len(pictures), len(masks), image.count or 1} - {1}) > 1:
            counts = f"{len(masks)} masks, {len(pictures)} pictures and {image.count or 1} images"
            raise ValueError(f"mask: {counts} do not fit; give one or as many")
        self.image, self.start = image, start
        with torch.inference_mode(False):
            self.register_buffer("picture", pictures.to(self._precision, copy=True), persistent=False)
            self.register_buffer("mask", masks.to(self._precision, copy=True), persistent=False)
        self.update_from_parts()

    @property
    def parts(self) -> list[Image]:
        """The image inside."""
        return [self.image]

    @property
    def count(self) -> int | None:
        """Number of pictures, or None before it is known."""
        count = max(len(self.picture), len(self.mask))
        return self.image.count if self.image.count is not None or count == 1 else count

    def allocate(self, count: int) -> None:
        """Allocate the image; there must be one picture and one mask, or as many."""
        for name, tensor in (("pictures", self.picture), ("masks", self.mask)):
            if len(tensor) not in (1, count):
                raise ValueError(f"count: {len(tensor)} {name} do not fit {count} images; give one or as many")
        self.image.allocate(count)

    @torch.no_grad()
    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Start the image as the picture, or draw it."""
        if self.start == "picture" and not bool(self.image.initialized):
            try:
                self.image.start_from(self.picture)
            except ValueError as error:
                raise ValueError(f"{error}; start='drawn' starts from the first weights of the image") from error
        self.image.initialize(len(generators), generators)

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Start the region from pictures; the surroundings do not change."""
        pictures = with_alpha(check_pictures("image", image), self.channels) if self.alpha else image
        pictures = self.check_start(pictures)
        self.allocate(self.count or len(pictures))
        self.image.start_from(pictures)
        self.initialized.fill_(True)

    def forward(self) -> Tensor:
        """Decode the image and blend it into the picture."""
        region: Tensor = self.image()
        # Exact where the mask is 0 or 1, and always between both.
        return torch.lerp(self.picture.to(region), region, self.mask.to(region))

    def extra_repr(self) -> str:
        """Return the image, and the shapes of picture and mask."""
        start = "" if self.start == "picture" else f", start={self.start!r}"
        return f"image={self.image!r}, picture={shape_of(self.picture)}, mask={shape_of(self.mask)}{start}"


def _as_masks(mask: str | Sequence[str] | Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks (N, 1, H, W)."""
    if isinstance(mask, Tensor):
        mask = mask.detach().float() if mask.dtype == torch.bool else mask.detach()
        masks = check_pictures("mask", mask[None] if mask.ndim == 2 else mask)
    else:
        masks = as_pictures("mask", mask, 1, size)
    if tuple(masks.shape[1:]) != (1, *size):
        raise ValueError(f"mask: must be of shape {size}, {(1, *size)} or {('N', 1, *size)}, got {tuple(masks.shape)}")
    if not masks.flatten(1).any(1).all():
        raise ValueError("mask: is 0 everywhere, so that nothing would be optimized")
    return masks
