"""Objectives that compare a layer with that of reference pictures, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.numerics.activation_axes import unit_axis
from featviz_pl.numerics.checks import finite_number
from featviz_pl.objectives.activation import LayerTerm
from featviz_pl.objectives.base import Objective
from featviz_pl.objectives.direction import compare_vectors
from featviz_pl.objectives.picture_arguments import PictureArgument, load_pictures
from featviz_pl.objectives.protocol import Observation, Reference, Setting, Source
from featviz_pl.objectives.target_syntax import Target, parse_objective


class ReferenceTerm(LayerTerm):
    """Compare one layer of the picture with the same layer of a reference, position by position.

    Args:
        layer: dotted module name, or ``"output"``.
        image: the reference, of the picture's size: one for all pictures, or as many as there are pictures.
        through_views: read the reference through the same views as the picture; otherwise once, without views.
    """

    def __init__(self, layer: str, image: PictureArgument, through_views: bool = True) -> None:
        super().__init__(layer)
        self.pictures = load_pictures("image", image)
        self.picture_count = None if len(self.pictures) == 1 else len(self.pictures)
        self.through_views = bool(through_views)
        self.reference = Reference(self.pictures.stacked("image"), through_views=self.through_views)

    def term_sources(self) -> Sequence[Source]:
        return (Source(self.layer), Source(self.layer, reference=self.reference))

    def check_term(self, setting: Setting) -> None:
        shape, reference_shape = (setting.shapes[source] for source in self.term_sources()[:2])
        check_same_positions(self.layer, shape, reference_shape, self.reference, setting)

    def activations(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Return the layer for the picture (N, V, …) and for the reference (N or 1, V or 1, …)."""
        source, reference = self.term_sources()[:2]
        return observation.activation(source), observation.activation(reference)

    def target_names(self, count: int) -> list[str]:
        names = self.pictures.names if len(self.pictures) > 1 else self.pictures.names * count
        return [self.formula_with(image=name) for name in names]

    def argument(self, name: str) -> Any:
        return self.pictures if name == "image" else super().argument(name)


class Caricature(ReferenceTerm):
    """Exaggerate the activations of a layer for a reference picture.

    ``mean over positions of a . r max(0.1, cos(a, r)) ^ power``, with the activation vectors a of the picture and r of
    the reference at each position, and ``cos(a, r) = a . r / ((1e-4 + |a|) (1e-4 + |r|))``. With an attribution, r is
    ``r * d attribution / d r`` instead: the part of the reference that raises that objective.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        image: the reference, of the picture's size: a tensor (C, H, W) in [0, 1] or the path of a picture; several make
            one caricature each.
        power: of the cosine, 0 or more; higher weights the direction more. 0 is the field's.
        attribution: an objective or a target, evaluated at the reference; None takes the activations themselves.
        through_views: read the reference through the same views as the picture, as the field does; otherwise once,
            without views.

    Raises:
        ValueError: when the reference does not have the picture's size.

    Example:
        >>> term = Caricature("a", torch.zeros(3, 4, 4))
        >>> source, reference = term.term_sources()
        >>> vectors = torch.tensor([[[1.0, 2.0]]])
        >>> term(Observation(torch.zeros(1, 3, 4, 4), {source: vectors, reference: 3 * vectors})).item()
        15.0

    Reference:
        Carter, Armstrong, Schubert, Johnson, Olah, "Activation Atlas", Distill, 2019 (its library's ``dot_compare``)
    """

    def __init__(
        self,
        layer: str,
        image: PictureArgument,
        *,
        power: float = 0.0,
        attribution: Objective | Target | str | None = None,
        through_views: bool = True,
    ) -> None:
        super().__init__(layer, image, through_views)
        self.power = finite_number("power", power, least=0.0)
        self.attribution = parse_objective("attribution", attribution) if attribution is not None else None
        count = None if self.attribution is None else self.attribution.count()
        if count is not None and len(self.reference.image) == 1:  # each picture has an attribution of its own
            image = self.reference.image.expand(count, -1, -1, -1)
            self.reference = Reference(image, through_views=self.through_views)

    def counts(self) -> dict[int, Objective]:
        return {**({} if self.attribution is None else self.attribution.counts()), **super().counts()}

    def term_sources(self) -> Sequence[Source]:
        """Return the layer for picture and reference, and the gradient of the attribution at the reference."""
        sources = super().term_sources()
        if self.attribution is None:
            return sources
        return (*sources, Source(self.layer, reference=self.reference, gradient_of=self.attribution))

    def check_term(self, setting: Setting) -> None:
        super().check_term(setting)
        if self.attribution is not None and setting.shapes.keys() >= set(self.attribution.sources()):
            self.attribution.check(setting)

    def score(self, observation: Observation) -> Tensor:
        activation, reference = self.activations(observation)
        if self.attribution is not None:
            reference = reference * observation.activation(self.term_sources()[2])
        units, reference_units = units_and_positions(activation), units_and_positions(reference)
        return compare_vectors(units, reference_units, power=self.power, axis=2)

    def target_names(self, count: int) -> list[str]:
        """Return the formula with the reference of each picture and the target of its attribution."""
        if self.attribution is None:
            return super().target_names(count)
        names = self.pictures.names if len(self.pictures) > 1 else self.pictures.names * count
        targets = self.attribution.targets(count)
        return [self.formula_with(image=name, attribution=target) for name, target in zip(names, targets)]


