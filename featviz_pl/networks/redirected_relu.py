"""A gradient rule for pictures that fire no unit yet: let the gradient through rectifiers that are off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.networks.gradient_rules import GradientRules, Rules


class _RedirectedRectifier(torch.autograd.Function):
    """Rectify; samples to whose inputs no gradient would pass get the part of it that turns inputs on.

    What is kept and computed on the way are masks: whole networks are gone through once more, beside what a step holds
    already.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float | None) -> Tensor:
        _keep_masks(ctx, x, low, high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (closed, below, *above), (gradient,) = ctx.saved_tensors, gradients
        # The loss falls along -gradient: below the lower bound a negative gradient pushes the input up, back into the
        # open range.
        blocked = below & (gradient > 0)
        if above:
            blocked |= above[0] & (gradient < 0)
        passes = (gradient != 0) & ~closed
        dead = ~passes.reshape(len(passes), -1).any(1).view(-1, *[1] * (passes.ndim - 1))
        return gradient.masked_fill(torch.where(dead, blocked, closed), 0.0), None, None


class _RedirectedRectifierInPlace(_RedirectedRectifier):
    """Write the result over the input, for callers that go on with the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float | None) -> Tensor:
        _keep_masks(ctx, x, low, high)
        ctx.mark_dirty(x)
        return x.clamp_(low, high)


def _keep_masks(ctx: Any, x: Tensor, low: float, high: float | None) -> None:
    """Keep where the rectifier is closed, and where its input lies below and, if there is an upper bound, above the open range."""
    ctx.save_for_backward(*((x <= low, x < low) if high is None else ((x <= low) | (x >= high), x < low, x > high)))


def _rectified(x: Tensor, low: float, high: float | None, inplace: bool) -> Any:
    return (_RedirectedRectifierInPlace if inplace else _RedirectedRectifier).apply(x, low, high)


def _relu(input: Tensor, inplace: bool = False) -> Any:  # noqa: A002 - torch's name, and callers use it
    return _rectified(input, 0.0, None, inplace)


def _relu_(input: Tensor) -> Any:  # noqa: A002
    return _rectified(input, 0.0, None, True)


def _relu6(input: Tensor, inplace: bool = False) -> Any:  # noqa: A002
    return _rectified(input, 0.0, 6.0, inplace)


def _hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:  # noqa: A002
    return _rectified(input, min_val, max_val, inplace)


_RULES: Rules = {
    functional.relu: _relu,
    torch.relu: _relu,
    torch.relu_: _relu_,
    Tensor.relu: _relu,
    Tensor.relu_: _relu_,
    functional.relu6: _relu6,
    functional.hardtanh: _hardtanh,
}


@contextmanager
def redirected_relu() -> Iterator[None]:
    """Let rectifiers that are off pass the gradient that would turn them on, inside this context and on any network.

    Only in samples where a rectifier would pass no gradient at all: there, for x < 0, ``d loss / d x`` is kept where it
    is negative (a step against it raises x) and dropped where it is positive; ReLU6 and hard tanh treat their upper
    bound likewise. The forward pass is unchanged. As Lucid does, the run uses it in the first 16 steps, and only for
    pictures whose whole gradient is zero.

    Example:
        >>> x = torch.tensor([-1.0], requires_grad=True)
        >>> with redirected_relu():
        ...     (-torch.relu(x)).sum().backward()
        >>> x.grad.item()
        -1.0

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (lucid/misc/redirected_relu_grad.py)
    """
    with GradientRules(_RULES):
        yield
