"""A table of metrics with one row for each picture."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from featviz_pl.io.files import write_whole
from featviz_pl.metrics.embedding import Embedding
from featviz_pl.metrics.evaluation.pictures import Pictures, gather_pictures
from featviz_pl.metrics.evaluation.table import MetricTable
from featviz_pl.metrics.photo_activations import PhotoActivations
from featviz_pl.metrics.photo_embeddings import PhotoEmbeddings
from featviz_pl.metrics.photos import Progress
from featviz_pl.networks import FrozenNetwork, as_network
from featviz_pl.numerics.checks import whole_number

__all__ = ["Evaluation", "evaluate"]


@dataclass
class Evaluation:
    """Hold a table of metrics, one row for each picture, and the values of all together.

    Args:
        rows: for each picture the columns by name; None where a column does not apply.
        summary: mean of every column over the pictures to which it applies, of scores only where all are of one target;
            then the values of the set.
        settings: what the values depend on: network, judge, photos, views.
        notes: remarks, such as which files were left out.

    Example:
        >>> evaluation = Evaluation([{"picture": "a.png", "target": "output:0", "score": 2.0}], {"score": 2.0})
        >>> print(evaluation.table())
        picture  target    score
        a.png    output:0      2
    """

    rows: list[dict[str, Any]]
    summary: dict[str, float | None] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def table(self) -> str:
        """Return the table as text: a row for each picture, their means, the values of the set, and those of photos."""
        columns = self.columns
        lines = [columns, *([_cell(row.get(name)) for name in columns] for row in self.rows)]
        if len(self.rows) > 1:
            lines.append(["mean", "", *(_cell(self.summary.get(name)) for name in columns[2:])])
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = [
            "  ".join(
                cell.ljust(width) if index < 2 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths))
            )
            for line in lines
        ]
        set_values = {name: value for name, value in self.summary.items() if name not in columns}
        of_photos = {name: value for name, value in self.settings.get("of_photos", {}).items() if name in columns}
        for label, values in (("set", set_values), ("photos have", of_photos)):
            if values:
                text.append(f"{label}: {', '.join(f'{name} {_cell(value)}' for name, value in values.items())}")
        return "\n".join(line.rstrip() for line in text)

    def to_json(self) -> str:
        """Return everything as one line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table to a file that is whole or absent: everything as ``.json``, or the rows alone as ``.csv``.

        Raises:
            ValueError: when the path has another suffix.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     Evaluation([{"picture": "a.png", "score": 2.0}]).save(f"{folder}/a.csv").read_text().splitlines()
            ['picture,score', 'a.png,2.0']
        """
        file = check_table_path(path)
        text = self.to_json() + "\n" if file.suffix.lower() == ".json" else self._csv()
        return write_whole(file, text)

    def _csv(self) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return buffer.getvalue()


def check_table_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a table when its suffix names a format.

    Raises:
        ValueError: when it ends in neither .csv nor .json, or is a folder.
    """
    file = Path(path)
    if file.suffix.lower() not in (".csv", ".json"):
        raise ValueError(f"output: {str(path)!r} must end in .csv or .json")
    if file.is_dir():
        raise ValueError(f"output: {str(path)!r} is a folder; give the path of a file")
    return file


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def evaluate(
    pictures: Pictures,
    network: str | nn.Module | FrozenNetwork,
    targets: str | Sequence[str] | None = None,
    *,
    judge: str | nn.Module | FrozenNetwork | None = None,
    photos: str | os.PathLike[str] | PhotoEmbeddings | None = None,
    activations: str | os.PathLike[str] | PhotoActivations | None = None,
    embedding: Embedding | None = None,
    views: int = 16,
    limit: int | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure pictures by all metrics, each alone and all together.

    Columns: `score` as they are, `held_out` through views they were not made for; `slope`, `clipped`, `color_distance`,
    `variation` and `high_frequency` of the pixels; with photos, the `percentile` of the score among theirs, the
    similarity to the `nearest` ones, and `forced_choice`, whose controls are the pictures of other targets; with a
    judge, `transfer` and `rank` of the class, among the classes that judge and network have in common. Of the set:
    `pairwise_distance` and `vendi`, and `agreement` where one of several targets occurs more than once. Each is
    described with its metric in `featviz_pl.metrics`, and None where it does not apply. Nothing is downloaded, except
    for the weights of networks by name.

    Args:
        pictures: tensors (N, C, H, W) in [0, 1], PNG files, folders of those, or a list of these; sizes may differ.
        network: that the pictures were made with: a name, an ``nn.Module`` or a `FrozenNetwork`.
        targets: such as ``"features.9:33"``, one for each picture or one for all; those of the files unless given.
        judge: an independent classifier.
        photos: a folder of photos, or a `PhotoEmbeddings` of them, or its file.
        activations: of photos, by `measure_activations`, or a file of them; measured on the folder of photos unless
            given. Then exactly their photos of the folder are compared.
        embedding: that compares pictures; the default one unless given.
        views: number of views of `held_out`, 1 or more.
        limit: number of photos, evenly spread; all unless given.
        workers: processes that read photos beside this one.
        progress: called with the photos read so far and those to be read.

    Raises:
        ValueError: when a picture cannot be read or has no target, a target does not fit the network, the judge does
            not have a class, or the photos do not fit.

    Example:
        >>> import torch
        >>> pictures = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
        >>> evaluation = evaluate(pictures, "embedded", "output:church", views=2)
        >>> evaluation.columns[2:], round(evaluation.summary["clipped"], 2)
        (['score', 'held_out', 'slope', 'clipped', 'color_distance', 'variation', 'high_frequency'], 0.01)
    """
    frozen = as_network(network)
    whole_number("views", views)
    gathered, notes = gather_pictures(pictures, frozen.channels, targets)
    table = MetricTable(gathered, frozen, embedding, targets_from_files=targets is None)
    table.measure_activation(views)
    if photos is not None or activations is not None:
        table.compare_with_photos(photos, activations, limit, workers, progress)
    if judge is not None:
        table.measure_transfer(as_network(judge))
    table.measure_pixels()
    table.measure_set()
    settings = {"network": frozen.name, "weights": table.weights, "views": views}
    settings |= {**table.settings, "of_photos": table.of_photos}
    return Evaluation(table.rows(), table.summary(), settings, [*notes, *table.notes])
