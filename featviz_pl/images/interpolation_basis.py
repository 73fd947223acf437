"""Pictures between every two of several objectives, made of parts that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from featviz_pl.images.laplacian import enlarged_sum, halved_sizes, split_levels
from featviz_pl.images.latent import ColorImage, unpack
from featviz_pl.images.shared import spread_matrix
from featviz_pl.numerics.checks import whole_number

_COARSE = (1, 2, 4, 8)  # what the size is divided by, for what all share and for the objectives
_FINE = (1, 2)  # for what a pair of objectives has of its own


class InterpolationBasisImage(ColorImage):
    """Optimise pictures on the way between every two of N objectives, in M steps each, in a basis that makes them align.

    Picture (n, m, s) is step s on the way from objective n to objective m; it is the same as (m, n, M - 1 - s). Its
    latent is ``constant + example_n[s] + example_m[M - 1 - s] + between_nm[s]``: a part that all pictures share; one
    for each of the two objectives, interpolated from two maps over the steps; and one for the pair, a map for each
    step, zero for n = m. All are sums of several resolutions. Pictures are joint.

    The N N M pictures are in the order (n, m, s): ``image().unflatten(0, (N, N, M))``.

    Shape:
        () -> (N N M, C, H, W)

    Args:
        objectives: N, how many, 2 or more.
        steps: M, pictures from one objective to the other, both ends included, 2 or more.
        size: of the pictures in pixels, one number or (height, width).
        channels: of each picture.
        color: see `LatentImage`.
        deviation: standard deviation of the first weights of every part.
        squash: see `LatentImage`.

    Example:
        >>> image = InterpolationBasisImage(objectives=3, steps=5, size=16)
        >>> image.count, image().unflatten(0, (3, 3, 5)).shape
        (45, torch.Size([3, 3, 5, 3, 16, 16]))

    Reference:
        Lucid, recipes/image_interpolation_params.py: multi_interpolation_basis. Its code reads ``[m][N - n]`` where the
        reverse of the pair (m, n) is meant, as here.
    """

    constant: nn.Parameter
    examples: nn.Parameter
    between: nn.Parameter

    def __init__(
        self,
        objectives: int = 6,
        steps: int = 5,
        size: int | Sequence[int] = 128,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 0.01,
        squash: Literal["sigmoid", "clip"] = "sigmoid",
    ) -> None:
        super().__init__(size, channels, color, deviation, squash)
        self.objectives = whole_number("objectives", objectives, least=2)
        self.steps = whole_number("steps", steps, least=2)
        pairs = self.objectives * (self.objectives - 1) // 2
        with torch.inference_mode(False):
            self.constant = self._zeros(_elements(self._shapes(1, _COARSE)))
            self.examples = self._zeros(self.objectives, _elements(self._shapes(2, _COARSE)))
            self.between = self._zeros(pairs, _elements(self._shapes(self.steps, _FINE)))

    def _zeros(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(shape, dtype=self._precision))

    def _shapes(self, maps: int, divisors: Sequence[int]) -> list[tuple[int, ...]]:
        return [(maps * self.channels, *size) for size in halved_sizes(self.size, divisors)]

    @property
    def count(self) -> int:
        """Number of pictures, ``objectives ** 2 * steps``."""
        return self.objectives**2 * self.steps

    def allocate(self, count: int) -> None:
        """Check that the objective asks for the number of pictures there are.

        Raises:
            ValueError: when it asks for another.
        """
        if whole_number("count", count) != self.count:
            raise ValueError(
                f"count: the image holds {self.count} pictures, {self.objectives} x {self.objectives} x {self.steps}, "
                f"but the objective asks for {count}"
            )

    @torch.no_grad()
    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the first weights of all parts from the first picture's generator."""
        for part in (self.constant, self.examples, self.between):
            part.copy_(torch.randn(part.shape, generator=generators[0], dtype=torch.float32) * self.deviation)

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Set the part that all share so that all pictures are the given one, and the others to zero.

        Shape:
            image (C, H, W) or (1, C, H, W) in [0, 1]

        Raises:
            ValueError: when there are several pictures, or the picture has another shape.
        """
        pictures = self.fitting(image)
        if len(pictures) != 1:
            raise ValueError(
                f"image: {len(pictures)} pictures cannot start parts that are shared; give one for all of them"
            )
        levels = split_levels(self.unfinish(pictures), halved_sizes(self.size, _COARSE))
        self.constant.copy_(torch.cat([level.flatten() for level in levels]))
        self.examples.zero_()
        self.between.zero_()
        self.initialized.fill_(True)

    def forward(self) -> Tensor:
        """Decode all pictures, in the order (n, m, s)."""
        constant = self._decoded(self.constant[None], 1, _COARSE)
        ends = self._decoded(self.examples, 2, _COARSE)
        examples = torch.einsum("se,nechw->nschw", spread_matrix(self.steps, 2).to(ends), ends)
        between = self._decoded(self.between, self.steps, _FINE)
        table = torch.cat([between, between.flip(1), torch.zeros_like(between[:1])])
        own = table[self._places()].unflatten(0, (self.objectives, self.objectives))
        latent = constant + examples[:, None] + examples.flip(1)[None] + own
        return self.finish(latent.flatten(0, 2))

    def _decoded(self, weights: Tensor, maps: int, divisors: Sequence[int]) -> Tensor:
        """Return (parts, maps, C, H, W)."""
        summed = enlarged_sum(unpack(weights, self._shapes(maps, divisors)), self.size)
        return summed.view(len(weights), maps, self.channels, *self.size)

    def _places(self) -> list[int]:
        """Return where each (n, m) finds its own part: pairs forwards, then backwards, then nothing."""
        pairs = [(n, m) for n in range(self.objectives) for m in range(n + 1, self.objectives)]
        places = {pair: place for place, pair in enumerate(pairs)} | {
            (m, n): len(pairs) + place for place, (n, m) in enumerate(pairs)
        }
        return [places.get((n, m), 2 * len(pairs)) for n in range(self.objectives) for m in range(self.objectives)]

    def __repr__(self) -> str:
        shown = self.extra_repr().replace(f", count={self.count}", "")
        return f"{type(self).__name__}(objectives={self.objectives}, steps={self.steps}, {shown})"


def _elements(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)
