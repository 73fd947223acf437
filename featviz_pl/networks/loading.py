"""Networks by name: the embedded one, every torchvision classifier, and any function that makes one."""

from __future__ import annotations

import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.client import HTTPException
from importlib import resources
from typing import Any

import torch
from torch import nn

from featviz_pl.io.torch_files import read_torch_file
from featviz_pl.networks.embedded import EmbeddedNetwork
from featviz_pl.networks.frozen import FrozenNetwork
from featviz_pl.networks.importing import current_folder_importable, import_object
from featviz_pl.networks.weights import State, class_count, fitting_state, load_weights, read_state_dicts
from featviz_pl.numerics.checks import unknown
from featviz_pl.numerics.private_randomness import PrivateRandomness

EMBEDDED = "embedded"
# Builders that otherwise warn about, or spend a minute on, an initialisation that random weights do not need.
_QUIET_BUILDS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
}
# Names of older releases that torchvision's published files still hold, and today's.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


def network_names() -> list[str]:
    """Return every name that `load_network` knows.

    Example:
        >>> "squeezenet1_0" in network_names()
        True
    """
    import torchvision

    return [EMBEDDED, *torchvision.models.list_models(module=torchvision.models)]


def as_network(network: str | nn.Module | FrozenNetwork) -> FrozenNetwork:
    """Return a `FrozenNetwork` for whatever stands for a network: a name, a module, ``"package.module:factory"``, or itself.

    A bare module is taken to accept pictures in [0, 1] as they are.

    Example:
        >>> as_network(nn.Conv2d(3, 4, 3)).mean is None
        True
    """
    if isinstance(network, FrozenNetwork):
        return network
    if isinstance(network, nn.Module):
        return FrozenNetwork(network)
    if isinstance(network, str):
        return load_network(network)
    raise TypeError(f"network must be a name, an nn.Module or a FrozenNetwork, got {type(network).__name__}")


