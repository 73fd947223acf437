"""Pictures that stay near a given one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from featviz_pl.images.fixed import as_pictures, shape_of
from featviz_pl.images.latent import LatentImage
from featviz_pl.numerics.checks import finite_number, size_pair, unknown, whole_number

_MARGIN = 1e-5  # weights outside the ball are brought this far inside, where rounding cannot put them outside again


class BallImage(LatentImage):
    """Optimize a perturbation of a picture within a ball: ``clip(picture + radius * v / max(1, |v|))``.

    With ``norm="l2"``, ``|v|`` is the Euclidean norm over all values of a picture and ``v = weight / sqrt(C H W)``, so
    that one learning rate means the same share of the radius in both norms; with ``"linf"`` it is the absolute value of
    each value and ``v = weight``. In a run, weights outside the ball are projected onto it before every step (projected
    gradient ascent), since the formula gives them no gradient that leads back. The picture is not saved in checkpoints:
    pass it again to resume a run.

    Shape:
        () -> (N, C, H, W)

    Args:
        picture: the centre: (C, H, W) or (N, C, H, W) in [0, 1], or the path of a picture file or several.
        radius: largest distance from the centre, of values in [0, 1]; above 0.
        norm: of the distance, ``"l2"`` or ``"linf"``.
        size: to which the picture is resampled, one number or (height, width); its own unless given.
        count: number of pictures; None lets the centres or the objective decide.
        channels: of picture files: 1, 3 or 4; 3 unless given. A tensor has its own.
        deviation: standard deviation of the first weights: about the share of the radius at which pictures start.

    Raises:
        ValueError: when radius or norm are impossible, or values lie outside [0, 1].

    Example:
        >>> image = BallImage(torch.full((3, 8, 8), 0.5), radius=0.1, norm="linf", deviation=100.0)
        >>> image.initialize(1, torch.Generator().manual_seed(0))
        >>> round(float((image() - 0.5).abs().max().detach()), 4)
        0.1

    Reference:
        Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018
    """

    picture: Tensor

    def __init__(
        self,
        picture: str | Sequence[str] | Tensor,
        radius: float,
        *,
        norm: Literal["l2", "linf"] = "l2",
        size: int | Sequence[int] | None = None,
        count: int | None = None,
        channels: int | None = None,
        deviation: float = 0.01,
    ) -> None:
        pictures = as_pictures("picture", picture, channels, None if size is None else size_pair("size", size))
        _, channels, *pixels = pictures.shape
        super().__init__(pixels, channels=channels, color="none", deviation=deviation, squash="clip")
        self.radius = finite_number("radius", radius, above=0.0)
        if norm not in ("l2", "linf"):
            raise unknown("norm", "norm", str(norm), ["l2", "linf"])
        self.norm = norm
        with torch.inference_mode(False):
            self.register_buffer("picture", pictures.to(self._precision, copy=True), persistent=False)
        if count is not None or len(pictures) > 1:
            self.allocate(len(pictures) if count is None else count)

    def allocate(self, count: int) -> None:
        """Allocate the weights of `count` pictures; there must be one centre or as many."""
        if len(self.picture) not in (1, whole_number("count", count)):
            raise ValueError(f"count: {len(self.picture)} centres do not fit {count} pictures; give one or as many")
        super().allocate(count)

    def weight_shape(self) -> tuple[int, ...]:
        """Return (C, H, W)."""
        return (self.channels, *self.size)

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Return the perturbations as shares of the radius, in the unit ball."""
        if self.norm == "linf":
            return weight / weight.abs().clamp_min(1)
        vector = weight / self._scale
        return vector / _norms(vector).clamp_min(1)

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Return the weights of perturbations in the unit ball."""
        return latent if self.norm == "linf" else latent * self._scale

    @property
    def _scale(self) -> float:
        return math.sqrt(self.channels * self.size[0] * self.size[1])

    def to_rgb(self, latent: Tensor) -> Tensor:
        """Add the perturbations to the centres."""
        return (self.picture.to(latent) + self.radius * latent).clamp(0, 1)

    def from_rgb(self, pictures: Tensor) -> Tensor:
        """Return the perturbations of pictures in the ball, in float64; raise ValueError outside."""
        latent = (pictures.double() - self.picture.double()) / self.radius
        norms = _norms(latent) if self.norm == "l2" else latent.abs().amax((1, 2, 3), keepdim=True)
        if float(norms.max()) > 1 + 1e-6:
            farthest = float(norms.max()) * self.radius
            raise ValueError(f"image: must lie within {self.radius:g} of the centre of the ball, got {farthest:g}")
        return latent

    @torch.no_grad()
    def advance(self, step: int, steps: int) -> None:
        """Project weights onto the ball, and pictures onto [0, 1]."""
        weight = self.required_weight()
        if self.norm == "linf":
            scale = self.radius
            weight.clamp_(-(1 - _MARGIN), 1 - _MARGIN)
        else:
            scale = self.radius / self._scale
            norms = _norms(weight) / self._scale
            weight.copy_(torch.where(norms > 1, weight * ((1 - _MARGIN) / norms), weight))
        picture = self.picture.to(weight)
        lowest, highest = (_MARGIN - picture).clamp(max=0) / scale, (1 - _MARGIN - picture).clamp(min=0) / scale
        weight.copy_(torch.maximum(torch.minimum(weight, highest), lowest))

    def extra_repr(self) -> str:
        """Return centre, radius and norm."""
        return f"picture={shape_of(self.picture)}, radius={self.radius:g}, norm={self.norm!r}, count={self.count}"


def _norms(vectors: Tensor) -> Tensor:
    """Return the Euclidean norm of each picture, (N, 1, 1, 1)."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2, 3), keepdim=True)
    return norms
