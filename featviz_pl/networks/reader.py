"""The private copy of a network that a run works on: shared weights, own modes and hooks, a forward that stops early."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.networks.compiled_reader import Compiler
from featviz_pl.networks.fx_reader import Read, in_less_precision, traced
from featviz_pl.networks.gradient_rules import GradientRules
from featviz_pl.networks.strided_conv import speed_up_strided
from featviz_pl.numerics.checks import near
from featviz_pl.numerics.isolated_copy import frozen_copy
from featviz_pl.numerics.resampling import resize

OUTPUT = "output"


class ActivationReader:
    """Run a network's structure on shared weights, reading layers and stopping after the deepest of them.

    Made by `FrozenNetwork.reader`. A layer that runs several times in one pass gives its last result, as in a full
    pass.

    Args:
        module: the guest, which is not touched.
        mean: per channel, or None.
        std: per channel, or None.
        size: that the network was trained on, or None.
        compiler: compiles what leads to layers; None leaves it as it is.
    """

    def __init__(
        self,
        module: nn.Module,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        size: tuple[int, int] | None,
        compiler: Compiler | None = None,
    ) -> None:
        with torch.inference_mode(False):  # a reader made during a validation must also serve a training
            self.module = _shared_copy(module)
        self.mean, self.std, self.size = mean, std, size
        self.only_size: tuple[int, int] | None = None  # set for networks that accept one size only
        self._modules = dict(self.module.named_modules(remove_duplicate=False))
        self._modules[OUTPUT] = self.module  # also where a submodule has this name
        self._modules.pop("", None)
        self._constants: dict[str, Tensor] = {}  # mean and std where the pictures are
        self._channels_last: set[str] = set()  # layers whose maps are (H, W, C)
        self._calls: dict[tuple[str, ...], dict[str, int]] = {}  # how often each layer runs in one pass
        self._overwritten: set[str] = set()
        self._traced: dict[
            tuple[Any, ...], Any
        ] = {}  # what leads to layers, by pictures' size; None where that is unknown
        self._cast: dict[
            tuple[int, torch.dtype], nn.Module
        ] = {}  # modules with weights in less precision, for all of these
        self._compiler = compiler
        self._compiled: dict[tuple[Any, ...], Read | None] = {}
        # Which weights are compiled in: the network may be trained between two runs.
        self._weights = (
            tuple((weight.data_ptr(), _version(weight)) for weight in (*module.parameters(), *module.buffers()))
            if compiler
            else ()
        )
        self._watched = 0  # contexts of `hooked` that are open

    @property
    def layer_names(self) -> list[str]:
        """Names of all layers, ``output`` last."""
        return list(self._modules)

    def check_layer(self, layer: str) -> None:
        """Raise an error that lists near names when there is no such layer."""
        if layer not in self._modules:
            raise LayerError(f"layer: the network has no layer {layer!r}; {near(layer, self.layer_names)}")

    def is_channels_last(self, layer: str) -> bool:
        """Say whether the layer's own maps are (H, W, C); known once the layer was read."""
        return layer in self._channels_last

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast the private copy; the guest keeps its own."""
        self.module._apply(fn)
        self._traced.clear()
        self._cast.clear()
        self._compiled.clear()

    def activations(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Read layers for pictures in [0, 1]; see `FrozenNetwork.activations`."""
        wanted = tuple(dict.fromkeys(layers))
        for layer in wanted:
            self.check_layer(layer)
        ready = self._at_the_door(images)
        if wanted not in self._calls:
            self._calls[wanted] = self._count_calls(ready, wanted)
        read = self._read_traced(ready, wanted) or self._read(ready, wanted, self._calls[wanted])
        for layer, value in read.items():
            if value.ndim == 0 or len(value) != len(images):
                raise LayerError(
                    f"layer: the first axis of {layer!r} is not the batch: {len(images)} pictures gave {tuple(value.shape)}; choose another"
                )
            if layer in self._channels_last:
                read[layer] = value.movedim(3, 1)
        return read

    def _at_the_door(self, images: Tensor) -> Tensor:
        """Standardise, resize where the network accepts one size only, and use the network's precision and layout."""
        if self.only_size is not None:
            images = resize(images, self.only_size)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (
                1,
                images.shape[1],
            ):  # broadcasting would invent or merge channels
                raise LayerError(
                    f"channels: pictures have {images.shape[1]}, but the network's {name} has {len(values)} values"
                )
        if self.mean is not None:
            images = images - self._constant("mean", self.mean, images)
        if self.std is not None:
            images = images / self._constant("std", self.std, images)
        weight = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        if weight is not None:
            if weight.device != images.device:
                self.apply_(lambda held: held.to(images.device))
            images = images.to(weight.dtype)
        return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images

    def _constant(self, name: str, values: tuple[float, ...], like: Tensor) -> Tensor:
        held = self._constants.get(name)
        if held is None or held.device != like.device or held.dtype != like.dtype:
            held = self._constants[name] = like.new_tensor(values).view(-1, 1, 1)
        return held

    def _count_calls(self, ready: Tensor, wanted: tuple[str, ...]) -> dict[str, int]:
        """Run one whole pass, count how often each wanted layer is reached, and find the maps that are (H, W, C)."""
        calls = dict.fromkeys(wanted, 0)
        suspects: dict[str, tuple[int, ...]] = {}  # the first two axes could be the picture's height and width
        height, width = ready.shape[-2:]

        def count(layer: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, result: Any) -> None:
                calls[layer] += 1
                tensor = first_tensor(result)
                if (
                    tensor is not None
                    and tensor.ndim == 4
                    and abs(tensor.shape[1] * width - tensor.shape[2] * height) <= max(height, width)
                ):
                    suspects[layer] = tuple(tensor.shape)

            return hook

        with self.hooked({layer: count(layer) for layer in wanted}):
            # One picture is enough, and with its gradient: fused inference paths, which skip layers, are for passes
            # without.
            try:
                self.module(ready[:1].detach().requires_grad_(True))
            except Exception:
                if not all(calls.values()):
                    raise
                # What fails lies behind every wanted layer, such as a head that takes another size: no pass will get
                # there.
        for layer, times in calls.items():
            if not times:
                raise LayerError(f"layer: {layer!r} exists but is never run by the network's forward; choose another")
        if suspects:
            self._find_channels_last(
                suspects, resize(ready[:1].detach().float(), (2 * height, 2 * width)).to(ready.dtype)
            )
        return calls

    def _find_channels_last(self, suspects: dict[str, tuple[int, ...]], larger: Tensor) -> None:
        """Tell maps (H, W, C) from maps (C, H, W) by a larger picture: the channels stay as many as they were."""
        looked_at: set[str] = set()

        def look(layer: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, result: Any) -> None:
                tensor = first_tensor(result)
                if tensor is not None and tensor.ndim == 4:
                    looked_at.add(layer)
                    _, first, second, third = suspects[layer]
                    if tensor.shape[1] > first and tensor.shape[2] > second and tensor.shape[3] == third:
                        self._channels_last.add(layer)

            return hook

        with self.hooked({layer: look(layer) for layer in suspects}), suppress(Exception):
            self.module(larger.requires_grad_(True))
        for layer in set(suspects) - looked_at:  # the network takes one size only: equal axes are those of space
            _, first, second, third = suspects[layer]
            if first == second != third:
                self._channels_last.add(layer)

    def _read_traced(self, ready: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor] | None:
        """Read layers without what does not lead to them, or return None where that cannot be done or does not pay."""
        # A run is many passes with gradients; finding out pays for none else. Hooks want to see every layer, and rules
        # every rectifier in the network's own order.
        usual = self._watched or GradientRules.are_open() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if usual or not ready.requires_grad or not torch.is_grad_enabled():
            return None

        def read(pictures: Tensor) -> list[Tensor]:
            found = self._read(pictures, wanted, self._calls[wanted])
            return [found[layer] for layer in wanted]

        key = (*wanted, *ready.shape[1:])  # at another size the network may refuse, or take another path
        if key not in self._traced:
            self._traced[key] = traced(self.module, [self._modules[layer] for layer in wanted], read, ready)
        reader = self._traced[key]
        if reader is not None and torch.is_autocast_enabled(ready.device.type):
            key = (*key, torch.get_autocast_dtype(ready.device.type))
            if key not in self._traced:
                self._traced[key] = in_less_precision(reader, read, ready, self._cast)
            reader = self._traced[key]
        if self._compiler is not None:
            key = (*key, ready.dtype, ready.device, self._weights)
            if key not in self._compiled:
                self._compiled[key] = self._compiler(key, reader, ready)
            reader = self._compiled[key]
        return None if reader is None else dict(zip(wanted, reader(ready)))

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Compile nothing in the context: single passes do not pay for it."""
        compiler, self._compiler = self._compiler, None
        try:
            yield
        finally:
            self._compiler = compiler

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what is made anew: traced and compiled networks."""
        return {**vars(self), "_traced": {}, "_compiled": {}, "_cast": {}}

    def _read(self, ready: Tensor, wanted: tuple[str, ...], calls: dict[str, int]) -> dict[str, Tensor]:
        left = dict(calls)
        results: dict[str, Tensor] = {}
        versions: dict[str, int] = {}

        def keep(layer: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, result: Any) -> None:
                left[layer] -= 1
                if left[layer] == 0:
                    tensor = _tensor_in(layer, result)
                    results[layer] = tensor.clone() if layer in self._overwritten or tensor.is_inference() else tensor
                    versions[layer] = _version(results[layer])
                    if len(results) == len(wanted):
                        raise _Reached

            return hook

        with self.hooked({layer: keep(layer) for layer in wanted}), suppress(_Reached):
            self.module(ready)
        for layer in wanted:
            if layer not in results:
                raise LayerError(
                    f"layer: {layer!r} ran in the first pass but not in this one; the network's path depends on its input"
                )
        overwritten = {layer for layer, tensor in results.items() if _version(tensor) != versions[layer]}
        if overwritten:  # by an operation in place that follows the layer: from now on keep copies
            self._overwritten |= overwritten
            return self._read(ready, wanted, calls)
        return results

    @contextmanager
    def hooked(self, hooks: dict[str, Callable[..., None]]) -> Iterator[None]:
        """Hook layers of the private copy for the duration of the context."""
        handles = [self._modules[layer].register_forward_hook(hook) for layer, hook in hooks.items()]
        self._watched += bool(hooks)
        try:
            yield
        finally:
            self._watched -= bool(hooks)
            for handle in handles:
                handle.remove()


