"""Traced networks: what a run reads of a network, with only the operations that lead there and in a faster order.

A run passes hundreds of times through one network for the same layers, with gradients by the picture and none by the
weights. Most of what a forward does in such a pass can be left out or be done once:

1. **Recording** (`call_recorder`). The private copy of the network runs on noise, first on one picture and then on two,
   while a ``TorchFunctionMode``, which only this thread sees, notes every call of torch that depends on the pictures.
   Sizes that differ between the two runs depend on the number of pictures, and are recorded as they are computed. All
   else is done once: branches, loops over sizes, tables of positions, weights that are computed from weights.
   Modules of torch become one node each; batch norms become the call of ``batch_norm`` that they make.
2. **Simplifying.** What does not lead to the layers goes. Batch norms, and products and sums with a constant for each
   channel, are folded into the convolution before them. Rectifiers come after concatenations and max pools instead of
   before: the same values and gradients, with a fraction of the elements. They overwrite their input where nothing else
   needs it.
3. **Strided convolutions** (`strided_conv`). The wide first convolution takes its gradient through blocks of pixels.
4. **Checking.** On a picture of noise, values and gradients must be those of the network's own forward, up to rounding.

Under autocast, weights are cast once and not in each pass. A graph belongs to layers and a size of pictures; the reader
keeps it for the run. Where a forward asks for the values of a tensor, where hooks watch the network or where the check
fails, the network runs as it is and an exception ends the pass behind the deepest layer. So do passes without
gradients, under gradient rules, and while ``torch.jit.trace`` records: they are few.

SqueezeNet up to ``features.9`` at 224 pixels on one thread takes 63.0 ms for a forward and backward so, 78.9 ms without
tracing, 72.4 ms with rectifiers where they were, 81.1 ms without the strided form and 81.5 ms with neither.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from featviz_pl.networks.call_recorder import CallRecorder, RecordedLayer
from featviz_pl.networks.strided_conv import StridedConv2d

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, StridedConv2d)
_BATCH_NORM = inspect.signature(functional.batch_norm)
# Folding reorders sums; a difference of more than this share of the largest value is another function.
_TOLERANCES, _REDUCED_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}, 0.05
_GRADIENT_TOLERANCE = 0.02  # of the norm, in less than double precision

Read = Callable[[Tensor], Sequence[Tensor]]


def traced(module: nn.Module, layers: Sequence[RecordedLayer], read: Read, like: Tensor) -> fx.GraphModule | None:
    """Return a function from pictures to the results of layers, or None where the network cannot be traced.

    Args:
        module: a private copy in evaluation mode, whose parameters the function shares.
        layers: that are read.
        read: returns the results of the layers from a full forward.
        like: pictures as the network takes them (N, C, H, W).
    """
    if any(_hooked(part) for part in module.modules()):
        return None
    try:
        with torch.autocast(like.device.type, enabled=False):
            reader = _simplified(_recorded(module, layers, like))
            return reader if _agrees(reader, read, like) else None
    except Exception:  # the forward is the user's: whatever it raises, the network then runs as it is
        return None


def _hooked(module: nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def _recorded(module: nn.Module, layers: Sequence[RecordedLayer], like: Tensor) -> fx.GraphModule:
    pictures = _noise(2, like)
    single = CallRecorder(module, layers)
    single.record(pictures[:1].clone().requires_grad_(True))
    recorder = CallRecorder(module, layers, single.shapes)
    recorder.record(pictures.requires_grad_(True))
    recorder.graph.output(tuple(recorder.results[index] for index in range(len(layers))))
    return fx.GraphModule(recorder.attributes, recorder.graph)


def _noise(count: int, like: Tensor) -> Tensor:
    noise = torch.rand(count, *like.shape[1:], generator=torch.Generator().manual_seed(0)).to(like)
    return noise.contiguous(memory_format=torch.channels_last)


def _simplified(reader: fx.GraphModule) -> fx.GraphModule:
    reader.graph.eliminate_dead_code()
    _fold(reader)
    _rectify_late(reader)
    _rectify_in_place(reader)
    return _finished(reader)


def _finished(reader: fx.GraphModule) -> fx.GraphModule:
    """Generate the code; the graph then need not refer to the module, which would be a cycle."""
    reader.graph.eliminate_dead_code()
    reader.delete_all_unused_submodules()
    reader.recompile()
    reader.graph.owning_module = None
    return reader


def _fold(reader: fx.GraphModule) -> None:
    """Fold affine maps of channels that alone use a convolution into its weights."""
    for index, node in enumerate(list(reader.graph.nodes)):
        source = next((argument for argument in node.args[:2] if _calls(argument, reader, *_CONVOLUTIONS)), None)
        if source is None or len(source.users) > 1:
            continue
        convolution = reader.get_submodule(source.target)
        weights = _folded_weights(node, source, convolution, reader)
        if weights is not None:
            folded = copy.copy(convolution)
            folded._parameters = {"weight": weights[0], "bias": weights[1]}
            source.target = f"folded_{index}"
            reader.add_submodule(source.target, folded)
            node.replace_all_uses_with(source)
            reader.graph.erase_node(node)


def _folded_weights(
    node: fx.Node, source: fx.Node, convolution: Any, reader: nn.Module
) -> Sequence[nn.Parameter] | None:
    """Return the weights of a convolution that includes the next operation, or None where that is not affine."""
    weight, bias = convolution.weight, convolution.bias
    arguments: dict[Any, Any] = dict(enumerate(node.args)) | node.kwargs
    if node.target is functional.batch_norm:
        arguments = dict(_BATCH_NORM.bind(*node.args, **node.kwargs).arguments)
    values = {name: _constant(value, reader) for name, value in arguments.items() if value is not source}
    if weight.dtype not in _TOLERANCES or any(isinstance(value, fx.Node) for value in values.values()):
        return None
    if node.target is functional.batch_norm:
        if values.get("training") or values["running_var"] is None:
            return None
        statistics = values["running_mean"], values["running_var"], values.get("eps", 1e-5)
        return fuse_conv_bn_weights(weight, bias, *statistics, values.get("weight"), values.get("bias"))
    name, axes = getattr(node.target, "__name__", node.target), weight.ndim - 2
    (value,) = values.values() if len(values) == 1 else (None,)
    if not isinstance(value, Tensor) or value.dtype != weight.dtype or value.ndim <= axes:
        return None
    if value.shape[-axes - 1] != value.numel() or value.numel() not in (1, len(weight)):
        return None
    value, bias = value.reshape(-1), weight.new_zeros(len(weight)) if bias is None else bias
    if name in ("mul", "__mul__", "__rmul__", "__imul__"):
        weight, bias = weight * value.view(-1, *[1] * (axes + 1)), bias * value
    elif name in ("add", "__add__", "__radd__", "__iadd__"):
        bias = bias + value
    else:
        return None
    return [nn.Parameter(tensor, requires_grad=False) for tensor in (weight, bias)]


def _constant(value: Any, reader: nn.Module) -> Any:
    return getattr(reader, str(value.target)) if isinstance(value, fx.Node) and value.op == "get_attr" else value


def _rectify_late(reader: fx.GraphModule) -> None:
    """Rectify maps after they are joined, and after they are pooled.

    Rectifying does not change which value of a window is the largest, except where none is above 0, and there no
    gradient passes.
    """
    for node in list(reader.graph.nodes):
        joined = list(node.args[0]) if node.target is torch.cat and isinstance(node.args[0], (list, tuple)) else []
        if joined and all(_has_one_user(part) and _is_rectifier(part, reader) for part in joined):
            node.args = ([part.args[0] for part in joined], *node.args[1:])
            _rectify_after(node, joined)
    for node in list(reader.graph.nodes):
        if _calls(node, reader, nn.MaxPool2d) and not reader.get_submodule(node.target).return_indices:
            rectifier = node.args[0]
            if _has_one_user(rectifier) and _is_rectifier(rectifier, reader):
                node.args = (rectifier.args[0],)
                _rectify_after(node, [rectifier])


def _rectify_after(node: fx.Node, rectifiers: Sequence[fx.Node]) -> None:
    with node.graph.inserting_after(node):
        rectified = node.graph.call_function(torch.relu, (node,))
    node.replace_all_uses_with(rectified, delete_user_cb=lambda user: user is not rectified)
    for rectifier in dict.fromkeys(rectifiers):
        node.graph.erase_node(rectifier)


def _rectify_in_place(reader: fx.GraphModule) -> None:
    """Let rectifiers overwrite results that nothing else uses, and that no gradient needs."""
    for node in list(reader.graph.nodes):
        source: Any = node.args[0] if _is_rectifier(node, reader) else None
        if _has_one_user(source) and (
            source.target is torch.cat or _calls(source, reader, *_CONVOLUTIONS, nn.MaxPool2d)
        ):
            with reader.graph.inserting_before(node):
                node.replace_all_uses_with(reader.graph.call_function(torch.relu_, (source,)))
            reader.graph.erase_node(node)


def _calls(node: Any, reader: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Say whether a node calls a module of one of these classes with one argument."""
    is_call = isinstance(node, fx.Node) and node.op == "call_module" and len(node.args) == 1
    return is_call and type(reader.get_submodule(str(node.target))) in kinds


