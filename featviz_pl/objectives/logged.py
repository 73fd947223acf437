"""An objective that is logged without being optimized."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from featviz_pl.objectives.base import Objective
from featviz_pl.objectives.protocol import Observation
from featviz_pl.objectives.target_syntax import Target, parse_objective


class Logged(Objective):
    """Score an objective and log it under its own name, without optimizing it: it adds exactly 0 and changes no draw.

    The score is computed without gradients, so a weight that is balanced by gradients is never measured here.

    Shape:
        Observation of N pictures in V views -> (N, 1), zeros

    Args:
        objective: an objective, or the shorthand of a target.

    Example:
        >>> from featviz_pl.objectives import Channel, Source
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.tensor([[[1.0, 5.0]]])})
        >>> objective = Channel("a", 0) + Logged("a:1")
        >>> objective(observation).item(), observation.terms["Channel.a.2"].item(), objective.targets(1)
        (1.0, 5.0, ['a:0'])
    """

    def __init__(self, objective: Objective | Target | str) -> None:
        super().__init__()
        self.objective = parse_objective("objective", objective)

    def forward(self, observation: Observation) -> Tensor:
        with torch.no_grad():
            scores: Tensor = self.objective(observation)
        return scores.new_zeros(len(observation.pictures), 1)

    def optimized(self) -> Iterator[Objective]:
        return iter(())

    def counts(self) -> dict[int, Objective]:
        return {}

    def named_targets(self, count: int) -> list[list[str]]:
        return []
