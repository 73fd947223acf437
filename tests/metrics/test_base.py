"""What metrics of pictures share, in one that is made up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from featviz_pl.metrics import ClippedShare, PictureMetric


class Brightness(PictureMetric):
    def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
        return pictures.mean((1, 2, 3))


def test_a_metric_of_one_s_own_says_how_it_measures() -> None:
    metric = Brightness("none")
    metric.update(torch.tensor([0.25, 0.75]).view(2, 1, 1, 1))
    assert metric.compute().tolist() == [0.25, 0.75]
    assert repr(metric) == "Brightness(reduction='none')"
    with pytest.raises(NotImplementedError):
        PictureMetric().update(torch.rand(1, 3, 4, 4))


def test_arguments_of_torchmetrics_are_taken() -> None:
    metric = ClippedShare(sync_on_compute=False, compute_on_cpu=True)
    assert (metric.sync_on_compute, metric.compute_on_cpu) == (False, True)
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `sync`"):
        ClippedShare(sync=False)


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Brightness()
    metric.update(torch.rand(2, 3, 4, 4))
    monkeypatch.setattr("torchmetrics.utilities.plot._MATPLOTLIB_AVAILABLE", False)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        metric.plot()
