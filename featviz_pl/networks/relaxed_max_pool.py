"""A gradient rule for attribution: let the gradient of a maximum reach everything that the maximum was taken over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.networks.gradient_rules import GradientRules

_EPSILON = 1e-2  # Lucid's: windows much quieter than this pass little gradient
_AVERAGES: dict[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_ADAPTIVE_AVERAGES: dict[int, Any] = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}

# Averages values over every window; the second argument is the number of windows along each axis.
_Mean = Callable[[Tensor, Sequence[int]], Tensor]


def _smoothed(x: Tensor, mean: _Mean, size: Sequence[int]) -> Tensor:
    """Return Lucid's smooth pooling, ``avg(x^2) / (0.01 + avg(|x|))``; -inf is padding and counts in no average."""
    padding = x == -torch.inf
    values = x.to(torch.promote_types(x.dtype, torch.float32)).masked_fill(padding, 0.0)
    share = mean(
        (~padding).to(values.dtype), size
    )  # of each window that counts: averages over the others are sums over it
    return mean(values**2, size) / (_EPSILON * share + mean(values.abs(), size)).masked_fill(share == 0, 1.0)


class _RelaxedMaximum(torch.autograd.Function):
    """Pool as asked; pass the gradient of the smooth pooling over the same windows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: Callable[[Tensor], Any], mean: _Mean, axes: int) -> Any:
        ctx.save_for_backward(x)
        ctx.mean, ctx.axes = mean, axes
        result = pool(x)
        if isinstance(result, tuple):  # with indices
            ctx.mark_non_differentiable(result[1])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,), gradient, again = ctx.saved_tensors, gradients[0], torch.is_grad_enabled()
        with torch.enable_grad():
            smooth = _smoothed(x, ctx.mean, gradient.shape[-ctx.axes :])
        (relaxed,) = torch.autograd.grad(smooth, x, gradient.to(smooth.dtype), create_graph=again)
        return relaxed, None, None, None


def _pooled(pool: Callable[..., Any], axes: int, input: Tensor, kernel_size: Any, *rest: Any, **more: Any) -> Any:  # noqa: A002
    mean = _mean(axes, kernel_size, *rest, **more)
    return _RelaxedMaximum.apply(input, lambda x: pool(x, kernel_size, *rest, **more), mean, axes)


def _mean(
    axes: int,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> _Mean:
    """Return the average over the windows of a max pool with these arguments."""
    kernel, padding, dilation = _listed(kernel_size, axes), _listed(padding, axes), _listed(dilation, axes)
    stride = _listed(stride, axes) or kernel
    if max(dilation) > 1:
        return partial(_dilated_mean, kernel, stride, padding, dilation)

    def mean(values: Tensor, size: Sequence[int]) -> Tensor:
        # What lies outside is never the maximum, and counts in no average: so do TensorFlow's pools.
        averages: Tensor = _AVERAGES[axes](values, kernel, stride, padding, ceil_mode, count_include_pad=False)
        return averages

    return mean


def _listed(value: Any, axes: int) -> list[int]:
    """Return one number for each axis, none where nothing is given."""
    if value is None:
        return []
    return [value] * axes if isinstance(value, int) else list(value) * (axes if len(value) == 1 else 1)


def _dilated_mean(
    kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], values: Tensor, size: Sequence[int]
) -> Tensor:
    """Average over windows with gaps, which average pools of torch do not have; what lies outside is 0."""
    pads: list[int] = []
    for length, count, k, s, p, d in zip(values.shape[-len(size) :], size, kernel, stride, padding, dilation):
        pads = [p, max(0, (count - 1) * s + (k - 1) * d + 1 - length - p), *pads]  # the last axis comes first
    padded = functional.pad(values, pads)
    total = values.new_zeros(())
    for offsets in product(*[range(0, k * d, d) for k, d in zip(kernel, dilation)]):
        window: list[Any] = [
            slice(first, first + (count - 1) * s + 1, s) for first, count, s in zip(offsets, size, stride)
        ]
        total = total + padded[(..., *window)]
    return total / math.prod(kernel)


def _adaptively_pooled(
    pool: Callable[..., Any],
    axes: int,
    input: Tensor,  # noqa: A002
    output_size: Any,
    *rest: Any,
    **more: Any,
) -> Any:
    return _RelaxedMaximum.apply(input, lambda x: pool(x, output_size, *rest, **more), _ADAPTIVE_AVERAGES[axes], axes)


_POOLS: dict[int, list[Any]] = {
    1: [functional.max_pool1d, functional.max_pool1d_with_indices, torch.max_pool1d, torch.max_pool1d_with_indices],
    2: [functional.max_pool2d, functional.max_pool2d_with_indices, torch.max_pool2d],
    3: [functional.max_pool3d, functional.max_pool3d_with_indices, torch.max_pool3d],
}
_ADAPTIVE_POOLS: dict[int, list[Any]] = {
    1: [functional.adaptive_max_pool1d, functional.adaptive_max_pool1d_with_indices, torch.adaptive_max_pool1d],
    2: [functional.adaptive_max_pool2d, functional.adaptive_max_pool2d_with_indices],
    3: [functional.adaptive_max_pool3d, functional.adaptive_max_pool3d_with_indices],
}
_RULES = {pool: partial(_pooled, pool, axes) for axes, pools in _POOLS.items() for pool in pools} | {
    pool: partial(_adaptively_pooled, pool, axes) for axes, pools in _ADAPTIVE_POOLS.items() for pool in pools
}


@contextmanager
def relaxed_max_pool() -> Iterator[None]:
    """Let the gradient of max pooling reach the whole window, inside this context and on any network.

    The gradient is that of ``avg(x^2) / (0.01 + avg(|x|))`` over the same windows, a smooth pooling in which large
    values count more, instead of that of ``max(x)``, which reaches one value and jumps from it to another. The forward
    pass is unchanged. Lucid's rule for attribution; it can be nested with `redirected_relu`, and a whole run can be
    made inside it. Covers max pooling over one to three axes, adaptive or not, as functions and as modules; fractional
    pooling and plain maxima stay as they are.

    Example:
        >>> x = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
        >>> with relaxed_max_pool():
        ...     pooled = torch.nn.functional.max_pool1d(x, 2)
        >>> pooled.sum().backward()
        >>> pooled.item(), [round(value, 3) for value in x.grad.flatten().tolist()]
        (2.0, [0.114, 0.776])

    Reference:
        Olah et al., "The Building Blocks of Interpretability", Distill, 2018
        (lucid/optvis/overrides/smoothed_maxpool_grad.py, "L2")
    """
    with GradientRules(_RULES):
        yield
