"""A backend of torch.compile that runs graphs as they are, and counts them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import fx

from featviz_pl.networks import compiled_reader as compiled


class CountingBackend:
    """Keep the graphs that were compiled."""

    def __init__(self) -> None:
        self.graphs: list[fx.GraphModule] = []

    def __call__(self, graph: fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.graphs.append(graph)
        forward: Callable[..., Any] = graph.forward
        return forward


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """Let torch's compiled code go before other tests count what is alive: its graphs go one collection after it."""
    yield
    for _ in range(2):
        gc.collect()


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingBackend]:
    """Compile with a backend that counts."""
    counting = CountingBackend()
    monkeypatch.setattr(compiled, "BACKEND", counting)
    yield counting
    counting.graphs.clear()  # they hold networks
