"""Statistics of data sets of photos, such as those of torchvision."""

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
        dataset: map-style; each item is a photo, or a tuple or list that begins with one: a Pillow image, or a tensor
            (channels, H, W) in [0, 1] or of 256 levels.
        size: of the spectrum in pixels.
        channels: 3 for color, 1 for grayscale.
        limit: read at most this many items, evenly spread; all unless given.
        workers: further processes that read photos.
        progress: called with the photos read so far and those to be read, counting both readings.

    Raises:
        TypeError: when the items are no photos, or cannot be read by number.
        ValueError: when there are none, none can be read, all are smaller than `size`, or tensors do not fit.

    Example:
        >>> photos = [(Pillow.new("RGB", (12, 10), (level, level, 0)), "label") for level in (64, 192)]
        >>> statistics = dataset_statistics(photos, size=8)
        >>> [round(value * 255) for value in statistics.mean.tolist()], statistics.count, statistics.spectrum.count
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
            names = type(self.dataset).__name__, type(photo).__name__
            raise TypeError(
                "dataset: items of {} must be or begin with a Pillow image or a tensor, got {}".format(*names)
            )
        try:
            return picture_tensor(photo, self.channels)
        except Exception as error:  # Pillow reads a file when its pixels are asked for
            raise UnreadableError(f"item {number}: {error}") from error

    def check(self) -> None:
        """Refuse a data set of other things in this process: errors of workers come with their whole traceback."""
        with suppress(UnreadableError):  # others may be readable
            self[0]

    def _checked(self, photo: Tensor) -> Tensor:
        if photo.ndim != 3 or photo.shape[0] != self.channels or not photo.numel():
            shape = tuple(photo.shape)
            raise ValueError(f"dataset: photos as tensors must be ({self.channels}, H, W), got shape {shape}")
        if photo.dtype == torch.uint8:
            return photo.to(torch.float32) / 255
        if not photo.is_floating_point() or not bool(((photo >= 0) & (photo <= 1)).all()):
            hint = "leave normalisation out of its transform"
            raise ValueError(f"dataset: photos as tensors must lie in [0, 1], or be torch.uint8; {hint}")
        return photo


def torchvision_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    download: bool = False,
    options: dict[str, Any] | None = None,
) -> Any:
    """Build a data set of torchvision by name; nothing is downloaded by default.

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
    for option in arguments:
        if option not in parameters:
            raise unknown("option", f"argument of {name}", option, list(parameters))
    if root is not None and "root" in parameters:
        arguments["root"] = root
    if split is not None:
        arguments |= _split_argument(name, split, parameters)
    if "download" in parameters:
        arguments["download"] = download
    elif download:
        raise ValueError(
            f"download: torchvision cannot download {name}; get its data from its publisher, and give --root"
        )
    required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
    missing = [key for key in required if key not in arguments]
    if missing:
        raise ValueError(f"dataset: {name} needs {_flags(missing)}")
    try:
        return known[name](**arguments)
    except (RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, (RuntimeError, OSError)) and "download" in parameters and not download:
            raise ValueError(
                f"dataset: the data of {name} are not in {str(root)!r}, or not all of them ({reason}); "
                "give another --root, or --download"
            ) from error
        raise ValueError(f"dataset: {name} cannot be built: {reason}") from error


def _torchvision_classes() -> dict[str, Any]:
    """Return the data sets of torchvision by name."""
    from torchvision import datasets

    members = {name: getattr(datasets, name) for name in sorted(datasets.__all__) if name != "VisionDataset"}
    return {name: member for name, member in members.items() if isinstance(member, type)}


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return the arguments of a class, with those that its ``**kwargs`` pass to base classes, as EMNIST does to MNIST."""
    parameters: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            arguments = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]  # without self
            named = [part for part in arguments if part.kind not in (part.VAR_KEYWORD, part.VAR_POSITIONAL)]
            parameters = {part.name: part for part in named} | parameters
            if all(part.kind is not part.VAR_KEYWORD for part in arguments):
                break
    return parameters


def _split_argument(name: str, split: str, parameters: dict[str, inspect.Parameter]) -> dict[str, Any]:
    """Return a split as the argument of the class."""
    for argument in ("split", "image_set"):
        if argument in parameters:
            return {argument: split}
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
