"""Which axes of a layer's result count pictures, units and positions, found by running the network on pictures that differ.

A layer may give maps (N, C, H, W) or (N, H, W, C), signals (N, C, L), tokens (N, T, F) or (T, N, F), windows of tokens
(N * windows, T, F), or features (N, F). What it gives for one picture, for two and for a larger one tells these apart:
the axis that doubles with the number of pictures holds the batch, and the axes that grow with the picture are positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from featviz_pl.numerics.resampling import resize

# What a module's class says of the axes of a result (N, ?, ?), where no larger picture tells.
_CHANNELS_FIRST = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.MaxPool1d, nn.AvgPool1d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d),
)
_FEATURES_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention, nn.TransformerEncoderLayer)


@dataclass(frozen=True)
class Layout:
    """Name the axes of a layer's result.

    Args:
        axes: of one picture, after the batch: ``"channels x height x width"``, ``"channels x positions"``,
            ``"tokens x features"`` or ``"features"``.
        batch_axis: of the result.
        windows: whether the batch axis counts the windows of each picture too.
        interleaved: whether the windows of one picture are apart from one another on that axis.
        channels_last: whether the layer's own maps are (H, W, C).
    """

    axes: str
    batch_axis: int = 0
    windows: bool = False
    interleaved: bool = False
    channels_last: bool = False

    def standardized(self, result: Tensor, count: int) -> Tensor | None:
        """Return a result with the batch first and units in their usual position; None where it does not fit `count`.

        Shape:
            maps (count, C, H, W); signals (count, C, 1, L), maps of height 1; tokens (count, T, F); features (count, F)

        Example:
            >>> Layout("tokens x features", batch_axis=1).standardized(torch.zeros(50, 2, 16), 2).shape
            torch.Size([2, 50, 16])
            >>> Layout("channels x positions").standardized(torch.zeros(2, 8, 100), 2).shape
            torch.Size([2, 8, 1, 100])
        """
        if result.ndim <= self.batch_axis or result.shape[self.batch_axis] % count:
            return None
        if result.shape[self.batch_axis] != count and not self.windows:
            return None
        if self.windows:
            result = self._joined(result, count)
        elif self.batch_axis:
            result = result.movedim(self.batch_axis, 0)
        if self.channels_last:
            result = result.movedim(-1, 1)
        if self.axes == "channels x positions":
            result = result.unsqueeze(2)
        return result

    def _joined(self, result: Tensor, count: int) -> Tensor:
        """Return (count, tokens of all windows, features) of a result (count * windows, …, features)."""
        size = (-1, count) if self.interleaved else (count, -1)
        parts: Tensor = result.unflatten(0, size)
        return (parts.movedim(1, 0) if self.interleaved else parts).flatten(1, -2)


def find_layouts(
    modules: Mapping[str, nn.Module],
    one: Mapping[str, Tensor],
    picture: Tensor,
    run: Callable[[Tensor], Mapping[str, Tensor]],
) -> dict[str, Layout | str]:
    """Return the layout of each layer's results, or in words why there is none.

    Args:
        modules: the layers, by name.
        one: their results for the picture.
        picture: (1, C, H, W), as the network takes it.
        run: returns the results for other pictures; of those layers that are reached, where the network refuses them.
    """
    two: Mapping[str, Tensor] = {}
    if any(_needs_two(result) for result in one.values()):
        height, width = picture.shape[-2:]
        another = picture.roll((height // 3, width // 5), (-2, -1)) / 2
        two = run(torch.cat([picture, another]))
    larger: Mapping[str, Tensor] = {}
    if any(_needs_larger(modules[name], result, picture) for name, result in one.items()):
        height, width = picture.shape[-2:]
        size = (height if height == 1 else 2 * height, 2 * width)
        larger = run(resize(picture.detach().float(), size).to(picture.dtype))
    return {
        name: layout(modules[name], result, two.get(name), larger.get(name), bool(two)) for name, result in one.items()
    }


def _needs_two(result: Tensor) -> bool:
    """Say whether the first axis of a result for one picture may be another one than the batch."""
    return result.ndim == 0 or len(result) != 1 or (result.ndim == 3 and result.shape[1] == 1)


def _needs_larger(module: nn.Module, result: Tensor, picture: Tensor) -> bool:
    """Say whether a result leaves open which axes are positions."""
    if result.ndim == 3:
        return _kind_is_signal(module) is None
    height, width = picture.shape[-2:]
    return result.ndim == 4 and abs(result.shape[1] * width - result.shape[2] * height) <= max(height, width)


def layout(
    module: nn.Module, one: Tensor, two: Tensor | None, larger: Tensor | None, asked_two: bool = True
) -> Layout | str:
    """Return the layout of a layer's results, or in words why there is none.

    Args:
        module: the layer.
        one: its result for one picture.
        two: for that picture and another one; None where the network takes single pictures only.
        larger: for one picture that is larger; None where the network takes one size only.
        asked_two: whether the network was shown two pictures.

    Example:
        >>> layout(nn.ReLU(), torch.zeros(1, 8, 100), torch.zeros(2, 8, 100), torch.zeros(1, 8, 200)).axes
        'channels x positions'
        >>> layout(nn.ReLU(), torch.zeros(50, 1, 16), torch.zeros(50, 2, 16), None)
        Layout(axes='tokens x features', batch_axis=1, windows=False, interleaved=False, channels_last=False)
    """
    batch = _batch(one, two) if asked_two else (0, False, False)
    if isinstance(batch, str):
        return batch
    axis, windows, interleaved = batch
    if windows:
        return Layout("tokens x features", 0, True, interleaved)
    shape = [length for index, length in enumerate(one.shape) if index != axis]
    grows = None
    if larger is not None and larger.ndim == one.ndim:
        others = [length for index, length in enumerate(larger.shape) if index != axis]
        grows = [after > before for before, after in zip(shape, others)]
    if len(shape) == 1:
        return Layout("features", axis)
    if len(shape) == 2:
        signal = _is_signal(module, grows)
        return Layout("channels x positions" if signal else "tokens x features", axis)
    if len(shape) == 3:
        return Layout("channels x height x width", axis, channels_last=_is_channels_last(shape, grows))
    if len(shape) == 0:
        return "it is one number for all pictures"
    return (
        f"it has {len(shape)} axes besides the batch, {' x '.join(map(str, shape))}: volumes and videos are not read "
        "yet; wrap the network in a module that returns one slice, or the mean over depth, as (N, C, H, W)"
    )


def _batch(one: Tensor, two: Tensor | None) -> tuple[int, bool, bool] | str:
    """Return the axis that counts pictures, whether it counts windows too, and whether these are interleaved."""
    if one.ndim == 0:
        return "it is one number for all pictures"
    if two is None or two.ndim != one.ndim:
        return (0, False, False) if len(one) == 1 else "its first axis is not the batch"
    doubled = [axis for axis, (before, after) in enumerate(zip(one.shape, two.shape)) if after == 2 * before]
    changed = [axis for axis, (before, after) in enumerate(zip(one.shape, two.shape)) if after != before]
    if len(doubled) != 1 or changed != doubled:
        return f"no axis counts the pictures: one gave {tuple(one.shape)}, and two gave {tuple(two.shape)}"
    (axis,) = doubled
    if one.shape[axis] == 1:
        return axis, False, False
    if axis == 0 and one.ndim > 2:
        for interleaved, first in ((False, two[: len(one)]), (True, two[::2])):
            if torch.allclose(first, one, rtol=1e-3, atol=1e-3 * float(one.detach().abs().max())):
                return 0, True, interleaved
    return f"no axis counts the pictures alone: one gave {tuple(one.shape)}, and two gave {tuple(two.shape)}"


def _kind_is_signal(module: nn.Module) -> bool | None:
    """Say whether a module's class gives (N, C, L), or (N, T, F); None where it may give either."""
    if isinstance(module, _CHANNELS_FIRST):
        return True
    return False if isinstance(module, _FEATURES_LAST) else None


def _is_signal(module: nn.Module, grows: list[bool] | None) -> bool:
    """Say whether a result (N, ?, ?) is (N, C, L) and not (N, T, F)."""
    by_kind = _kind_is_signal(module)
    if by_kind is not None:
        return by_kind
    return grows is not None and grows[1] and not grows[0]


def _is_channels_last(shape: list[int], grows: list[bool] | None) -> bool:
    """Say whether a result (N, ?, ?, ?) is (N, H, W, C) and not (N, C, H, W)."""
    if grows is not None and any(grows):
        return not grows[2]
    return shape[0] == shape[1] != shape[2]
