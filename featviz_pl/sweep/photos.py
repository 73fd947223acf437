"""The photos that excite each unit of a sweep most: found in a folder of photos, or in what a `TopActivations` wrote."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image as Pillow
from torch import Tensor

from featviz_pl.io import to_pillow
from featviz_pl.io.files import read_regular
from featviz_pl.io.json_files import parse_object, path_inside
from featviz_pl.io.photos import photo_batches, photo_paths, useful_workers
from featviz_pl.io.reading import open_picture, read_picture
from featviz_pl.metrics.top_photos.layer_reader import LayerReader
from featviz_pl.metrics.top_photos.results import INDEX
from featviz_pl.metrics.top_photos.top_k import TopPhotos
from featviz_pl.networks import ActivationReader, FrozenNetwork
from featviz_pl.networks.receptive_field import receptive_boxes, whole_picture
from featviz_pl.numerics.checks import near
from featviz_pl.numerics.digest import digest
from featviz_pl.numerics.resampling import crop_and_resize
from featviz_pl.objectives import Target

DEFAULT_COUNT = 6  # photos beside a feature
_BATCH_SIZE = 32  # photos in one pass
_CACHED = 64  # photos that stay decoded for the sheets of other units

Units = Mapping[str, Sequence[int]]
Progress = Callable[[int, int], object]


class UnitPhoto(NamedTuple):
    """One photo of a unit.

    Args:
        photo: its file below the folder of the photos.
        score: of the unit for the whole photo.
        box: (top, left, bottom, right) of the part of it around what the position with the highest activation sees;
            None where the file is such a part.
    """

    photo: str
    score: float
    box: tuple[int, int, int, int] | None


class PhotoSource(Protocol):
    """Which photos excite units most, and their patches."""

    folder: Path
    count: int  # photos of each unit
    unreadable: list[str]  # files that could not be read
    reason: str  # why the first of them could not

    def settings(self) -> dict[str, Any]:
        """Return what the choice depends on besides the network: plain values."""

    def check(self, units: Units, channels: int) -> None:
        """Refuse what has no photo for any of these units of a network that takes so many channels."""

    def find(
        self, network: FrozenNetwork, size: tuple[int, int], units: Units, device: torch.device, progress: Progress
    ) -> PhotosOfUnits:
        """Return the photos of each unit, the highest score first."""

    def patch(self, photo: UnitPhoto, channels: int, size: tuple[int, int]) -> Pillow.Image | None:
        """Return the part of a photo that the unit sees, or None where the file cannot be read."""


PhotosOfUnits = dict[str, list[UnitPhoto]]


def photo_source(folder: str | os.PathLike[str], count: int | None = None) -> PhotoSource:
    """Return what is in a folder: photos, or the patches and the index of a `TopActivations`.

    Args:
        folder: that the user named.
        count: photos of each unit; as usual, or as many as there are, unless given.

    Raises:
        ValueError: when the folder is missing or holds neither, or there are fewer photos than `count`.
    """
    if count is not None and count < 1:
        raise ValueError(f"photo_count must be at least 1, got {count}")
    path = Path(folder)
    return PatchIndex(path, count) if (path / INDEX).is_file() else PhotoFolder(path, count)


class PhotoFolder:
    """The photos of a folder and its subfolders.

    Args:
        folder: of the photos.
        count: photos of each unit, or None.
    """

    def __init__(self, folder: Path, count: int | None) -> None:
        try:
            self.paths = photo_paths(folder)
        except ValueError as error:
            raise ValueError(f"photos: {str(error).partition(': ')[2]}") from error
        if count is not None and count > len(self.paths):
            raise ValueError(
                f"photo_count: {count} photos of each feature, and {str(folder)!r} holds {len(self.paths)}; "
                f"give --photo-count {len(self.paths)}, or a folder of more"
            )
        self.folder, self.count = folder, min(DEFAULT_COUNT, len(self.paths)) if count is None else count
        self.unreadable: list[str] = []
        self.reason = ""
        self._photo = functools.lru_cache(_CACHED)(_fitted_photo)

    def _names(self) -> list[str]:
        return [Path(os.path.relpath(path, self.folder)).as_posix() for path in self.paths]

    def settings(self) -> dict[str, Any]:
        """Return how many photos there are, and a digest of their names and lengths, which replaced files change."""
        lines = (f"{name} {_length(path)}" for name, path in zip(self._names(), self.paths))
        names = digest(["\n".join(lines).encode(errors="surrogateescape")])  # as names on disk may be
        return {"photos": len(self.paths), "names": names, "count": self.count}

    def check(self, units: Units, channels: int) -> None:
        """Accept all units of networks that take photos."""
        if channels not in (1, 3):
            raise ValueError(
                f"photos: the network takes {channels} channels, and photos in files have 1 or 3; leave --photos out"
            )

    def find(
        self, network: FrozenNetwork, size: tuple[int, int], units: Units, device: torch.device, progress: Progress
    ) -> PhotosOfUnits:
        """Show all photos to the network, once; only numbers are kept of them."""
        picture, names = (network.channels, *size), self._names()
        with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
            activation_reader = network.reader()
            activation_reader.apply_(lambda tensor: tensor.to(device))
            readers = {layer: LayerReader(layer, list(numbers), "mean") for layer, numbers in units.items()}
            boxes = {layer: _boxes(activation_reader, layer, picture, device) for layer in units}
            top = {layer: TopPhotos(len(numbers), self.count) for layer, numbers in units.items()}
            done = 0
            for batch in photo_batches(
                self.paths, size, network.channels, _BATCH_SIZE, useful_workers(len(self.paths))
            ):
                if batch.indices:
                    self._offer(batch.pictures, batch.indices, activation_reader, readers, boxes, top, device)
                done += len(batch.indices) + len(batch.unreadable)
                self.unreadable += [names[index] for index in batch.unreadable]
                self.reason = self.reason or batch.reason
                progress(done, len(self.paths))
        if len(self.unreadable) == len(self.paths):
            raise ValueError(
                f"photos: none of {len(self.paths)} files in {str(self.folder)!r} can be read; {self.reason}"
            )
        return {
            f"{layer}:{unit}": [
                UnitPhoto(names[photo], float(score), box)
                for photo, score, box in zip(
                    top[layer].photos[row].tolist(), top[layer].scores[row].tolist(), top[layer].crops[row]
                )
                if box is not None
            ]
            for layer, numbers in units.items()
            for row, unit in enumerate(numbers)
        }

    def _offer(
        self,
        pictures: Tensor,
        indices: list[int],
        activation_reader: ActivationReader,
        readers: dict[str, LayerReader],
        boxes: dict[str, list[tuple[int, int, int, int]]],
        top: dict[str, TopPhotos],
        device: torch.device,
    ) -> None:
        """Offer one batch of photos to all units."""
        with torch.no_grad():
            values = activation_reader.activations(pictures.to(device), list(readers))
        for layer, reader in readers.items():
            reader(activation_reader.module, (), values[layer])
            scores, peaks, positions = reader.pop(len(pictures)).numpy()
            photos = torch.tensor(indices).expand(len(scores), -1).numpy()
            of_layer = boxes[layer]

            def cut(row: int, column: int, positions: Any = positions, boxes: Any = of_layer) -> Any:
                return boxes[int(positions[row, column]) % len(boxes)]

            top[layer].update(-scores.astype("float64"), photos, scores, peaks, cut)

    def patch(self, photo: UnitPhoto, channels: int, size: tuple[int, int]) -> Pillow.Image | None:
        """Return a part of a photo as the network saw it."""
        try:
            picture = self._photo(str(self.folder / photo.photo), channels, size)
        except ValueError as error:  # it could be read a moment ago
            self.unreadable.append(photo.photo)
            self.reason = self.reason or str(error)
            return None
        assert photo.box is not None
        top, left, bottom, right = photo.box
        return picture.crop((left, top, right, bottom))


def _length(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # a link that leads nowhere; it will be unreadable
        return 0


def _fitted_photo(path: str, channels: int, size: tuple[int, int]) -> Pillow.Image:
    return to_pillow(crop_and_resize(read_picture(path, channels)[None], size)[0])


def _boxes(
    activation_reader: ActivationReader, layer: str, picture: tuple[int, int, int], device: torch.device
) -> list[tuple[int, int, int, int]]:
    """Return the box of a photo for each position of a layer: its receptive field, or the whole photo if unknown.

    Receptive fields are cut at the border; their boxes are moved inwards instead, so that all have one size.
    """
    everything = whole_picture(picture[1:])
    try:
        fields = receptive_boxes(activation_reader, layer, picture, device).reshape(-1, 4)
    except Exception:  # networks refuse to be probed in many ways
        fields = everything[None]
    empty = (fields[:, 2:] <= fields[:, :2]).any(1)  # such as a class token before any attention
    fields = torch.where(empty[:, None], everything, fields)
    sides = (fields[:, 2:] - fields[:, :2]).amax(0)
    corners = torch.minimum(fields[:, :2], everything[2:] - sides)
    boxes: list[tuple[int, int, int, int]] = [tuple(box) for box in torch.cat([corners, corners + sides], 1).tolist()]
    return boxes


class PatchIndex:
    """The photos that a `TopActivations` has written, by their targets.

    Layers are named there as in somebody's LightningModule: ``net.features.9`` is ``features.9`` of the network.

    Args:
        folder: with the index.
        count: photos of each unit, or None.
    """

    def __init__(self, folder: Path, count: int | None) -> None:
        try:
            text = read_regular(folder / INDEX)
            self._photos: dict[str, list[dict[str, Any]]] = {
                name: list(unit["top"]) for name, unit in parse_object(text, finite=False)["units"].items()
            }
            most = max((len(top) for top in self._photos.values()), default=0)
            self._layers = list(dict.fromkeys(Target.parse(target).layer for target in self._photos))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"photos: {str(folder / INDEX)!r} is no index of TopActivations ({error}); write it again"
            ) from error
        if most == 0 or (count is not None and count > most):
            raise ValueError(
                f"photo_count: {count or 1} photos of each feature, and the index in {str(folder)!r} has {most}; "
                "write it again with a larger k, or give --photo-count with fewer"
            )
        self.folder, self.count = folder, min(DEFAULT_COUNT, most) if count is None else count
        self.unreadable: list[str] = []
        self.reason = ""
        self._digest = digest([text])

    def settings(self) -> dict[str, Any]:
        """Return a digest of the index."""
        return {"index": self._digest, "count": self.count}

    def check(self, units: Units, channels: int) -> None:
        """Refuse an index that knows none of the units."""
        if not any(self._of(layer, unit) for layer, numbers in units.items() for unit in numbers):
            raise ValueError(
                f"photos: the index in {str(self.folder)!r} has photos for none of the units of {', '.join(units)}; "
                f"{near(next(iter(units)), sorted(self._layers))}"
            )

    def _of(self, layer: str, unit: int) -> list[dict[str, Any]]:
        names = [layer] if layer in self._layers else [name for name in self._layers if name.endswith(f".{layer}")]
        if len(names) > 1:
            raise ValueError(
                f"photos: the index in {str(self.folder)!r} is ambiguous: several of its layers end in {layer!r} "
                f"({', '.join(names)}); write one for each network"
            )
        return self._photos.get(f"{names[0]}:{unit}", []) if names else []

    def find(
        self, network: FrozenNetwork, size: tuple[int, int], units: Units, device: torch.device, progress: Progress
    ) -> PhotosOfUnits:
        """Return what the index says."""
        return {
            f"{layer}:{unit}": [
                UnitPhoto(patch["file"], float("nan" if patch["score"] is None else patch["score"]), None)
                for patch in self._of(layer, unit)[: self.count]
            ]
            for layer, numbers in units.items()
            for unit in numbers
        }

    def patch(self, photo: UnitPhoto, channels: int, size: tuple[int, int]) -> Pillow.Image | None:
        """Return a patch as it was written."""
        try:
            return open_picture(path_inside(self.folder, photo.photo))
        except ValueError as error:
            self.unreadable.append(photo.photo)
            self.reason = self.reason or f"{photo.photo}: {error}"
            return None