class Inversion(ReferenceTerm):
    """Reconstruct a picture from the activations of a layer.

    ``-|a - r|^2 / |r|^2`` over the whole layer, with the activation a of the picture and r of the reference; with norm
    1 ``-|a - r|_1 / |r|_1``. The best is 0, and grey pictures start near -1.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        image: the reference, of the picture's size: a tensor (C, H, W) in [0, 1] or the path of a picture; several make
            one inversion each.
        norm: 2, squared, or 1.
        through_views: read the reference through the same views as the picture. Otherwise it is read once, without
            views, and every view of the picture is compared with it.

    Raises:
        ValueError: when the reference does not have the picture's size.

    Example:
        >>> term = Inversion("a", torch.zeros(3, 4, 4))
        >>> source, reference = term.term_sources()
        >>> activations = {source: torch.ones(1, 1, 4), reference: torch.full((1, 1, 4), 2.0)}
        >>> term(Observation(torch.zeros(1, 3, 4, 4), activations)).item()
        -0.25

    Reference:
        Mahendran, Vedaldi, "Understanding Deep Image Representations by Inverting Them", 2015
    """

    def __init__(self, layer: str, image: PictureArgument, norm: int = 2, through_views: bool = True) -> None:
        super().__init__(layer, image, through_views)
        self.norm = checked_norm(norm)

    def score(self, observation: Observation) -> Tensor:
        activation, reference = (
            values.flatten(2) if values.ndim > 2 else values[:, :, None] for values in self.activations(observation)
        )
        difference = activation - reference
        smallest = torch.finfo(reference.dtype).tiny  # for a reference of zeros
        if self.norm == 1:
            return -difference.abs().sum(2) / reference.abs().sum(2).clamp_min(smallest)
        return -difference.square().sum(2) / reference.square().sum(2).clamp_min(smallest)


class Content(ReferenceTerm):
    """Keep the activations of a picture: ``-mean |a - r|``, the content of style transfer.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        image: the reference, of the picture's size: a tensor (C, H, W) in [0, 1] or the path of a picture; several give
            each picture its own.
        through_views: read the reference through the same views as the picture, as the field does; otherwise once,
            without views.

    Raises:
        ValueError: when the reference does not have the picture's size.

    Example:
        >>> term = Content("a", torch.zeros(3, 4, 4))
        >>> source, reference = term.term_sources()
        >>> activations = {source: torch.ones(1, 1, 4), reference: torch.zeros(1, 1, 4)}
        >>> term(Observation(torch.zeros(1, 3, 4, 4), activations)).item()
        -1.0

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018 (weight 100)
    """

    def score(self, observation: Observation) -> Tensor:
        activation, reference = self.activations(observation)
        difference = (activation - reference).abs()
        return -difference.reshape(*difference.shape[:2], -1).mean(2)


def units_and_positions(activation: Tensor) -> Tensor:
    """Lay an activation out as (N, V, units, positions).

    Example:
        >>> units_and_positions(torch.zeros(1, 1, 3, 4, 5)).shape, units_and_positions(torch.zeros(1, 1, 7, 3)).shape
        (torch.Size([1, 1, 3, 20]), torch.Size([1, 1, 3, 7]))
    """
    if activation.ndim == 2:
        activation = activation[:, :, None]
    units = activation.movedim(2 + unit_axis(activation.shape[2:]), 2)
    return units.flatten(3) if units.ndim > 3 else units[..., None]


def check_same_positions(
    layer: str, shape: Sequence[int], reference_shape: Sequence[int], reference: Reference, setting: Setting
) -> None:
    """Raise ValueError when a layer has another shape for the reference than for the picture."""
    if tuple(shape) != tuple(reference_shape):
        (height, width), size = setting.picture[1:], tuple(reference.image.shape[-2:])
        raise ValueError(
            f"reference: activations of {layer!r} are {tuple(reference_shape)} for a picture of {size[0]} x {size[1]}, "
            f"and {tuple(shape)} for the picture of {height} x {width}; resize it to {height} x {width}"
        )


def checked_norm(norm: int) -> int:
    """Return 1 or 2, or raise."""
    if isinstance(norm, bool) or norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm!r}")
    return int(norm)
