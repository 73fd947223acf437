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

# Divisors of the size: of the shared part and those of the objectives, and of those of the pairs.
_COARSE, _FINE = (1, 2, 4, 8), (1, 2)


class InterpolationBasisImage(ColorImage):
    """Optimize interpolations between every two of N objectives, in M steps each, in a basis that aligns them.

    Picture (n, m, s) is step s from objective n to objective m; it is the same as (m, n, M - 1 - s). Its latent is
    ``constant + example_n[s] + example_m[M - 1 - s] + between_nm[s]``: a part that all pictures share; one for each of
    the two objectives, interpolated from two maps over the steps; and one for the pair, a map for each step, zero for
    n = m. All are sums of several resolutions. The gradient of one picture moves others.

    The N N M pictures are in the order (n, m, s): ``image().unflatten(0, (N, N, M))``.

    Shape:
        () -> (N N M, C, H, W)

    Args:
        objectives: N, number of objectives, 2 or more.
        steps: M, number of pictures from one objective to another, both ends included, 2 or more.
        size: of the pictures in pixels, one number or (height, width).
        channels: of each picture.
        color: see `LatentImage`.
        deviation: standard deviation of the first weights of every part.
        squash: see `LatentImage`.
        contrast: see `LatentImage`.

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
        *,
        size: int | Sequence[int] = 128,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 0.01,
        squash: Literal["sigmoid", "clip"] = "sigmoid",
        contrast: float | Literal["photos"] | None = None,
    ) -> None:
        super().__init__(size, channels=channels, color=color, deviation=deviation, squash=squash, contrast=contrast)
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
        """Raise ValueError for any number but that of the pictures."""
        if whole_number("count", count) != self.count:
            shape = f"{self.objectives} x {self.objectives} x {self.steps}"
            raise ValueError(
                f"count: the image holds {shape} = {self.count} pictures, but the objective asks for {count}"
            )

    @torch.no_grad()
    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the first weights of all parts from the first picture's generator."""
        for part in (self.constant, self.examples, self.between):
            part.copy_(torch.randn(part.shape, generator=generators[0], dtype=torch.float32) * self.deviation)

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Encode one picture ([1,] C, H, W) in [0, 1] in the shared part, and set the others to zero."""
        pictures = self.check_start(image)
        if len(pictures) != 1:
            raise ValueError(f"image: {len(pictures)} pictures cannot start shared parts; give one for all of them")
        levels = split_levels(self.from_rgb(pictures), halved_sizes(self.size, _COARSE))
        self.constant.copy_(torch.cat([level.flatten() for level in levels]))
        self.examples.zero_()
        self.between.zero_()
        self.initialized.fill_(True)

    def forward(self) -> Tensor:
        """Decode all pictures, in the order (n, m, s)."""
        constant = self._decode(self.constant[None], 1, _COARSE)
        ends = self._decode(self.examples, 2, _COARSE)
        examples = torch.einsum("se,nechw->nschw", spread_matrix(self.steps, 2).to(ends), ends)
        between = self._decode(self.between, self.steps, _FINE)
        table = torch.cat([between, between.flip(1), torch.zeros_like(between[:1])])
        pairs = table[self._pair_indices()].unflatten(0, (self.objectives, self.objectives))
        latent = constant + examples[:, None] + examples.flip(1)[None] + pairs
        return self.to_rgb(latent.flatten(0, 2))

    def _decode(self, weights: Tensor, maps: int, divisors: Sequence[int]) -> Tensor:
        """Return (parts, maps, C, H, W)."""
        latent = enlarged_sum(unpack(weights, self._shapes(maps, divisors)), self.size)
        return latent.view(len(weights), maps, self.channels, *self.size)

    def _pair_indices(self) -> list[int]:
        """Return the row of the table for each (n, m): pairs n < m, then n > m, then zeros."""
        pairs = [(n, m) for n in range(self.objectives) for m in range(n + 1, self.objectives)]
        rows = {pair: row for row, pair in enumerate([*pairs, *((m, n) for n, m in pairs)])}
        return [rows.get((n, m), len(rows)) for n in range(self.objectives) for m in range(self.objectives)]

    def __repr__(self) -> str:
        arguments = self.extra_repr().replace(f", count={self.count}", "")
        return f"{type(self).__name__}(objectives={self.objectives}, steps={self.steps}, {arguments})"


def _elements(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)
