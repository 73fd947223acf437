"""Objectives on a whole batch: pictures that go from one target to another, that resemble their neighbours, or that differ."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from featviz_pl.numerics.activation_axes import at_positions
from featviz_pl.numerics.checks import finite_number, whole_number
from featviz_pl.numerics.device_transfer import numbers_on
from featviz_pl.objectives.activation import LayerTerm
from featviz_pl.objectives.base import Objective, Term, number_formula
from featviz_pl.objectives.protocol import Observation, Setting, Source
from featviz_pl.objectives.target_syntax import parse_objective


class Interpolation(Objective):
    """Go from one objective to another over the batch: picture i of n maximises ``(1 - w_i) first + w_i second``, ``w_i = i / (n - 1)``.

    Shape:
        Observation of N pictures in V views -> (N, V)

    Args:
        first: what the first picture looks for, an objective or the shorthand of a target.
        second: what the last one looks for.
        count: number of pictures, 2 or more; as many as there are unless given.
        weights: of `second` for each picture, instead of even steps from 0 to 1.

    Raises:
        ValueError: when there are fewer than two pictures, or the weights are not as many as `count`.

    Example:
        >>> import torch
        >>> observation = Observation(torch.zeros(3, 3, 4, 4), {Source("a"): torch.tensor([10.0, 20.0]).expand(3, 1, 2)})
        >>> between = Interpolation("a:0", "a:1")
        >>> between(observation).flatten().tolist(), between.targets(3)
        ([10.0, 15.0, 20.0], ['a:0 to a:1 at 0', 'a:0 to a:1 at 0.5', 'a:0 to a:1 at 1'])

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (interaction between neurons)
    """

    def __init__(
        self,
        first: Objective | str,
        second: Objective | str,
        count: int | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.first, self.second = parse_objective("first", first), parse_objective("second", second)
        self.asked = None if count is None else whole_number("count", count, least=2)
        given = None if weights is None else [finite_number("weights", weight) for weight in weights]
        if given is not None and not given:
            raise ValueError("weights must hold a weight for each picture")
        if given is not None and self.asked not in (None, len(given)):
            raise ValueError(f"weights: {len(given)} weights do not fit {self.asked} pictures")
        self._given = given

    def children_objectives(self) -> list[Objective]:
        """Return both ends."""
        return [self.first, self.second]

    def counts(self) -> dict[int, Objective]:
        """Return the numbers of pictures that either end, `count` or the weights ask for."""
        own = self.asked if self._given is None else len(self._given)
        return super().counts() | ({} if own is None else {own: self})

    def check(self, setting: Setting) -> None:
        """Refuse a single picture, which is on no way from one to the other."""
        if self._given is None:
            require_several(self, setting.count)
        super().check(setting)

    def forward(self, observation: Observation) -> Tensor:
        """Mix the scores of both."""
        first, second = self.first(observation), self.second(observation)
        weights = numbers_on(first.device, self.mixture(len(observation.pictures)), first.dtype)[:, None]
        mixed: Tensor = (1 - weights) * first + weights * second
        return mixed

    def mixture(self, count: int) -> list[float]:
        """Return the weight of `second` in each picture."""
        return [index / max(1, count - 1) for index in range(count)] if self._given is None else self._given

    def named_targets(self, count: int) -> list[list[str]]:
        """Return where on the way each picture is."""
        ends = zip(self.first.targets(count), self.second.targets(count), self.mixture(count))
        return [[f"{first} to {second} at {weight:.6g}" for first, second, weight in ends]]

    def formula(self) -> str:
        """Return the constructor."""
        given = [] if self.asked is None else [f"count={self.asked}"]
        if self._given is not None:
            given.append(f"weights=[{', '.join(number_formula(weight) for weight in self._given)}]")
        return f"Interpolation({', '.join([self.first.formula(), self.second.formula(), *given])})"


class Alignment(Term):
    """Draw neighbours in the batch together: minus how much their activations differ, less with their distance in the batch.

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
        >>> observation = Observation(torch.zeros(3, 3, 4, 4), {Source("a"): torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1)})
        >>> Alignment("a")(observation).flatten().tolist()  # pairs: 1 / 2, 4 / 2 and 9 / 4
        [-1.375, -1.25, -2.125]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (interaction between neurons; weight 0.1)
    """

    joint = True

    def __init__(self, layers: str | Sequence[str], distance: int = 4, decay: float = 2.0) -> None:
        super().__init__()
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        if not self.layers or not all(isinstance(layer, str) and layer for layer in self.layers):
            raise TypeError(f"layers must be one module name or several, got {layers!r}")
        self.distance = whole_number("distance", distance)
        self.decay = finite_number("decay", decay, above=0.0)

    def term_sources(self) -> Sequence[Source]:
        """Return the layers."""
        return [Source(layer) for layer in self.layers]

    def check_term(self, setting: Setting) -> None:
        """Refuse a single picture."""
        require_several(self, setting.count)

    def score(self, observation: Observation) -> Tensor:
        """Share the difference of every pair between the two."""
        total = None
        for layer in self.layers:
            activation = observation.activation(Source(layer))
            flat = activation.reshape(*activation.shape[:2], -1)
            count = len(flat)
            own = flat.new_zeros(flat.shape[:2])
            for distance in range(1, min(self.distance, count - 1) + 1):
                shares = (flat[distance:] - flat[:-distance]).square().mean(2) / (2 * self.decay**distance)
                own = own - functional.pad(shares, (0, 0, 0, distance)) - functional.pad(shares, (0, 0, distance, 0))
            total = own if total is None else total + own
        assert total is not None
        return total

    def named_targets(self, count: int) -> list[list[str]]:
        """Name nothing: what the pictures look for is said elsewhere."""
        return []

    def formula(self) -> str:
        """Return the constructor."""
        layers = repr(self.layers[0]) if len(self.layers) == 1 else repr(list(self.layers))
        distance = [] if self.distance == 4 else [f"distance={self.distance}"]
        decay = [] if self.decay == 2 else [f"decay={number_formula(self.decay)}"]
        return f"Alignment({', '.join([layers, *distance, *decay])})"


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
        >>> same, other = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [2.0]])
        >>> observation = Observation(torch.zeros(3, 3, 4, 4), {Source("a"): torch.stack([same, same, other]).view(3, 1, 2, 1, 1)})
        >>> [round(-score, 4) for score in Diversity("a")(observation).flatten().tolist()]
        [0.3333, 0.3333, 0.0]

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (weight 100 for 4 pictures)
    """

    joint = True

    def check_term(self, setting: Setting) -> None:
        """Refuse a single picture, and a layer without positions."""
        if len(self.shape(setting)) < 2:
            raise ValueError(
                f"layer: the Gram matrix of a vector layer says nothing of its positions, and {self.layer!r} gives "
                f"{self.shape(setting)}; choose a layer with maps or tokens"
            )
        require_several(self, setting.count)

    def score(self, observation: Observation) -> Tensor:
        """Hold every Gram matrix against the sum of all others."""
        activation = at_positions(self.read(observation))
        gram = (activation.transpose(2, 3) @ activation).flatten(2)
        gram = gram / gram.square().sum(2, keepdim=True).clamp_min(1e-10).sqrt()
        others = gram.sum(0, keepdim=True) - gram
        return -(gram * others).sum(2) / len(gram)

    def named_targets(self, count: int) -> list[list[str]]:
        """Name nothing: what the pictures look for is said elsewhere."""
        return []


def require_several(objective: Objective, count: int) -> None:
    """Raise for a batch of one."""
    if count < 2:
        raise ValueError(
            f"{objective!r} needs two pictures or more, got {count}; give the image a count, such as FourierImage(count=4)"
        )
