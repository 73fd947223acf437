"""The choice ``compile=True``: runs hand what was traced of a network to ``torch.compile``."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, fx

from featviz_pl.networks.fx_reader import Read

BACKEND = "inductor"  # of torch.compile


class Compiler:
    """Compile traced networks, and keep the latest for the next run of the same network; pickles leave it behind.

    What cannot be compiled runs as it is, and a line of the log says why.
    """

    def __init__(self) -> None:
        self._latest: tuple[Any, Read | None] | None = None

    def __call__(self, key: Any, traced: fx.GraphModule | None, pictures: Tensor) -> Read | None:
        """Return the compiled form of a traced network, compiled for these pictures; `key` stands for all it computes."""
        if self._latest is None or self._latest[0] != key:
            self._latest = key, traced if traced is None else _compiled(traced, pictures)
            if traced is None:
                _log.info("the network is not compiled: its forward cannot be traced, or hooks watch it")
        return self._latest[1]

    def __reduce__(self) -> tuple[type[Compiler], tuple[()]]:
        return Compiler, ()


def _compiled(traced: fx.GraphModule, pictures: Tensor) -> Read:
    mode = "reduce-overhead" if pictures.is_cuda and BACKEND == "inductor" else None
    compiled = torch.compile(traced, fullgraph=True, backend=BACKEND, mode=mode)
    try:
        compiled(pictures.detach().requires_grad_(True))  # for a leaf: torch warns of others
    except Exception as error:  # no compiler, an operation that it does not know, too little memory
        _log.info("the network is not compiled: %s", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
        return traced
    return compiled


_log = logging.getLogger(__name__)
