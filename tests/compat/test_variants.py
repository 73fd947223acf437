"""The classes of `featviz_pl.compat`: their bases, their names, and the short names of configurations beside them."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import runpy
import sys
from typing import Any

import lightning.pytorch
import pytest
import torch
from jsonargparse import ArgumentParser
from toys import toy

pytorch_lightning = pytest.importorskip("pytorch_lightning")

from pytorch_lightning.utilities.model_helpers import is_overridden  # noqa: E402

from featviz_pl import callbacks, compat, sweep, training  # noqa: E402
from featviz_pl.images import FourierImage  # noqa: E402

MODULES: dict[str, Any] = {
    "FeatureSweep": sweep.FeatureSweep,
    "FeatureTargets": sweep.FeatureTargets,
    "FeatureVisualization": training.FeatureVisualization,
}
CLASSES = MODULES | {name: kind for name, kind in vars(callbacks).items() if isinstance(kind, type)}


def lightning_base(name: str) -> str:
    return {"FeatureTargets": "LightningDataModule"}.get(name, "LightningModule" if name in MODULES else "Callback")


def test_every_class_for_a_trainer_has_a_variant() -> None:
    assert set(compat.__all__) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_variant_inherits_from_both_packages(name: str) -> None:
    variant, base = getattr(compat, name), lightning_base(name)
    theirs, usual = getattr(pytorch_lightning, base), getattr(lightning.pytorch, base)
    assert variant.__mro__[:2] == (variant, CLASSES[name])
    assert 0 < variant.__mro__.index(theirs) < variant.__mro__.index(usual)
    assert (variant.__name__, variant.__module__) == (name, "featviz_pl.compat")
    assert pickle.loads(pickle.dumps(variant)) is variant


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_short_names_in_configurations_mean_the_usual_class(name: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=getattr(lightning.pytorch, lightning_base(name)))
    required = inspect.signature(CLASSES[name]).parameters.keys() & {"folder", "targets"}
    path = parser.parse_args(["--part", name, *(f"--part.{argument}=net" for argument in required)]).part.class_path
    module, _, attribute = path.rpartition(".")
    assert getattr(importlib.import_module(module), attribute) is CLASSES[name]


def test_state_in_checkpoints_has_the_same_key() -> None:
    for name, arguments in {"ImageSnapshot": {"folder": "out", "every": 3}, "StopOnPlateau": {}}.items():
        assert getattr(compat, name)(**arguments).state_key == getattr(callbacks, name)(**arguments).state_key


def test_a_module_survives_pickle_and_copy() -> None:
    module = compat.FeatureVisualization(toy(), "features.5:1", image=FourierImage(16))
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(copied) is compat.FeatureVisualization
        assert torch.equal(copied.images, module.images)


def test_a_trainer_sees_only_the_hooks_of_this_library_as_overridden() -> None:
    module = compat.FeatureVisualization(toy(), "features.5:1", image=FourierImage(16))
    hooks = (
        "training_step",
        "validation_step",
        "predict_step",
        "configure_optimizers",
        "configure_model",
        "prepare_data",
    )
    assert {hook for hook in hooks if is_overridden(hook, module)} == {"training_step", "configure_optimizers"}
    assert is_overridden("forward", module) is ("forward" in vars(training.FeatureVisualization))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    with pytest.raises(ImportError, match="pip install pytorch-lightning"):
        runpy.run_path(str(compat.__file__))
