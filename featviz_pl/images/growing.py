"""Pictures that grow in stages during a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from featviz_pl.images.base import Image
from featviz_pl.images.composite import CompositeImage
from featviz_pl.images.fourier import FourierImage
from featviz_pl.numerics.checks import finite_number, size_pair, whole_number
from featviz_pl.numerics.resampling import resize


class GrowingImage(CompositeImage):
    """Optimise a small picture first and larger ones later, each begun from the one before; shown at full size throughout.

    Every stage has its own image, all of them there from the start, so that optimizers and checkpoints never change
    form. When a stage begins, its image starts from the picture of the stage before, enlarged by the share `zoom` of
    the growth and centred in what the stage itself was drawn with. Images of other stages get no gradient at all, so
    that Adam begins afresh with each stage. On several processes that needs
    ``Trainer(strategy="ddp_find_unused_parameters_true")``.

    The stage is kept in checkpoints. A picture never shrinks by itself: a second run goes on in the stage that the
    first one reached; `start_from` goes back to the first stage.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures that are shown, one number or (height, width).
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        sizes: shorter side of each stage's picture, growing up to that of `size`; two sevenths, four sevenths and all
            of it unless given, which is 64, 128 and 224 of 224.
        starts: where each stage begins, as a share of the run, 0 first and below 1; equal stages unless given.
        zoom: 1 enlarges the picture to its next size; 0 leaves it as large as it is, in the middle, and adds a rim.
        image: class of the stages' images, which a picture must be able to start; in a configuration its dotted path.
        arguments: further ones of that class.

    Raises:
        ValueError: when sizes or starts do not grow, or are not equally many, or no picture can start such an image.

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
        channels: int = 3,
        sizes: Sequence[int] | None = None,
        starts: Sequence[float] | None = None,
        zoom: float = 1.0,
        image: type[Image] = FourierImage,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        full = size_pair("size", size)
        sides = _sizes(sizes, min(full))
        shares = _starts(starts, len(sides))
        if not (isinstance(image, type) and issubclass(image, Image)):
            raise TypeError(f"image must be a class of images, such as FourierImage, got {image!r}")
        made: Any = image  # takes size, count and channels, as every class does that draws pictures by itself
        stages = [made(size=_scaled(full, side), count=count, channels=channels, **(arguments or {})) for side in sides]
        _check_start(made(size=stages[0].size, count=1, channels=channels, **(arguments or {})))
        super().__init__(full, stages[0].channels)
        self.sizes, self.starts, self.arguments = sides, shares, dict(arguments or {})
        self.zoom = finite_number("zoom", zoom, least=0.0, most=1.0)
        self.stages = nn.ModuleList(stages)
        with torch.inference_mode(False):
            self.register_buffer("stage", torch.tensor(0))
        self._stage = 0  # the same number, where reading it does not wait for the device
        self.follow_parts()
        self.has_idle_parameters = True

    @property
    def parts(self) -> list[Image]:
        """The images of all stages."""
        return cast("list[Image]", list(self.stages))

    @property
    def current(self) -> Image:
        """The image of the present stage."""
        return self.parts[self._stage]

    @property
    def count(self) -> int | None:
        """Number of pictures, or None before it is known."""
        return self.parts[0].count

    def allocate(self, count: int) -> None:
        """Make room for `count` pictures in every stage; asking again for the same number changes nothing.

        Raises:
            ValueError: when the pictures were allocated with another number.
        """
        for part in self.parts:
            part.allocate(count)

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw all stages, the first one first."""
        for part in self.parts:
            part.initialize(len(generators), generators)

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Go back to the first stage, and start all of them from the pictures; one picture starts all.

        Shape:
            image (C, H, W) or (N, C, H, W) in [0, 1]

        Raises:
            ValueError: when the picture has another shape than the full size.
        """
        pictures = self.fitting(image)
        for part in self.parts:
            part.start_from(resize(pictures, part.size).clamp(0, 1))
        self._enter(0)
        self.initialized.fill_(True)

    @torch.no_grad()
    def advance(self, step: int, steps: int) -> None:
        """Begin the stage that the step belongs to; a stage before the present one is not gone back to."""
        due = sum(step >= _first_step(start, steps) for start in self.starts) - 1
        if due > self._stage:
            self.parts[due].start_from(self._grown(self.current(), self.parts[due]))
            self._enter(due)
        self.current.advance(step, steps)

    def _grown(self, pictures: Tensor, following: Image) -> Tensor:
        """Return the pictures in the size of the following stage, with a rim of what that stage holds."""
        before, after = pictures.shape[-2:], following.size
        height, width = (old + round(self.zoom * (new - old)) for old, new in zip(before, after))
        top, left = (after[0] - height) // 2, (after[1] - width) // 2
        grown: Tensor = following().clone()
        grown[..., top : top + height, left : left + width] = resize(pictures, (height, width))
        return grown.clamp(0, 1)

    def _enter(self, stage: int) -> None:
        self._stage = stage
        self.stage.fill_(stage)

    def forward(self) -> Tensor:
        """Decode the present stage and enlarge it to the full size."""
        return resize(self.current(), self.size).clamp(0, 1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Go to the stage that a checkpoint holds."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._stage = int(self.stage)

    def constructor(self) -> str:
        """Show the stages."""
        channels = self.channels - int(self.alpha)
        starts = tuple(round(start, 4) for start in self.starts)
        arguments = f", arguments={self.arguments}" if self.arguments else ""
        return (
            f"size={self.size}, count={self.count}, channels={channels}, sizes={self.sizes}, starts={starts}, zoom={self.zoom:g}, "
            f"image={type(self.parts[0]).__name__}{arguments}"
        )


def _sizes(sizes: Sequence[int] | None, largest: int) -> tuple[int, ...]:
    """Return the shorter sides of the stages, checked."""
    if sizes is None:
        return tuple(sorted({max(1, round(largest * share / 7)) for share in (2, 4, 7)}))
    given = tuple(whole_number("sizes", side) for side in sizes)
    if not given or list(given) != sorted(set(given)) or given[-1] != largest:
        raise ValueError(f"sizes must grow up to the shorter side of the picture, {largest}, got {list(given)}")
    return given


def _starts(starts: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Return where the stages begin, checked."""
    if starts is None:
        return tuple(stage / count for stage in range(count))
    given = tuple(finite_number("starts", start, least=0.0) for start in starts)
    if len(given) != count or given[0] != 0 or list(given) != sorted(set(given)) or given[-1] >= 1:
        raise ValueError(f"starts must be {count} growing shares of the run, 0 first and below 1, got {list(given)}")
    return given


def _check_start(trial: Image) -> None:
    """Refuse, before a run and not in its middle, images that no picture can start."""
    try:
        trial.start_from(torch.full((trial.channels, *trial.size), 0.5))
    except ValueError as error:
        raise ValueError(
            f"image: a stage begins from the picture before it, but {type(trial).__name__} refuses: {error}"
        ) from error


def _first_step(start: float, steps: int) -> int:
    """Return the first step of a stage; shares such as a third are not exact."""
    return math.ceil(start * steps - 1e-6)


def _scaled(full: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the size of a stage whose shorter side is given."""
    height, width = (max(1, round(own * side / min(full))) for own in full)
    return height, width
