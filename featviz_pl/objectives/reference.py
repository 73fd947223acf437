"""Objectives that compare a layer with that of reference pictures, position by position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.numerics.activation_axes import unit_axis
from featviz_pl.numerics.checks import finite_number
from featviz_pl.objectives.activation import LayerTerm
from featviz_pl.objectives.base import Objective, number_formula
from featviz_pl.objectives.picture_arguments import PictureArgument, given_pictures
from featviz_pl.objectives.protocol import Observation, Reference, Setting, Source

NORMS = (1, 2)


class ReferenceTerm(LayerTerm):
    """Compare one layer of the picture with the same layer of a reference, position by position.

    Args:
        layer: dotted module name, or ``"output"``.
        image: the reference, of the picture's size: one for all pictures, or as many as there are pictures.
        through_views: show the reference through the same views as the picture; otherwise it is read once, as it is.
    """

    def __init__(self, layer: str, image: PictureArgument, through_views: bool = True) -> None:
        super().__init__(layer)
        self.pictures = given_pictures("image", image)
        self.through_views = bool(through_views)
        self.reference = Reference(self.pictures.stacked("image"), self.through_views)

    def term_sources(self) -> Sequence[Source]:
        """Return the layer for the picture and for the reference."""
        return (Source(self.layer), Source(self.layer, reference=self.reference))

    def term_count(self) -> int | None:
        """Return one picture for each reference, or any number for a single one."""
        count = len(self.pictures.each)
        return None if count == 1 else count

    def check_term(self, setting: Setting) -> None:
        """Refuse a reference whose positions are not those of the picture."""
        own, wanted = (setting.shapes[source] for source in self.term_sources()[:2])
        check_same_positions(self.layer, own, wanted, self.reference, setting)

    def compared(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Return the layer for the picture (N, V, …) and for the reference (N or 1, V or 1, …)."""
        own, wanted = self.term_sources()[:2]
        return observation.activation(own), observation.activation(wanted)

    def target_names(self, count: int) -> list[str]:
        """Return the formula with each picture's own reference."""
        names = self.pictures.names if len(self.pictures.names) > 1 else self.pictures.names * count
        return [self._formula_with(name) for name in names]

    def formula(self) -> str:
        """Return the constructor."""
        return self._formula_with(self.pictures.formula)

    def _formula_with(self, pictures: str) -> str:
        return call_formula(type(self).__name__, repr(self.layer), pictures, *self.options())

    def options(self) -> list[str]:
        """Return the arguments that differ from their defaults, as a formula has them."""
        return [] if self.through_views else ["through_views=False"]


class Caricature(ReferenceTerm):
    """Exaggerate what a layer sees in a reference picture.

    ``mean over positions of a . r max(0.1, cos(a, r)) ^ power``, with the activation vectors a of the picture and r of
    the reference at each position, and ``cos(a, r) = a . r / ((1e-4 + |a|) (1e-4 + |r|))``. With an attribution, r is
    ``r * d attribution / d r`` instead: the part of the reference that argues for that objective.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        image: the reference, of the picture's size: a tensor (C, H, W) in [0, 1] or the path of a picture; several make
            one caricature each.
        power: of the cosine, 0 or more; higher insists more on the direction. 0 is the field's.
        attribution: an objective, evaluated at the reference; None takes the reference's activations as they are.
        through_views: show the reference through the same views as the picture, as the field does; otherwise it is read
            once, as it is.

    Raises:
        ValueError: when the reference does not have the picture's size.

    Example:
        >>> term = Caricature("a", torch.zeros(3, 4, 4))
        >>> own, wanted = term.term_sources()
        >>> vectors = torch.tensor([[[1.0, 2.0]]])
        >>> term(Observation(torch.zeros(1, 3, 4, 4), {own: vectors, wanted: 3 * vectors})).item()
        15.0

    Reference:
        Carter, Armstrong, Schubert, Johnson, Olah, "Activation Atlas", Distill, 2019 (its library's ``dot_compare``)
    """

    def __init__(
        self,
        layer: str,
        image: PictureArgument,
        power: float = 0.0,
        attribution: Objective | None = None,
        through_views: bool = True,
    ) -> None:
        super().__init__(layer, image, through_views)
        self.power = finite_number("power", power, least=0.0)
        self.attribution = checked_objective("attribution", attribution) if attribution is not None else None
        asked = None if self.attribution is None else self.attribution.count()
        if asked is not None and len(self.reference.image) == 1:  # each picture has an attribution of its own
            self.reference = Reference(self.reference.image.expand(asked, -1, -1, -1), self.through_views)

    def counts(self) -> dict[int, Objective]:
        """Return the numbers of pictures asked for, here and by the attribution."""
        return {**({} if self.attribution is None else self.attribution.counts()), **super().counts()}

    def term_sources(self) -> Sequence[Source]:
        """Return the layer for the picture and for the reference, and there the gradient of the attribution."""
        sources = super().term_sources()
        if self.attribution is None:
            return sources
        return (*sources, Source(self.layer, reference=self.reference, gradient_of=self.attribution))

    def check_term(self, setting: Setting) -> None:
        """Refuse a reference of another size, and an attribution that cannot work."""
        super().check_term(setting)
        if self.attribution is not None and setting.shapes.keys() >= set(self.attribution.sources()):
            self.attribution.check(setting)

    def score(self, observation: Observation) -> Tensor:
        """Average over positions."""
        own, wanted = self.compared(observation)
        if self.attribution is not None:
            wanted = wanted * observation.activation(self.term_sources()[2])
        own, wanted = units_and_positions(own), units_and_positions(wanted)
        dot = (own * wanted).sum(2)
        if self.power == 0:
            return dot.mean(2)
        # The gradient of a norm is 0, not NaN, where a rectifier left nothing.
        lengths = [1e-4 + torch.linalg.vector_norm(vectors, dim=2) for vectors in (own, wanted)]
        cosine = dot / lengths[0] / lengths[1]
        angled: Tensor = dot * cosine.clamp_min(0.1) ** self.power
        return angled.mean(2)

    def target_names(self, count: int) -> list[str]:
        """Return the formula with each picture's own reference and what its attribution looks for."""
        names = super().target_names(count)
        if self.attribution is None:
            return names
        whole = f"attribution={self.attribution.formula()}"
        return [name.replace(whole, f"attribution={own}") for name, own in zip(names, self.attribution.targets(count))]

    def options(self) -> list[str]:
        """Return the arguments that differ from their defaults, as a formula has them."""
        power = [f"power={number_formula(self.power)}"] if self.power else []
        attribution = [] if self.attribution is None else [f"attribution={self.attribution.formula()}"]
        return [*power, *attribution, *super().options()]


