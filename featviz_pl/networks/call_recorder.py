"""Record the calls of torch in a forward as a ``torch.fx`` graph; `fx_reader` says what for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode

from featviz_pl.networks.strided_conv import StridedConv2d

# What a forward may ask of a tensor without depending on its values.
_METADATA = {
    *("__get__", "__len__", "__hash__", "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset"),
    *("element_size", "is_floating_point", "is_complex", "is_contiguous", "is_inference", "is_signed", "get_device"),
}
_LEAVES = ("torch.nn", "torch.ao.nn", "torch.jit")


class UntraceableError(Exception):
    """Say that a forward cannot be recorded."""


class LastLayerReached(BaseException):
    """End a forward pass."""


def _operators(operation: Callable[[int, int], int]) -> tuple[Any, Any]:
    """Return an operator of `RecordedInt` and its reflection."""

    def apply(left: Any, right: Any) -> Any:
        if not (isinstance(left, int) and isinstance(right, int)):
            return NotImplemented
        graph = next(number.node.graph for number in (left, right) if isinstance(number, RecordedInt))
        nodes = tuple(number.node if isinstance(number, RecordedInt) else number for number in (left, right))
        return RecordedInt(operation(int(left), int(right)), graph.call_function(operation, nodes))

    return apply, lambda right, left: apply(left, right)


class RecordedLayer(NamedTuple):
    """A submodule, or the module itself, the call whose result is read, and what picks the tensor of that result."""

    module: nn.Module
    call: int
    tensor: Callable[[Any], Tensor | None]


class RecordedInt(int):
    """A number that changes with the number of pictures, and the node that computes it."""

    node: fx.Node

    def __new__(cls, value: int, node: fx.Node) -> RecordedInt:
        """Bind a value to its node."""
        number = super().__new__(cls, value)
        number.node = node
        return number

    __add__, __radd__ = _operators(operator.add)
    __sub__, __rsub__ = _operators(operator.sub)
    __mul__, __rmul__ = _operators(operator.mul)
    __floordiv__, __rfloordiv__ = _operators(operator.floordiv)
    __mod__, __rmod__ = _operators(operator.mod)


class CallRecorder(TorchFunctionMode):
    """Record every call that depends on the pictures; the results of all others are constants of the graph.

    Args:
        module: a private copy of a network.
        layers: that are read; the forward ends behind the last of them.
        shapes: of a recorder that saw the same forward with another number of pictures: sizes that differ are recorded
            as computed. None records all of them as constants.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[RecordedLayer],
        shapes: Sequence[Sequence[torch.Size]] | None = None,
    ) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.attributes: dict[str, Any] = {}  # modules and constants of the graph, by name
        self.results: dict[int, fx.Node | None] = {}  # by index of the layer
        self.shapes: list[list[torch.Size]] = []  # of the results of each call
        self._module, self._other_shapes = module, shapes
        self._layers, self._calls_left = layers, [layer.call for layer in layers]
        self._paths = {id(part): path for path, part in module.named_modules()}
        # Modules of torch that hold a layer are recorded call by call.
        read = {id(layer.module) for layer in layers}
        self._opened = {
            id(part) for part in module.modules() if read & {id(inner) for inner in part.modules()} - {id(part)}
        }
        self._nodes: dict[int, tuple[fx.Node, Tensor, list[int]]] = {}  # by id of the tensor, with axes that vary
        self._constants: dict[int, tuple[fx.Node, Tensor]] = {}
        self._paused = False

    def record(self, pictures: Tensor) -> None:
        """Run the forward on pictures (N, C, H, W).

        Raises:
            UntraceableError: when it asks for the values of a tensor, or depends on the number of pictures.
        """
        parts = list(self._module.modules())
        for part in parts:
            vars(part)["_compiled_call_impl"] = partial(self._call_module, part)  # as nn.Module.compile does
        try:
            self.shapes.append([pictures.shape])
            self._remember(pictures, self.graph.placeholder("pictures"))
            with self, suppress(LastLayerReached):
                self._module(pictures)
        finally:
            for part in parts:
                vars(part)["_compiled_call_impl"] = None

    def _call_module(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self._paused or not self._is_leaf(module):
            result = module._call_impl(*args, **kwargs)
        else:
            self._paused = True
            try:
                result = module._call_impl(*args, **kwargs)
                path = self._paths[id(module)]
                self.attributes[path] = module
                self._record(partial(self.graph.call_module, path), result, args, kwargs)
            finally:
                self._paused = False
        for index, layer in enumerate(self._layers):
            if layer.module is module:
                self._calls_left[index] -= 1
                if self._calls_left[index] == 0:
                    self.results[index] = self._nodes.get(id(layer.tensor(result)), (None,))[0]
        if len(self.results) == len(self._layers):
            raise LastLayerReached
        return result

    def _is_leaf(self, module: nn.Module) -> bool:
        """Say whether a module is one node: those of torch, but for norms, which may be folded."""
        if id(module) in self._opened or isinstance(module, nn.Sequential) or hasattr(module, "running_var"):
            return False
        return isinstance(module, StridedConv2d) or type(module).__module__.startswith(_LEAVES)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and record it."""
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if self._paused:
            return func(*args, **kwargs)
        if func is Tensor.__iter__:
            return iter(self.__torch_function__(torch.unbind, types, args))
        result = func(*args, **kwargs)
        if func is Tensor.size or getattr(func, "__self__", None) is Tensor.shape:
            sizes = self._recorded_sizes(args[0])
            return sizes if isinstance(result, torch.Size) else sizes[(*args, *kwargs.values())[1]]
        if name == "__get__":
            args, create = (*args, func.__self__.__name__), partial(self.graph.call_function, getattr)
        elif getattr(Tensor, name, None) is func:
            # Operations in place are recorded out of place: what they overwrite may be a layer that is read.
            out_of_place = name.removesuffix("_")
            create = partial(self.graph.call_method, out_of_place if hasattr(Tensor, out_of_place) else name)
        else:
            create = partial(self.graph.call_function, func)
        # A new tensor takes only its type and device from the one whose method is called.
        depends = self._depends((args[1:] if name.startswith("new_") else args, kwargs))
        if not self._record(create, result, args, kwargs, depends) and depends and name not in _METADATA:
            raise UntraceableError(f"{name} asks for the values of a tensor")
        return result

    def _record(
        self, create: Callable[..., fx.Node], result: Any, args: Any, kwargs: Any, depends: bool | None = None
    ) -> bool:
        """Create a node for a call that depends on the pictures and gives tensors, and say whether it is such a call."""
        tensors = list(_tensors(result))
        self.shapes.append([tensor.shape for _, tensor in tensors])
        if not tensors or not (self._depends((args, kwargs)) if depends is None else depends):
            return False
        positional, named = map_aggregate((tuple(args), dict(kwargs)), self._argument)
        node = create(tuple(positional), {**named, "inplace": False} if "inplace" in named else dict(named))
        for index, (keys, tensor) in enumerate(tensors):
            part = node
            for key in keys:
                part = self.graph.call_function(operator.getitem, (part, key))
            self._remember(tensor, part, index)
        return True

    def _remember(self, tensor: Tensor, node: fx.Node, index: int = 0) -> None:
        """Bind a tensor, of this index in the results of the present call, to its node."""
        axes: list[int] = []
        if self._other_shapes is not None:
            shapes = self._other_shapes[len(self.shapes) - 1] if len(self.shapes) <= len(self._other_shapes) else []
            if index >= len(shapes) or len(shapes[index]) != tensor.ndim:
                raise UntraceableError("the forward depends on the number of pictures")
            axes = [axis for axis, length in enumerate(shapes[index]) if length != tensor.shape[axis]]
        self._nodes[id(tensor)] = node, tensor, axes

    def _recorded_sizes(self, tensor: Tensor) -> torch.Size:
        node, _, axes = self._nodes.get(id(tensor), (None, None, []))
        sizes: list[int] = list(tensor.shape)
        for axis in axes:
            sizes[axis] = RecordedInt(sizes[axis], self.graph.call_method("size", (node, axis)))
        return torch.Size(sizes)

    def _depends(self, arguments: Any) -> bool:
        """Say whether arguments hold what depends on the pictures."""
        depends = False

        def look(value: Any) -> Any:
            nonlocal depends
            depends = depends or isinstance(value, RecordedInt) or id(value) in self._nodes
            return value

        map_aggregate(arguments, look)
        return depends

    def _argument(self, value: Any) -> Any:
        """Return what stands for an argument in the graph."""
        if isinstance(value, RecordedInt):
            return value.node
        if not isinstance(value, Tensor):
            return value
        if id(value) in self._nodes:
            return self._nodes[id(value)][0]
        if id(value) not in self._constants:
            name = f"constant_{len(self._constants)}"
            self.attributes[name] = value
            self._constants[id(value)] = self.graph.create_node("get_attr", name), value
        return self._constants[id(value)][0]


def _tensors(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Yield the tensors of nested containers, each with the keys that lead to it."""
    if isinstance(value, Tensor):
        yield keys, value
    elif isinstance(value, (tuple, list, Mapping)):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(part, (*keys, key))
