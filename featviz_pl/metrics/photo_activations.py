"""How strongly the photos of a folder excite the units of a network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from featviz_pl.io.photos import photo_paths
from featviz_pl.metrics.embedding import unit_means
from featviz_pl.metrics.photos import PhotoRecord, Progress, device_of, measure_photos
from featviz_pl.metrics.targets import single_target
from featviz_pl.networks import FrozenNetwork, as_network
from featviz_pl.networks.probing import probe
from featviz_pl.numerics.checks import near, size_pair, whole_number
from featviz_pl.objectives import Observation, Setting, Source

_DEFAULT_SIZE = 224  # of the photos, for networks that name none


class PhotoActivations(PhotoRecord):
    """Hold how strongly each photo of a folder excites each unit of some layers of one network.

    The score of photo p for unit u is that of a picture for ``layer:u``: the mean over positions or tokens, or the
    logit of a class. Made by `measure_activations`.

    Args:
        values: (P, U) for each layer: P photos by U units.
        paths: of the P photos, relative to their folder.
        network: name of the network.
        weights_hash: of the network.
        size: of the photos as the network read them, (height, width).
        mean: that the network subtracts, or None.
        std: by which it divides then, or None.
        classes: names of its outputs.
        enlarged: how many photos are smaller than `size`.
        unreadable_paths: of the files that could not be read and were left out.

    Raises:
        ValueError: when the numbers of photos differ, or a value is NaN.

    Example:
        >>> values, paths = {"features": torch.tensor([[3.0], [1.0], [1.0], [2.0]])}, ["a", "b", "c", "d"]
        >>> photos = PhotoActivations(values, paths, network="toy", weights_hash="", size=8)
        >>> photos.of("features:0").tolist(), photos.strongest("features:0", 2).tolist()
        ([3.0, 1.0, 1.0, 2.0], [0, 3])
        >>> photos.percentile("features:0", 2.0).item()
        62.5
    """

    KIND = "photo_activations"
    MAKER = "featviz stats FOLDER --network NAME --layer LAYER, or measure_activations"

    def __init__(
        self,
        values: Mapping[str, Tensor],
        paths: Sequence[str],
        *,
        network: str,
        weights_hash: str,
        size: int | Sequence[int],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] = (),
        enlarged: int = 0,
        unreadable_paths: Sequence[str] = (),
    ) -> None:
        if not values or not paths:
            raise ValueError("values: there are none; measure at least one layer for at least one photo")
        for layer, scores in values.items():
            if scores.ndim != 2 or len(scores) != len(paths):
                shape, count = tuple(scores.shape), len(paths)
                raise ValueError(f"values: those of {layer!r} are {shape}, not (photos, units) for {count} photos")
            if scores.isnan().any():
                count = int(scores.isnan().any(1).sum())
                raise ValueError(f"values: {layer!r} gives NaN for {count} of {len(paths)} photos")
        super().__init__(paths, enlarged, unreadable_paths)
        self.values = dict(values)
        self.network, self.weights_hash = str(network), str(weights_hash)
        self.size = size_pair("size", size)
        self.mean = None if mean is None else tuple(float(value) for value in mean)
        self.std = None if std is None else tuple(float(value) for value in std)
        self.classes = tuple(classes)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that were measured."""
        return list(self.values)

    def of(self, target: str) -> Tensor:
        """Return the scores (P,) of all photos for a target, ``layer:unit`` or ``output:class``.

        Raises:
            ValueError: when it is no such target, or its layer, unit or class was not measured.
        """
        parsed = single_target(target)
        if parsed.units is None or parsed.position is not None:
            raise ValueError(f"target: {target!r} is no channel or class, which photos are measured for: 'layer:unit'")
        if parsed.layer not in self.values:
            hint = near(parsed.layer, self.layers)
            raise ValueError(f"target: the photos were not measured at {parsed.layer!r}; {hint}")
        values, source, objective = self.values[parsed.layer], Source(parsed.layer), parsed.objective()
        objective.check(Setting({source: tuple(values.shape[1:])}, 1, (1, 1, 1), class_names=self.classes))
        blank = values.new_zeros(len(values), 1, 1, 1)
        score: Tensor = objective(Observation(blank, {source: values[:, None]}, class_names=self.classes))
        return score[:, 0]

    def percentile(self, target: str, values: Tensor | float) -> Tensor:
        """Return what percentage of the photos scores less than values of any shape, those equal counted half; NaN for NaN."""
        scores = self.of(target).double().sort().values
        inputs = torch.as_tensor(values, dtype=torch.float64)
        queries = inputs.detach().to("cpu").contiguous()
        ranks = (torch.searchsorted(scores, queries) + torch.searchsorted(scores, queries, right=True)).double()
        return torch.where(queries.isnan(), queries, 50 * ranks / len(scores)).to(inputs.device)

    def strongest(self, target: str, k: int) -> Tensor:
        """Return the indices (k,) of the photos that score highest, in descending order; ties in the order of the photos."""
        return self._sorted(target, k, descending=True)

    def weakest(self, target: str, k: int) -> Tensor:
        """Return the indices (k,) of the photos that score lowest, in ascending order; ties in the order of the photos."""
        return self._sorted(target, k, descending=False)

    def _sorted(self, target: str, k: int, descending: bool) -> Tensor:
        if whole_number("k", k) > len(self):
            raise ValueError(f"k must be at most the number of photos, {len(self)}, got {k}")
        return self.of(target).sort(descending=descending, stable=True).indices[:k]

    def check(self, network: FrozenNetwork) -> None:
        """Refuse another network than the one that the photos were measured with.

        Raises:
            ValueError: when the weights, the mean or the standard deviation differ.
        """
        weights_hash = network.weights_hash()
        if weights_hash != self.weights_hash:
            raise ValueError(
                f"photos: they were measured with {self.network!r} (weights {self.weights_hash}), not with "
                f"{network.name!r} (weights {weights_hash}); measure them again with {self.MAKER}"
            )
        if (network.mean, network.std) != (self.mean, self.std):
            raise ValueError(
                f"photos: they were measured with mean={self.mean} and std={self.std}, but the network has "
                f"mean={network.mean} and std={network.std}; measure them again with {self.MAKER}"
            )

    def __repr__(self) -> str:
        """Show the origin and the counts, without the values."""
        return (
            f"PhotoActivations(<{len(self)} photos at {', '.join(self.layers)}>, network={self.network!r}, "
            f"weights_hash={self.weights_hash!r}, size={self.size}, enlarged={self.enlarged}, "
            f"unreadable={self.unreadable})"
        )


