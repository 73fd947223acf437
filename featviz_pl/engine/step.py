"""The result of one step, and the check that it is finite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from featviz_pl.numerics.finite import is_finite


class NonFiniteError(ValueError):
    """Say that a step gave NaN or infinity; it never reached the picture."""


@dataclass
class Step:
    """Hold what one step computed.

    Args:
        loss: to be minimised, one number: minus the scores, summed over pictures.
        scores: (N,) mean over views, detached.
        terms: (N,) for each term of the objective, detached.
    """

    loss: Tensor
    scores: Tensor
    terms: dict[str, Tensor]


def require_finite(step: int, loss: Tensor, gradients: Iterable[Tensor | None]) -> None:
    """Raise, before the step reaches the picture, when the loss or a gradient is NaN or infinite.

    Raises:
        NonFiniteError: naming the step.
    """
    what = None if is_finite(loss) else "score"
    if what is None and not all(is_finite(gradient) for gradient in gradients if gradient is not None):
        what = "gradient"
    if what is not None:
        raise non_finite(step, what)


def non_finite(step: int, what: str) -> NonFiniteError:
    """Make the error for a step that was not finite."""
    return NonFiniteError(
        f"step {step}: the {what} is not finite, and the picture was kept from it. Look for NaN in the network's output or "
        "weights, a division in the objective, or a learning rate that is too high"
    )
