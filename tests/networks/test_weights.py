"""Weights from files: every layout that training programs write, and errors that name the keys."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from toys import QUIET, toy

from featviz_pl.networks import load_network
from featviz_pl.networks.weights import load_weights, read_state_dicts

Change = Callable[[dict[str, Tensor]], object]


class Model(LightningModule):
    """Train a toy network beside a second one, as programs with a teacher do."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.teacher = toy(seed=5)
        self.net = nn.ModuleDict({"student": toy(seed=6)})

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self.net["student"](batch[0]).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def require_equal(network: nn.Module, expected: dict[str, Any]) -> None:
    state = network.state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in state)


LAYOUTS: dict[str, Change] = {
    "plain": lambda state: state,
    "under state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": 0.7},
    "under model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}},
    "of a parallel training": lambda state: {f"module.{key}": value for key, value in state.items()},
    "of a compiled network": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "nested and prefixed": lambda state: {"state_dict": {f"model.net.{key}": value for key, value in state.items()}},
    "beside other parts": lambda state: {
        "state_dict": {"loss.weight": torch.ones(3)} | {f"net.{key}": v for key, v in state.items()}
    },
    "in half precision": lambda state: {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    },
    "beside other numbers": lambda state: {"epoch": 3, "model_state_dict": state, "loss": torch.tensor(0.3)},
    "under net": lambda state: {"net": state, "acc": 93.1},
    "averaged, beside an empty model": lambda state: {"model_ema": state, "model": {}, "optimizer": {}},
    "averaged, deep": lambda state: {"ema": {"module": state, "decay": 0.99}},
    "not the averaged one, which comes first": lambda state: {
        "ema": {key: torch.zeros_like(value) for key, value in state.items()},
        "model": state,
    },
    "parts of which are parallel": lambda state: {
        key.replace("features.", "features.module."): value for key, value in state.items()
    },
    "beside objects": lambda state: {"state_dict": state, "hyper_parameters": {"path": pathlib.PurePosixPath("x")}},
    "without batch counters": lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_fills_the_network(layout: str, tmp_path: Path) -> None:
    source = {
        key: value.half().to(value.dtype) for key, value in toy(seed=1).state_dict().items()
    }  # values that half precision holds
    torch.save(LAYOUTS[layout](source), tmp_path / "weights.pt")
    network = toy(seed=2)
    load_weights(network, tmp_path / "weights.pt")
    require_equal(network, source)


@pytest.mark.filterwarnings("ignore:.*many workers")
def test_a_lightning_checkpoint_fills_the_part_that_fits(tmp_path: Path) -> None:
    model = Model()
    trainer = Trainer(max_steps=1, **QUIET)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(1, 3, 8, 8)))
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    network = toy(seed=2)
    with pytest.raises(ValueError, match="does not fit"):  # neither the whole model nor, alone, one of its parts
        load_weights(nn.Sequential(network), tmp_path / "last.ckpt")
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    del_teacher = {key: value for key, value in held.items() if not key.startswith("teacher.")}
    torch.save({"state_dict": del_teacher, "hyper_parameters": {"width": 3}}, tmp_path / "student.ckpt")
    load_weights(network, tmp_path / "student.ckpt")
    require_equal(network, model.net["student"].state_dict())
    whole = Model()
    load_weights(whole, tmp_path / "last.ckpt")
    require_equal(whole, held)


def test_weights_of_a_named_network_can_come_from_a_file(tmp_path: Path) -> None:
    given = load_network("squeezenet1_0", weights="none")
    with torch.no_grad():
        given.module.get_parameter("classifier.1.bias").fill_(0.25)
    torch.save({"model": given.module.state_dict()}, tmp_path / "mine.pth")
    loaded = load_network("squeezenet1_0", weights=str(tmp_path / "mine.pth"))
    assert loaded.weights_hash() == given.weights_hash()
    assert loaded.mean == (0.485, 0.456, 0.406)  # published: the normalisation of the default weights


def changed(change: Change) -> dict[str, Tensor]:
    state = dict(toy().state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(lambda state: state.pop("head.bias")), r"1 missing \(head\.bias\)"),
        (changed(lambda state: state.update(extra=torch.ones(1))), r"1 unexpected \(extra\)"),
        (
            changed(lambda state: state.update({"head.weight": torch.ones(7, 8)})),
            r"1 of another shape \(head\.weight is \(7, 8\), the network's is \(5, 8\)\)",
        ),
        (
            changed(lambda state: [state.pop(key) for key in list(state) if key.startswith("features")]),
            r"10 missing \(features\.0\.weight, features\.0\.bias, features\.2\.weight and 7 more\)",
        ),
        ({"weight": torch.ones(3), "bias": torch.ones(3)}, r"missing .*; 2 unexpected \(weight, bias\)"),
    ],
    ids=["missing", "unexpected", "shape", "many missing", "another network"],
)
def test_weights_that_do_not_fit_name_the_keys_and_change_nothing(
    state: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    torch.save({key: torch.full_like(value, 9) for key, value in state.items()}, tmp_path / "other.pt")
    network = toy()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=rf"^weights: .*other\.pt' does not fit ToyNet: .*(?:{message})"):
        load_weights(network, tmp_path / "other.pt")
    require_equal(network, before)


