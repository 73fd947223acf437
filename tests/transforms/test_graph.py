"""Any views are drawn by TensorBoard's graph, without a warning of the tracer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms import v2

from featviz_pl.transforms import (
    VIEW_PRESETS,
    Background,
    Blur,
    Choice,
    Compose,
    Crop,
    CropOrPad,
    Flip,
    Jitter,
    NormalizeGradient,
    Scale,
    Torchvision,
    Transform,
    Views,
    view_preset,
)

# torch's own: add_graph traces, and tracing is deprecated. Everything else, warnings of the tracer included, is an
# error.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:FutureWarning")


def operations(views: Views, images: torch.Tensor, folder: Path) -> set[str]:
    """Add the graph of views to an event file, and return the operations that it holds."""
    with SummaryWriter(str(folder)) as writer:
        writer.add_graph(views, images)
    graph = GraphDef()
    for path in folder.iterdir():
        for event in EventFileLoader(str(path)).Load():
            if event.graph_def:
                graph.ParseFromString(event.graph_def)
    return {node.op for node in graph.node}


@pytest.mark.parametrize("name", VIEW_PRESETS)
def test_every_preset_has_a_graph(name: str, tmp_path: Path) -> None:
    composed, _ = view_preset(name)
    found = operations(Views(Compose(composed.listed(), size=12), 3), torch.rand(2, 3, 48, 40), tmp_path)
    assert {"aten::repeat_interleave", "aten::grid_sampler"} <= found
    assert not found & {"aten::rand", "aten::randn", "aten::randint", "prim::PythonOp"}


@pytest.mark.parametrize(
    ("transform", "channels", "expected"),
    [
        (lambda: Scale(Choice([0.5])), 3, "aten::grid_sampler"),
        (lambda: Compose([Jitter(1), Blur([0.5, 1.0]), Crop(end=0.5)]), 3, "aten::addcmul"),
        (lambda: CropOrPad((12, 5)), 3, "aten::pad"),
        (lambda: Background(), 4, "aten::repeat_interleave"),
        (lambda: NormalizeGradient(), 3, "aten::view_as"),
        (lambda: Torchvision(v2.RandomHorizontalFlip(p=1.0)), 3, "aten::flip"),
        (lambda: Compose([Flip(), Compose([Jitter(1)], size=5), Jitter(2)]), 1, "aten::grid_sampler"),
    ],
)
@pytest.mark.parametrize("schedule", [None, "linear"])
def test_every_kind_of_transform_has_a_graph(
    transform: Any, channels: int, expected: str, schedule: str | None, tmp_path: Path
) -> None:
    made: Transform = transform()
    found = operations(Views(made, 2, schedule), torch.rand(1, channels, 8, 9), tmp_path)
    # At strength 0 some do nothing, and have no node.
    assert {"aten::repeat_interleave", expected} - found <= (
        set() if schedule is None else {"aten::addcmul", "aten::flip"}
    )


def test_the_graph_computes_the_views() -> None:
    noise = Torchvision(v2.Compose([v2.GaussianNoise(), v2.RandomHorizontalFlip(), v2.ColorJitter(0.2)]))
    views = Views(Compose([Jitter(2), Scale(Choice([0.5, 1.0])), Blur(0.7), noise, Crop()], size=6), 3)
    first, other = torch.rand(2, 3, 8, 9), torch.rand(2, 3, 8, 9)
    traced = torch.jit.trace(views, (first,))
    torch.testing.assert_close(traced(other), views(other))
