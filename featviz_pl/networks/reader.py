"""Read activations of layers from a private copy of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn

from featviz_pl.networks.call_recorder import LastLayerReached, RecordedLayer
from featviz_pl.networks.compiled_reader import Compiler
from featviz_pl.networks.fx_reader import Read, in_less_precision, traced
from featviz_pl.networks.gradient_rules import GradientRules
from featviz_pl.networks.layer_address import OUTPUT, LayerAddress, part_names
from featviz_pl.networks.layouts import Layout, find_layouts
from featviz_pl.networks.strided_conv import speed_up_strided
from featviz_pl.numerics.checks import near
from featviz_pl.numerics.isolated_copy import frozen_copy
from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.numerics.private_randomness import PrivateRandomness
from featviz_pl.numerics.resampling import resize


class ActivationReader:
    """Read layers from a frozen copy of a network, which stops behind the deepest of them.

    Made by `FrozenNetwork.reader`. Of a layer that runs several times in one pass, the last result is read.

    Args:
        module: the network, which stays as it is; the copy shares its weights.
        mean: of each channel, or None.
        std: of each channel, or None.
        size: (height, width) of the pictures that the network was trained on, or None.
        compiler: compiles what leads to layers; None does not.
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
        self._constants: dict[str, Tensor] = {}  # mean and std on the pictures' device
        self._layouts: dict[tuple[str, tuple[int, ...]], Layout] = {}  # of layers, by the shape of pictures
        self._calls: dict[tuple[str, ...], dict[str, int]] = {}  # in one pass, by layer
        self._overwritten: set[str] = set()  # layers whose results a later operation overwrites
        self._traced: dict[tuple[Any, ...], fx.GraphModule | None] = {}  # by layers, size of pictures and precision
        self._cast: dict[tuple[int, torch.dtype], nn.Module] = {}  # modules with weights in less precision
        self._compiler = compiler
        self._compiled: dict[tuple[Any, ...], Read | None] = {}
        # Which weights are compiled in: the network may be trained between two runs.
        weights = (*module.parameters(), *module.buffers()) if compiler else ()
        self._weights = tuple((weight.data_ptr(), _version(weight)) for weight in weights)
        self._open_hooks = 0
        self.draws = False  # whether a forward has drawn random numbers
        self.noise_seeds: Sequence[int] = ()  # of what a forward draws: one that pictures share, and one for each

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
        """Move or cast the copy; the network stays as it is."""
        self.module._apply(fn)
        self._traced.clear()
        self._cast.clear()
        self._compiled.clear()

    def activations(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Read layers for pictures in [0, 1]; see `FrozenNetwork.activations`."""
        layers = tuple(dict.fromkeys(layers))
        for layer in layers:
            self.check_layer(layer)
        inputs = self._preprocess(images)
        with untraced():  # plain numbers
            shape = tuple(int(length) for length in inputs.shape[1:])
        if any((layer, shape) not in self._layouts for layer in layers) or layers not in self._calls:
            self._probe(inputs, layers)
        activations = self._read_traced(inputs, layers) or self._read(inputs, layers)
        for layer, value in activations.items():
            standard = self._layouts[layer, shape].standardized(value, len(images))
            if standard is None:
                raise LayerError(
                    f"layer: no axis of {layer!r} counts the pictures: {len(images)} gave {tuple(value.shape)}; "
                    "choose another"
                )
            activations[layer] = standard
        return activations

    def _preprocess(self, images: Tensor) -> Tensor:
        """Resize where the network accepts one size only, normalize, and use the network's precision and layout."""
        if self.only_size is not None:
            images = resize(images, self.only_size)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, images.shape[1]):  # broadcasting would merge channels
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
                self.apply_(lambda tensor: tensor.to(images.device))
            images = images.to(weight.dtype)
        return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images

    def _constant(self, name: str, values: tuple[float, ...], like: Tensor) -> Tensor:
        constant = self._constants.get(name)
        if constant is None or constant.device != like.device or constant.dtype != like.dtype:
            constant = self._constants[name] = like.new_tensor(values).view(-1, 1, 1)
        return constant

    def readable(self, images: Tensor) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and axes, in words, of all layers that can be read for one picture, in the order of their last calls."""
        inputs = self._preprocess(images)
        calls = dict.fromkeys(self._modules, 0)
        results = self._pass(inputs, calls, self._address)
        modules = {layer: self._modules[layer] for layer in results}
        layouts = find_layouts(modules, results, inputs.detach(), lambda pictures: self._try(pictures, modules))
        described: dict[str, tuple[tuple[int, ...], str]] = {}
        for layer, layout in layouts.items():
            standard = layout.standardized(results[layer], 1) if isinstance(layout, Layout) else None
            if isinstance(layout, Layout) and standard is not None and 0 not in standard.shape:
                described[layer] = tuple(standard.shape[1:]), layout.axes
        return described

    def _probe(self, inputs: Tensor, layers: tuple[str, ...]) -> None:
        """Run one whole pass, count how often each layer is reached, and find the axes of its results."""
        calls = dict.fromkeys(layers, 0)
        # One picture is enough, and with its gradient: fused inference paths, which skip layers, are for passes without.
        results = self._pass(inputs[:1].detach().requires_grad_(True), calls, self._address)
        for layer in layers:
            address = self._address(layer)
            if not calls[layer]:
                raise LayerError(f"layer: {layer!r} exists but is never run by the network's forward; choose another")
            if (address.call or 1) > calls[layer]:
                raise LayerError(f"layer: {layer!r}: {address.module!r} runs {calls[layer]} times in one forward")
            calls[layer] = address.call or calls[layer]
        modules = {layer: self._modules[self._address(layer).module] for layer in layers}
        layouts = find_layouts(modules, results, inputs[:1].detach(), lambda pictures: self._try(pictures, layers))
        for layer, layout in layouts.items():
            if isinstance(layout, str):
                raise LayerError(f"layer: {layer!r} cannot be read: {layout}")
            self._layouts[layer, tuple(inputs.shape[1:])] = layout
        self._calls[layers] = calls

    def _try(self, inputs: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Return the results of layers for other pictures: none where the network refuses them."""
        results: dict[str, Tensor] = {}
        with suppress(Exception):
            self._pass(inputs.detach().requires_grad_(True), dict.fromkeys(layers, 0), self._address, results)
        return results

    def _pass(
        self,
        inputs: Tensor,
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

        with self.hooked({layer: keep(layer) for layer in calls}), self._randomness(len(inputs)) as randomness:
            try:
                self._root(inputs)
            except Exception as error:
                # What fails behind every layer, such as a head that takes another size, no pass will reach.
                if isinstance(error, LayerError) or not all(calls.values()):
                    raise
        self.draws = self.draws or randomness.drew
        return results

    def _randomness(self, count: int) -> PrivateRandomness:
        """Return a context in which a forward draws for each of `count` pictures from its seed, or from its index."""
        shared, *pictures = self.noise_seeds if len(self.noise_seeds) == count + 1 else range(count + 1)
        return PrivateRandomness(shared, pictures)

    def _no_part(self, layer: str, address: LayerAddress, result: Any) -> LayerError:
        names = part_names(result)
        if not address.path or not names:
            return self._unknown(layer) if address.path else _no_tensor(layer, result)
        choices = ", ".join(repr(f"{address.module}.{name}") for name in names)
        return LayerError(f"layer: the result of {address.module!r} has no part {layer!r}; choose one of {choices}")

    def _read_traced(self, inputs: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor] | None:
        """Read layers from the traced network, or return None where it cannot be traced or where that does not pay."""
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if self._open_hooks or GradientRules.are_open() or tracing or self.draws:
            return None  # hooks see every layer, rules every rectifier in the network's order, and noise is drawn anew
        if not inputs.requires_grad or not torch.is_grad_enabled():
            return None

        def read(pictures: Tensor) -> list[Tensor]:
            return list(self._read(pictures, layers).values())

        key: tuple[Any, ...] = (*layers, *inputs.shape[1:])
        if key not in self._traced:
            addresses = {layer: self._address(layer) for layer in layers}
            recorded = [
                RecordedLayer(self._modules[address.module], self._calls[layers][layer], address.tensor)
                for layer, address in addresses.items()
            ]
            self._traced[key] = traced(self._root, recorded, read, inputs)
        graph = self._traced[key]
        if graph is not None and torch.is_autocast_enabled(inputs.device.type):
            key = (*key, torch.get_autocast_dtype(inputs.device.type))
            if key not in self._traced:
                self._traced[key] = in_less_precision(graph, read, inputs, self._cast)
            graph = self._traced[key]
        reader: Read | None = graph
        if self._compiler is not None:
            key = (*key, inputs.dtype, inputs.device, self._weights)
            if key not in self._compiled:
                self._compiled[key] = self._compiler(key, graph, inputs)
            reader = self._compiled[key]
        return None if reader is None else dict(zip(layers, reader(inputs)))

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Compile nothing in the context: single passes do not pay for it."""
        compiler, self._compiler = self._compiler, None
        try:
            yield
        finally:
            self._compiler = compiler

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what is made again."""
        return {**vars(self), "_traced": {}, "_compiled": {}, "_cast": {}}

    def _read(self, inputs: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """Read layers by hooks on the copy, and end its forward at the last of them."""
        calls_left = dict(self._calls[layers])
        results: dict[str, Tensor] = {}
        versions: dict[str, int] = {}

        def keep(layer: str) -> Callable[..., None]:
            address = self._address(layer)

            def hook(module: nn.Module, arguments: Any, result: Any) -> None:
                calls_left[layer] -= 1
                if calls_left[layer] == 0:
                    tensor = address.tensor(result)
                    if tensor is None:
                        raise self._no_part(layer, address, result)
                    results[layer] = tensor.clone() if layer in self._overwritten or tensor.is_inference() else tensor
                    versions[layer] = _version(results[layer])
                    if len(results) == len(layers):
                        raise LastLayerReached

            return hook

        randomness = self._randomness(len(inputs)) if self.draws else nullcontext()
        with self.hooked({layer: keep(layer) for layer in layers}), randomness, suppress(LastLayerReached):
            self._root(inputs)
        for layer in layers:
            if layer not in results:
                raise LayerError(
                    f"layer: {layer!r} ran in the first pass but not in this one; the path depends on the picture"
                )
        overwritten = {layer for layer, tensor in results.items() if _version(tensor) != versions[layer]}
        if overwritten:  # by an operation in place that follows the layer: from now on copies are read
            self._overwritten |= overwritten
            return self._read(inputs, layers)
        return {layer: results[layer] for layer in layers}

    @contextmanager
    def hooked(self, hooks: dict[str, Callable[..., None]]) -> Iterator[None]:
        """Hook layers of the copy in the context."""
        handles = [
            self._modules[self._address(layer).module].register_forward_hook(hook) for layer, hook in hooks.items()
        ]
        self._open_hooks += bool(hooks)
        try:
            yield
        finally:
            self._open_hooks -= bool(hooks)
            for handle in handles:
                handle.remove()


class LayerError(ValueError):
    """Say that a layer, or the pictures for it, cannot work: a user's mistake, not a failure of the network."""


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
    """Copy a network so that layers can be read: nothing overwrites a result, and convolutions have the fast layout."""
    copied = frozen_copy(module)
    for part in copied.modules():
        if getattr(part, "inplace", False) is True:
            part.__dict__["inplace"] = False  # else the next layer would overwrite the one that is read
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
    speed_up_strided(copied)
    return copied