class Danger:
    """Run a command when it is unpickled by whoever reads objects."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch /tmp/featviz_pl_was_here",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_objects_besides_tensors_are_skipped_and_their_code_never_runs(zipped: bool, tmp_path: Path) -> None:
    state = toy(seed=1).state_dict()
    torch.save({"a": Danger(), "state_dict": state}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    network = toy(seed=2)
    load_weights(network, tmp_path / "a.pt")
    require_equal(network, state)
    assert not Path("/tmp/featviz_pl_was_here").exists()


@pytest.mark.parametrize("content", [{"model": nn.Linear(2, 2)}, toy()], ids=["a module inside", "a whole network"])
def test_a_whole_module_says_what_to_save(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"^weights: .*whole\.pt' holds a whole module; .*state_dict"):
        read_state_dicts(tmp_path / "whole.pt")


UNREAL: dict[str, Callable[[Tensor], Tensor]] = {
    "complex": lambda value: value.to(torch.complex64),
    "whole numbers": lambda value: value.to(torch.int64),
    "sparse": lambda value: value.to_sparse(),
    "meta": lambda value: value.to("meta"),
}


@pytest.mark.parametrize("kind", UNREAL)
def test_weights_that_are_no_real_numbers_are_refused_and_change_nothing(kind: str) -> None:
    network = toy()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = {key: UNREAL[kind](value) if value.is_floating_point() else value for key, value in before.items()}
    with pytest.raises(ValueError, match=kind):
        load_weights(network, state)
    require_equal(network, before)


def test_safetensors_are_read_or_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match=r"pip install .*safetensors"):
        read_state_dicts(tmp_path / "broken.safetensors")
    monkeypatch.undo()
    safetensors = pytest.importorskip("safetensors.torch")
    state = toy(seed=1).state_dict()
    safetensors.save_file(state, tmp_path / "model.safetensors")
    network = toy(seed=2)
    load_weights(network, tmp_path / "model.safetensors")
    require_equal(network, state)
    with pytest.raises(ValueError, match=r"truncated or no file of safetensors"):
        read_state_dicts(tmp_path / "broken.safetensors")


def small(num_classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


@pytest.mark.parametrize("name", ["squeezenet1_0", "mobilenet_v3_small", f"{__name__}:small"])
def test_another_number_of_classes_builds_the_architecture_with_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[small.__module__])
    module = small(7) if ":" in name else torchvision.models.get_model(name, num_classes=7)
    torch.save(module.state_dict(), tmp_path / "seven.pth")
    loaded = load_network(name, tmp_path / "seven.pth")
    require_equal(loaded.module, module.state_dict())
    assert loaded.layers(64)[-1].units == 7
    assert loaded.classes == ()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("best.ckpt", r"package\.module:Class with --weights best\.ckpt"), ("mymod.Net", "write mymod:Net")],
)
def test_what_is_no_network_shows_the_way(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"^network: .*{hint}"):
        load_network(name)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_says_so(part: float, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    torch.save(toy().state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert read_state_dicts(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ValueError, match=r"^weights: cannot read .*cut\.pt'.* truncated"):
        read_state_dicts(path)


@pytest.mark.parametrize(
    "content", [b"hello, these are no weights", b'{"a": 1}', bytes(range(256)), b"\x89PNG\r\n\x1a\n" + b"0" * 64]
)
def test_a_file_of_another_kind_says_so(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match=r"^weights: cannot read .*other'.* no file of torch\.save"):
        read_state_dicts(tmp_path / "other")


@pytest.mark.parametrize("held", [{}, {"state_dict": {}}, {"epoch": 3}, [torch.ones(2)], torch.ones(2), 3, None])
def test_a_file_without_named_tensors_says_so(held: Any, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"^weights: .*empty\.pt' holds no tensors by name"):
        read_state_dicts(tmp_path / "empty.pt")


@pytest.mark.parametrize("name", ["absent.pth", "folder", "folder/absent"])
def test_a_missing_file_says_so(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=rf"^weights: (there is no file|cannot read) .*{name}'"):
        load_network("squeezenet1_0", weights=str(tmp_path / name))
