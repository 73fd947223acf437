"""Statistics of data sets whose items are photos, such as those of torchvision."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from PIL import Image as Pillow
from torch import Tensor

from featviz_pl.io.photos import check_photo_channels, spread
from featviz_pl.io.reading import UnreadableError, picture_tensor
from featviz_pl.numerics.checks import unknown
from featviz_pl.statistics.measuring import measured
from featviz_pl.statistics.record import Statistics

_EVALUATION_SPLITS = ("test", "val", "valid", "validation")  # of data sets that know training or not


def dataset_statistics(
    dataset: Any,
    size: int | tuple[int, int] = 128,
    channels: int = 3,
    limit: int | None = None,
    workers: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Statistics:
    """Measure colors and spectrum of the photos of a data set, exactly as `folder_statistics` does.

    Every item is read twice, so the data set should not change its photos at random. Photos that cannot be read are
    skipped and counted.

    Args:
        dataset: with a length and items by number, each a photo or a tuple or list that begins with one: of Pillow,
            converted as `folder_statistics` does, or a tensor (channels, H, W) in [0, 1] or of 256 levels.
        size: of the spectrum in pixels.
        channels: 3 for color, 1 for grayscale.
        limit: read at most this many items, evenly spread; all unless given.
        workers: processes that read photos beside this one.
        progress: called with the photos read so far and those to be read, counting both readings.

    Raises:
        TypeError: when the items are no photos, or cannot be read by number.
        ValueError: when there are none, none can be read, all are smaller than `size`, or tensors do not fit.

    Example:
        >>> photos = [(Pillow.new("RGB", (12, 10), (level, level, 0)), "label") for level in (64, 192)]
        >>> found = dataset_statistics(photos, size=8)
        >>> [round(value * 255) for value in found.mean.tolist()], found.count, found.spectrum.count
        ([128, 128, 0], 240, 2)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """
    check_photo_channels(channels)
    name = type(dataset).__name__
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(f"dataset: {name} has no length and no items by number; give its batches to statistics.measure")
    if not len(dataset):
        raise ValueError(f"dataset: {name} is empty")
    items = _Items(dataset, spread(len(dataset), limit), channels)
    items.check()
    return measured(items, ("dataset", "items", f"of {name}"), size, workers, progress)


class _Items:
    """Photos of a data set."""

    def __init__(self, dataset: Any, numbers: Sequence[int], channels: int) -> None:
        self.dataset, self.numbers, self.channels = dataset, numbers, channels

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Tensor:
        number = self.numbers[index]
        try:
            item = self.dataset[number]
        except Exception as error:  # decoders raise anything on damaged files
            raise UnreadableError(f"item {number}: {error}") from error
        photo = item[0] if isinstance(item, (tuple, list)) and len(item) else item
        if isinstance(photo, Tensor):
            return self._checked(photo)
        if not isinstance(photo, Pillow.Image):
            raise TypeError(
                f"dataset: items of {type(self.dataset).__name__} must be photos, or begin with one, of Pillow or as a tensor; "
                f"got {type(photo).__name__}"
            )
        try:
            return picture_tensor(photo, self.channels)
        except Exception as error:  # Pillow reads a file when its pixels are asked for
            raise UnreadableError(f"item {number}: {error}") from error

    def check(self) -> None:
        """Refuse a data set of something else in this process: what a worker raises comes with its whole traceback."""
        with suppress(UnreadableError):  # others may be readable; it is counted when its turn comes
            self[0]

    def _checked(self, photo: Tensor) -> Tensor:
        if photo.ndim != 3 or photo.shape[0] != self.channels or not photo.numel():
            raise ValueError(
                f"dataset: photos as tensors must be ({self.channels}, H, W), got shape {tuple(photo.shape)}"
            )
        if photo.dtype == torch.uint8:
            return photo.to(torch.float32) / 255
        if not photo.is_floating_point() or not bool(((photo >= 0) & (photo <= 1)).all()):
            raise ValueError(
                "dataset: photos as tensors must lie in [0, 1], or be torch.uint8; leave normalisation out of its transform"
            )
        return photo


def torchvision_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    download: bool = False,
    options: dict[str, Any] | None = None,
) -> Any:
    """Build a data set of torchvision by name; nothing is downloaded unless that is asked for.

    Args:
        name: of the class in ``torchvision.datasets``.
        root: folder of its data.
        split: such as ``"train"`` or ``"test"``; the class's own default unless given.
        download: whether data that are missing may be downloaded.
        options: further arguments of the class.

    Raises:
        ValueError: when there is no such data set or split, an argument is missing or unknown, or the data are not
            there.

    Example:
        >>> len(torchvision_dataset("FakeData", options={"size": 5}))
        5
    """
    known = _torchvision_classes()
    if name not in known:
        raise unknown("dataset", "data set of torchvision", name, known)
    parameters = _parameters(known[name])
    arguments = dict(options or {})
    for given in arguments:
        if given not in parameters:
            raise unknown("option", f"argument of {name}", given, list(parameters))
    if root is not None and "root" in parameters:
        arguments["root"] = root
    if split is not None:
        arguments |= _split_argument(name, split, parameters)
    if "download" in parameters:
        arguments["download"] = download
    elif download:
        raise ValueError(
            f"download: torchvision cannot download {name}; get its data from where they are published, and give --root"
        )
    missing = [one.name for one in parameters.values() if one.default is one.empty and one.name not in arguments]
    if missing:
        raise ValueError(f"dataset: {name} needs {_flags(missing)}")
    try:
        return known[name](**arguments)
    except (RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, (RuntimeError, OSError)) and "download" in parameters and not download:
            raise ValueError(
                f"dataset: the data of {name} are not in {str(root)!r}, or not all of them ({said}); give another --root, or --download"
            ) from error
        raise ValueError(f"dataset: {name} cannot be built: {said}") from error


def _torchvision_classes() -> dict[str, Any]:
    """Return the data sets of torchvision that name their items by number."""
    from torchvision import datasets

    listed = {name: getattr(datasets, name) for name in datasets.__all__}
    return {
        name: one for name, one in sorted(listed.items()) if isinstance(one, type) and one is not datasets.VisionDataset
    }


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return the arguments of a class, with those that it hands on by ``**kwargs`` to the class above it, as EMNIST does to MNIST."""
    found: dict[str, inspect.Parameter] = {}
    for one in kind.__mro__:
        if "__init__" in vars(one):
            own = list(inspect.signature(vars(one)["__init__"]).parameters.values())[1:]  # without self
            named = [part for part in own if part.kind not in (part.VAR_KEYWORD, part.VAR_POSITIONAL)]
            found = {part.name: part for part in named} | found
            if all(part.kind is not part.VAR_KEYWORD for part in own):
                break
    return found


def _split_argument(name: str, split: str, parameters: dict[str, inspect.Parameter]) -> dict[str, Any]:
    """Return a split as the argument by which the class calls it."""
    for own in ("split", "image_set"):
        if own in parameters:
            return {own: split}
    if "train" not in parameters:
        raise ValueError(f"split: {name} has none; leave it out")
    if split != "train" and split not in _EVALUATION_SPLITS:
        raise ValueError(f"split: {name} has 'train' and 'test', not {split!r}")
    return {"train": split == "train"}


def _flags(names: list[str]) -> str:
    return " and ".join(
        "--root DIR" if name == "root" else "--split NAME" if name == "split" else f"--option {name}=…"
        for name in names
    )
