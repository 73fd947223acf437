"""Weights from files: read without running code, found in whatever they are nested in, matched to a network by name and shape."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.io.torch_files import Skipped, read_torch_file

State = dict[str, Tensor]

_DEEPEST = 4  # mappings within mappings that are searched for state dicts
_COUNTER = "num_batches_tracked"  # of batch norms; old files lack it, and evaluation does not read it
_WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:module|_orig_mod)\."
)  # of DataParallel, DDP, averaged models and torch.compile


def read_state_dicts(path: str | Path) -> dict[str, State]:
    """Return the state dicts that a file holds, by where they are nested: ``""``, ``"state_dict"``, ``"ema.module"`` ….

    Files of `torch.save`, of which objects besides tensors are skipped and never built, and of safetensors, where that
    package is installed.

    Raises:
        ValueError: when the file is missing or broken, holds no tensors by name, or needs the package safetensors.
    """
    content = _read_safetensors(path) if Path(path).suffix == ".safetensors" else read_torch_file(
        path, "weights", "give what torch.save(module.state_dict(), path) wrote", skip_objects=True
    )  # fmt: skip
    states = dict(_nested(content))
    values = content.values() if isinstance(content, Mapping) else [content]
    if not states and any(isinstance(value, Skipped) for value in values):
        raise ValueError(f"weights: {str(path)!r} holds a whole module; save its tensors, module.state_dict(), instead")
    if not states:
        raise ValueError(f"weights: {str(path)!r} holds no tensors by name; give a state dict")
    return dict(sorted(states.items(), key=lambda item: "ema" in item[0].lower()))  # averaged weights come last


def _read_safetensors(path: str | Path) -> Mapping[str, Tensor]:
    if not Path(path).is_file():
        raise ValueError(f"weights: there is no file {str(path)!r}")
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(
            f"weights: {str(path)!r} needs the package safetensors; pip install 'featviz_pl[safetensors]'"
        ) from error
    try:
        tensors: Mapping[str, Tensor] = load_file(str(path))
    except Exception as error:  # of a library written in Rust
        raise ValueError(f"weights: cannot read {str(path)!r}: it is truncated or no file of safetensors") from error
    return tensors


def _nested(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Yield every mapping that holds tensors by name, the outer ones first."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield name, tensors
    for key, value in content.items():
        yield from _nested(value, f"{name}.{key}".removeprefix("."), depth + 1)


def load_weights(
    module: nn.Module,
    weights: str | Path | Mapping[str, Tensor],
    source: str | None = None,
    rename: Callable[[str], str] = str,
) -> None:
    """Fill a network from a file or from named tensors.

    A prefix that all keys share is stripped where that makes them fit, and so is ``module.`` anywhere.

    Args:
        module: the network.
        weights: a file, or tensors by name.
        source: names the weights in errors.
        rename: turns names of older releases into those of today.

    Raises:
        ValueError: when keys are missing or left over, shapes differ, or weights are no real numbers; the network is
            then unchanged.
    """
    states = {"": dict(weights)} if isinstance(weights, Mapping) else read_state_dicts(weights)
    label = source or str(weights)
    expected = module.state_dict()
    state = fitting_state(states, expected, rename)
    problems = _problems(state, expected)
    if problems:
        raise ValueError(f"weights: {label!r} does not fit {type(module).__name__}: {'; '.join(problems)}")
    require_real_numbers(state, expected, label)
    ordered: OrderedDict[str, Tensor] = OrderedDict(state)
    # Some networks read their version there, and refuse to load without; what fits key by key is of today's version.
    ordered._metadata = getattr(expected, "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(ordered, strict=False)


def fitting_state(
    states: Mapping[str, State], expected: Mapping[str, Tensor], rename: Callable[[str], str] = str
) -> State:
    """Return the first state dict that has every key of a network, or the one that shares most with it.

    Example:
        >>> states = {"": {"loss": torch.zeros(())}, "net": {"module.weight": torch.ones(2)}}
        >>> list(fitting_state(states, {"weight": torch.zeros(2)}))
        ['weight']
    """
    named = [
        variant
        for state in states.values()
        for variant in _variants({rename(key): value for key, value in state.items()}, expected)
    ]
    return max(named, key=lambda state: (_is_complete(state, expected), len(state.keys() & expected.keys())))


def _variants(state: State, expected: Mapping[str, Tensor]) -> Iterator[State]:
    """Yield a state dict as it is, and without what wraps its keys."""
    unwrapped = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    for variant in (state, unwrapped) if unwrapped.keys() != state.keys() else (state,):
        yield variant
        yield from _without_prefix(variant, expected)


def _is_complete(state: Mapping[str, Any], expected: Mapping[str, Tensor], prefix: str = "") -> bool:
    return all(prefix + key in state or key.endswith(_COUNTER) for key in expected)


def _without_prefix(state: State, expected: Mapping[str, Tensor]) -> Iterator[State]:
    """Yield, of a checkpoint, the part under the prefix that makes every key of the network present."""
    if not expected or _is_complete(state, expected):
        return
    first = next(iter(expected))
    for key in state:
        prefix = key[: -len(first)] if key.endswith(first) else ""
        if prefix and _is_complete(state, expected, prefix):
            yield {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def class_count(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes for which a state dict was made, where it differs from the network's in nothing else.

    Example:
        >>> class_count({"fc.weight": torch.zeros(7, 4), "fc.bias": torch.zeros(7)},
        ...             {"fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)})
        7
    """
    if any(key not in state and not key.endswith(_COUNTER) for key in expected):
        return None
    pairs = [(state[key].shape, value.shape) for key, value in expected.items() if key in state]
    different = [(given, needed) for given, needed in pairs if given != needed]
    if not different or any(given[1:] != needed[1:] or not given for given, needed in different):
        return None
    counts = {(given[0], needed[0]) for given, needed in different}
    return counts.pop()[0] if len(counts) == 1 else None


def require_real_numbers(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], label: str) -> None:
    """Refuse weights that cannot be those of a network: complex, sparse, quantized, on the meta device, whole numbers.

    Raises:
        ValueError: naming the first such weight.
    """
    for key, value in state.items():
        reason = None
        if value.is_meta:
            reason = "is on the meta device and holds no numbers"
        elif value.is_quantized:
            reason = f"is quantized ({value.dtype})"
        elif value.layout is not torch.strided:
            reason = f"is sparse ({value.layout})"
        elif value.is_complex():
            reason = f"is complex ({value.dtype})"
        elif key in expected and expected[key].is_floating_point() and not value.is_floating_point():
            reason = f"holds whole numbers ({value.dtype})"
        if reason is not None:
            raise ValueError(f"weights: in {label!r}, {key} {reason}; save it as dense real numbers, such as float32")


def _problems(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return what keeps a state dict from fitting, in words."""
    missing = [key for key in expected if key not in state and not key.endswith(_COUNTER)]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, the network's is {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    return [
        *_listing("missing", missing),
        *_listing("unexpected", [key for key in state if key not in expected]),
        *_listing("of another shape", shapes),
    ]


def _listing(kind: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
    return [f"{len(entries)} {kind} ({', '.join(entries[:3])}{more})"]
