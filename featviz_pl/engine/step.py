"""The result of one step, and the check that it is finite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from featviz_pl.numerics.finite import is_finite


class NonFiniteError(ValueError):
    """Raised for a step that gave NaN or infinity, before it changes the picture."""


@dataclass
class Step:
    """Hold what one step computed.

    Args:
        loss: to be minimized, a scalar: minus the scores, summed over pictures.
        scores: (N,) mean over views, detached.
        terms: (N,) for each term of the objective, detached.
    """

    loss: Tensor
    scores: Tensor
    terms: dict[str, Tensor]


def require_finite(step: int, loss: Tensor, gradients: Iterable[Tensor | None]) -> None:
    """Raise, before the step changes the picture, when the loss or a gradient is NaN or infinite.

    Raises:
        NonFiniteError: naming the step.
    """
    if not is_finite(loss):
        raise non_finite(step, "score")
    if not all(is_finite(gradient) for gradient in gradients if gradient is not None):
        raise non_finite(step, "gradient")


def non_finite(step: int, quantity: str) -> NonFiniteError:
    """Return the error for a step that was not finite."""
    return NonFiniteError(
        f"step {step}: the {quantity} is not finite, and the picture is as before this step. Look for NaN in the "
        "network's output or weights, a division in the objective, or a learning rate that is too high"
    )
