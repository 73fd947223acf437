"""The contract of every transform: draw, then apply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.transforms.warp import Border, draw_count, sizes, warp

# What one draw holds: a tensor whose first axis counts the views, or a tuple of such for a composition.
Parameters = Any


class Transform(nn.Module, ABC):
    """Draw plain parameter tensors with `sample`, then use them in the pure function `apply`.

    ``transform(image, generator)`` does both. Keeping the parameters replays the same view on another picture.
    A transform holds no tensors: constants are made on the picture's device.
    """

    @abstractmethod
    def sample(self, generator: torch.Generator, n: int) -> Parameters:
        """Draw the parameters of `n` views from a CPU generator, and from nothing else."""

    @abstractmethod
    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:  # type: ignore[override]
        """Return the view of each picture (N, C, H, W) that its parameters describe."""

    def at(self, parameters: Parameters, progress: float) -> Parameters:
        """Return the parameters at a progress of the run in [0, 1], where their range moves; a pure function."""
        return parameters

    def weaken(self, parameters: Parameters, strength: float) -> Parameters:
        """Return the parameters scaled towards those of no change: 0 is none, 1 is as drawn."""
        return parameters

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of the view of a picture of this size."""
        return size

    def forward(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Apply a fresh draw, one for each picture."""
        view: Tensor = self.apply(image, self.sample(generator, len(image)))
        return view


class GeometricTransform(Transform):
    """Map points; successive geometric transforms compose into one sampling, so that a picture is interpolated once."""

    @abstractmethod
    def matrix(self, parameters: Parameters, size: tuple[int, int]) -> Tensor:
        """Return (n, 3, 3) maps from a point of the view to the point of the picture it shows.

        Points are (x, y, 1) in pixels from the centre, x to the right and y down. Both are measured in a picture of
        this size, (height, width), which matters where parameters are shares of it.
        """

    def apply(self, image: Tensor, parameters: Parameters) -> Tensor:  # type: ignore[override]
        """Sample each picture at the mapped points, once."""
        return warp(image, [(self, parameters)], sizes(image)[1:], draw_count(parameters) or sizes(image)[0])

    def border(self, parameters: Parameters) -> Border | None:
        """Return what lies outside the picture, where the transform sets it; see `Pad`."""
        return None

    @property
    def largest_shrink(self) -> float:
        """Pixels of the picture per pixel of the view, of the strongest draw; below 1 where every draw enlarges."""
        return 1.0

    def shrink(self, parameters: Parameters) -> float:
        """Return the largest shrink now; the same for all draws, so that a blur does not tell them apart."""
        return self.largest_shrink
