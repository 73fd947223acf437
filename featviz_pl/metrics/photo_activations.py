"""Photos as the measure of pictures: reading them, and how strongly they excite the units of a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from featviz_pl.io.photo_batches import PhotoBatch, over_photos, photo_batches
from featviz_pl.io.photos import photo_paths
from featviz_pl.io.records import load_record, save_record
from featviz_pl.metrics.targets import single_target
from featviz_pl.networks import FrozenNetwork, as_network
from featviz_pl.networks.probing import probe
from featviz_pl.numerics.activation_axes import at_positions
from featviz_pl.numerics.checks import near, size_pair, whole_number
from featviz_pl.objectives import Observation, Setting, Source

_KIND, _VERSION, _MAKER = (
    "photo_activations",
    1,
    "featviz stats FOLDER --network NAME --layer LAYER, or measure_activations",
)
_SIZE = 224  # of the photos, for networks that name none


def read_photos(
    paths: Sequence[str | os.PathLike[str]],
    size: int | Sequence[int],
    channels: int = 3,
    batch_size: int = 32,
    workers: int = 0,
) -> Iterator[Tensor]:
    """Read photos in batches of one size, in the order of the paths.

    Each is cut to the aspect of `size` about its centre, resampled to it (blurred first where it shrinks, enlarged
    where it is smaller) and rounded to 256 levels, as pictures are before they are scored. Grayscale, CMYK and palettes
    are converted.

    Shape:
        each batch (B, channels, h, w) in [0, 1], float32

    Args:
        paths: of image files.
        size: of the result in pixels, one number or (height, width).
        channels: 3 for color, 1 for grayscale.
        batch_size: photos in a batch; the last may have fewer.
        workers: processes that read beside this one.

    Raises:
        ValueError: when a file cannot be read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (12, 10), (255, 0, 51)).save(f"{folder}/one.png")
        ...     [batch] = read_photos([f"{folder}/one.png"], size=8)
        >>> batch.shape, [round(value, 3) for value in batch[0, :, 0, 0].tolist()]
        (torch.Size([1, 3, 8, 8]), [1.0, 0.0, 0.2])
    """
    return map(_all_read, photo_batches(paths, size, channels, batch_size, workers))


def _all_read(batch: PhotoBatch) -> Tensor:
    if batch.unreadable:
        raise ValueError(f"paths: a file cannot be read as a photo of 8 bits per channel; {batch.reason}")
    return batch.pictures


class PhotoActivations:
    """Hold how strongly each photo of a folder excites each unit of some layers of one network.

    The score of photo p for unit u is that of a picture for ``layer:u``: the mean over positions or tokens, or the
    logit of a class. Made by `measure_activations`.

    Args:
        values: (P, U) for each layer: P photos by U units.
        paths: of the P photos, relative to their folder.
        network: name of the network.
        weights_hash: of the network.
        size: of the photos as the network saw them, (height, width).
        mean: that the network subtracts, or None.
        std: by which it divides then, or None.
        classes: names of its outputs.
        enlarged: how many photos are smaller than `size`.
        unreadable: how many files could not be read and were left out.
        unreadable_paths: of those, relative to the folder.

    Raises:
        ValueError: when the numbers of photos differ, or a value is NaN.

    Example:
        >>> held = PhotoActivations({"features": torch.tensor([[3.0], [1.0], [1.0], [2.0]])}, ["a", "b", "c", "d"], "toy", "", (8, 8))
        >>> held.of("features:0").tolist(), held.strongest("features:0", 2).tolist(), held.percentile("features:0", 2.0).item()
        ([3.0, 1.0, 1.0, 2.0], [0, 3], 62.5)
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        paths: Sequence[str],
        network: str,
        weights_hash: str,
        size: int | Sequence[int],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] = (),
        enlarged: int = 0,
        unreadable: int = 0,
        unreadable_paths: Sequence[str] = (),
    ) -> None:
        if not values or not paths:
            raise ValueError("values: there are none; measure at least one layer for at least one photo")
        for layer, held in values.items():
            if held.ndim != 2 or len(held) != len(paths):
                raise ValueError(
                    f"values: those of {layer!r} are {tuple(held.shape)}, not (photos, units) for {len(paths)} photos"
                )
            if held.isnan().any():
                raise ValueError(
                    f"values: {layer!r} gives NaN for {int(held.isnan().any(1).sum())} of {len(paths)} photos"
                )
        self.values = dict(values)
        self.paths = list(paths)
        self.network, self.weights_hash = str(network), str(weights_hash)
        self.size = size_pair("size", size)
        self.mean = None if mean is None else tuple(float(value) for value in mean)
        self.std = None if std is None else tuple(float(value) for value in std)
        self.classes = tuple(classes)
        self.enlarged = whole_number("enlarged", enlarged, least=0)
        self.unreadable = whole_number("unreadable", unreadable, least=0)
        self.unreadable_paths = tuple(unreadable_paths)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that were measured."""
        return list(self.values)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.paths)

    def of(self, target: str) -> Tensor:
        """Return the scores (P,) of all photos for a target, ``layer:unit`` or ``output:class``.

        Raises:
            ValueError: when it is no such target, or its layer, unit or class is not held.
        """
        parsed = single_target(target)
        if parsed.units is None or parsed.position is not None:
            raise ValueError(
                f"target: {target!r} is no channel or class, and photos are measured for those; give 'layer:unit'"
            )
        if parsed.layer not in self.values:
            raise ValueError(
                f"target: the photos were not measured at {parsed.layer!r}; {near(parsed.layer, self.layers)}"
            )
        held, source, objective = self.values[parsed.layer], Source(parsed.layer), parsed.objective()
        objective.check(Setting({source: tuple(held.shape[1:])}, 1, (1, 1, 1), self.classes))
        score: Tensor = objective(
            Observation(held.new_zeros(len(held), 1, 1, 1), {source: held[:, None]}, self.classes)
        )
        return score[:, 0]

    def percentile(self, target: str, values: Tensor | float) -> Tensor:
        """Return, for scores of any shape, how many photos in a hundred score less, those equal counted half; NaN for NaN."""
        held = self.of(target).double().sort().values
        asked = torch.as_tensor(values, dtype=torch.float64)
        own = asked.detach().to("cpu").contiguous()
        places = (torch.searchsorted(held, own) + torch.searchsorted(held, own, right=True)).double()
        return torch.where(own.isnan(), own, 50 * places / len(held)).to(asked.device)

    def strongest(self, target: str, k: int) -> Tensor:
        """Return the indices (k,) of the photos that score highest, the highest first; equal ones in the order of the photos."""
        return self._ordered(target, k, descending=True)

    def weakest(self, target: str, k: int) -> Tensor:
        """Return the indices (k,) of the photos that score lowest, the lowest first; equal ones in the order of the photos."""
        return self._ordered(target, k, descending=False)

    def _ordered(self, target: str, k: int, descending: bool) -> Tensor:
        if whole_number("k", k) > len(self):
            raise ValueError(f"k must be at most the number of photos, {len(self)}, got {k}")
        return self.of(target).sort(descending=descending, stable=True).indices[:k]

    def check(self, network: FrozenNetwork) -> None:
        """Refuse another network than the one that the photos were measured with.

        Raises:
            ValueError: when the weights, the mean or the standard deviation differ.
        """
        found = network.weights_hash()
        if found != self.weights_hash:
            raise ValueError(
                f"photos: they were measured with {self.network!r} (weights {self.weights_hash}), not with {network.name!r} "
                f"(weights {found}); measure them again with {_MAKER}"
            )
        if (network.mean, network.std) != (self.mean, self.std):
            raise ValueError(
                f"photos: they were measured with mean={self.mean} and std={self.std}, but the network has mean={network.mean} and "
                f"std={network.std}; measure them again with {_MAKER}"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the record to a file for `load_activations`; missing folders are made, and the file is whole or absent."""
        held = {name: value for name, value in vars(self).items() if name != "values"}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()}
        return save_record(path, _KIND, _VERSION, {**plain, "values": self.values})

    def __repr__(self) -> str:
        """Show of what it is, without the values."""
        return (
            f"PhotoActivations(<{len(self)} photos at {', '.join(self.layers)}>, network={self.network!r}, "
            f"weights_hash={self.weights_hash!r}, size={self.size}, enlarged={self.enlarged}, unreadable={self.unreadable})"
        )


