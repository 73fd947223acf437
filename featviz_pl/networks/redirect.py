"""A gradient rule for pictures that fire no unit yet: let the gradient through rectifiers that are off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class _RedirectedRectifier(torch.autograd.Function):
    """Rectify; in the backward pass keep, for inputs that are off, the part of the gradient that turns them on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        low, high = ctx.bounds
        # The loss falls along -gradient: below the lower bound a negative gradient pushes the input up, back into the open range.
        blocked = (x < low) & (gradient > 0)
        if high is not None:
            blocked = blocked | ((x > high) & (gradient < 0))
        return gradient.masked_fill(blocked, 0.0), None, None


def _relu(x: Tensor, *_: Any, **__: Any) -> Any:
    return _RedirectedRectifier.apply(x, 0.0, None)


def _relu6(x: Tensor, *_: Any, **__: Any) -> Any:
    return _RedirectedRectifier.apply(x, 0.0, 6.0)


def _hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    return _RedirectedRectifier.apply(x, min_val, max_val)


_RULES: Mapping[Any, Callable[..., Any]] = {
    functional.relu: _relu,
    torch.relu: _relu,
    torch.relu_: _relu,
    Tensor.relu: _relu,
    Tensor.relu_: _relu,
    functional.relu6: _relu6,
    functional.hardtanh: _hardtanh,
}


class _Redirect(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _RULES.get(func)
        if rule is not None:
            return rule(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def redirected_relu() -> Iterator[None]:
    """Let rectifiers that are off pass the gradient that would turn them on, inside this context and on any network.

    For x < 0, ``d loss / d x`` is kept where it is negative (a step against it raises x) and dropped where it is positive; ReLU6
    and hard tanh treat their upper bound likewise. The forward pass is unchanged. Lucid applies it in the first 16 steps to
    samples whose gradient would be zero altogether; the run does the same with the whole gradient of a picture.

    Example:
        >>> x = torch.tensor([-1.0], requires_grad=True)
        >>> with redirected_relu():
        ...     (-torch.relu(x)).sum().backward()
        >>> x.grad.item()
        -1.0

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (lucid/misc/redirected_relu_grad.py)
    """
    with _Redirect():
        yield
