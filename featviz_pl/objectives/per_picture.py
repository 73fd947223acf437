"""An objective of its own for each picture of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.objectives.base import Objective, as_objective
from featviz_pl.objectives.protocol import Observation, Setting


class PerPicture(Objective):
    """Give each picture an objective of its own: several targets in one batch.

    The first objective scores the first pictures of the batch, as many as it requires or one, the second the next.

    Shape:
        Observation of N pictures in V views -> (N, V)

    Args:
        objectives: one for each picture; one that requires several pictures gets as many.

    Raises:
        ValueError: when there is none, or one needs the whole batch, such as a balanced `StayNear`.

    Example:
        >>> from featviz_pl.objectives import Channel, Source
        >>> activation = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
        >>> both = PerPicture([Channel("a", 1), 2 * Channel("a", 0)])
        >>> both(Observation(torch.zeros(2, 3, 4, 4), {Source("a"): activation})).tolist(), both.targets(2)
        ([[2.0], [6.0]], ['a:1', 'a:0'])
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        super().__init__()
        parts = [as_objective(part) for part in objectives]
        if not parts:
            raise ValueError("objectives must hold at least one objective")
        for part in parts:
            gradients = [source.gradient_of for source in part.sources() if isinstance(source.gradient_of, Objective)]
            if any(node.joint_views for node in part.walk()) or any(inner.count() is not None for inner in gradients):
                raise ValueError(f"objectives: {part!r} needs the whole batch; render it in a call of its own")
        self.objectives = nn.ModuleList(parts)

    def children_objectives(self) -> list[Objective]:
        return [part for part in self.objectives if isinstance(part, Objective)]

    def slices(self) -> list[tuple[Objective, slice]]:
        """Return each objective with its pictures."""
        pairs, start = [], 0
        for part in self.children_objectives():
            stop = start + (part.count() or 1)
            pairs.append((part, slice(start, stop)))
            start = stop
        return pairs

    def counts(self) -> dict[int, Objective]:
        return {self.slices()[-1][1].stop: self}

    def check(self, setting: Setting) -> None:
        for part, rows in self.slices():
            part.check(replace(setting, count=rows.stop - rows.start))

    def named_targets(self, count: int) -> list[list[str]]:
        """Return the targets of each objective for its own pictures."""
        return [[name for part, rows in self.slices() for name in part.targets(rows.stop - rows.start)]]

    def forward(self, observation: Observation) -> Tensor:
        """Score each objective on its own pictures, and record its terms for those."""
        scores, count = [], len(observation.pictures)
        for part, rows in self.slices():
            # References that all pictures share are not divided.
            activations = {
                source: value[rows] if len(value) == count else value
                for source, value in observation.activations.items()
            }
            pictures = observation.pictures[rows]
            views = None if observation.views is None else observation.views[rows]
            local = replace(observation, pictures=pictures, activations=activations, views=views, terms={})
            scores.append(part(local))
            for name, score in local.terms.items():
                observation.record(name, score)
        views_count = max(score.shape[1] for score in scores)
        return torch.cat([score.expand(-1, views_count) for score in scores])

    def argument(self, name: str) -> Any:
        return self.children_objectives()