def load_activations(path: str | os.PathLike[str]) -> PhotoActivations:
    """Read the activations of photos from a file that `PhotoActivations.save` wrote; no code in the file is run.

    Args:
        path: of the file.

    Raises:
        ValueError: when the file is missing, damaged, holds something else, or is of another version of the format.

    Example:
        >>> import tempfile
        >>> held = PhotoActivations({"features": torch.ones(2, 4)}, ["a.png", "b.png"], "toy", "", 8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_activations(held.save(f"{folder}/toy.pt")).paths
        ['a.png', 'b.png']
    """
    held = load_record(path, _KIND, _VERSION, _MAKER)
    try:
        return PhotoActivations(**{name: value for name, value in held.items() if name not in ("format", "version")})
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"path: {str(path)!r} is damaged ({error}); measure again") from error


def measure_activations(
    network: str | nn.Module | FrozenNetwork,
    folder: str | os.PathLike[str],
    layers: str | Sequence[str],
    size: int | Sequence[int] | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> PhotoActivations:
    """Measure how strongly each photo in a folder and its subfolders excites each unit of some layers.

    All layers are read in one pass, which ends at the deepest. Photos are cut and resampled to `size` as `read_photos`
    does it; files that cannot be read are skipped and counted. Runs where the network's weights are.

    Args:
        network: a name, a module that takes pictures in [0, 1], or a frozen network.
        folder: with photos, by classes or not.
        layers: dotted module names; ``"output"`` is the network's result.
        size: of the photos, one number or (height, width); the network's own, or 224, unless given.
        limit: read at most this many photos, evenly spread over the sorted names; all unless given.
        batch_size: photos in one pass.
        workers: processes that read photos beside this one; a program that starts some must guard its main part, as for
            every DataLoader.
        progress: called after each batch with the number of photos read so far and of all.

    Raises:
        ValueError: when the folder is missing or empty, no file in it can be read, or the network has no such layer.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a", "b", "c"):
        ...         Image.new("RGB", (12, 10)).save(f"{folder}/{name}.png")
        ...     found = measure_activations(nn.Conv2d(3, 4, 3), folder, "output", size=16)
        >>> found.values["output"].shape, found.enlarged
        (torch.Size([3, 4]), 3)
    """
    guest = as_network(network)
    wanted = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    if not wanted:
        raise ValueError("layers must name at least one layer, such as 'features.9'")
    chosen = size_pair("size", size if size is not None else guest.size or _SIZE)
    paths = photo_paths(folder, limit)
    with torch.inference_mode(False), torch.no_grad():
        found = over_photos(
            paths, chosen, guest.channels, batch_size, workers, _reader(guest, wanted, chosen), progress
        )
        values = {layer: torch.cat(parts) for layer, parts in found.values.items()}
    if not found.indices:
        raise ValueError(
            f"folder: none of {len(paths)} files in {str(folder)!r} can be read as a photo of 8 bits per channel; {found.reason}"
        )
    names, unreadable = (
        [Path(os.path.relpath(paths[index], folder)).as_posix() for index in part]
        for part in (found.indices, found.unreadable)
    )
    about = guest.mean, guest.std, guest.classes, found.enlarged, len(unreadable), unreadable
    return PhotoActivations(values, names, guest.name, guest.weights_hash(), chosen, *about)


def _reader(network: FrozenNetwork, layers: list[str], size: tuple[int, int]) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return what reads the units (B, U) of each layer for pictures, on the CPU, after a look whether that can work."""
    activation_reader = network.reader()
    device = next((weight.device for weight in activation_reader.module.parameters()), torch.device("cpu"))
    for layer, shape in probe(activation_reader, (network.channels, *size), layers).items():
        if not shape:
            raise ValueError(f"layer: {layer!r} gives one number for each picture and has no units")

    def read(pictures: Tensor) -> dict[str, Tensor]:
        with torch.autocast(device.type, enabled=False):
            found = activation_reader.activations(pictures.to(device), layers)
        return {layer: _by_unit(value).to("cpu") for layer, value in found.items()}

    return read


def _by_unit(activation: Tensor) -> Tensor:
    """Return the mean of each unit over its positions, (B, …) to (B, U), in float32 at least."""
    precise = activation.to(torch.promote_types(activation.dtype, torch.float32))
    return at_positions(precise[:, None]).mean(2)[:, 0]
