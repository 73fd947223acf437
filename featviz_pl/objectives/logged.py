"""An objective that is only watched."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from featviz_pl.objectives.base import Objective
from featviz_pl.objectives.protocol import Observation
from featviz_pl.objectives.target_syntax import parse_objective


class Logged(Objective):
    """Score an objective and log it under its own name, without optimising it: it adds exactly 0 and changes no draw.

    It is scored where it stands, without gradients, so a weight that is balanced by gradients is never measured.

    Shape:
        Observation of N pictures in V views -> (N, 1), zeros

    Args:
        objective: what is watched, an objective or the shorthand of a target.

    Example:
        >>> from featviz_pl.objectives import Source
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.tensor([[[1.0, 5.0]]])})
        >>> objective = parse_objective("objective", "a:0") + Logged("a:1")
        >>> objective(observation).item(), observation.terms["Channel.a.2"].item(), objective.targets(1)
        (1.0, 5.0, ['a:0'])
    """

    def __init__(self, objective: Objective | str) -> None:
        super().__init__()
        self.objective = parse_objective("objective", objective)

    def forward(self, observation: Observation) -> Tensor:
        """Record the score, and return zeros."""
        with torch.no_grad():
            scores: Tensor = self.objective(observation)
        return scores.new_zeros(len(observation.pictures), 1)

    def optimized(self) -> Iterator[Objective]:
        """Yield nothing."""
        return iter(())

    def counts(self) -> dict[int, Objective]:
        """Ask for no number of pictures."""
        return {}

    def named_targets(self, count: int) -> list[list[str]]:
        """Name nothing: no picture looks for it."""
        return []

    def formula(self) -> str:
        """Return the constructor."""
        return f"Logged({self.objective.formula()})"