class Inversion(ReferenceTerm):
    """Reconstruct a picture from what a layer keeps of it.

    ``-|a - r|^2 / |r|^2`` over the whole layer, with the activation a of the picture and r of the reference; with norm
    1 ``-|a - r|_1 / |r|_1``. The best is 0, and grey pictures start near -1.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        image: the reference, of the picture's size: a tensor (C, H, W) in [0, 1] or the path of a picture; several make
            one inversion each.
        norm: 2, squared, or 1.
        through_views: show the reference through the same views as the picture. Otherwise it is read once, as it is,
            and every view of the picture is held against the reference that was not moved.

    Raises:
        ValueError: when the reference does not have the picture's size.

    Example:
        >>> term = Inversion("a", torch.zeros(3, 4, 4))
        >>> own, wanted = term.term_sources()
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {own: torch.ones(1, 1, 4), wanted: torch.full((1, 1, 4), 2.0)})
        >>> term(observation).item()
        -0.25

    Reference:
        Mahendran, Vedaldi, "Understanding Deep Image Representations by Inverting Them", 2015
    """

    def __init__(self, layer: str, image: PictureArgument, norm: int = 2, through_views: bool = True) -> None:
        super().__init__(layer, image, through_views)
        self.norm = checked_norm(norm)

    def score(self, observation: Observation) -> Tensor:
        """Divide the distance by the size of the reference."""
        own, wanted = (
            activation.flatten(2) if activation.ndim > 2 else activation[:, :, None]
            for activation in self.compared(observation)
        )
        difference = own - wanted
        smallest = torch.finfo(wanted.dtype).tiny  # of a reference that gives nothing at all
        if self.norm == 1:
            return -difference.abs().sum(2) / wanted.abs().sum(2).clamp_min(smallest)
        return -difference.square().sum(2) / wanted.square().sum(2).clamp_min(smallest)

    def options(self) -> list[str]:
        """Return the arguments that differ from their defaults, as a formula has them."""
        return [*([f"norm={self.norm}"] if self.norm != 2 else []), *super().options()]


class Content(ReferenceTerm):
    """Keep what a layer sees of a picture: ``-mean |a - r|``, the content of style transfer.

    Shape:
        activation (N, V, …) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        image: the reference, of the picture's size: a tensor (C, H, W) in [0, 1] or the path of a picture; several give
            each picture its own.
        through_views: show the reference through the same views as the picture, as the field does; otherwise it is read
            once, as it is.

    Raises:
        ValueError: when the reference does not have the picture's size.

    Example:
        >>> term = Content("a", torch.zeros(3, 4, 4))
        >>> own, wanted = term.term_sources()
        >>> term(Observation(torch.zeros(1, 3, 4, 4), {own: torch.ones(1, 1, 4), wanted: torch.zeros(1, 1, 4)})).item()
        -1.0

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018 (weight 100)
    """

    def score(self, observation: Observation) -> Tensor:
        """Average the distances."""
        own, wanted = self.compared(observation)
        difference = (own - wanted).abs()
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
    layer: str, own: Sequence[int], wanted: Sequence[int], reference: Reference, setting: Setting
) -> None:
    """Raise ValueError when a reference gives a layer another shape than the picture does."""
    if tuple(own) != tuple(wanted):
        (height, width), given = setting.picture[1:], tuple(reference.image.shape[-2:])
        raise ValueError(
            f"reference: activations of {layer!r} are {tuple(wanted)} for a picture of {given[0]} x {given[1]}, and {tuple(own)} for the "
            f"picture of {height} x {width}; resize it to {height} x {width}"
        )


def checked_norm(norm: int) -> int:
    """Return 1 or 2, or raise."""
    if isinstance(norm, bool) or norm not in NORMS:
        raise ValueError(f"norm must be 1 or 2, got {norm!r}")
    return int(norm)


def checked_objective(argument: str, value: Objective) -> Objective:
    """Return an objective, or raise an error that names the argument."""
    if not isinstance(value, Objective):
        raise TypeError(
            f"{argument} must be an objective such as Channel('features.9', 33), got {type(value).__name__}"
        )
    return value


def call_formula(name: str, *arguments: str) -> str:
    """Write a call.

    Example:
        >>> call_formula("Layer", "'features.9'")
        "Layer('features.9')"
    """
    return f"{name}({', '.join(arguments)})"