class LayerError(ValueError):
    """Say that a layer, or the pictures for it, cannot work: a user's mistake, not a failure of the network."""


class _Reached(BaseException):
    """Ends a forward pass at the deepest layer."""


def _tensor_in(layer: str, value: Any) -> Tensor:
    """Return the tensor of a layer's result, or raise."""
    tensor = first_tensor(value)
    if tensor is None:
        raise LayerError(
            f"layer: the output of {layer!r} holds no tensor, but {type(value).__name__}; choose a layer that gives one"
        )
    return tensor


def first_tensor(value: Any) -> Tensor | None:
    """Return the value if it is a tensor, or the first tensor of a tuple, list or mapping, or None."""
    if isinstance(value, Tensor):
        return value
    parts = value if isinstance(value, (tuple, list)) else value.values() if isinstance(value, Mapping) else ()
    return next((part for part in parts if isinstance(part, Tensor)), None)


def _version(tensor: Tensor) -> int:
    """Count the writes into a tensor; in inference mode they are not counted, and layers are read as copies instead."""
    return 0 if tensor.is_inference() else tensor._version


def _shared_copy(module: nn.Module) -> nn.Module:
    """Copy the guest so that layers can be read: nothing overwrites a result, and convolutions have the fast layout."""
    copied = frozen_copy(module)
    for part in copied.modules():
        if getattr(part, "inplace", False) is True:
            part.__dict__["inplace"] = False  # else the next layer would overwrite what this one is read for
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
    speed_up_strided(copied)
    return copied
