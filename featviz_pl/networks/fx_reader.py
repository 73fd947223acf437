"""A network without what a run does not need: only the operations that lead to its layers, batch norms folded into convolutions."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from featviz_pl.networks.strided_conv import StridedConv2d

_FOLDED = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CAST = (*_FOLDED, StridedConv2d, nn.Linear)  # what autocast runs in less precision, and that holds weights
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Folding reorders sums; a difference of more than this share of the largest value is another function.
_TOLERANCES, _REDUCED_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}, 0.05

Read = Callable[[Tensor], Sequence[Tensor]]


class _Tracer(fx.Tracer):
    """Record a forward, and what each module gave last."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[int, Any] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, StridedConv2d) or bool(super().is_leaf_module(m, module_qualified_name))

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.given[id(m)] = result = super().call_module(m, forward, args, kwargs)
        return result


def traced(module: nn.Module, layers: Sequence[nn.Module], read: Read, like: Tensor) -> fx.GraphModule | None:
    """Return a function from pictures to the tensors that layers give last, or None where the network cannot be traced.

    It shares the modules of the network, is tried on a picture of noise, and taken only where its results and its
    gradient are those of the network: ``torch.fx`` does not see everything that a forward may do.

    Args:
        module: a private copy in evaluation mode.
        layers: submodules, or the module itself.
        read: gives what the layers give, from a full forward.
        like: pictures as the network takes them (N, C, H, W).
    """
    if any(_hooked(part) for part in module.modules()):  # somebody wants to see, or change, every pass
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader = _reader(module, layers)
        except Exception:  # a path that depends on the input, a library that fx cannot see into: whatever it is, the network runs as it is
            return None
    return reader if reader is not None and _agrees(reader, read, like) else None


def _reader(module: nn.Module, layers: Sequence[nn.Module]) -> fx.GraphModule | None:
    tracer = _Tracer()
    graph = tracer.trace(module)
    (output,) = [node for node in graph.nodes if node.op == "output"]
    given = [
        output.args[0] if layer is module else getattr(tracer.given.get(id(layer)), "node", None) for layer in layers
    ]
    vars(
        tracer
    ).clear()  # what it was given holds it, and it the network: they would stay until Python looks for cycles
    nodes = [node for node in given if isinstance(node, fx.Node)]
    if len(nodes) < len(layers):
        return None
    with graph.inserting_before(output):
        graph.output(tuple(nodes))
    graph.erase_node(output)
    for node in list(graph.nodes):
        if node.target is torch._assert:  # it has been passed once, and would keep what it looks at
            graph.erase_node(node)
    reader = fx.GraphModule(module, graph)
    reader.graph.eliminate_dead_code()
    _fold(reader)
    _rectify_late(reader)
    _rectify_in_place(reader)
    return _finished(reader)


def _finished(reader: fx.GraphModule) -> fx.GraphModule:
    """Make the code of a graph, which then need not hold the module that holds it."""
    reader.delete_all_unused_submodules()
    reader.recompile()
    reader.graph.owning_module = None
    return reader


def _fold(reader: fx.GraphModule) -> None:
    """Fold every batch norm that follows a convolution, and alone does, into its weights."""
    calls = [node for node in reader.graph.nodes if node.op == "call_module"]
    held = {node: reader.get_submodule(node.target) for node in calls}
    often = Counter(held.values())
    for place, norm in enumerate(calls):
        convolution = norm.args[0] if len(norm.args) == 1 else None
        if (
            not isinstance(convolution, fx.Node)
            or convolution not in held
            or len(convolution.users) > 1
            or often[held[convolution]] > 1
        ):
            continue
        if _can_be_folded(held[convolution], held[norm]):
            name = f"folded_{place}"
            reader.add_submodule(name, fuse_conv_bn_eval(held[convolution], held[norm]))  # type: ignore[type-var, arg-type]
            convolution.target = name
            norm.replace_all_uses_with(convolution)
            reader.graph.erase_node(norm)


def _rectify_late(reader: fx.GraphModule) -> None:
    """Join maps before they are rectified, and pool them too: the same values and gradients, with a fraction of the work.

    Rectifying does not change which value of a window is the largest, but where none is above 0, and no gradient passes
    there anyway.
    """
    for node in list(reader.graph.nodes):
        joined = (
            list(node.args[0])
            if node.target is torch.cat and node.args and isinstance(node.args[0], (list, tuple))
            else []
        )
        if joined and all(_is_read_once(one) and _is_rectifier(one, reader) for one in joined):
            node.args = ([one.args[0] for one in joined], *node.args[1:])
            _rectify_after(node, joined)
    for node in list(reader.graph.nodes):
        if _calls(node, reader, nn.MaxPool2d) and not reader.get_submodule(node.target).return_indices:
            before = node.args[0]
            if _is_read_once(before) and _is_rectifier(before, reader):
                node.args = (before.args[0],)
                _rectify_after(node, [before])


