"""Which tokens a term reads, and where on a map or among tokens a neuron sits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from featviz_pl.numerics.checks import unknown, whole_number

Tokens = Literal["all", "patches", "class"] | int
_SLICES = {"all": slice(None), "patches": slice(1, None), "class": slice(0, 1)}


def check_tokens(value: Tokens) -> Tokens:
    """Return a choice of tokens, or raise an error that lists the choices."""
    if isinstance(value, str):
        if value not in _SLICES:
            raise unknown("tokens", "choice", value, _SLICES)
        return value
    return whole_number("tokens", value)


def select_tokens(activation: Tensor, tokens: Tokens) -> Tensor:
    """Return the selected tokens of an activation (N, V, T, F); with ``"all"``, any activation as it is."""
    return activation if tokens == "all" else activation[:, :, _slice(tokens)]


def shape_of_tokens(layer: str, shape: tuple[int, ...], tokens: Tokens) -> tuple[int, ...]:
    """Return the shape (T, F) of the selected tokens, or raise ValueError for a layer without such tokens."""
    if tokens == "all":
        return shape
    if len(shape) != 2:
        raise ValueError(f"tokens: {layer!r} gives {shape}, not tokens (T, F); leave tokens at 'all'")
    count = len(range(shape[0])[_slice(tokens)])
    if not count:
        raise ValueError(f"tokens: {layer!r} has {shape[0]} tokens, and none is left with tokens={tokens!r}")
    return count, shape[1]


def layer_label(layer: str, tokens: Tokens) -> str:
    """Name a layer and its selected tokens.

    Example:
        >>> layer_label("encoder.ln", "all"), layer_label("encoder.ln", "patches"), layer_label("encoder.ln", 5)
        ('encoder.ln', 'encoder.ln[patches]', 'encoder.ln[from 5]')
    """
    return layer if tokens == "all" else f"{layer}[{tokens}]" if isinstance(tokens, str) else f"{layer}[from {tokens}]"


def position_label(position: tuple[int, ...] | None) -> str:
    """Write a position as it ends the shorthand of a target: ``@4,5``, or ``@`` for the centre."""
    return "@" + ",".join(map(str, position or ()))


def position_argument(position: tuple[int, ...] | None) -> tuple[int, ...] | int | None:
    """Return a position as a formula writes it."""
    return position[0] if position is not None and len(position) == 1 else position


def listed_position(value: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """Return a position as numbers of at least 0, one for each axis, None for the centre."""
    if value is None:
        return None
    return tuple(whole_number("position", at, least=0) for at in (value if isinstance(value, Sequence) else (value,)))


def check_position(layer: str, position: tuple[int, ...] | None, axes: tuple[int, ...], tokens: Tokens) -> None:
    """Raise ValueError for a position that the layer does not have."""
    if position is None:
        return
    side = _square_side(axes, tokens)
    axes = (side, side) if side and len(position) == 2 else axes
    if len(position) != len(axes):
        raise ValueError(f"position: {layer!r} has {len(axes)} axes of positions {axes}, got {position}")
    if any(at >= length for at, length in zip(position, axes)):
        raise ValueError(f"position: {position} lies outside the map of {layer!r}, which is {axes}")


def position_indices(position: tuple[int, ...] | None, axes: tuple[int, ...], tokens: Tokens) -> tuple[int, ...]:
    """Return the index on each axis of positions.

    The centre is ``length // 2`` on each axis, or on each side of a square of patches.

    Example:
        >>> position_indices(None, (4, 5), "all"), position_indices(None, (197,), "all")
        ((2, 2), (98,))
        >>> position_indices(None, (196,), "patches"), position_indices((0, 3), (196,), 1)
        ((105,), (3,))
    """
    side = _square_side(axes, tokens)
    if side and (position is None or len(position) == 2):
        row, column = (side // 2, side // 2) if position is None else position
        return (row * side + column,)
    return tuple(length // 2 for length in axes) if position is None else position


def _square_side(axes: tuple[int, ...], tokens: Tokens) -> int:
    """Return the side of the square that the selected patches form, 0 where they form none."""
    if len(axes) != 1 or tokens in ("all", "class"):
        return 0
    side = math.isqrt(axes[0])
    return side if side * side == axes[0] else 0


def _slice(tokens: Tokens) -> slice:
    return _SLICES[tokens] if isinstance(tokens, str) else slice(tokens, None)
