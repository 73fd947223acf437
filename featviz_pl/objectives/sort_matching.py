"""Match the distribution of each unit's activations over positions with that of natural pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.objectives.picture_arguments import PictureArgument
from featviz_pl.objectives.protocol import Observation, Setting, Source
from featviz_pl.objectives.reference import units_and_positions
from featviz_pl.objectives.style import StatisticTerm


class SortMatching(StatisticTerm):
    """Match the sorted activations of every unit with those of reference pictures.

    ``-sum over layers of weight * mean (s - s_ref) ^ 2``: s are the activations of each unit sorted over positions,
    s_ref the same averaged over the references, which are read without views. No activation is maximised; a class or a
    unit is visualized through the pictures that excite it.

    Shape:
        activations (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layers: one dotted module name, or several.
        images: the references, of the picture's size; the field takes 50: a tensor (R, C, H, W) in [0, 1], the path of
            a folder, or a list of paths.
        weights: one for each layer, 0 or more; 1 each by default.

    Raises:
        ValueError: when the references have other numbers of positions than the picture.

    Example:
        >>> term = SortMatching("a", torch.zeros(2, 3, 4, 4))
        >>> source, references = term.term_sources()
        >>> maps = torch.tensor([[1.0, 0.0], [2.0, 3.0]]).view(1, 2, 1, 1, 2)
        >>> activations = {source: torch.zeros(1, 1, 1, 1, 2), references: maps}
        >>> term(Observation(torch.zeros(1, 3, 4, 4), activations)).item()
        -2.5

    Reference:
        Görgün, Schiele, Fischer, "VITAL: More Understandable Feature Visualization through Distribution Alignment and
        Relevant Information Flow", 2025
    """

    def __init__(
        self, layers: str | Sequence[str], images: PictureArgument, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(layers, images, "images", weights)

    def check_term(self, setting: Setting) -> None:
        height, width = setting.picture[1:]
        for layer in self.layers:
            count = count_positions(setting.shapes[Source(layer)])
            for source, reference in zip(self.reference_sources(layer), self.references):
                reference_count = count_positions(setting.shapes[source])
                if reference_count != count:
                    size = " x ".join(str(length) for length in reference.image.shape[-2:])
                    raise ValueError(
                        f"images: {layer!r} has {reference_count} positions for a picture of {size}, and {count} for "
                        f"the picture of {height} x {width}; resize them to {height} x {width}"
                    )

    def score(self, observation: Observation) -> Tensor:
        scores: list[Tensor] = []
        for layer, weight in zip(self.layers, self.weights):
            activations = sorted_activations(observation.activation(Source(layer)))
            references = self.mean_over_references(observation, layer, sorted_activations)
            scores.append(-weight * (activations - references).square().mean((2, 3)))
        return torch.stack(scores).sum(0)


def sorted_activations(activation: Tensor) -> Tensor:
    """Sort the activations of each unit over positions.

    Shape:
        (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V, units, positions)

    Example:
        >>> sorted_activations(torch.tensor([3.0, 1.0, 2.0]).view(1, 1, 1, 1, 3)).flatten().tolist()
        [1.0, 2.0, 3.0]
    """
    return units_and_positions(activation).sort(dim=3).values


def count_positions(shape: Sequence[int]) -> int:
    """Return the number of positions of a layer of this shape: (C, H, W), (T, F) or (F,).

    Example:
        >>> count_positions((8, 4, 5)), count_positions((17, 12)), count_positions((10,))
        (20, 17, 1)
    """
    return units_and_positions(torch.empty(1, 1, *shape, device="meta")).shape[3]
