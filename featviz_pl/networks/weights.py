"""Weights from files: read without running code, matched to a network, with errors that name the keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featviz_pl.io.torch_files import read_torch_file

_NESTS = ("state_dict", "model")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return the named tensors of a file: a state dict, or one nested under ``state_dict`` or ``model``.

    Raises:
        ValueError: when the file is missing, broken, holds other objects, or no tensors.
    """
    content = read_torch_file(path, "weights", "give what torch.save(module.state_dict(), path) wrote")
    for nest in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(nest), Mapping):
            content = content[nest]
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(key): value for key, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"weights: {str(path)!r} holds no tensors by name; give a state dict")
    return tensors


def load_weights(module: nn.Module, weights: str | Path | Mapping[str, Tensor], source: str | None = None) -> None:
    """Fill a network from a file or from named tensors; a prefix common to all keys is stripped when that makes them fit.

    Raises:
        ValueError: when keys are missing or left over, or shapes differ; the network is then unchanged.
    """
    tensors = dict(weights) if isinstance(weights, Mapping) else read_tensors(weights)
    label = source or str(weights)
    wanted = module.state_dict()
    tensors = _without_prefix(tensors, wanted)
    missing = [key for key in wanted if key not in tensors and not key.endswith("num_batches_tracked")]
    surplus = [key for key in tensors if key not in wanted]
    shapes = [
        f"{key} is {tuple(tensors[key].shape)}, the network's is {tuple(wanted[key].shape)}"
        for key in wanted
        if key in tensors and tensors[key].shape != wanted[key].shape
    ]
    problems = _listing("missing", missing) + _listing("unexpected", surplus) + _listing("of another shape", shapes)
    if problems:
        raise ValueError(f"weights: {label!r} does not fit {type(module).__name__}: {'; '.join(problems)}")
    state: OrderedDict[str, Tensor] = OrderedDict(tensors)
    # Some networks read their version there, and refuse to load without; what fits key by key is of the present
    # version.
    state._metadata = getattr(wanted, "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=False)


def _without_prefix(tensors: dict[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """Keep, of a checkpoint, the part under the prefix that makes every key of the network present."""
    if not wanted or all(key in tensors for key in wanted):
        return tensors
    first = next(iter(wanted))
    for key in tensors:
        prefix = key[: -len(first)] if key.endswith(first) else ""
        if prefix and all(prefix + name in tensors or name.endswith("num_batches_tracked") for name in wanted):
            return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    return tensors


def _listing(what: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    rest = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
    return [f"{len(entries)} {what} ({', '.join(entries[:3])}{rest})"]
