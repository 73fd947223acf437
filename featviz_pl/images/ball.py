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
    """Optimise a perturbation of a picture that never leaves a ball: ``clip(picture + radius * v / max(1, |v|))``.

    With ``norm="l2"``, ``|v|`` is the Euclidean length over all values of a picture and ``v = weight / sqrt(C H W)``,
    so that one learning rate means the same share of the radius in both norms; with ``"linf"`` it is each value's own
    size and ``v = weight``. In a run, weights outside the ball are projected onto it before every step (projected
    gradient ascent): by the formula alone they would get no gradient that leads back. The picture is no part of
    checkpoints: who resumes a run gives it again.

    Shape:
        () -> (N, C, H, W)

    Args:
        picture: the centre: (C, H, W) or (N, C, H, W) in [0, 1], or the path of a picture file or several.
        radius: largest distance from the centre, of values in [0, 1]; above 0.
        norm: in which distance is measured.
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
        norm: Literal["l2", "linf"] = "l2",
        size: int | Sequence[int] | None = None,
        count: int | None = None,
        channels: int | None = None,
        deviation: float = 0.01,
    ) -> None:
        pictures = as_pictures("picture", picture, channels, None if size is None else size_pair("size", size))
        super().__init__(tuple(pictures.shape[-2:]), None, pictures.shape[1], "none", deviation, "clip")
        self.radius = finite_number("radius", radius, above=0.0)
        if norm not in ("l2", "linf"):
            raise unknown("norm", "norm", str(norm), ["l2", "linf"])
        self.norm = norm
        with torch.inference_mode(False):
            self.register_buffer("picture", pictures.to(self._precision, copy=True), persistent=False)
        if count is not None or len(pictures) > 1:
            self.allocate(len(pictures) if count is None else count)

    def allocate(self, count: int) -> None:
        """Make room for `count` pictures; asking again for the same number changes nothing.

        Raises:
            ValueError: when the pictures were allocated, or the centres were given, with another number.
        """
        if len(self.picture) not in (1, whole_number("count", count)):
            raise ValueError(
                f"count: {len(self.picture)} centres were given, but {count} pictures are asked for; give one or as many"
            )
        super().allocate(count)

    def weight_shape(self) -> tuple[int, ...]:
        """Return (C, H, W)."""
        return (self.channels, *self.size)

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Return the perturbations as shares of the radius, in the unit ball."""
        if self.norm == "linf":
            return weight / weight.abs().clamp_min(1)
        vector = weight / self._root
        return vector / _lengths(vector).clamp_min(1)

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Return the weights of perturbations in the unit ball."""
        return latent if self.norm == "linf" else latent * self._root

    @property
    def _root(self) -> float:
        return math.sqrt(self.channels * self.size[0] * self.size[1])

    def finish(self, latent: Tensor) -> Tensor:
        """Add the perturbations to the centres."""
        return (self.picture.to(latent) + self.radius * latent).clamp(0, 1)

    def unfinish(self, pictures: Tensor) -> Tensor:
        """Return the perturbations of pictures in the ball, in float64.

        Raises:
            ValueError: for pictures outside.
        """
        latent = (pictures.double() - self.picture.double()) / self.radius
        lengths = _lengths(latent) if self.norm == "l2" else latent.abs().amax((1, 2, 3), keepdim=True)
        if float(lengths.max()) > 1 + 1e-6:
            farthest = float(lengths.max()) * self.radius
            raise ValueError(
                f"image: a picture lies {farthest:g} from the centre of the ball, farther than its radius {self.radius:g}"
            )
        return latent

    @torch.no_grad()
    def advance(self, step: int, steps: int) -> None:
        """Project weights onto the ball and onto what pixels can be, so that the next step can lead anywhere."""
        weight = self.required_weight()
        if self.norm == "linf":
            scale = self.radius
            weight.clamp_(-(1 - _MARGIN), 1 - _MARGIN)
        else:
            scale = self.radius / self._root
            lengths = _lengths(weight) / self._root
            weight.copy_(torch.where(lengths > 1, weight * ((1 - _MARGIN) / lengths), weight))
        picture = self.picture.to(weight)
        lowest, highest = (_MARGIN - picture).clamp(max=0) / scale, (1 - _MARGIN - picture).clamp(min=0) / scale
        weight.copy_(torch.maximum(torch.minimum(weight, highest), lowest))

    def extra_repr(self) -> str:
        """Show centre, radius and norm."""
        return f"picture={shape_of(self.picture)}, radius={self.radius:g}, norm={self.norm!r}, count={self.count}"


def _lengths(vectors: Tensor) -> Tensor:
    """Return the Euclidean length of each picture's values, (N, 1, 1, 1)."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2, 3), keepdim=True)
    return lengths
