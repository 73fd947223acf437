"""A network with what is needed to show it pictures, and the promise to leave it alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from featviz_pl.networks.compiled_reader import Compiler
from featviz_pl.networks.importing import import_object
from featviz_pl.networks.probing import LayerInfo, describe_layers, probe
from featviz_pl.networks.reader import ActivationReader
from featviz_pl.numerics.activation_axes import unit_axis
from featviz_pl.numerics.checks import finite_number, size_pair, whole_number
from featviz_pl.numerics.digest import digest

Call = Callable[[nn.Module, Tensor], Any]


class FrozenNetwork:
    """Hold any network as a guest: its weights, modes, hooks, gradients, device and memory format stay as they are.

    The module itself is never run. Every run works on a `reader`: the same structure in evaluation mode, whose
    parameters are detached and share the guest's storage. This is no ``nn.Module`` on purpose: as an attribute of a
    LightningModule it is in no checkpoint, optimizer, DDP bucket or model summary.

    Args:
        module: any ``nn.Module`` that takes one batch of pictures (N, C, H, W).
        mean: subtracted from pictures in [0, 1], one number or one per channel; None subtracts nothing.
        std: by which they are divided then, above 0; None divides by nothing.
        size: of the pictures that the network was trained on, one number or (height, width): the default size of a
            render. Nothing is resized, except for networks that accept no other size.
        classes: names of the outputs.
        name: for provenance; the class name unless given.
        channels: number of channels of the pictures; found from mean, std or the first weights unless given.
        call: for forwards that take more than pictures, or take them otherwise: a function that is given the module and
            the pictures (N, C, H, W), standardized, and calls the module, such as
            ``lambda module, pictures: module(pixel_values=pictures, mask=None)``; or its path
            ``"package.module:function"``.
        compile: let runs use ``torch.compile`` on what they read of it: seconds to minutes for each set of layers,
            size of pictures and precision, then a step that may be faster on a GPU and was slower on a CPU. Where that
            fails, or where the forward cannot be traced, the run goes on without, and a line of the logger
            ``featviz_pl`` says so.

    Raises:
        TypeError: when `module` is no ``nn.Module``.
        ValueError: when mean, std or size are impossible.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        >>> frozen = FrozenNetwork(net, mean=0.5, std=0.25)
        >>> frozen.activations(torch.rand(2, 1, 8, 8), ["0"])["0"].shape
        torch.Size([2, 4, 6, 6])
    """

    def __init__(
        self,
        module: nn.Module,
        mean: float | Sequence[float] | None = None,
        *,
        std: float | Sequence[float] | None = None,
        size: int | Sequence[int] | None = None,
        classes: Sequence[str] = (),
        name: str | None = None,
        channels: int | None = None,
        call: Call | str | None = None,
        compile: bool = False,  # noqa: A002 - torch's name
    ) -> None:
        self.module = module = _readable_module(module)
        self._channels = None if channels is None else whole_number("channels", channels)
        self.call: Call | None = import_object("call", call) if isinstance(call, str) else call
        if self.call is not None and not callable(self.call):
            raise TypeError(
                "call must be a function of the module and the pictures, or its path 'package.module:function', "
                f"got {type(call).__name__}"
            )
        self.mean = _per_channel("mean", mean)
        self.std = _per_channel("std", std, above=0.0)
        self.size = None if size is None else size_pair("size", size)
        self.classes = tuple(classes)
        self.name = name if name is not None else type(getattr(module, "_orig_mod", module)).__name__
        self.compile = compile
        self._compiler = Compiler()

    def reader(self) -> ActivationReader:
        """Return a private copy of the structure that shares the weights: what a run works on."""
        compiler = self._compiler if self.compile else None
        return ActivationReader(self.module, self.mean, self.std, self.size, compiler, self.call)

    def compiled(self, compile: bool = True) -> FrozenNetwork:  # noqa: A002 - torch's name
        """Return the same guest with `compile` switched; this one stays as it is, and both share what is compiled.

        Example:
            >>> network = FrozenNetwork(nn.Conv2d(3, 4, 3))
            >>> network.compiled().compile, network.compile
            (True, False)
        """
        switched = copy.copy(self)
        switched.compile = compile
        return switched

    def replace(self, **changes: Any) -> FrozenNetwork:
        """Return the same network with some of its constructor's arguments changed.

        Example:
            >>> FrozenNetwork(nn.Conv2d(3, 4, 3), mean=0.5).replace(size=32)
            FrozenNetwork('Conv2d', mean=(0.5,), std=None, size=(32, 32))
        """
        replaced = copy.copy(self)
        vars(replaced).update(vars(FrozenNetwork(**{**self.arguments, **changes})))
        return replaced

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, by name."""
        names = ("module", "mean", "std", "size", "classes", "name", "call", "compile")
        return {**{name: getattr(self, name) for name in names}, "channels": self._channels}

    def activations(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Read layers for pictures in [0, 1], stopping after the deepest one.

        Maps are (N, C, H, W) whatever the network's own order of axes. Each call makes a new `reader` and passes twice;
        for many calls make the reader once.

        Shape:
            images (N, C, H, W) -> one (N, …) for each layer

        Args:
            images: in [0, 1].
            layers: dotted module names; ``"output"`` is the network's result.

        Raises:
            ValueError: when a layer is unknown, is not reached, or gives no tensor.
        """
        return self.reader().activations(images, layers)

    def layers(self, size: int | Sequence[int] | None = None, channels: int | None = None) -> list[LayerInfo]:
        """List every layer that is reached, in the order of their last calls, with its shape and number of units.

        Args:
            size: of the picture; the network's own, or 224, unless given.
            channels: of the picture; found from mean, std or the first weights unless given.
        """
        side = size_pair("size", size if size is not None else self.size or 224)
        return describe_layers(self.reader(), side, channels or self.channels)

    def count_units(self, layer: str, size: int | Sequence[int] | None = None, channels: int | None = None) -> int:
        """Return the number of units of a layer: channels of a map, features of tokens, entries of a vector.

        Args:
            layer: dotted module name, or ``"output"``.
            size: of the picture; the network's own, or 224, unless given.
            channels: of the picture; found from mean, std or the first weights unless given.

        Raises:
            ValueError: when there is no such layer.
        """
        side = size_pair("size", size if size is not None else self.size or 224)
        shape = probe(self.reader(), (channels or self.channels, *side), [layer])[layer]
        return shape[unit_axis(shape)]

    @property
    def channels(self) -> int:
        """Number of picture channels that the network takes, 3 where nothing tells."""
        if self._channels is not None:
            return self._channels
        for values in (self.mean, self.std):
            if values is not None and len(values) > 1:
                return len(values)
        for module in self.module.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                return module.in_channels
        return 3

    def weights_hash(self) -> str:
        """Return the first 16 hexadecimal digits of the SHA-256 over all weights and buffers, by name."""
        tensors = (
            (name, value) for name, value in sorted(self.module.state_dict().items()) if isinstance(value, Tensor)
        )
        # torch.compile adds "_orig_mod." to names.
        return digest(part for name, tensor in tensors for part in (name.replace("_orig_mod.", ""), tensor))

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenNetwork:
        """Share the guest: it never changes, and need not be held twice."""
        return copy.copy(self)

    def __repr__(self) -> str:
        """Show the name and how pictures reach the network."""
        return f"FrozenNetwork({self.name!r}, mean={self.mean}, std={self.std}, size={self.size})"


def _readable_module(module: nn.Module) -> nn.Module:
    """Return a module that can be run and copied: without the wrappers of parallel trainings.

    Raises:
        TypeError: when it is no module.
        ValueError: when its weights hold no numbers.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    while isinstance(module, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        module = module.module
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(value, (UninitializedParameter, UninitializedBuffer)):
            raise ValueError(f"network: {name!r} is lazy and has no shape yet; run the network once, then give it")
        if value.is_meta:
            raise ValueError(f"network: {name!r} is on the meta device and holds no numbers; load its weights first")
    return module


def _per_channel(argument: str, values: Any, above: float = float("-inf")) -> tuple[float, ...] | None:
    if values is None:
        return None
    if isinstance(values, str):
        raise TypeError(f"{argument} must be one number or one per channel, got {values!r}")
    try:
        listed = torch.as_tensor(values, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{argument} must be one number or one per channel, got {values!r}") from error
    return tuple(finite_number(argument, value, above=above) for value in listed)
