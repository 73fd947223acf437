"""A backend of torch.compile that runs graphs as they are, and counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import fx

from featviz_pl.networks import compiled


class CountingBackend:
    """Keep the graphs that were compiled."""

    def __init__(self) -> None:
        self.graphs: list[fx.GraphModule] = []

    def __call__(self, graph: fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.graphs.append(graph)
        forward: Callable[..., Any] = graph.forward
        return forward


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingBackend]:
    """Compile with a backend that counts."""
    counting = CountingBackend()
    monkeypatch.setattr(compiled, "BACKEND", counting)
    yield counting
    counting.graphs.clear()  # they hold networks
