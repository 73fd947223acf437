"""The private copy of a network that a run works on: shared weights, own modes and hooks, a forward that stops early."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.networks.compiled_reader import Compiler
from featviz_pl.networks.fx_reader import Read, in_less_precision, traced
from featviz_pl.networks.gradient_rules import GradientRules
from featviz_pl.networks.layer_address import OUTPUT, LayerAddress, part_names
from featviz_pl.networks.layouts import Layout, find_layouts
from featviz_pl.networks.strided_conv import speed_up_strided
from featviz_pl.numerics.checks import near
from featviz_pl.numerics.isolated_copy import frozen_copy
from featviz_pl.numerics.resampling import resize


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
        call: calls the module with pictures, where a forward takes more than these.
    """

    def __init__(
        self,
        module: nn.Module,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        size: tuple[int, int] | None,
        compiler: Compiler | None = None,
        call: Callable[[nn.Module, Tensor], Any] | None = None,
    ) -> None:
        with torch.inference_mode(False):  # a reader made during a validation must also serve a training
            self.module = _shared_copy(module)
        is_script = isinstance(self.module, torch.jit.ScriptModule)  # which takes no hooks, as its parts do not
        self._root = self.module if call is None and not is_script else _Called(self.module, call)
        self.mean, self.std, self.size = mean, std, size
        self.only_size: tuple[int, int] | None = None  # set for networks that accept one size only
        modules = self.module.named_modules(remove_duplicate=False)
        self._modules = {name: part for name, part in modules if not isinstance(part, torch.jit.ScriptModule)}
        self._modules[OUTPUT] = self._root  # also where a submodule has this name
        self._modules.pop("", None)
        self._constants: dict[str, Tensor] = {}  # mean and std where the pictures are
        self._layouts: dict[tuple[str, tuple[int, ...]], Layout] = {}  # of layers, by the shape of pictures
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

    @property
    def kinds(self) -> dict[str, str]:
        """Class of each layer, by name."""
        return {
            name: self.module._get_name() if module is self._root else module._get_name()
            for name, module in self._modules.items()
        }

    def check_layer(self, layer: str) -> None:
        """Raise an error that lists near names when there is no such layer."""
        self._address(layer)

    def _address(self, layer: str) -> LayerAddress:
        address = LayerAddress.parse(layer, self._modules)
        if address is None:
            raise self._unknown(layer)
        return address

    def _unknown(self, layer: str) -> LayerError:
        return LayerError(f"layer: the network has no layer {layer!r}; {near(layer, self.layer_names)}")

    def tensor(self, layer: str, result: Any) -> Tensor | None:
        """Return the tensor of a layer's result that its name stands for, None where there is none."""
        return self._address(layer).tensor(result)

    def layout(self, layer: str) -> Layout | None:
        """Return which axes of the layer's own result count pictures, units and positions; None before it is read."""
        return next((layout for (name, _), layout in reversed(self._layouts.items()) if name == layer), None)

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
        shape = tuple(ready.shape[1:])
        if any((layer, shape) not in self._layouts for layer in wanted) or wanted not in self._calls:
            self._probe(ready, wanted)
        read = self._read_traced(ready, wanted) or self._read(ready, wanted, self._calls[wanted])
        for layer, value in read.items():
            standard = self._layouts[layer, shape].standardized(value, len(images))
            if standard is None:
                raise LayerError(
                    f"layer: no axis of {layer!r} counts the pictures: {len(images)} gave {tuple(value.shape)}; choose another"
                )
            read[layer] = standard
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

    def readable(self, images: Tensor) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and axes, in words, of all layers that can be read for one picture, in the order of their last calls."""
        ready = self._at_the_door(images)
        calls = dict.fromkeys(self._modules, 0)
        results = self._pass(ready, calls, self._address)
        modules = {layer: self._modules[layer] for layer in results}
        layouts = find_layouts(modules, results, ready.detach(), lambda pictures: self._try(pictures, modules))
        found: dict[str, tuple[tuple[int, ...], str]] = {}
        for layer, layout in layouts.items():
            standard = layout.standardized(results[layer], 1) if isinstance(layout, Layout) else None
            if isinstance(layout, Layout) and standard is not None and 0 not in standard.shape:
                found[layer] = tuple(standard.shape[1:]), layout.axes
        return found

    def _probe(self, ready: Tensor, layers: tuple[str, ...]) -> None:
        """Run one whole pass, count how often each layer is reached, and find the axes of its results."""
        calls = dict.fromkeys(layers, 0)
        # One picture is enough, and with its gradient: fused inference paths, which skip layers, are for passes without.
        results = self._pass(ready[:1].detach().requires_grad_(True), calls, self._address)
        for layer in layers:
            address = self._address(layer)
            if not calls[layer]:
                raise LayerError(f"layer: {layer!r} exists but is never run by the network's forward; choose another")
            if (address.call or 1) > calls[layer]:
                raise LayerError(f"layer: {layer!r}: {address.module!r} runs {calls[layer]} times in one forward")
            calls[layer] = address.call or calls[layer]
        modules = {layer: self._modules[self._address(layer).module] for layer in layers}
        layouts = find_layouts(modules, results, ready[:1].detach(), lambda pictures: self._try(pictures, layers))
        for layer, layout in layouts.items():
            if isinstance(layout, str):
                raise LayerError(f"layer: {layer!r} cannot be read: {layout}")
            self._layouts[layer, tuple(ready.shape[1:])] = layout
        self._calls[layers] = calls

    def _try(self, ready: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Return the results of layers for other pictures: none where the network refuses them."""
        results: dict[str, Tensor] = {}
        with suppress(Exception):
            self._pass(ready.detach().requires_grad_(True), dict.fromkeys(layers, 0), self._address, results)
        return results

    def _pass(
        self,
        ready: Tensor,
        calls: dict[str, int],
        address_of: Callable[[str], LayerAddress],
        results: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one whole pass, count the calls of layers, and return the tensors that their addresses stand for."""
        results = {} if results is None else results

        def keep(layer: str) -> Callable[..., None]:
            address = address_of(layer)

            def hook(module: nn.Module, inputs: Any, result: Any) -> None:
                calls[layer] += 1
                if address.call in (None, calls[layer]):
                    results.pop(layer, None)
                    tensor = address.tensor(result)
                    if tensor is not None:
                        results[layer] = tensor
                    elif layer not in self._modules:
                        raise self._no_part(layer, address, result)

            return hook

        with self.hooked({layer: keep(layer) for layer in calls}):
            try:
                self._root(ready)
            except Exception as error:
                # What fails behind every wanted layer, such as a head that takes another size, no pass will reach.
                if isinstance(error, LayerError) or not all(calls.values()):
                    raise
        return results

    def _no_part(self, layer: str, address: LayerAddress, result: Any) -> LayerError:
        names = part_names(result)
        if not address.path or not names:
            return self._unknown(layer) if address.path else _no_tensor(layer, result)
        choices = ", ".join(repr(f"{address.module}.{name}") for name in names)
        return LayerError(f"layer: the result of {address.module!r} has no part {layer!r}; choose one of {choices}")

    def _read_traced(self, ready: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor] | None:
        """Read layers without what does not lead to them, or return None where that cannot be done or does not pay."""
        # A run is many passes with gradients; finding out pays for none else. Hooks want to see every layer, and rules
        # every rectifier in the network's own order.
        addressed = any(layer not in self._modules for layer in wanted)
        usual = addressed or self._watched or GradientRules.are_open() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if usual or not ready.requires_grad or not torch.is_grad_enabled():
            return None

        def read(pictures: Tensor) -> list[Tensor]:
            found = self._read(pictures, wanted, self._calls[wanted])
            return [found[layer] for layer in wanted]

        key = (*wanted, *ready.shape[1:])  # at another size the network may refuse, or take another path
        if key not in self._traced:
            self._traced[key] = traced(self._root, [self._modules[layer] for layer in wanted], read, ready)
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
                    tensor = self._address(layer).tensor(result)
                    if tensor is None:
                        raise self._no_part(layer, self._address(layer), result)
                    results[layer] = tensor.clone() if layer in self._overwritten or tensor.is_inference() else tensor
                    versions[layer] = _version(results[layer])
                    if len(results) == len(wanted):
                        raise _Reached

            return hook

        with self.hooked({layer: keep(layer) for layer in wanted}), suppress(_Reached):
            self._root(ready)
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
        handles = [
            self._modules[self._address(layer).module].register_forward_hook(hook) for layer, hook in hooks.items()
        ]
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


def _no_tensor(layer: str, result: Any) -> LayerError:
    return LayerError(
        f"layer: the output of {layer!r} holds no tensor, but {type(result).__name__}; choose a layer that gives one"
    )


class _Called(nn.Module):
    """Call a network with pictures by a function, for forwards that take more than these."""

    def __init__(self, module: nn.Module, call: Callable[[nn.Module, Tensor], Any] | None) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, pictures: Tensor) -> Any:
        """Return what the function returns."""
        return self.module(pictures) if self.call is None else self.call(self.module, pictures)


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
