"""How a formula writes its arguments: exactly where they are short, and by their content where they are large."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from featviz_pl.numerics.digest import digest

_MAX_NUMBERS = 16  # of a tensor that is written out


class Formula(str):
    """The text of an argument, written as it is."""


def number_formula(value: float) -> str:
    """Write a number as briefly as is exact.

    Example:
        >>> number_formula(2.0), number_formula(1e-4), number_formula(1234567.0)
        ('2', '0.0001', '1234567.0')
    """
    brief = f"{value:g}"
    return brief if float(brief) == value else repr(value)


def tensor_formula(value: Tensor) -> str:
    """Write a small tensor exactly, and a large one as its shape and content, the same wherever it comes from.

    Example:
        >>> import torch
        >>> tensor_formula(torch.tensor([0.1, 2.0])), tensor_formula(torch.zeros(2, 512))
        ('[0.1, 2.0]', '<(2, 512) tensor 8f77bb2b>')
    """
    if value.numel() <= _MAX_NUMBERS:
        return _nested(value.cpu().numpy())
    return f"<{tuple(value.shape)} tensor {content_hash(value)}>"


def content_hash(*values: Tensor) -> str:
    """Return 8 digits that tell contents apart, whatever their precision."""
    return digest((part for value in values for part in (str(tuple(value.shape)), value.double())), digits=8)


def argument_formula(value: Any) -> str:
    """Write the value of an argument: a number, a text, a list, a tensor, or anything that has a formula.

    Example:
        >>> argument_formula([1.0, 0.25]), argument_formula(range(3)), argument_formula("a"), argument_formula((4, 5))
        ('[1, 0.25]', 'range(3)', "'a'", '(4, 5)')
    """
    if isinstance(value, Formula):
        return value
    if isinstance(value, Tensor):
        return tensor_formula(value)
    if isinstance(value, list):
        return f"[{', '.join(map(argument_formula, value))}]"
    if isinstance(value, range):
        return f"range({value.start}, {value.stop})" if value.start else f"range({value.stop})"
    if hasattr(value, "formula"):
        return str(value.formula())
    return number_formula(value) if isinstance(value, float) else repr(value)


def call_formula(name: str, *arguments: str) -> str:
    """Write a call.

    Example:
        >>> call_formula("Layer", "'features.9'")
        "Layer('features.9')"
    """
    return f"{name}({', '.join(arguments)})"


def _nested(array: Any) -> str:
    # numpy writes a float32 with as few digits as tell it from its neighbours; Python would write those of a float64
    return f"[{', '.join(map(_nested, array))}]" if array.ndim else str(array[()])