def _rectify_after(node: fx.Node, instead_of: Sequence[fx.Node]) -> None:
    with node.graph.inserting_after(node):
        rectified = node.graph.call_function(torch.relu, (node,))
    node.replace_all_uses_with(rectified, delete_user_cb=lambda user: user is not rectified)
    for replaced in dict.fromkeys(instead_of):
        node.graph.erase_node(replaced)


def _rectify_in_place(reader: fx.GraphModule) -> None:
    """Let rectifiers write over results that nobody else reads, and that no gradient needs."""
    for node in list(reader.graph.nodes):
        if not _is_rectifier(node, reader):
            continue
        before = node.args[0]
        if _is_read_once(before) and (
            before.target is torch.cat or _calls(before, reader, *_FOLDED, StridedConv2d, nn.MaxPool2d)
        ):
            with reader.graph.inserting_before(node):
                node.replace_all_uses_with(reader.graph.call_function(torch.relu_, (before,)))
            reader.graph.erase_node(node)


def _calls(node: fx.Node, reader: nn.Module, *kinds: type[nn.Module]) -> bool:
    return node.op == "call_module" and type(reader.get_submodule(str(node.target))) in kinds and len(node.args) == 1


def _is_rectifier(node: fx.Node, reader: nn.Module) -> bool:
    return _calls(node, reader, nn.ReLU) or (node.op == "call_function" and node.target is torch.relu)


def _is_read_once(node: Any) -> bool:
    """Say whether an argument is a node that nothing else reads."""
    return isinstance(node, fx.Node) and len(node.users) == 1


def in_less_precision(
    reader: fx.GraphModule, read: Read, like: Tensor, cast: dict[tuple[int, torch.dtype], nn.Module]
) -> fx.GraphModule | None:
    """Return the same function, under the caller's autocast, with weights that are cast once and not in every step.

    The values are the same, bit for bit. None where the network's own have another precision: a trace does not see a
    forward that switches autocast off.

    Args:
        reader: from `traced`, which stays as it is.
        read: gives what the layers give, from a full forward.
        like: pictures as the network takes them (N, C, H, W).
        cast: keeps the modules that are made, by the one that each stands for and the precision, for other readers of
            the network.
    """
    dtype = torch.get_autocast_dtype(like.device.type)
    with torch.inference_mode(False), torch.no_grad():
        if [value.dtype for value in read(like.detach()[:1])] != [value.dtype for value in reader(like.detach()[:1])]:
            return None
        made = fx.GraphModule(reader, copy.deepcopy(reader.graph))
        for place, node in enumerate(made.graph.nodes):
            if _calls(node, made, *_CAST):
                own = made.get_submodule(node.target)
                if (id(own), dtype) not in cast:
                    cast[id(own), dtype] = _with_weights_in(own, dtype)
                node.target = f"reduced_{place}"
                made.add_submodule(node.target, cast[id(own), dtype])
    return _finished(made)


def _with_weights_in(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy whose weights autocast need not cast; like autocast, it leaves float64 alone."""
    made = copy.copy(module)
    made._parameters = {
        name: own
        if own is None or own.dtype == torch.float64
        else nn.Parameter(own.detach().to(dtype), requires_grad=False)
        for name, own in module._parameters.items()
    }
    return made


def _can_be_folded(convolution: nn.Module, norm: nn.Module) -> bool:
    if type(convolution) not in (*_FOLDED, StridedConv2d) or type(norm) not in _NORMS:
        return False
    if getattr(norm, "running_var", None) is None:
        return False
    weight = convolution.weight
    return isinstance(weight, Tensor) and weight.dtype in _TOLERANCES


def _hooked(module: nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def _agrees(reader: Read, read: Read, like: Tensor) -> bool:
    """Compare values and gradient with the network's own, on noise that is the same in every run."""
    noise = torch.rand(1, *like.shape[1:], generator=torch.Generator().manual_seed(0)).to(like)
    tolerance = _TOLERANCES.get(like.dtype, _REDUCED_TOLERANCE)
    with torch.autocast(like.device.type, enabled=False):
        try:
            own, its = values_and_gradient(read, noise), values_and_gradient(reader, noise)
        except Exception:
            return False
    return all(_close(one, other, tolerance) for one, other in zip(own, its))


def values_and_gradient(read: Read, noise: Tensor) -> list[Tensor]:
    """Return what is read of a batch of noise, and a gradient by it."""
    noise = noise.contiguous(memory_format=torch.channels_last).clone().requires_grad_(True)
    values = list(read(noise))
    # Weights of both signs: the plain sum of a normalised layer does not change with its input.
    weights = [
        torch.linspace(-1, 1, value.numel(), dtype=value.dtype, device=value.device).view(value.shape)
        for value in values
    ]
    (gradient,) = torch.autograd.grad(values, noise, weights)
    return [*values, gradient]


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    difference, largest = (one - other).detach().abs().amax(), one.detach().abs().amax()
    return bool(difference <= tolerance * largest)  # False too where something is not finite