def load_network(
    name: str = EMBEDDED,
    weights: str | os.PathLike[str] = "DEFAULT",
    compile: bool = False,  # noqa: A002 - torch's name
) -> FrozenNetwork:
    """Load a network by name, frozen, with the normalisation, size and class names of its weights.

    Args:
        name: ``"embedded"``, a torchvision classification model such as ``"squeezenet1_0"``, or
            ``"package.module:factory"``, a function without arguments that returns an ``nn.Module`` or a
            `FrozenNetwork`.
        weights: a torchvision enum name such as ``"DEFAULT"`` or ``"IMAGENET1K_V1"`` (downloaded by torchvision on
            first use), ``"none"`` for random weights, or a file: a state dict, one under ``state_dict`` or ``model``,
            or a Lightning checkpoint. Files are read with ``weights_only=True``. A file takes the normalisation of the
            default weights.
        compile: let runs use ``torch.compile``; see `FrozenNetwork`.

    Raises:
        ValueError: when the name or the weights are unknown, or a file is missing, broken or does not fit.

    Example:
        >>> load_network("squeezenet1_0", weights="none").size
        (224, 224)
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a text, got {type(name).__name__}")
    weights = os.fspath(weights)
    make = _from_factory if ":" in name else _embedded if name == EMBEDDED else _from_torchvision
    loaded = make(name, weights)
    return loaded.compiled() if compile else loaded  # a factory may give what others hold too, or have chosen itself


def _embedded(name: str, weights: str) -> FrozenNetwork:
    source = resources.files("featviz_pl.networks").joinpath("embedded.pt")
    with resources.as_file(source) as path:
        saved = read_torch_file(path)
    with PrivateRandomness(0):
        module = EmbeddedNetwork(len(saved["classes"]), saved["width"])
    if weights == "DEFAULT":
        module.load_state_dict(saved["state_dict"])
    elif weights != "none":
        load_weights(module, weights)
    return FrozenNetwork(
        module, saved["mean"], std=saved["std"], size=saved["size"], classes=saved["classes"], name=name
    )


def _from_factory(name: str, weights: str) -> FrozenNetwork:
    factory = import_object("network", name)
    with current_folder_importable():
        is_network = isinstance(factory, nn.Module) or not callable(factory)
        if not is_network:
            _require_no_arguments(name, factory)
        with _seeded_initialization():
            network = factory if is_network else factory()
        if not isinstance(network, (nn.Module, FrozenNetwork)):
            raise ValueError(f"network: {name!r} gave {type(network).__name__}, not an nn.Module or FrozenNetwork")
        frozen = network if isinstance(network, FrozenNetwork) else FrozenNetwork(network, name=name)
        if weights in ("DEFAULT", "none"):
            return frozen
        states = read_state_dicts(weights)
        count = class_count(fitting_state(states, frozen.module.state_dict()), frozen.module.state_dict())
        if count is not None and not is_network and _takes(factory, "num_classes"):
            with _seeded_initialization():
                network = factory(num_classes=count)
            frozen = network if isinstance(network, FrozenNetwork) else FrozenNetwork(network, name=name)
    load_weights(frozen.module, weights)
    return frozen


def _takes(factory: Callable[..., Any], argument: str) -> bool:
    try:
        return argument in inspect.signature(factory).parameters
    except ValueError:  # written in C, without a signature
        return False


def _require_no_arguments(name: str, factory: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # written in C, without one
        return
    try:
        signature.bind()
    except TypeError as error:
        raise ValueError(f"network: {name!r} cannot be called without arguments ({error})") from error


def _from_torchvision(name: str, weights: str) -> FrozenNetwork:
    import torchvision

    if name not in network_names():
        raise _unknown_network(name)
    enum = torchvision.models.get_model_weights(name)
    described = enum["DEFAULT"]
    states: dict[str, State] | None = None
    if weights in enum.__members__:
        described = enum[weights]
        states = {"": _download(name, described)}
    elif weights != "none":
        if not os.path.exists(weights) and not os.path.dirname(weights) and "." not in weights:
            raise unknown("weights", f"weights of {name}", weights, [*enum.__members__, "none", "or a file"])
        states = read_state_dicts(weights)
    builder: Callable[..., nn.Module] = torchvision.models.get_model_builder(name)
    arguments = dict(_QUIET_BUILDS.get(name, {}))
    if arguments and states is not None:
        has_auxiliary_heads = any("aux" in key.lower() for state in states.values() for key in state)
        arguments |= {"transform_input": True, "aux_logits": has_auxiliary_heads}
    if name.startswith("vit_"):  # built for the one size that its weights accept
        arguments["image_size"] = described.meta["min_size"][0]
    classes = described.meta["categories"]
    with PrivateRandomness(0):
        module = builder(weights=None, **arguments)
        if states is not None:
            expected = module.state_dict()
            state = fitting_state(states, expected, _todays_name)
            if (count := class_count(state, expected)) is not None:
                module, classes = builder(weights=None, num_classes=count, **arguments), ()
            load_weights(module, state, source=weights)
    preprocessing = described.transforms()
    size = preprocessing.crop_size[0]
    return FrozenNetwork(module, preprocessing.mean, std=preprocessing.std, size=size, classes=classes, name=name)


def _unknown_network(name: str) -> ValueError:
    """Return the error for a name that is none, with the way to what was meant."""
    if name.lower().endswith((".ckpt", ".pt", ".pth", ".bin", ".safetensors")):
        return ValueError(
            f"network: {name!r} is a file of weights; name the network too: package.module:Class with --weights {name} "
            "(load_network('package.module:Class', weights=…) in Python)"
        )
    package, dot, attribute = name.rpartition(".")
    if dot and package and attribute.isidentifier():
        return ValueError(f"network: {name!r} is no known network; write {package}:{attribute} for a class or function")
    return unknown("network", "network", name, network_names())


def _todays_name(key: str) -> str:
    for pattern, replacement in _OLD_NAMES:
        key = pattern.sub(replacement, key)
    return key


def _download(name: str, weights: Any) -> dict[str, torch.Tensor]:
    # torch announces a download on stdout or stderr, by its version: on a terminal it may, elsewhere these are for
    # results and errors.
    announced = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with redirect_stdout(announced), redirect_stderr(announced):
            state: dict[str, torch.Tensor] = weights.get_state_dict(
                progress=sys.stderr.isatty(), check_hash=True, weights_only=True
            )
    except (OSError, HTTPException, RuntimeError) as error:  # URLError is an OSError
        raise ValueError(
            f"weights: {name} needs a download that failed ({error}); fetch {weights.url} elsewhere and give the file "
            f"with --weights FILE (weights=… in Python), or put it into {os.path.join(torch.hub.get_dir(), 'checkpoints')}"
        ) from error
    return state


@contextmanager
def _seeded_initialization() -> Iterator[None]:
    """Run a factory from seed 0, unless it seeds itself, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