def _is_rectifier(node: fx.Node, reader: nn.Module) -> bool:
    return _calls(node, reader, nn.ReLU) or node.target in (torch.relu, functional.relu, "relu")


def _has_one_user(node: Any) -> bool:
    return isinstance(node, fx.Node) and len(node.users) == 1


def in_less_precision(
    reader: fx.GraphModule, read: Read, like: Tensor, cast: dict[tuple[int, torch.dtype], nn.Module]
) -> fx.GraphModule | None:
    """Return the same function, under the caller's autocast, with weights that are cast once and not in every step.

    The values are the same, bit for bit. None where the network's own have another precision: a trace does not see a
    forward that switches autocast off.

    Args:
        reader: from `traced`, which stays as it is.
        read: returns the results of the layers from a full forward.
        like: pictures as the network takes them (N, C, H, W).
        cast: modules with weights in less precision, for other readers of the network, by the id of the module that
            each replaces and the precision.
    """
    dtype = torch.get_autocast_dtype(like.device.type)
    with torch.inference_mode(False), torch.no_grad():
        if [value.dtype for value in read(like.detach()[:1])] != [value.dtype for value in reader(like.detach()[:1])]:
            return None
        reduced = fx.GraphModule(reader, copy.deepcopy(reader.graph))
        for index, node in enumerate(reduced.graph.nodes):
            if _calls(node, reduced, *_CONVOLUTIONS, nn.Linear):
                module = reduced.get_submodule(node.target)
                if (id(module), dtype) not in cast:
                    cast[id(module), dtype] = _with_weights_in(module, dtype)
                node.target = f"reduced_{index}"
                reduced.add_submodule(node.target, cast[id(module), dtype])
    return _finished(reduced)


