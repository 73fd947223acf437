"""Compare the looks of all presets: the same units, the same time for each, the metrics of the library.

    python -m benchmarks.quality --weights squeezenet1_0.pth --photos PHOTOS/ -o DIR

Sixteen channels at four depths of ``squeezenet1_0``, judged by photos, and the ten classes of the embedded network,
judged by ``squeezenet1_0``. Each preset gets the seconds for a picture that ``lucid`` takes for ``--steps`` steps on
the same network, measured in alternating rounds at the beginning; the number of steps follows from that, so that
schedules know it. Pictures have the network's own size. Writes ``quality.json``, a sheet for each preset, and the
pictures, which a second run with the same settings takes as they are; prints the rows of the tables in QUALITY.md. Of
several ``--seeds``, the first is that of the table, and all tell whether they agree.

Measure on a quiet machine. The default was not chosen on these units: see QUALITY.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import featviz_pl as fv
from featviz_pl.engine import Ascent
from featviz_pl.engine.ascent import trained_parameters
from featviz_pl.io import contact_sheet, read_picture, to_pillow
from featviz_pl.io.photos import photo_paths
from featviz_pl.metrics import (
    Agreement,
    Embedding,
    PathSimilarity,
    PhotoActivations,
    PhotoEmbeddings,
    TransferRank,
    embed_photos,
    evaluate,
    load_activations,
    load_embeddings,
    measure_activations,
)
from featviz_pl.numerics.resampling import resize
from featviz_pl.objectives import Objective, parse_target
from featviz_pl.presets import PRESETS, Recipe, recipe
from featviz_pl.rendering import RenderResult, render
from featviz_pl.transforms import Views

REFERENCE = "lucid"
Photos = tuple[PhotoActivations, PhotoEmbeddings]
LAYERS = {
    "features.4": 128,
    "features.7": 256,
    "features.10": 512,
    "features.12": 512,
}  # depths, and their number of channels
UNITS_OF_A_LAYER = 4
PARTS = ("channels", "classes")
# Columns of the channels in the first table of QUALITY.md, with their digits.
FIRST_TABLE = {"percentile": 1, "slope": 2, "clipped": 3, "high_frequency": 2, "nearest": 2, "forced_choice": 2}
OF_SEVERAL = "agreement_with_the_reference"
SECOND_TABLE = (
    "color_distance",
    "variation",
    "pairwise_distance",
    "vendi",
    "agreement",
)  # of channels; of classes again at the end
CELL = 112  # pixels of a picture on a sheet
FRESH = 20  # the step that is timed first: the dead starts of the first 16 cost a second pass


def targets_of_the_table() -> dict[str, list[str]]:
    """Return four channels, evenly spread, of each of four layers; the search for the default used others."""
    return {
        layer: [f"{layer}:{(2 * index + 1) * count // (2 * UNITS_OF_A_LAYER)}" for index in range(UNITS_OF_A_LAYER)]
        for layer, count in LAYERS.items()
    }


def shorthand(targets: Sequence[str]) -> str:
    """Return one target for several of a layer.

    >>> shorthand(["features.4:32", "features.4:96"])
    'features.4:32,96'
    """
    return f"{targets[0].partition(':')[0]}:{','.join(target.partition(':')[2] for target in targets)}"


def photo_to_start_from(preset: Recipe, photos: Path, count: int, size: tuple[int, int]) -> Tensor | None:
    """Return what a preset that changes a photo begins with: the same first photo for every picture."""
    if preset.name != "accentuation":
        return None
    photo = read_picture(photo_paths(photos, 1)[0])
    photo = photo if photo.ndim == 4 else photo[None]
    return resize(photo, size).clamp(0, 1).expand(count, -1, -1, -1).contiguous()


class Problem:
    """Hold the pictures of one batch of targets, to be rendered by one preset after another."""

    def __init__(self, network: fv.FrozenNetwork, target: str, photos: Path, seed: int) -> None:
        assert network.size is not None
        self.network, self.target, self.photos, self.seed, self.size = network, target, photos, seed, network.size
        self.count = parse_target(target).count() or 1

    def stepper(self, preset: Recipe) -> Any:
        """Return a function that takes one step of a preset and returns its seconds."""
        image = preset.image(size=self.size, channels=3)
        start = photo_to_start_from(preset, self.photos, self.count, self.size)
        objective: Objective = parse_target(self.target)
        if start is not None:
            image.allocate(self.count)
            image.start_from(start)
        preset = preset.for_layers(source.layer for source in objective.sources())
        if preset.make_objective is not None:
            objective = preset.make_objective(objective, self.network, self.size, start)
        problem = Ascent(image, self.network, objective, 0, Views(preset.transforms, preset.views))
        problem.initialize()
        problem.prepare()
        optimizer = preset.make_optimizer(trained_parameters(image))

        def step(index: int) -> float:
            began = time.perf_counter()
            optimizer.zero_grad()
            problem.step(FRESH + index, 1000).loss.backward()
            optimizer.step()
            return time.perf_counter() - began

        return step

    def seconds(self, preset: Recipe, rounds: int) -> tuple[float, float]:
        """Return the seconds of a step of the reference and of a preset: medians of alternating rounds."""
        reference, candidate = self.stepper(recipe(REFERENCE)), self.stepper(preset)
        pairs = [(reference(index), candidate(index)) for index in range(rounds + 2)][2:]
        return statistics.median(first for first, _ in pairs), statistics.median(second for _, second in pairs)

    def render(self, preset: Recipe, steps: int) -> RenderResult:
        """Render the pictures with a preset."""
        start = photo_to_start_from(preset, self.photos, self.count, self.size)
        return render(
            self.network,
            self.target,
            preset=preset,
            steps=steps,
            size=self.size,
            start=start,
            seed=self.seed,
            accelerator="cpu",
        )


def rendered(
    problem: Problem, preset: Recipe, budget: int, rounds: int, folder: Path
) -> tuple[list[Path], dict[str, Any]]:
    """Return the files of a batch of pictures and what they cost, from an earlier run where there is one."""
    record = folder / "cost.json"
    settings = {
        "recipe": described(preset),
        "target": problem.target,
        "seed": problem.seed,
        "steps_of_the_reference": budget,
    }
    if record.is_file():
        previous = json.loads(record.read_text())
        if previous["settings"] == json.loads(json.dumps(settings)):
            return [folder / name for name in previous["files"]], previous
    reference, ours = problem.seconds(preset, rounds)
    steps = max(8, round(budget * reference / ours))
    result = problem.render(preset, steps)
    files = [path.name for path in result.save(folder / "sheet.png")]
    cost = {
        "settings": settings,
        "files": files,
        "steps": steps,
        "step_ms": 1e3 * ours / problem.count,
        "seconds": result.seconds / problem.count,
    }
    record.write_text(json.dumps(cost))
    return [folder / name for name in files], cost


def of_all_seeds(
    options: argparse.Namespace, network: fv.FrozenNetwork, target: str, part: str, preset: Recipe
) -> tuple[list[list[Path]], dict[str, Any]]:
    """Return the files of a batch of pictures for every seed, and what those of the first cost."""
    by_seed, costs = [], []
    for seed in options.seeds:
        folder = options.output / "pictures" / preset.name / str(seed) / part
        folder.mkdir(parents=True, exist_ok=True)
        files, cost = rendered(
            Problem(network, target, options.photos, seed), preset, options.steps, options.rounds, folder
        )
        by_seed.append(files)
        costs.append(cost)
    return by_seed, costs[0]


def agreement(files_of_seeds: Sequence[Sequence[Path]], targets: Sequence[str]) -> float | None:
    """Return how far the pictures of several seeds show the same; None for one seed."""
    if len(files_of_seeds) < 2:
        return None
    metric = Agreement(Embedding())
    for files in files_of_seeds:
        metric.update(torch.cat([read_picture(file)[None] for file in files]), list(targets))
    return float(metric.compute())


def path_similarity(
    network: fv.FrozenNetwork,
    files: Sequence[Path],
    targets: Sequence[str],
    activations: PhotoActivations,
    photos: Path,
) -> dict[str, float | None]:
    """Return how like photos of their kind the layers of the table treat the pictures, layer by layer."""
    metric = PathSimilarity(network, list(LAYERS), photos=activations, folder=photos)
    for file, target in zip(files, targets):
        metric.update(read_picture(file)[None], target)
    return {layer: float(value) if value.isfinite() else None for layer, value in metric.compute().items()}


def described(preset: Recipe) -> str:
    """Return what decides the pictures of a recipe: one that was changed has its pictures rendered anew."""
    parts = (
        preset.image(size=32),
        preset.transforms,
        preset.views,
        preset.optimizer.__name__,
        preset.lr,
        dict(preset.optimizer_arguments),
    )
    return repr((*parts, preset.scheduler is not None, dict(preset.output_overrides), fv.__version__))


def sheet_of(files: Sequence[Path], path: Path, columns: int) -> None:
    """Write a small sheet of pictures, as JPEG because there are many."""
    pictures = [read_picture(file)[None] for file in files]
    cells = torch.cat([resize(picture, (CELL, CELL)).clamp(0, 1) for picture in pictures])
    to_pillow(contact_sheet(cells, columns=columns)).save(path, quality=88)


def measured_photos(network: fv.FrozenNetwork, options: argparse.Namespace) -> tuple[PhotoActivations, PhotoEmbeddings]:
    """Measure how photos activate the layers of the table, and what they look like, once for all runs into a folder."""
    activations, embeddings = options.output / "activations.pt", options.output / "embeddings.pt"
    if not activations.is_file():
        measure_activations(network, options.photos, list(LAYERS), limit=options.limit).save(activations)
    if not embeddings.is_file():
        embed_photos(Embedding(), options.photos, limit=options.limit).save(embeddings)
    return load_activations(activations), load_embeddings(embeddings)


def units(options: argparse.Namespace, network: fv.FrozenNetwork, preset: Recipe, photos: Photos) -> dict[str, Any]:
    """Render and measure the sixteen channels with one preset."""
    files_of_seeds: list[list[Path]] = [[] for _ in options.seeds]
    costs = []
    for layer, targets in targets_of_the_table().items():
        layer_files, cost = of_all_seeds(options, network, shorthand(targets), layer, preset)
        for files, ours in zip(files_of_seeds, layer_files):
            files += ours
        costs.append(cost)
    files = files_of_seeds[0]
    named = [target for targets in targets_of_the_table().values() for target in targets]
    table = evaluate(files, network, photos=photos[1], activations=photos[0])
    sheet_of(files, options.output / f"{preset.name}-channels.jpg", 2 * UNITS_OF_A_LAYER)
    summary = {**table.summary, "agreement": agreement(files_of_seeds, named)}
    path = path_similarity(network, files, named, photos[0], options.photos)
    return {"rows": table.rows, "summary": summary, "path": path, "costs": costs}


def classes(options: argparse.Namespace, judge: fv.FrozenNetwork, preset: Recipe) -> dict[str, Any]:
    """Render and measure the ten classes of the embedded network with one preset."""
    network = fv.load_network("embedded")
    named = [f"output:{index}" for index in range(len(network.classes))]
    files_of_seeds, cost = of_all_seeds(options, network, f"output:0-{len(named) - 1}", "classes", preset)
    files = files_of_seeds[0]
    table = evaluate(files, network, judge=judge)
    sheet_of(files, options.output / f"{preset.name}-classes.jpg", len(files))
    ranks = ranks_among_all(files, judge, network.classes)
    summary = {
        **table.summary,
        "recognised": sum(rank == 1 for rank in ranks),
        "agreement": agreement(files_of_seeds, named),
    }
    rows = [{**row, "rank_among_all": rank} for row, rank in zip(table.rows, ranks)]
    return {"rows": rows, "summary": summary, "costs": [cost]}


def ranks_among_all(files: Sequence[Path], judge: fv.FrozenNetwork, names: Sequence[str]) -> list[float]:
    """Return the rank that the judge gives to each class among all of its own, not only among those that it shares."""
    metric = TransferRank(judge, reduction="none")
    metric.update(torch.cat([read_picture(file)[None] for file in files]), list(names))
    return [float(rank) for rank in metric.compute().tolist()]  # ties count half


def against(rows: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]], column: str = "held_out") -> float:
    """Return by what factor the scores are those of the reference: the geometric mean over units, whose scores differ in scale.

    >>> round(against([{"held_out": 2.0}, {"held_out": 100.0}], [{"held_out": 1.0}, {"held_out": 200.0}]), 6)
    1.0
    """
    least = 1e-3  # of the reference: a unit that does not respond at all would make the mean 0
    ratios = [max(ours[column] / candidate[column], least) for ours, candidate in zip(rows, reference)]
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def compare_with_the_reference(table: dict[str, Any]) -> None:
    """Add to every preset whether its pictures of the channels show the same as those of the reference, where there is one."""
    for name, parts in table.items():
        files = [
            [Path(row["picture"]) for row in table[key]["channels"]["rows"]]
            for key in (name, REFERENCE)
            if key in table
        ]
        targets = [row["target"] for row in parts["channels"]["rows"]]
        parts["channels"]["summary"][OF_SEVERAL] = None if name == REFERENCE else agreement(files, targets)


def markdown(table: dict[str, Any]) -> str:
    """Return the rows of both tables of QUALITY.md; scores of channels are relative to those of the reference, where there is one."""
    first, second = [], []
    for name, parts in table.items():
        of_channels, of_classes = (parts[part]["summary"] for part in PARTS)
        rows, logits = parts["channels"]["rows"], statistics.fmean(row["held_out"] for row in parts["classes"]["rows"])
        ratio = against(rows, table[REFERENCE]["channels"]["rows"]) if REFERENCE in table else None
        ours = " | ".join(cell(of_channels[column], digits) for column, digits in FIRST_TABLE.items())
        recognised = f"{cell(logits, 1)} | {of_classes['recognised']} | {cell(of_classes['transfer'])} | {cell(of_classes['slope'])}"
        first.append(f"| `{name}` | {cell(ratio)} | {ours} | {recognised} |")
        sets = [[cell(summary[column]) for column in SECOND_TABLE] for summary in (of_channels, of_classes)]
        path = [cell(value) for value in parts["channels"]["path"].values()]
        second.append(f"| `{name}` | {' | '.join([*sets[0], cell(of_channels[OF_SEVERAL]), *path, *sets[1]])} |")
    return "\n".join([*first, "", *second])


def cell(value: float | None, digits: int = 2) -> str:
    """Return a number for a table.

    >>> cell(0.0432, 3), cell(1.0), cell(None)
    ('0.043', '1.00', '–')
    """
    return "–" if value is None else f"{value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="DEFAULT", help="of squeezenet1_0 (default: torchvision's)")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), help="names (default: all)")
    parser.add_argument(
        "--steps", type=int, default=512, help=f"of {REFERENCE}, whose time everybody gets (default: 512)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[1],
        help="of the pictures (default: 1; the search for the default used 0)",
    )
    parser.add_argument("--rounds", type=int, default=7, help="of the timing (default: 7)")
    parser.add_argument("--limit", type=int, help="number of photos (default: all)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for pictures, sheets and quality.json")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    options.output.mkdir(parents=True, exist_ok=True)
    network = fv.load_network("squeezenet1_0", weights=options.weights)
    photos = measured_photos(network, options)
    table: dict[str, Any] = {}
    for name in options.presets:
        preset = recipe(name)
        table[name] = {
            "channels": units(options, network, preset, photos),
            "classes": classes(options, network, preset),
        }
        print(name, json.dumps({part: part_result["summary"] for part, part_result in table[name].items()}), flush=True)
    compare_with_the_reference(table)
    print(markdown(table))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    (options.output / "quality.json").write_text(json.dumps({"settings": settings, "table": table}, indent=1))


if __name__ == "__main__":
    main()
