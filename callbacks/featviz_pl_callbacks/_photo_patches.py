"""What the layers say during the module's own forward, and which part of the photos they say it of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor, nn

from featviz_pl.metrics.top_photos.layer_reader import Said
from featviz_pl.metrics.top_photos.top_k import Cut
from featviz_pl.networks import ActivationReader
from featviz_pl.networks.receptive_field import receptive_boxes, whole_picture
from featviz_pl.numerics.checks import first_line
from featviz_pl_callbacks._watched_network import (
    Picture,
    find_forward,
    full_path,
    guest,
    modules_by_name,
    relative,
)


class PatchCutter:
    """Find the part of a photo that a position sees.

    Args:
        module: the LightningModule.
        layers: as the user wrote them.
        network: name of the module that is shown the pictures, or None.
        device: of the module.
    """

    def __init__(
        self, module: LightningModule, layers: Sequence[str], network: str | None, device: torch.device
    ) -> None:
        self._module, self._layers, self._network, self._device = module, list(layers), network, device
        self._forward: str | None = None  # what is shown the pictures
        self._reader: ActivationReader | None = None
        self._boxes: dict[tuple[str, Picture], Tensor | None] = {}
        self._shown: Picture | None = None

    def prepare(self, picture: Picture) -> None:
        """Find what is shown pictures of that shape; should nothing be found, patches are whole photos."""
        paths = [full_path(layer, self._network) for layer in self._layers]
        try:
            self._forward, shape = find_forward(self._module, paths, self._network, picture, self._device)
            self._reader = guest(self._module, self._forward).reader()
            self._names = {layer: relative(path, self._forward) for layer, path in zip(self._layers, paths)}
            for layer in self._layers:
                self._find(layer, shape)
        except Exception as error:
            self._say(", ".join(self._layers), error)

    def channels_last(self, layer: str) -> bool:
        """Say whether the layer's own maps are (H, W, C)."""
        return self._reader is not None and self._reader.is_channels_last(self._names[layer])

    def watch(self, hooks: ExitStack) -> None:
        """Note the shape in which the network is shown the pictures, which a step may resize."""
        if self._forward is not None:
            part = modules_by_name(self._module)[self._forward]
            hooks.callback(part.register_forward_pre_hook(self._note).remove)

    def _note(self, module: nn.Module, inputs: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
            _, channels, height, width = inputs[0].shape
            self._shown = (channels, height, width)

    def boxes(self, layer: str, positions: tuple[int, ...], picture: Picture) -> NDArray[Any]:
        """Return the boxes (positions, 4) of a layer, in pixels of pictures of that shape."""
        shown = self._shown or picture
        found = self._find(layer, shown)
        if found is None or found.shape[:-1] != positions:
            return whole_picture(picture[1:], positions).reshape(-1, 4).numpy()
        boxes = found.reshape(-1, 4)
        if shown[1:] != picture[1:]:
            scale = torch.tensor([picture[1] / shown[1], picture[2] / shown[2]] * 2)
            boxes = torch.cat([(boxes * scale)[:, :2].floor(), (boxes * scale)[:, 2:].ceil()], 1).long()
        empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)  # such as a class token before any attention
        return torch.where(empty[:, None], whole_picture(picture[1:]), boxes).numpy()

    def _find(self, layer: str, shown: Picture) -> Tensor | None:
        key = (layer, shown)
        if key not in self._boxes:
            self._boxes[key] = None
            if self._reader is not None:
                try:
                    self._boxes[key] = receptive_boxes(self._reader, self._names[layer], shown, self._device)
                except Exception as error:  # networks refuse a picture in many ways
                    self._say(layer, error)
        return self._boxes[key]

    @staticmethod
    def _say(layers: str, error: Exception) -> None:
        rank_zero_warn(
            f"TopActivations: what positions of {layers} see could not be found, so their patches are whole photos "
            f"({type(error).__name__}: {first_line(error)})"
        )


def cut_out(levels: Tensor, row: int, said: Said, place: int, box: NDArray[Any], made: dict[Any, Cut]) -> Cut:
    """Cut a part out of one photo of a batch (N, C, H, W) in 256 levels; units that want the same share it.

    Args:
        levels: of the batch.
        row: of the photo.
        said: what the layer said.
        place: of the position.
        box: that it sees.
        made: what was cut out of this batch before.
    """
    key = (row, place)
    if key not in made:
        top, left, bottom, right = (int(side) for side in box)
        position = tuple(int(axis) for axis in np.unravel_index(place, said.positions)) if said.positions else ()
        part = levels[row, :, top:bottom, left:right].contiguous().numpy().copy()
        made[key] = Cut(position, (top, left, bottom, right), (levels.shape[2], levels.shape[3]), part)
    return made[key]


def is_compiled(module: LightningModule) -> bool:
    """Say whether some part of the module was compiled."""
    if getattr(module, "_compiler_ctx", None) is not None:
        return True
    return any(
        hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None or "forward" in vars(part)
        for part in module.modules()
    )