load_activations = PhotoActivations.load


def measure_activations(
    network: str | nn.Module | FrozenNetwork,
    folder: str | os.PathLike[str],
    layers: str | Sequence[str],
    *,
    size: int | Sequence[int] | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    progress: Progress | None = None,
) -> PhotoActivations:
    """Measure how strongly each photo in a folder and its subfolders excites each unit of some layers.

    All layers are read in one pass, which ends at the deepest. Photos are cropped and resampled to `size` as by
    `read_photos`; files that cannot be read are skipped and counted. Runs where the network's weights are.

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
        ...     photos = measure_activations(nn.Conv2d(3, 4, 3), folder, "output", size=16)
        >>> photos.values["output"].shape, photos.enlarged
        (torch.Size([3, 4]), 3)
    """
    frozen = as_network(network)
    names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    if not names:
        raise ValueError("layers must name at least one layer, such as 'features.9'")
    size = size_pair("size", size if size is not None else frozen.size or _DEFAULT_SIZE)
    paths = photo_paths(folder, limit)
    with torch.inference_mode(False), torch.no_grad():
        reader = frozen.reader()
        device = device_of(reader.module)
        for layer, shape in probe(reader, (frozen.channels, *size), names).items():
            if not shape:
                raise ValueError(f"layer: {layer!r} gives one number for each picture and has no units")

        def measure(pictures: Tensor) -> dict[str, Tensor]:
            with torch.autocast(device.type, enabled=False):
                activations = reader.activations(pictures.to(device), names)
            return {layer: unit_means(value).cpu() for layer, value in activations.items()}

        values, record = measure_photos(paths, folder, measure, size, frozen.channels, batch_size, workers, progress)
    record |= {"network": frozen.name, "weights_hash": frozen.weights_hash(), "classes": frozen.classes}
    return PhotoActivations(values, size=size, mean=frozen.mean, std=frozen.std, **record)
