"""Pictures that grow in stages during a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from featviz_pl.images.base import Image
from featviz_pl.images.composite import CompositeImage
from featviz_pl.images.fourier import FourierImage
from featviz_pl.numerics.checks import finite_number, size_pair, whole_number
from featviz_pl.numerics.resampling import resize


class GrowingImage(CompositeImage):
    """Optimize a small picture first and larger ones later, each started from the last, decoded at full size.

    Every stage has its own image, built at the start, so that optimizers and checkpoints always have the same
    parameters. When a stage begins, its image starts from the picture of the stage before, enlarged by the share `zoom`
    of the growth and centred on the first draw of the stage. Images of other stages get no gradient, so that Adam has
    no state when a stage begins. On several processes that needs
    ``Trainer(strategy="ddp_find_unused_parameters_true")``.

    Checkpoints hold the stage. A picture never shrinks by itself: a second run goes on in the stage that the first one
    reached; `start_from` goes back to the first stage.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the decoded pictures, one number or (height, width).
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        sizes: shorter side of each stage's picture, growing up to that of `size`; 2/7, 4/7 and all of it unless given:
            64, 128 and 224 of 224.
        starts: of the stages, as shares of the run, 0 first and below 1; equal stages unless given.
        zoom: 1 enlarges the picture to its next size; 0 leaves it as large as it is, in the middle, and adds a rim.
        image: class of the stages' images, which must start from pictures; in a configuration its dotted path.
        arguments: further arguments of that class.

    Raises:
        ValueError: when sizes or starts do not grow, their numbers differ, or no picture can start such an image.

    Example:
        >>> image = GrowingImage(size=16, count=1, sizes=[4, 16], starts=[0, 0.25])
        >>> image.initialize(1, torch.Generator().manual_seed(0))
        >>> for step in range(8):
        ...     image.advance(step, steps=8)
        ...     print(step, image.current.size) if step in (1, 2) else None
        1 (4, 4)
        2 (16, 16)
        >>> image().shape
        torch.Size([1, 3, 16, 16])

    Reference:
        Ghiasi, Kazemi, Reich, Zhu, Goldblum, Goldstein, "Plug-In Inversion: Model-Agnostic Inversion for Vision with
        Data Augmentations", 2022: seven stages, from two eighths of the size to all of it by eighths; zoom, centering,
        or half of each
    """

    stage: Tensor

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        count: int | None = None,
        *,
        channels: int = 3,
        sizes: Sequence[int] | None = None,
        starts: Sequence[float] | None = None,
        zoom: float = 1.0,
        image: type[Image] = FourierImage,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        full = size_pair("size", size)
        sides = _check_sizes(sizes, min(full))
        shares = _check_starts(starts, len(sides))
        if not (isinstance(image, type) and issubclass(image, Image)):
            raise TypeError(f"image must be a class of images, such as FourierImage, got {image!r}")
        build: Any = partial(image, channels=channels, **(arguments or {}))
        stages = [build(size=_scale_size(full, side), count=count) for side in sides]
        _check_image(build(size=stages[0].size, count=1))
        super().__init__(full, stages[0].channels)
        self.sizes, self.starts, self.arguments = sides, shares, dict(arguments or {})
        self.zoom = finite_number("zoom", zoom, least=0.0, most=1.0)
        self.stages = nn.ModuleList(stages)
        with torch.inference_mode(False):
            self.register_buffer("stage", torch.tensor(0))
        self._stage = 0  # the same number on the host: reading it does not synchronize the device
        self.update_from_parts()
        self.has_idle_parameters = True

    @property
    def parts(self) -> list[Image]:
        """The images of all stages."""
        return cast("list[Image]", list(self.stages))

    @property
    def current(self) -> Image:
        """The image of the current stage."""
        return self.parts[self._stage]

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Go back to the first stage, and start all stages from pictures of the full size; one picture starts all."""
        pictures = self.check_start(image)
        for part in self.parts:
            part.start_from(resize(pictures, part.size).clamp(0, 1))
        self._set_stage(0)
        self.initialized.fill_(True)

    @torch.no_grad()
    def advance(self, step: int, steps: int) -> None:
        """Begin the stage that the step belongs to, unless a later one has begun."""
        due = sum(step >= _first_step(start, steps) for start in self.starts) - 1
        if due > self._stage:
            self.parts[due].start_from(self._enlarge(self.current(), self.parts[due]))
            self._set_stage(due)
        self.current.advance(step, steps)

    def _enlarge(self, pictures: Tensor, stage: Image) -> Tensor:
        """Return the pictures in the size of a stage, surrounded by the first draw of that stage."""
        before, after = pictures.shape[-2:], stage.size
        height, width = (old + round(self.zoom * (new - old)) for old, new in zip(before, after))
        top, left = (after[0] - height) // 2, (after[1] - width) // 2
        enlarged: Tensor = stage().clone()
        enlarged[..., top : top + height, left : left + width] = resize(pictures, (height, width))
        return enlarged.clamp(0, 1)

    def _set_stage(self, stage: int) -> None:
        self._stage = stage
        self.stage.fill_(stage)

    def forward(self) -> Tensor:
        """Decode the current stage and enlarge it to the full size."""
        return resize(self.current(), self.size).clamp(0, 1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Set the stage of the checkpoint."""
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._stage = int(self.stage)

    def extra_repr(self) -> str:
        """Return the arguments."""
        channels = self.channels - int(self.alpha)
        starts = tuple(round(start, 4) for start in self.starts)
        arguments = f", arguments={self.arguments}" if self.arguments else ""
        return (
            f"size={self.size}, count={self.count}, channels={channels}, sizes={self.sizes}, starts={starts}, "
            f"zoom={self.zoom:g}, image={type(self.parts[0]).__name__}{arguments}"
        )


def _check_sizes(sizes: Sequence[int] | None, largest: int) -> tuple[int, ...]:
    """Return the shorter sides of the stages, which must grow."""
    if sizes is None:
        return tuple(sorted({max(1, round(largest * share / 7)) for share in (2, 4, 7)}))
    sides = tuple(whole_number("sizes", side) for side in sizes)
    if not sides or list(sides) != sorted(set(sides)) or sides[-1] != largest:
        raise ValueError(f"sizes must grow up to the shorter side of the picture, {largest}, got {list(sides)}")
    return sides


def _check_starts(starts: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Return the starts of the stages, which must grow."""
    if starts is None:
        return tuple(stage / count for stage in range(count))
    shares = tuple(finite_number("starts", start, least=0.0) for start in starts)
    if len(shares) != count or shares[0] != 0 or list(shares) != sorted(set(shares)) or shares[-1] >= 1:
        raise ValueError(f"starts must be {count} growing shares of the run, 0 first and below 1, got {list(shares)}")
    return shares


def _check_image(trial: Image) -> None:
    """Raise before the run, not in its middle, where no picture can start such images."""
    try:
        trial.start_from(torch.full((trial.channels, *trial.size), 0.5))
    except ValueError as error:
        raise ValueError(f"image: no picture can start the stages, {type(trial).__name__}: {error}") from error


def _first_step(start: float, steps: int) -> int:
    """Return the first step of a stage; shares such as a third are not exact."""
    return math.ceil(start * steps - 1e-6)


def _scale_size(full: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the size of a stage of this shorter side."""
    height, width = (max(1, round(length * side / min(full))) for length in full)
    return height, width
