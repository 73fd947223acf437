"""Names of what a network computes: a layer, one of its calls, a part of a result that holds several tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

OUTPUT = "output"


@dataclass(frozen=True)
class LayerAddress:
    """Say which tensor a layer's name stands for.

    ``features.9`` is the result of the layer's last call, ``features.9#2`` that of its second; ``output.logits``,
    ``output.1`` and ``encoder#2.0`` are parts of results that hold several tensors, by key, attribute or index.

    Args:
        module: dotted module name, or ``"output"``.
        call: which call of the layer in one forward, from 1; None is the last.
        path: keys, attributes or indices that lead to the part; empty for the first tensor of the result.

    Example:
        >>> LayerAddress.parse("encoder#2.hidden.0", ["encoder", "output"])
        LayerAddress(module='encoder', call=2, path=('hidden', '0'))
    """

    module: str
    call: int | None = None
    path: tuple[str, ...] = ()

    @classmethod
    def parse(cls, name: str, modules: Collection[str]) -> LayerAddress | None:
        """Return the address with the longest module name that fits, or None where none does."""
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            module, sign, call = ".".join(parts[:cut]).partition("#")
            if module in modules and (not sign or (call.isdecimal() and int(call) > 0)):
                return cls(module, int(call) if sign else None, tuple(parts[cut:]))
        return None

    def tensor(self, result: Any) -> Tensor | None:
        """Return the tensor that the path leads to, or None where it leads to none."""
        for key in self.path:
            result = _part(result, key)
        return first_tensor(result)


def _part(result: Any, key: str) -> Any:
    if isinstance(result, Mapping):
        return next((value for name, value in result.items() if str(name) == key), None)
    if isinstance(result, Sequence) and not isinstance(result, str) and key.isdecimal():
        return result[int(key)] if int(key) < len(result) else None
    is_record = is_dataclass(result) or hasattr(result, "_fields")
    return getattr(result, key, None) if is_record else None


def part_names(result: Any) -> list[str]:
    """Return the names of the parts of a result that holds several tensors.

    Example:
        >>> import torch
        >>> part_names({"logits": torch.zeros(1), "loss": None}), part_names((torch.zeros(1), torch.zeros(2)))
        (['logits'], ['0', '1'])
    """
    return [name for name, value in _named_parts(result) if first_tensor(value) is not None]


def _named_parts(result: Any) -> list[tuple[str, Any]]:
    if isinstance(result, Mapping):
        return [(str(name), value) for name, value in result.items()]
    if isinstance(result, Sequence) and not isinstance(result, str):
        return [(str(index), value) for index, value in enumerate(result)]
    if is_dataclass(result) and not isinstance(result, type):
        return [(field.name, getattr(result, field.name)) for field in fields(result)]
    return []


def first_tensor(result: Any) -> Tensor | None:
    """Return the result if it is a tensor, or the first tensor within its tuples, lists, mappings and dataclasses."""
    if isinstance(result, Tensor):
        return result
    tensors = (first_tensor(value) for _, value in _named_parts(result))
    return next((tensor for tensor in tensors if tensor is not None), None)
