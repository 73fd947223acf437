"""Frozen copies of networks, which stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn


@torch.inference_mode(False)  # a copy made during a validation must also serve a training
@torch.no_grad()
def frozen_copy(module: nn.Module) -> nn.Module:
    """Copy the structure of a network, frozen and in evaluation mode, and leave the network as it is.

    Parameters are detached and share their storage. Buffers are copied, as a forward may write into them even in
    evaluation mode. Attributes that cannot be copied, such as locks, are shared. Wrappers of ``torch.compile`` are
    removed, and the copy of a LightningModule has no Trainer.

    Args:
        module: any ``nn.Module``.

    Example:
        >>> network = nn.Linear(2, 3)
        >>> copied = frozen_copy(network)
        >>> copied.weight.data_ptr() == network.weight.data_ptr(), copied.weight.requires_grad, copied.training
        (True, False, False)
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        for buffer in part._buffers.values():
            if buffer is not None:
                memo[id(buffer)] = buffer.detach().clone()
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                for tensor in _tensors_within(value):  # derived weights, stored activations and losses
                    memo.setdefault(id(tensor), tensor.detach())
        for name in ("_trainer", "_fabric"):  # a LightningModule that is being trained
            if vars(part).get(name) is not None:
                memo[id(vars(part)[name])] = None
    try:
        copied = copy.deepcopy(_unwrapped(module), dict(memo))
    except Exception:  # a lock, a file, an engine among the attributes or hooks: share what cannot be copied
        copied = copy.deepcopy(_unwrapped(module), memo | _uncopyable(module, memo))
    _unwrap_children(copied)
    with suppress(NotImplementedError):  # exported programs have one mode only
        copied.eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied


def _uncopyable(module: nn.Module, memo: dict[int, Any]) -> dict[int, Any]:
    """Return the attributes and hooks that cannot be copied, to be shared."""
    shared: dict[int, Any] = {}
    for functions in (False, True):  # a hook that is a method of the network can be copied once its attributes can
        for part in module.modules():
            for name, attribute in vars(part).items():
                if name in ("_parameters", "_buffers", "_modules"):
                    continue
                for value in attribute.values() if isinstance(attribute, dict) else [attribute]:
                    if callable(value) is functions:
                        try:
                            copy.deepcopy(value, memo | shared)
                        except Exception:
                            shared[id(value)] = value
    return shared


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside a wrapper of ``torch.compile``, whose forward ignores later hooks."""
    inner = dict(module.named_children()).get("_orig_mod")
    return module if inner is None else _unwrapped(inner)


def _unwrap_children(module: nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):  # holds no Python modules
        return
    module._compiled_call_impl = None  # module.compile() compiles in place
    for name, child in list(module._modules.items()):
        if child is not None:
            inner = _unwrapped(child)
            if inner is not child:
                module._modules[name] = inner
            _unwrap_children(inner)


def _tensors_within(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from _tensors_within(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors_within(part)
