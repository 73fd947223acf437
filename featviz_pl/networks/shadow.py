"""The private copy of a network that a run works on: shared weights, own modes and hooks, a forward that stops early."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.numerics._checks import near
from featviz_pl.numerics.resampling import resize

OUTPUT = "output"


class Shadow:
    """Run a network's structure on shared weights, reading layers and stopping after the deepest of them.

    Made by `FrozenNetwork.shadow`. A layer that runs several times in one pass gives its last result, as in a full pass.

    Args:
        module: the guest, which is not touched.
        mean: per channel, or None.
        std: per channel, or None.
        size: that the network was trained on, or None.
    """

    def __init__(
        self, module: nn.Module, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, size: tuple[int, int] | None
    ) -> None:
        self.module = _shared_copy(module)
        self.mean, self.std, self.size = mean, std, size
        self.only_size: tuple[int, int] | None = None  # set for networks that accept one size only
        self._modules = dict(self.module.named_modules())
        self._modules[OUTPUT] = self.module
        self._modules.pop("", None)
        self._calls: dict[tuple[str, ...], dict[str, int]] = {}  # how often each layer runs in one pass
        self._overwritten: set[str] = set()

    @property
    def layer_names(self) -> list[str]:
        """Names of all layers, ``output`` last."""
        return list(self._modules)

    def check_layer(self, layer: str) -> None:
        """Raise an error that lists near names when there is no such layer."""
        if layer not in self._modules:
            raise ValueError(f"layer: the network has no layer {layer!r}; {near(layer, self.layer_names)}")

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast the private copy; the guest keeps its own."""
        self.module._apply(fn)

    def activations(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Read layers for pictures in [0, 1]; see `FrozenNetwork.activations`."""
        wanted = tuple(dict.fromkeys(layers))
        for layer in wanted:
            self.check_layer(layer)
        ready = self._at_the_door(images)
        if wanted not in self._calls:
            self._calls[wanted] = self._count_calls(ready, wanted)
        return self._read(ready, wanted, self._calls[wanted])

    def _at_the_door(self, images: Tensor) -> Tensor:
        """Standardise, resize where the network accepts one size only, and use the network's precision and layout."""
        if self.only_size is not None:
            images = resize(images, self.only_size)
        if self.mean is not None:
            images = images - images.new_tensor(self.mean).view(-1, 1, 1)
        if self.std is not None:
            images = images / images.new_tensor(self.std).view(-1, 1, 1)
        weight = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        if weight is not None:
            if weight.device != images.device:
                self.module.to(images.device)
            images = images.to(weight.dtype)
        return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images

    def _count_calls(self, ready: Tensor, wanted: tuple[str, ...]) -> dict[str, int]:
        """Run one whole pass and count how often each wanted layer is reached."""
        calls = dict.fromkeys(wanted, 0)

        def count(layer: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, result: Any) -> None:
                calls[layer] += 1

            return hook

        with self._hooked({layer: count(layer) for layer in wanted}):
            # One picture is enough, and with its gradient: fused inference paths, which skip layers, are for passes without.
            self.module(ready[:1].detach().requires_grad_(True))
        for layer, times in calls.items():
            if not times:
                raise ValueError(f"layer: {layer!r} exists but is never run by the network's forward; choose another")
        return calls

    def _read(self, ready: Tensor, wanted: tuple[str, ...], calls: dict[str, int]) -> dict[str, Tensor]:
        left = dict(calls)
        results: dict[str, Tensor] = {}
        versions: dict[str, int] = {}

        def keep(layer: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, result: Any) -> None:
                left[layer] -= 1
                if left[layer] == 0:
                    tensor = _tensor_in(layer, result)
                    results[layer] = tensor.clone() if layer in self._overwritten else tensor
                    versions[layer] = results[layer]._version
                    if len(results) == len(wanted):
                        raise _Reached

            return hook

        with self._hooked({layer: keep(layer) for layer in wanted}), suppress(_Reached):
            self.module(ready)
        for layer in wanted:
            if layer not in results:
                raise ValueError(f"layer: {layer!r} ran in the first pass but not in this one; the network's path depends on its input")
        overwritten = {layer for layer, tensor in results.items() if tensor._version != versions[layer]}
        if overwritten:  # by an operation in place that follows the layer: from now on keep copies
            self._overwritten |= overwritten
            return self._read(ready, wanted, calls)
        return results

    @contextmanager
    def _hooked(self, hooks: dict[str, Callable[..., None]]) -> Iterator[None]:
        handles = [self._modules[layer].register_forward_hook(hook) for layer, hook in hooks.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Reached(Exception):  # noqa: N818 - control flow, not an error
    """Ends a forward pass at the deepest layer."""


def _tensor_in(layer: str, value: Any) -> Tensor:
    """Return the tensor of a layer's result: itself, or the first one in a tuple, list or dict."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (tuple, list)) or hasattr(value, "values"):
        parts = value if isinstance(value, (tuple, list)) else value.values()
        for part in parts:
            if isinstance(part, Tensor):
                return part
    raise ValueError(f"layer: the output of {layer!r} holds no tensor, but {type(value).__name__}; choose a layer that gives one")


def _shared_copy(module: nn.Module) -> nn.Module:
    """Copy the structure; parameters and buffers are detached and share storage until a layout or precision asks for a copy."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        for buffer in part._buffers.values():
            if buffer is not None:
                memo[id(buffer)] = buffer.detach()
        for value in vars(part).values():
            if isinstance(value, Tensor):  # derived weights of parametrizations, cached activations
                memo[id(value)] = value.detach()
        for name in ("_trainer", "_fabric"):  # a LightningModule in the middle of its own training
            if vars(part).get(name) is not None:
                memo[id(vars(part)[name])] = None
    copied = copy.deepcopy(_unwrapped(module), memo)
    _unwrap_children(copied)
    copied.eval().requires_grad_(False)
    for part in copied.modules():
        if getattr(part, "inplace", False) is True:
            part.__dict__["inplace"] = False  # else the next layer would overwrite what this one is read for
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
    return copied


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return what ``torch.compile`` wrapped: a compiled forward ignores hooks that come later."""
    inner = module._modules.get("_orig_mod")
    return module if inner is None else _unwrapped(inner)


def _unwrap_children(module: nn.Module) -> None:
    module._compiled_call_impl = None  # module.compile() compiles in place
    for name, child in list(module._modules.items()):
        if child is not None:
            inner = _unwrapped(child)
            if inner is not child:
                module._modules[name] = inner
            _unwrap_children(inner)
