"""Objectives that couple or vary the pictures of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from featviz_pl.numerics.activation_axes import at_positions
from featviz_pl.numerics.checks import finite_number, whole_number
from featviz_pl.numerics.device_transfer import numbers_on
from featviz_pl.objectives.activation import LayerTerm
from featviz_pl.objectives.arguments import layer_names, layers_argument
from featviz_pl.objectives.base import Objective, Term
from featviz_pl.objectives.protocol import Observation, Setting, Source
from featviz_pl.objectives.target_syntax import Target, parse_objective


class Interpolation(Objective):
    """Interpolate between two objectives over the batch: ``(1 - w_i) first + w_i second``, ``w_i = i / (n - 1)``.

    Shape:
        Observation of N pictures in V views -> (N, V)

    Args:
        first: objective of the first picture, or the shorthand of a target.
        second: objective of the last one.
        count: number of pictures, 2 or more; that of the image by default.
        weights: of `second` for each picture, instead of even steps from 0 to 1.

    Raises:
        ValueError: when there are fewer than two pictures, or the weights are not as many as `count`.

    Example:
        >>> import torch
        >>> activation = torch.tensor([10.0, 20.0]).expand(3, 1, 2)
        >>> observation = Observation(torch.zeros(3, 3, 4, 4), {Source("a"): activation})
        >>> between = Interpolation("a:0", "a:1")
        >>> between(observation).flatten().tolist(), between.targets(3)
        ([10.0, 15.0, 20.0], ['a:0 to a:1 at 0', 'a:0 to a:1 at 0.5', 'a:0 to a:1 at 1'])

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (interaction between neurons)
    """

    def __init__(
        self,
        first: Objective | Target | str,
        second: Objective | Target | str,
        *,
        count: int | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.first, self.second = parse_objective("first", first), parse_objective("second", second)
        self.picture_count = None if count is None else whole_number("count", count, least=2)
        self.weights = None if weights is None else [finite_number("weights", weight) for weight in weights]
        if self.weights is not None and not self.weights:
            raise ValueError("weights must hold a weight for each picture")
        if self.weights is not None and self.picture_count not in (None, len(self.weights)):
            raise ValueError(f"weights: {len(self.weights)} weights do not fit {self.picture_count} pictures")

    def children_objectives(self) -> list[Objective]:
        return [self.first, self.second]

    def counts(self) -> dict[int, Objective]:
        count = self.picture_count if self.weights is None else len(self.weights)
        return super().counts() | ({} if count is None else {count: self})

    def check(self, setting: Setting) -> None:
        if self.weights is None:
            require_several(self, setting.count)
        super().check(setting)

    def forward(self, observation: Observation) -> Tensor:
        first, second = self.first(observation), self.second(observation)
        weights = numbers_on(first.device, self.mixture(len(observation.pictures)), first.dtype)[:, None]
        mixed: Tensor = (1 - weights) * first + weights * second
        return mixed

    def mixture(self, count: int) -> list[float]:
        """Return the weight of `second` in each picture."""
        return [index / max(1, count - 1) for index in range(count)] if self.weights is None else self.weights

    def named_targets(self, count: int) -> list[list[str]]:
        """Return both targets and the weight of the second."""
        ends = zip(self.first.targets(count), self.second.targets(count), self.mixture(count))
        return [[f"{first} to {second} at {weight:.6g}" for first, second, weight in ends]]

    def argument(self, name: str) -> Any:
        return self.picture_count if name == "count" else super().argument(name)


class Alignment(Term):
    """Align neighbours in the batch: minus the difference of their activations, which counts less with their distance.

    Summed over pictures it is ``-sum over layers, d = 1 ... distance and i of mean((a_i - a_(i + d))^2) / decay^d``;
    half of each pair counts for either picture. View v of one picture is compared with view v of the other; all
    pictures have the same views.

    Shape:
        activations (N, V, …) -> (N, V)

    Args:
        layers: one name or several.
        distance: how far in the batch neighbours are compared, in pictures.
        decay: by which the difference is divided for each picture between, above 0; 2 in Lucid, 5 in its notebook.

    Raises:
        ValueError: for a single picture.

    Example:
        >>> import torch
        >>> activation = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1)
        >>> observation = Observation(torch.zeros(3, 3, 4, 4), {Source("a"): activation})
        >>> Alignment("a")(observation).flatten().tolist()  # pairs: 1 / 2, 4 / 2 and 9 / 4
        [-1.375, -1.25, -2.125]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (interaction between neurons; weight 0.1)
    """

    joint = True
    has_targets = False  # other terms name them

    def __init__(self, layers: str | Sequence[str], distance: int = 4, decay: float = 2.0) -> None:
        super().__init__()
        self.layers = layer_names(layers)
        self.distance = whole_number("distance", distance)
        self.decay = finite_number("decay", decay, above=0.0)

    def term_sources(self) -> Sequence[Source]:
        return [Source(layer) for layer in self.layers]

    def check_term(self, setting: Setting) -> None:
        require_several(self, setting.count)

    def score(self, observation: Observation) -> Tensor:
        total = None
        for layer in self.layers:
            activation = observation.activation(Source(layer))
            flat = activation.reshape(*activation.shape[:2], -1)
            count = len(flat)
            scores = flat.new_zeros(flat.shape[:2])
            for distance in range(1, min(self.distance, count - 1) + 1):
                shares = (flat[distance:] - flat[:-distance]).square().mean(2) / (2 * self.decay**distance)
                first, second = (0, 0, 0, distance), (0, 0, distance, 0)
                scores = scores - functional.pad(shares, first) - functional.pad(shares, second)
            total = scores if total is None else total + scores
        assert total is not None
        return total

    def argument(self, name: str) -> Any:
        return layers_argument(self.layers) if name == "layers" else super().argument(name)


class Diversity(LayerTerm):
    """Make the pictures of a batch differ: minus the cosine between the Gram matrices of their activations.

    ``-sum over j != i of <G_i, G_j> / N`` for picture i of N, with ``G = a a^T`` over positions, divided by its length.
    Summed over pictures it is the field's total, where 0 is best and ``1 - N`` is N times the same picture. Compared
    within a view.

    Shape:
        activation (N, V, C, H, W) or (N, V, T, F) -> (N, V)

    Args:
        layer: dotted module name.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: for a single picture, and for a layer without positions.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]).view(3, 1, 2, 1, 1)
        >>> observation = Observation(torch.zeros(3, 3, 4, 4), {Source("a"): maps})
        >>> [round(-score, 4) for score in Diversity("a")(observation).flatten().tolist()]
        [0.3333, 0.3333, 0.0]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (weight 100 for 4 pictures)
    """

    joint = True
    has_targets = False  # other terms name them

    def check_term(self, setting: Setting) -> None:
        shape = self.shape(setting)
        if len(shape) < 2:
            raise ValueError(
                f"layer: {self.layer!r} gives {shape}, and the Gram matrix of a vector layer has no positions to "
                "average; choose a layer with maps or tokens"
            )
        require_several(self, setting.count)

    def score(self, observation: Observation) -> Tensor:
        activation = at_positions(self.read(observation))
        gram = (activation.transpose(2, 3) @ activation).flatten(2)
        gram = gram / gram.square().sum(2, keepdim=True).clamp_min(1e-10).sqrt()
        sum_of_others = gram.sum(0, keepdim=True) - gram
        return -(gram * sum_of_others).sum(2) / len(gram)


def require_several(objective: Objective, count: int) -> None:
    """Raise ValueError for a batch of one."""
    if count < 2:
        raise ValueError(
            f"{objective!r} needs two pictures or more, got {count}; give the image a count: FourierImage(count=4)"
        )
