"""One objective over several networks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.objectives.base import Objective
from featviz_pl.objectives.protocol import Network, Observation, Setting, Source
from featviz_pl.objectives.target_syntax import parse_objective


class Across(Objective):
    """Ask several networks at once: the mean over networks of an objective's score, as if each were the run's network.

    The networks see the same views. Scores are logged as ``score/<term>@<network>``.

    Shape:
        Observation of N pictures in V views -> (N, V)

    Args:
        objectives: one for all networks, or one for each, where layers have other names; objectives or shorthands of
            targets. What a picture looks for is named by the first.
        networks: names, modules that take pictures in [0, 1], or frozen networks; None is the run's own.

    Raises:
        ValueError: when there is no network, or another number of objectives than one and than networks.

    Example:
        >>> both = Across("output:1", [None, "other"])
        >>> here, there = both.sources()
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {here: torch.tensor([[[0.0, 4.0]]]), there: torch.tensor([[[0.0, 2.0]]])})
        >>> both(observation).item(), list(observation.terms)
        (3.0, ['Channel.output', 'Channel.output@other'])

    Reference:
        Thasarathan et al., "Universal Sparse Autoencoders", 2025 (coordinated activation maximization)
    """

    def __init__(
        self,
        objectives: Objective | str | Sequence[Objective | str],
        networks: Sequence[Network | nn.Module | str | None],
    ) -> None:
        super().__init__()
        one = isinstance(objectives, (Objective, str))
        listed = [
            parse_objective("objectives", part)
            for part in ([objectives] if isinstance(objectives, (Objective, str)) else objectives)
        ]
        self.networks = (
            tuple(networks) if isinstance(networks, Sequence) and not isinstance(networks, str) else (networks,)
        )
        if not self.networks:
            raise ValueError("networks must hold at least one network; None is the run's own")
        if not one and len(listed) != len(self.networks):
            raise ValueError(
                f"objectives: {len(listed)} objectives do not fit {len(self.networks)} networks; give one, or as many"
            )
        self.one = one
        # One for each network, so that running states, such as a moving average, are not mixed.
        self.objectives = nn.ModuleList(
            listed + [copy.deepcopy(listed[0]) for _ in self.networks[1:]] if one else listed
        )

    def children_objectives(self) -> list[Objective]:
        """Return an objective for each network."""
        return [part for part in self.objectives if isinstance(part, Objective)]

    def pairs(self) -> list[tuple[Objective, object]]:
        """Return each network with its objective."""
        return list(zip(self.children_objectives(), self.networks))

    def sources(self) -> list[Source]:
        """Return what the objectives need, of each network."""
        return list(
            dict.fromkeys(
                replace(source, network=network) if source.network is None else source
                for objective, network in self.pairs()
                for source in objective.sources()
            )
        )

    def check(self, setting: Setting) -> None:
        """Refuse what cannot work with one of the networks, and say with which."""
        for objective, network in self.pairs():
            try:
                objective.check(setting.for_network(network))
            except ValueError as error:
                raise error if network is None else ValueError(f"{error} (network {label(network)!r})") from error

    def named_targets(self, count: int) -> list[list[str]]:
        """Return what the first objective looks for."""
        return self.children_objectives()[0].named_targets(count)

    def forward(self, observation: Observation) -> Tensor:
        """Average the scores, and record each term with its network."""
        scores = []
        for objective, network in self.pairs():
            looked = replace(observation.for_network(network), terms={})
            scores.append(objective(looked))
            for name, score in looked.terms.items():
                observation.record(name if network is None else f"{name}@{label(network)}", score)
        return torch.stack(torch.broadcast_tensors(*scores)).mean(0)

    def __deepcopy__(self, memo: dict[int, Any]) -> Across:
        """Share the networks: they never change, and need not be held twice."""
        memo.update({id(network): network for network in self.networks})
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def formula(self) -> str:
        """Return the constructor; a module by its class."""
        parts = [part.formula() for part in self.children_objectives()]
        networks = [
            repr(network) if network is None or isinstance(network, str) else f"<{label(network)}>"
            for network in self.networks
        ]
        objectives = parts[0] if self.one else f"[{', '.join(parts)}]"
        return f"Across({objectives}, [{', '.join(networks)}])"


def label(network: object) -> str:
    """Return a network's name, or its class."""
    if isinstance(network, str):
        return network
    name = None if isinstance(network, nn.Module) else getattr(network, "name", None)
    return name if isinstance(name, str) else type(network).__name__
