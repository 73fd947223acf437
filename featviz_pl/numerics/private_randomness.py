"""Random numbers that a forward draws: from generators of each picture, and never from the global ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that make a new tensor of random numbers, and how an empty one is filled with the same numbers.
_FILLS: dict[str, Callable[..., Tensor]] = {"rand": Tensor.uniform_, "randn": Tensor.normal_, "randint": Tensor.random_}


class PrivateRandomness(TorchDispatchMode):
    """Answer the random operations of this thread from generators of its own, in the context.

    What is drawn for a batch is drawn for each picture from the picture's generator, so that it does not depend on the
    others; all else comes from one generator. Numbers are drawn on the CPU, and so are the same on every device. Fused
    attention on a GPU that drops out draws as it always does.

    Args:
        shared: seed of the generator for what is not drawn by picture.
        pictures: a seed for each picture of the batch.

    Example:
        >>> state = torch.get_rng_state()
        >>> with PrivateRandomness(0, [5, 7]) as both:
        ...     pair = torch.rand(2, 3)
        >>> with PrivateRandomness(0, [7]):
        ...     single = torch.rand(1, 3)
        >>> torch.equal(pair[1:], single), both.drew, torch.equal(state, torch.get_rng_state())
        (True, True, True)
    """

    def __init__(self, shared: int, pictures: Sequence[int] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drew = False
        self._shared = torch.Generator().manual_seed(shared)
        self._seeds = list(pictures)
        self._generators: list[torch.Generator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operation, with generators where it is random."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        name, named = func.overloadpacket.__name__, {argument.name for argument in func._schema.arguments}
        kind = name.removesuffix("_like")
        if name == "native_dropout":
            return self._dropout(*args)
        if kind in _FILLS:
            return self._filled(kind, name != kind, args, kwargs)
        if name == "randperm":
            self.drew = True
            order = torch.randperm(args[0], generator=self._shared, dtype=kwargs.get("dtype") or torch.int64)
            return order.to(kwargs.get("device") or "cpu")
        if "generator" not in named:
            return func(*args, **kwargs)
        return self._by_picture(func, args, kwargs, in_place=name.endswith("_"))

    def _filled(self, kind: str, like: bool, args: Any, kwargs: dict[str, Any]) -> Tensor:
        bounds = [number for number in args if isinstance(number, int)]
        options = {
            key: kwargs[key] for key in ("dtype", "layout", "device", "pin_memory") if kwargs.get(key) is not None
        }
        if like:
            empty = torch.empty_like(args[0], **options)
        else:
            size = next(size for size in args if not isinstance(size, int))
            empty = torch.empty(size, **({"dtype": torch.int64} if kind == "randint" else {}) | options)
        if kind == "randint":
            bounds = [0, *bounds][-2:]
        filled: Tensor = self._by_picture(_FILLS[kind], (empty, *bounds), {}, in_place=True)
        return filled

    def _dropout(self, x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
        if not train:
            return x, torch.ones_like(x, dtype=torch.bool)
        mask = self._by_picture(Tensor.bernoulli_, (torch.empty_like(x), 1 - p), {}, in_place=True)
        return x * mask / (1 - p), mask.bool()

    def _by_picture(self, func: Any, args: Any, kwargs: dict[str, Any], in_place: bool) -> Any:
        self.drew = True
        target, count = args[0], len(self._seeds)
        host = [value.cpu() if isinstance(value, Tensor) else value for value in args]
        length = len(target) if isinstance(target, Tensor) and target.ndim else 0
        if not count or not length or length % count:
            results = [func(*host, **{**kwargs, "generator": self._shared})]
        else:
            self._generators = self._generators or [torch.Generator().manual_seed(seed) for seed in self._seeds]
            results = [
                func(*[_part(value, index, count, length) for value in host], **{**kwargs, "generator": generator})
                for index, generator in enumerate(self._generators)
            ]
        if in_place:
            return target if host[0] is target else target.copy_(host[0])
        return torch.cat(results).to(target.device) if len(results) > 1 else results[0].to(target.device)


def _part(value: Any, index: int, count: int, length: int) -> Any:
    """Return the rows of one picture of an argument that has rows for all of them."""
    if not isinstance(value, Tensor) or not value.ndim or len(value) != length:
        return value
    return value.narrow(0, index * (length // count), length // count)
