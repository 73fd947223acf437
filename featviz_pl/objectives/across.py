"""One objective over several networks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.objectives.base import Objective
from featviz_pl.objectives.formula import Formula
from featviz_pl.objectives.protocol import Network, Observation, Setting, Source
from featviz_pl.objectives.target_syntax import Target, parse_objective


class Across(Objective):
    """Average an objective over several networks, each in place of the run's network.

    The networks see the same views. Scores are logged as ``score/<term>@<network>``.

    Shape:
        Observation of N pictures in V views -> (N, V)

    Args:
        objectives: one for all networks, or one for each, where layers have other names; objectives or shorthands of
            targets. The first names the targets of the pictures.
        networks: names, modules that take pictures in [0, 1], or frozen networks; None is the run's own.

    Raises:
        ValueError: when there is no network, or another number of objectives than one and than networks.

    Example:
        >>> both = Across("output:1", [None, "other"])
        >>> run, second = both.sources()
        >>> activations = {run: torch.tensor([[[0.0, 4.0]]]), second: torch.tensor([[[0.0, 2.0]]])}
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), activations)
        >>> both(observation).item(), list(observation.terms)
        (3.0, ['Channel.output', 'Channel.output@other'])

    Reference:
        Thasarathan et al., "Universal Sparse Autoencoders", 2025 (coordinated activation maximization)
    """

    def __init__(
        self,
        objectives: Objective | Target | str | Sequence[Objective | Target | str],
        networks: Sequence[Network | nn.Module | str | None],
    ) -> None:
        super().__init__()
        self.single = isinstance(objectives, (Objective, Target, str))
        entries = [objectives] if isinstance(objectives, (Objective, Target, str)) else objectives
        parsed = [parse_objective("objectives", entry) for entry in entries]
        several = isinstance(networks, Sequence) and not isinstance(networks, str)
        self.networks = tuple(networks) if several else (networks,)
        if not self.networks:
            raise ValueError("networks must hold at least one network; None is the run's own")
        if not self.single and len(parsed) != len(self.networks):
            raise ValueError(
                f"objectives: {len(parsed)} objectives do not fit {len(self.networks)} networks; give one, or as many"
            )
        if self.single:  # one for each network, so that running states, such as a moving average, are not mixed
            parsed += [copy.deepcopy(parsed[0]) for _ in self.networks[1:]]
        self.objectives = nn.ModuleList(parsed)

    def children_objectives(self) -> list[Objective]:
        return [part for part in self.objectives if isinstance(part, Objective)]

    def pairs(self) -> list[tuple[Objective, object]]:
        """Return each network with its objective."""
        return list(zip(self.children_objectives(), self.networks))

    def sources(self) -> list[Source]:
        sources = [(source, network) for objective, network in self.pairs() for source in objective.sources()]
        return list(
            dict.fromkeys(
                source if source.network is not None else replace(source, network=net) for source, net in sources
            )
        )

    def check(self, setting: Setting) -> None:
        """Refuse what cannot work with one of the networks, and say with which."""
        for objective, network in self.pairs():
            try:
                objective.check(setting.for_network(network))
            except ValueError as error:
                raise (
                    error if network is None else ValueError(f"{error} (network {network_label(network)!r})")
                ) from error

    def named_targets(self, count: int) -> list[list[str]]:
        return self.children_objectives()[0].named_targets(count)

    def forward(self, observation: Observation) -> Tensor:
        """Average the scores, and record each term with its network."""
        scores = []
        for objective, network in self.pairs():
            local = replace(observation.for_network(network), terms={})
            scores.append(objective(local))
            for name, score in local.terms.items():
                observation.record(name if network is None else f"{name}@{network_label(network)}", score)
        return torch.stack(torch.broadcast_tensors(*scores)).mean(0)

    def __deepcopy__(self, memo: dict[int, Any]) -> Across:
        """Share the networks: they never change."""
        memo.update({id(network): network for network in self.networks})
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def argument(self, name: str) -> Any:
        """Return a constructor argument for the formula; a module by its class."""
        if name == "objectives":
            return self.children_objectives()[0] if self.single else self.children_objectives()
        plain = (str, type(None))
        return [
            network if isinstance(network, plain) else Formula(f"<{network_label(network)}>")
            for network in self.networks
        ]


def network_label(network: object) -> str:
    """Return a network's name, or its class."""
    if isinstance(network, str):
        return network
    name = None if isinstance(network, nn.Module) else getattr(network, "name", None)
    return name if isinstance(name, str) else type(network).__name__
