"""The contract of every parameterization: trainable weights that decode to pictures in [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from featviz_pl.numerics.checks import size_pair, whole_number


class Image(nn.Module, ABC):
    """Hold the weights of N pictures and decode them to (N, C, H, W) in [0, 1].

    The constructor draws nothing: weights are allocated once the number of pictures is known (`allocate`) and drawn
    once by the run, from the run's seed (`initialize`), unless they came from a picture (`start_from`) or a checkpoint.
    Weights stay in float32 at least, whatever precision the module is cast to.

    Most parameterizations are a `LatentImage`; others implement `count`, `allocate`, `draw`, `start_from` and
    `forward`.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width).
        channels: of each picture, alpha included.
    """

    alpha: bool = False  #: whether the last channel is the opacity of each pixel
    has_idle_parameters: bool = False  #: whether some parameters get no gradient in some steps
    initialized: Tensor

    def __init__(self, size: int | Sequence[int] = 224, channels: int = 3) -> None:
        super().__init__()
        self.size = size_pair("size", size)
        self.channels = whole_number("channels", channels)
        with torch.inference_mode(False):  # an image made during a validation must also serve a training
            self.register_buffer("initialized", torch.tensor(False))
        self._precision = torch.float32  # of weights that are not allocated yet, whatever the default type

    @property
    @abstractmethod
    def count(self) -> int | None:
        """Number of pictures, or None before it is known."""

    @abstractmethod
    def allocate(self, count: int) -> None:
        """Allocate the weights of `count` pictures; a second call with the same number changes nothing.

        Raises:
            ValueError: when the pictures were allocated with another number.
        """

    @abstractmethod
    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the first weights, each picture's from its own CPU generator."""

    @abstractmethod
    def start_from(self, image: Tensor) -> None:
        """Set the weights so that the pictures are the given ones; one picture starts all of them.

        Shape:
            image (C, H, W) or (N, C, H, W) in [0, 1]

        Raises:
            ValueError: when the picture has another shape than the parameterization.
        """

    def advance(self, step: int, steps: int) -> None:
        """Called before every step with `step` and `steps`, for images that change during a run."""

    @torch.no_grad()
    def initialize(self, count: int, generator: torch.Generator | Sequence[torch.Generator]) -> None:
        """Draw the first weights, unless the pictures have been started already.

        Args:
            count: number of pictures.
            generator: one CPU generator, or one for each picture, so that no picture depends on the others.
        """
        self.allocate(count)
        if bool(self.initialized):
            return
        generators = [generator] * count if isinstance(generator, torch.Generator) else list(generator)
        if len(generators) != count:
            raise ValueError(f"generator: {len(generators)} generators do not fit {count} pictures")
        self.draw(generators)
        self.initialized.fill_(True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Image:
        """Move or cast the tensors, but never below float32."""

        def at_least_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            reduced = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if reduced and tensor.is_floating_point() else moved

        super()._apply(at_least_float32, recurse)  # type: ignore[no-untyped-call]
        self._precision = at_least_float32(torch.empty(0, dtype=self._precision)).dtype
        return self

    def check_start(self, image: Tensor) -> Tensor:
        """Return pictures (N, C, H, W) that fit this image, which is allocated; raise ValueError for others."""
        pictures = check_pictures("image", image)
        if tuple(pictures.shape[1:]) != (self.channels, *self.size):
            raise ValueError(
                f"image: shape {tuple(pictures.shape[1:])} does not fit pictures of {(self.channels, *self.size)}"
            )
        if self.count is None:
            self.allocate(len(pictures))
        if len(pictures) not in (1, self.count):
            raise ValueError(f"image: {len(pictures)} pictures do not fit {self.count}")
        return pictures


def check_pictures(argument: str, image: Tensor) -> Tensor:
    """Return pictures as (N, C, H, W), or raise an error that names the argument."""
    if not isinstance(image, Tensor):
        raise TypeError(f"{argument} must be a tensor (C, H, W) or (N, C, H, W) in [0, 1], got {type(image).__name__}")
    if image.ndim == 3:
        image = image[None]
    if image.ndim != 4 or not image.is_floating_point() or not image.numel():
        raise ValueError(
            f"{argument} must be floats (C, H, W) or (N, C, H, W) in [0, 1], got {image.dtype} of shape "
            f"{tuple(image.shape)}"
        )
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(f"{argument} must lie in [0, 1], got values from {low:g} to {high:g}")
    return image