def _with_weights_in(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy whose weights autocast need not cast; like autocast, it leaves float64 as it is."""
    reduced = copy.copy(module)
    reduced._parameters = {
        name: weight
        if weight is None or weight.dtype == torch.float64
        else nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        for name, weight in module._parameters.items()
    }
    return reduced


def _agrees(reader: Read, read: Read, like: Tensor) -> bool:
    """Compare values and gradient with the network's own, on a picture of noise that is the same in every run.

    Rounding may turn a rectifier near 0 on or off, or pick another maximum of a window: values then stay, and single
    numbers of the gradient differ by as much as they are. Its norm hardly does.
    """
    noise, tolerance = _noise(1, like), _TOLERANCES.get(like.dtype, _REDUCED_TOLERANCE)
    (*values, gradient), (*expected, expected_gradient) = (_values_and_gradient(f, noise) for f in (reader, read))
    error, norm = (torch.linalg.vector_norm(x.double()) for x in (gradient - expected_gradient, expected_gradient))
    share = max(tolerance, _GRADIENT_TOLERANCE) if like.dtype != torch.float64 else tolerance
    return bool(error <= share * norm) and all(_is_close(*pair, tolerance) for pair in zip(values, expected))


def _values_and_gradient(read: Read, noise: Tensor) -> list[Tensor]:
    noise = noise.clone().requires_grad_(True)
    values = list(read(noise))
    # Weights of both signs: the plain sum of a normalised layer does not change with its input.
    weights = [
        torch.linspace(-1, 1, value.numel(), dtype=value.dtype, device=value.device).view(value.shape)
        for value in values
    ]
    (gradient,) = torch.autograd.grad(values, noise, weights)
    return [*values, gradient]


def _is_close(actual: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Compare shape, type and values, which differ by a share of the largest at most; False where one is not finite."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    return bool((actual - expected).detach().abs().amax() <= tolerance * expected.detach().abs().amax())
