"""What a run reads, compiled by ``torch.compile``: once for each shape and precision, and used only where it gives the same."""

from __future__ import annotations

import logging
import time
import warnings
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, fx

from featviz_pl.networks.fx_reader import Read, values_and_gradient
from featviz_pl.numerics.compile_config import differentiable_again
from featviz_pl.numerics.isolated_copy import frozen_copy

BACKEND = "inductor"  # of torch.compile

_MOST = 4  # compiled readers that a network keeps for later runs; each run holds on to its own
# Shares of the norm. A compiled network rounds elsewhere, and a rectifier near 0 or the largest of a window may fall
# the other way: single numbers of the gradient then differ by as much as they are. In little precision many do.
_TOLERANCES, _REDUCED_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-2}, 0.1


class Compiler:
    """Compile what a network is read by, once for each set of layers, shape and precision, for all readers of the network.

    A compiled reader is compared with the plain one on a batch of noise. Where it differs or cannot be compiled, the
    plain one is used, and a line of the log says why. Copies and pickles begin without anything compiled.
    """

    def __init__(self) -> None:
        self._held: dict[
            Any, tuple[fx.GraphModule, Read] | None
        ] = {}  # the latest last; None where the plain one is used
        self._said: set[str] = set()

    def reader(self, key: Any, plain: fx.GraphModule, like: Tensor) -> Read:
        """Return what reads as the plain reader does.

        Args:
            key: of layers and precision; shape, layout and place of the pictures are added.
            plain: from `networks.traced`, which stays as it is.
            like: the pictures that it is to read next, for which it is compiled.
        """
        key = (key, like.shape, like.stride(), like.dtype, like.device)
        known = self._holds(key, plain)
        held = self._held.pop(key, None)
        self._held[key] = held = held if known else self._compiled(plain, like)
        while len(self._held) > _MOST:
            del self._held[next(iter(self._held))]
        return plain if held is None else held[1]

    def say_uncompiled(self, reason: str) -> None:
        """Say once why a network runs as it is."""
        self._say(f"the network is not compiled: {reason}")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            logging.getLogger(__name__).info("%s", text)

    def _holds(self, key: Any, plain: fx.GraphModule) -> bool:
        """Say whether an answer is known that still holds: the guest may have been trained since."""
        held = self._held.get(key)
        return key in self._held and (held is None or _same(held[0], plain))

    def _compiled(self, plain: fx.GraphModule, like: Tensor) -> tuple[fx.GraphModule, Read] | None:
        began = time.perf_counter()
        # Code of its own, so that what is compiled for other shapes does not count as compiled again, and weights that
        # share their storage, so that nothing is moved with the reader.
        own = frozen_copy(plain)
        assert isinstance(own, fx.GraphModule)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own parts, about one another
            try:
                import_module("torch._functorch.config")  # for `differentiable_again`
                compiled: Read = torch.compile(own.forward, fullgraph=True, dynamic=False, backend=BACKEND)
                agrees = _agrees(compiled, plain, like)
            except Exception as error:  # no compiler, an operation that it does not know, too little memory: the plain one runs everywhere
                self.say_uncompiled(f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
                return None
        if not agrees:
            self.say_uncompiled("values or gradients differ from its own")
            return None
        shape = " x ".join(map(str, like.shape))
        self._say(f"the network is compiled for pictures of {shape} in {time.perf_counter() - began:.1f} s")
        return own, compiled

    def __reduce__(self) -> tuple[type[Compiler], tuple[()]]:
        """Leave behind what is made anew."""
        return Compiler, ()


def _same(one: fx.GraphModule, other: fx.GraphModule) -> bool:
    """Say whether two readers of one network do the same with the same numbers."""
    own, its = ({**dict(reader.named_parameters()), **dict(reader.named_buffers())} for reader in (one, other))
    if one.code != other.code or own.keys() != its.keys():
        return False
    return all(
        (held.device, held.dtype, held.stride()) == (its[name].device, its[name].dtype, its[name].stride())
        and torch.equal(held, its[name])
        for name, held in own.items()
    )


def _agrees(compiled: Read, plain: Read, like: Tensor) -> bool:
    """Compare values and gradients on noise of the shape and layout of the pictures, in the caller's precision."""
    noise = torch.rand(like.shape, generator=torch.Generator().manual_seed(0))
    noise = torch.empty_like(like.detach()).copy_(noise)  # strides too are compiled in
    with differentiable_again():  # some objectives do
        own, its = values_and_gradient(plain, noise), values_and_gradient(compiled, noise)
    precisions = {like.dtype, *(value.dtype for value in own)}
    tolerance = max(_TOLERANCES.get(precision, _REDUCED_TOLERANCE) for precision in precisions)
    return all(_close(one, other, tolerance) for one, other in zip(own, its))


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = one.detach().double(), other.detach().double()
    return bool(
        torch.linalg.vector_norm(one - other) <= tolerance * torch.linalg.vector_norm(one)
    )  # False too where one is not finite
