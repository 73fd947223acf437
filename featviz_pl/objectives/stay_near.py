"""Stay near a picture, in its pixels or in what a layer makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.objectives.base import Objective
from featviz_pl.objectives.picture_arguments import PictureArgument, given_pictures
from featviz_pl.objectives.protocol import Observation, Reference, Setting, Source
from featviz_pl.objectives.reference import call_formula, check_same_positions, checked_norm, checked_objective
from featviz_pl.objectives.running_term import RunningTerm

ROUNDING = 1e-4  # of |h(x0)|: a smaller distance is rounding, and says nothing of the directions in which pictures move


class StayNear(RunningTerm):
    """Keep the picture near another one.

    Without a layer ``-mean (x - x0) ^ 2`` over the pixels, with norm 1 ``-mean |x - x0|``. With a layer
    ``-beta |h(x) - h(x0)|`` over the whole layer, observation through the same views. beta is 1, or, with `balance`,
    ``|d objective|_1 / |d |h(x) - h(x0)||_1``, both by the views' pixels: then the pull back to the picture is as
    strong as that of the objective. Each picture's beta is measured once, in the first step in which there is a
    distance beyond rounding and both gradients are there, and kept; until then it is 0. (A picture that starts from x0
    has no distance yet, so its beta is measured in the second step.)

    Shape:
        pictures (N, C, H, W) -> (N, 1); activation (N, V, …) -> (N, V)

    Args:
        image: where to stay, of the picture's size: a tensor (C, H, W) in [0, 1] or the path of a picture; several give
            each picture its own.
        layer: dotted module name, or ``"output"``; None for the pixels.
        balance: the objective that pulls the picture away; needs a layer.
        norm: 2 or 1.
        through_views: with a layer, show `image` through the same views as the picture; otherwise it is read once, as
            it is.

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

    def __init__(
        self,
        image: PictureArgument,
        layer: str | None = None,
        balance: Objective | None = None,
        norm: int = 2,
        through_views: bool = True,
    ) -> None:
        super().__init__()
        if layer is not None and (not isinstance(layer, str) or not layer):
            raise TypeError(f"layer must be a module name such as 'features.9', or None for the pixels, got {layer!r}")
        self.pictures = given_pictures("image", image)
        self.layer, self.norm, self.through_views = layer, checked_norm(norm), bool(through_views)
        self.reference = Reference(self.pictures.stacked("image"), self.through_views)
        self.balance = checked_objective("balance", balance) if balance is not None else None
        if self.balance is not None:
            if layer is None:
                raise ValueError("balance: the pixels have no layer to balance in; give layer=…")
            self.joint_views = True
            self.add_state("beta")
        self._settled = False

    def counts(self) -> dict[int, Objective]:
        """Return the numbers of pictures asked for, here and by the objective that pulls away."""
        return {**({} if self.balance is None else self.balance.counts()), **super().counts()}

    def term_count(self) -> int | None:
        """Return one picture for each reference, or any number for a single one."""
        count = len(self.pictures.each)
        return None if count == 1 else count

    def term_sources(self) -> Sequence[Source]:
        """Return the layer for both pictures, and what the objective that pulls away reads."""
        if self.layer is None:
            return ()
        pulling = [] if self.balance is None else self.balance.sources()
        return (Source(self.layer), Source(self.layer, reference=self.reference), *pulling)

    def check_term(self, setting: Setting) -> None:
        """Refuse a picture of another size."""
        if self.layer is None:
            given = tuple(self.reference.image.shape[1:])
            if given != setting.picture:
                raise ValueError(f"image: its shape is {given}, that of the picture {setting.picture}; resize it")
            return
        own, wanted = (setting.shapes[source] for source in self.term_sources()[:2])
        check_same_positions(self.layer, own, wanted, self.reference, setting)
        if self.balance is not None:
            self.balance.check(setting)

    def score(self, observation: Observation) -> Tensor:
        """Measure the distance, and weigh it."""
        if self.layer is None:
            difference = (observation.pictures - self.reference.image.to(observation.pictures)).flatten(1)
            return -(difference.abs() if self.norm == 1 else difference.square()).mean(1, keepdim=True)
        own, wanted = (observation.activation(source) for source in self.term_sources()[:2])
        difference = own - wanted
        # The gradient of a norm is 0, not NaN, where there is no difference.
        distance: Tensor = torch.linalg.vector_norm(difference.reshape(*difference.shape[:2], -1), self.norm, dim=2)
        if self.balance is None:
            return -distance
        size = torch.linalg.vector_norm(wanted.reshape(*wanted.shape[:2], -1), self.norm, dim=2)
        return -self._weight(observation, distance, (distance.detach() > ROUNDING * size).all(1)) * distance

    def _weight(self, observation: Observation, distance: Tensor, away: Tensor) -> Tensor:
        """Return beta (N, 1), 0 where it has not been measured; measure it for pictures that are away from the reference."""
        held = self.state("beta", observation.step, len(distance))
        beta = distance.new_zeros(len(distance)) if held is None else held.to(distance)
        if observation.step is not None:
            self._settled = self._settled and held is not None
            if not self._settled and distance.requires_grad:
                beta = torch.where((beta > 0) | ~away, beta, self._measured(observation, distance))
                self._settled = bool((beta > 0).all())
            self.beta = beta.clone()
        return beta[:, None]

    def _measured(self, observation: Observation, distance: Tensor) -> Tensor:
        """Return the ratio (N,) of the gradients' sizes, 0 where one of them is missing."""
        assert self.balance is not None
        shown = observation.network_input()
        pull = self.balance(observation.without_logging()).expand(*shown.shape[:2])
        strengths = []
        for scores in (pull, distance):
            gradient: Tensor | None = None
            if scores.requires_grad:
                (gradient,) = torch.autograd.grad(scores.sum(), shown, retain_graph=True, allow_unused=True)
            strengths.append(
                distance.new_zeros(len(shown))
                if gradient is None
                else gradient.detach().to(distance).flatten(1).abs().sum(1)
            )
        ratio = strengths[0] / strengths[1]
        return torch.where((strengths[1] > 0) & torch.isfinite(ratio), ratio, torch.zeros_like(ratio))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Take what the checkpoint holds, and look again whether all of it has been measured."""
        self._settled = False
        super()._load_from_state_dict(*arguments)

    def named_targets(self, count: int) -> list[list[str]]:
        """Return nothing: what a picture looks for is said by other terms."""
        return []

    def name(self) -> str:
        """Return the name under which the score is logged."""
        return "StayNear" if self.layer is None else f"StayNear.{self.layer}"

    def formula(self) -> str:
        """Return the constructor."""
        layer = [] if self.layer is None else [f"layer={self.layer!r}"]
        balance = [] if self.balance is None else [f"balance={self.balance.formula()}"]
        norm = [] if self.norm == 2 else [f"norm={self.norm}"]
        moving = [] if self.through_views else ["through_views=False"]
        return call_formula("StayNear", self.pictures.formula, *layer, *balance, *norm, *moving)
