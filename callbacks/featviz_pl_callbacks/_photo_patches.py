"""The receptive fields of a layer's positions, in pixels of the photos of a batch."""

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

from featviz_pl.metrics.top_photos.top_k import Crop
from featviz_pl.networks import ActivationReader
from featviz_pl.networks.layouts import Layout
from featviz_pl.networks.receptive_field import receptive_boxes, whole_picture
from featviz_pl.numerics.checks import first_line
from featviz_pl_callbacks._support import Picture
from featviz_pl_callbacks._watched_network import find_input_module, full_path, live_network, modules_by_name, relative


class PatchBoxes:
    """Compute the receptive fields of layers inside a LightningModule; whole photos where they cannot be computed.

    Args:
        module: the LightningModule.
        layers: as the user wrote them.
        network: name of the submodule that takes the pictures, or None.
        device: of the module.
    """

    def __init__(
        self, module: LightningModule, layers: Sequence[str], network: str | None, device: torch.device
    ) -> None:
        self._module, self._layers, self._network, self._device = module, list(layers), network, device
        self._input_module: str | None = None  # name of the submodule that takes the pictures
        self._reader: ActivationReader | None = None
        self._names: dict[str, str] = {}  # of the layers in the reader
        self._boxes: dict[tuple[str, Picture], Tensor | None] = {}
        self._input_shape: Picture | None = None  # of the pictures that the submodule takes

    def prepare(self, picture: Picture) -> None:
        """Find the submodule that takes pictures of that shape, and the receptive fields in them."""
        paths = [full_path(layer, self._network) for layer in self._layers]
        try:
            self._input_module, shape = find_input_module(self._module, paths, self._network, picture, self._device)
            self._reader = live_network(self._module, self._input_module).reader()
            self._names = {layer: relative(path, self._input_module) for layer, path in zip(self._layers, paths)}
            for layer in self._layers:
                self._layer_boxes(layer, shape)
        except Exception as error:
            self._warn(", ".join(self._layers), error)

    def layout(self, layer: str) -> Layout | None:
        """Return the order of axes of the layer's result, None where it is not known."""
        return None if self._reader is None else self._reader.layout(self._names[layer])

    def register_hook(self, hooks: ExitStack) -> None:
        """Record the shape of the pictures that the submodule takes, which a step may resize."""
        if self._input_module is not None:
            submodule = modules_by_name(self._module)[self._input_module]
            hooks.callback(submodule.register_forward_pre_hook(self._record_shape).remove)

    def _record_shape(self, module: nn.Module, inputs: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
            _, channels, height, width = inputs[0].shape
            self._input_shape = (channels, height, width)

    def boxes(self, layer: str, spatial_shape: tuple[int, ...], picture: Picture) -> NDArray[Any]:
        """Return the boxes (positions, 4) of a layer, in pixels of pictures of that shape."""
        shape = self._input_shape or picture
        layer_boxes = self._layer_boxes(layer, shape)
        if layer_boxes is None or layer_boxes.shape[:-1] != spatial_shape:
            return whole_picture(picture[1:], spatial_shape).reshape(-1, 4).numpy()
        boxes = layer_boxes.reshape(-1, 4)
        if shape[1:] != picture[1:]:
            scaled = boxes * torch.tensor([picture[1] / shape[1], picture[2] / shape[2]] * 2)
            boxes = torch.cat([scaled[:, :2].floor(), scaled[:, 2:].ceil()], 1).long()
        empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)  # such as a class token before any attention
        return torch.where(empty[:, None], whole_picture(picture[1:]), boxes).numpy()

    def _layer_boxes(self, layer: str, shape: Picture) -> Tensor | None:
        key = (layer, shape)
        if key not in self._boxes:
            self._boxes[key] = None
            if self._reader is not None:
                try:
                    self._boxes[key] = receptive_boxes(self._reader, self._names[layer], shape, self._device)
                except Exception as error:  # networks refuse a picture with any exception
                    self._warn(layer, error)
        return self._boxes[key]

    @staticmethod
    def _warn(layers: str, error: Exception) -> None:
        rank_zero_warn(
            f"TopActivations: no receptive fields for {layers} ({type(error).__name__}: {first_line(error)}); their "
            "patches are whole photos"
        )


def crop_position(levels: Tensor, row: int, position: int, spatial_shape: tuple[int, ...], box: NDArray[Any]) -> Crop:
    """Crop the receptive field of one position out of one photo.

    Args:
        levels: (N, C, H, W), the batch in 256 levels.
        row: index of the photo in the batch.
        position: index into the flattened spatial axes of the layer.
        spatial_shape: lengths of these axes.
        box: receptive field of the position.
    """
    top, left, bottom, right = (int(side) for side in box)
    coordinates = tuple(int(axis) for axis in np.unravel_index(position, spatial_shape)) if spatial_shape else ()
    patch = levels[row, :, top:bottom, left:right].contiguous().numpy().copy()
    return Crop(coordinates, (top, left, bottom, right), (levels.shape[2], levels.shape[3]), patch)


def is_compiled(module: LightningModule) -> bool:
    """Return whether some part of the module was compiled."""
    if getattr(module, "_compiler_ctx", None) is not None:
        return True
    return any(
        hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None or "forward" in vars(part)
        for part in module.modules()
    )
