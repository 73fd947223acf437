"""The rooms of the library: imports point downwards, and no file imports itself by way of others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"featviz_pl": ROOT / "featviz_pl", "featviz_pl_callbacks": ROOT / "callbacks" / "featviz_pl_callbacks"}

# From the top; rooms on one line do not import one another, but for the pairs below.
FLOORS = [
    {"featviz_pl.__main__"},
    {"featviz_pl.cli"},
    {"featviz_pl.rendering", "featviz_pl.compat"},
    {"featviz_pl.callbacks"},
    {"featviz_pl_callbacks"},
    {"featviz_pl.sweep"},
    {"featviz_pl.training"},
    {"featviz_pl.presets", "featviz_pl.metrics", "featviz_pl.engine"},
    {"featviz_pl.objectives"},
    {"featviz_pl.images"},
    {"featviz_pl.statistics"},
    {"featviz_pl.transforms", "featviz_pl.networks"},
    {"featviz_pl.io"},
    {"featviz_pl.numerics"},
]
WITH_LIGHTNING = {"cli", "rendering", "compat", "callbacks", "sweep", "training"}
FORBIDDEN = {("featviz_pl.objectives", "featviz_pl.networks")}


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield what a file imports, inside functions and for type checkers too: modules of ours, and the top of other packages."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in names]
        else:
            continue
        yield from (name if name in known else name.partition(".")[0] for name in names)


KNOWN = modules()
GRAPH = {name: set(imports(path, KNOWN)) for name, path in KNOWN.items()}


def room(module: str) -> str:
    return ".".join(module.split(".")[:2]) if module.startswith("featviz_pl.") else module.partition(".")[0]


def test_no_file_imports_itself_by_way_of_others() -> None:
    unvisited, path = set(GRAPH), []

    def visit(module: str) -> None:
        path.append(module)
        for imported in sorted(GRAPH[module] & KNOWN.keys()):
            if imported in path:
                pytest.fail(" -> ".join([*path[path.index(imported) :], imported]))
            if imported in unvisited:
                visit(imported)
        unvisited.discard(path.pop())

    while unvisited:
        visit(min(unvisited))


def test_imports_point_downwards() -> None:
    height = {name: len(FLOORS) - index for index, floor in enumerate(FLOORS) for name in floor}
    upwards = [
        f"{module} imports {imported}"
        for module, all_imported in GRAPH.items()
        for imported in all_imported & KNOWN.keys()
        if module != "featviz_pl" and room(module) != room(imported)
        if height[room(module)] <= height.get(room(imported), len(FLOORS))
        or (room(module), room(imported)) in FORBIDDEN
    ]
    assert not upwards, "\n".join(sorted(upwards))


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in KNOWN} - {"featviz_pl"} == set.union(*FLOORS)


def test_lightning_stays_in_the_upper_rooms() -> None:
    below = {
        module
        for module, imported in GRAPH.items()
        if imported & {"lightning", "pytorch_lightning"} and module.startswith("featviz_pl.")
        if module.split(".")[1] not in WITH_LIGHTNING
    }
    assert not below
