"""Stay near a picture, in its pixels or in the activations of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.objectives.arguments import layer_name
from featviz_pl.objectives.base import Objective
from featviz_pl.objectives.picture_arguments import PictureArgument, load_pictures
from featviz_pl.objectives.protocol import Observation, Reference, Setting, Source
from featviz_pl.objectives.reference import check_same_positions, checked_norm
from featviz_pl.objectives.running_term import RunningTerm
from featviz_pl.objectives.target_syntax import Target, parse_objective

ROUNDING = 1e-4  # of |h(x0)|: a smaller distance is rounding, whose gradient has no meaning


class StayNear(RunningTerm):
    """Keep the picture near a reference.

    Without a layer ``-mean (x - x0) ^ 2`` over the pixels, with norm 1 ``-mean |x - x0|``. With a layer
    ``-beta |h(x) - h(x0)|`` over the whole layer, through the same views. beta is 1, or, with `balance`,
    ``|d objective|_1 / |d |h(x) - h(x0)||_1``, both by the views' pixels: then both gradients are equally large. Each
    picture's beta is measured once, in the first step with a distance beyond rounding and both gradients; until then it
    is 0. (A picture that starts from x0 has no distance yet, so its beta is measured in the second step.)

    Shape:
        pictures (N, C, H, W) -> (N, 1); activation (N, V, …) -> (N, V)

    Args:
        image: the reference, of the picture's size: a tensor (C, H, W) in [0, 1] or the path of a picture; several give
            each picture its own.
        layer: dotted module name, or ``"output"``; None for the pixels.
        balance: the objective or target whose gradient is balanced; needs a layer.
        norm: 2 or 1.
        through_views: with a layer, read `image` through the same views as the picture; otherwise once, without views.

    Raises:
        ValueError: when the picture has another size.

    Example:
        >>> term = StayNear(torch.zeros(1, 2, 2))
        >>> term(Observation(torch.full((1, 1, 2, 2), 0.5), {})).item()
        -0.25

    Reference:
        Hamblin, Fel, Saha, Konkle, Alvarez, "Feature Accentuation: Revealing 'What' Features Respond to in Natural
        Images", 2024
    """

    has_targets = False  # other terms name them

    def __init__(
        self,
        image: PictureArgument,
        layer: str | None = None,
        *,
        balance: Objective | Target | str | None = None,
        norm: int = 2,
        through_views: bool = True,
    ) -> None:
        super().__init__()
        self.pictures = load_pictures("image", image)
        self.picture_count = None if len(self.pictures) == 1 else len(self.pictures)
        self.layer = None if layer is None else layer_name(layer)
        self.norm, self.through_views = checked_norm(norm), bool(through_views)
        self.reference = Reference(self.pictures.stacked("image"), through_views=self.through_views)
        self.balance = parse_objective("balance", balance) if balance is not None else None
        if self.balance is not None:
            if layer is None:
                raise ValueError("balance: the pixels have no layer to balance in; give layer=…")
            self.joint_views = True
            self.add_state("beta")
        self._measured_all = False

    def counts(self) -> dict[int, Objective]:
        return {**({} if self.balance is None else self.balance.counts()), **super().counts()}

    def term_sources(self) -> Sequence[Source]:
        if self.layer is None:
            return ()
        balanced = [] if self.balance is None else self.balance.sources()
        return (Source(self.layer), Source(self.layer, reference=self.reference), *balanced)

    def check_term(self, setting: Setting) -> None:
        if self.layer is None:
            size = tuple(self.reference.image.shape[1:])
            if size != setting.picture:
                raise ValueError(f"image: its shape is {size}, that of the picture {setting.picture}; resize it")
            return
        shape, reference_shape = (setting.shapes[source] for source in self.term_sources()[:2])
        check_same_positions(self.layer, shape, reference_shape, self.reference, setting)
        if self.balance is not None:
            self.balance.check(setting)

    def score(self, observation: Observation) -> Tensor:
        if self.layer is None:
            difference = (observation.pictures - self.reference.image.to(observation.pictures)).flatten(1)
            return -(difference.abs() if self.norm == 1 else difference.square()).mean(1, keepdim=True)
        activation, reference = (observation.activation(source) for source in self.term_sources()[:2])
        difference = activation - reference
        # The gradient of a norm is 0, not NaN, where there is no difference.
        distance: Tensor = torch.linalg.vector_norm(difference.reshape(*difference.shape[:2], -1), self.norm, dim=2)
        if self.balance is None:
            return -distance
        size = torch.linalg.vector_norm(reference.reshape(*reference.shape[:2], -1), self.norm, dim=2)
        return -self._weight(observation, distance, (distance.detach() > ROUNDING * size).all(1)) * distance

    def _weight(self, observation: Observation, distance: Tensor, measurable: Tensor) -> Tensor:
        """Return beta (N, 1), 0 where it has not been measured; measure it for measurable pictures."""
        state = self.state("beta", observation.step, len(distance))
        beta = distance.new_zeros(len(distance)) if state is None else state.to(distance)
        if observation.step is not None:
            self._measured_all = self._measured_all and state is not None
            if not self._measured_all and distance.requires_grad:
                beta = torch.where((beta > 0) | ~measurable, beta, self._gradient_ratio(observation, distance))
                self._measured_all = bool((beta > 0).all())
            self.beta = beta.clone()
        return beta[:, None]

    def _gradient_ratio(self, observation: Observation, distance: Tensor) -> Tensor:
        """Return the ratio (N,) of the sizes of both gradients, 0 where one of them is missing."""
        assert self.balance is not None
        views = observation.network_input()
        balanced = self.balance(observation.without_logging()).expand(*views.shape[:2])
        sizes = []
        for scores in (balanced, distance):
            gradient: Tensor | None = None
            if scores.requires_grad:
                (gradient,) = torch.autograd.grad(scores.sum(), views, retain_graph=True, allow_unused=True)
            zeros = distance.new_zeros(len(views))
            sizes.append(zeros if gradient is None else gradient.detach().to(distance).flatten(1).abs().sum(1))
        ratio = sizes[0] / sizes[1]
        return torch.where((sizes[1] > 0) & torch.isfinite(ratio), ratio, torch.zeros_like(ratio))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Load the states, and check again whether all of them have been measured."""
        self._measured_all = False
        super()._load_from_state_dict(*arguments)

    def name(self) -> str:
        return "StayNear" if self.layer is None else f"StayNear.{self.layer}"

    def argument(self, name: str) -> Any:
        return self.pictures if name == "image" else super().argument(name)
