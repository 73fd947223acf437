"""Arguments that several commands share, and what is checked of them before a network is loaded."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

from featviz_pl.numerics.checks import finite_number, learning_rate, size_pair, whole_number

if TYPE_CHECKING:
    from featviz_pl.networks import FrozenNetwork

RUN_OPTIONS = ("steps", "size", "views", "seed", "preset", "lr", "image", "start", "stats")  # of render and sweep
_CPU_PROCESSES_PER_CORE = 4
MAX_WORKERS = 1024
MANY = 65_536  # views, nodes, pictures in a batch: more than any machine can hold


def whole(name: str, least: int = 1, most: int = 2**63 - 1) -> Callable[[str], int]:
    """Return a reader of whole numbers, for the `type` of an argument.

    Example:
        >>> whole("steps")("64")
        64
    """
    return _reader(int, lambda value: whole_number(name, value, least, most))


def number(name: str, **bounds: float) -> Callable[[str], float]:
    """Return a reader of finite numbers, for the `type` of an argument; bounds are those of `finite_number`."""
    return _reader(float, lambda value: finite_number(name, value, **bounds))


def _reader(kind: type[Any], check: Callable[[Any], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid {kind.__name__} value: {text[:40]!r}") from None
        try:
            return check(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def size(text: str) -> int | tuple[int, int]:
    """Read ``224`` or ``96x128`` (height x width).

    Example:
        >>> size("224"), size("96x128")
        (224, (96, 128))
    """
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"size must be a number of pixels or HEIGHTxWIDTH, got {text[:40]!r}")
    try:
        height, width = size_pair("size", sides if len(sides) == 2 else sides[0])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return height if len(sides) == 1 else (height, width)


def add_network_arguments(
    parser: argparse.ArgumentParser,
    name: str = "network",
    default: str | None = "embedded",
    purpose: str = "",
    size_help: str = "of the picture (the network's own unless given)",
) -> None:
    """Add a network, its weights and normalisation, and a size."""
    text = f"{purpose}embedded, a torchvision classifier, or package.module:factory"
    if name.startswith("-"):
        parser.add_argument(name, metavar="NAME", help=text)
    elif default is not None:
        parser.add_argument(name, nargs="?", default=default, help=f"{text} (default: {default})")
    else:
        parser.add_argument(name, help=text)
    weights = "enum name, 'none' for random weights, or a file (default: DEFAULT)"
    parser.add_argument("--weights", default="DEFAULT", help=weights)
    mean = "subtracted from pictures in [0, 1], one or one per channel"
    parser.add_argument("--mean", type=number("mean"), nargs="+", help=mean)
    parser.add_argument("--std", type=number("std", above=0.0), nargs="+", help="by which they are then divided")
    parser.add_argument("--size", type=size, help=f"{size_help}: pixels, or HEIGHTxWIDTH")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what decides the pictures of `render` and `sweep`."""
    add = parser.add_argument
    add("--steps", type=whole("steps"), help="optimisation steps of a picture (the preset's unless given)")
    add("--views", type=whole("views", most=MANY), help="views per step (the preset's unless given)")
    add("--seed", type=whole("seed", 0), default=0, help="of every draw (default: 0)")
    add("--preset", default="featviz", help="named recipe; `featviz presets` lists them (default: featviz)")
    add("--lr", type=_reader(float, learning_rate), help="learning rate (the preset's unless given)")
    add("--image", metavar="NAME", help="parameterization: fourier, pixel, maco … (the preset's unless given)")
    add("--start", metavar="PICTURE", help="picture file to start from")
    stats = "from `featviz stats`: colors of your own photos, and with maco their spectrum"
    add("--stats", metavar="FILE", help=stats)
    add("--accelerator", default="auto", help="of the Lightning Trainer (default: auto)")
    add("--devices", default="1", help="of the Lightning Trainer (default: 1)")
    add("--num-nodes", type=whole("num_nodes", most=MANY), default=1, help="of the Lightning Trainer (default: 1)")
    add("--precision", default="32-true", help="of the network: bf16-mixed, auto (measured) … (default: 32-true)")
    compiling = "use torch.compile on the network: a minute or more before the first step"
    add("--compile", action="store_true", help=compiling)


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one line of JSON on stdout, and nothing else there")


def check_run_options(options: argparse.Namespace) -> None:
    """Refuse what needs no network to be refused, before one is loaded or downloaded."""
    from featviz_pl.io import read_picture
    from featviz_pl.presets import image_class, recipe
    from featviz_pl.statistics.arguments import as_statistics

    recipe(options.preset)
    if options.image is not None:
        image_class(options.image)
    if options.start is not None:
        read_picture(options.start, argument="start")
    if options.stats is not None:
        as_statistics(options.stats)


def trainer_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the Trainer that name devices.

    Raises:
        ValueError: when so many processes of one machine could only wait for one another.
    """
    devices = int(options.devices) if options.devices.lstrip("-").isdigit() else options.devices
    most = _CPU_PROCESSES_PER_CORE * max(4, os.cpu_count() or 1)
    if options.accelerator in ("auto", "cpu") and isinstance(devices, int) and devices > most:
        raise ValueError(f"devices must be at most {most} on this machine, got {devices}")
    return {"accelerator": options.accelerator, "devices": devices, "num_nodes": options.num_nodes}


def load_network(options: argparse.Namespace) -> FrozenNetwork:
    """Load the network that the options name."""
    from featviz_pl import networks

    with quiet_stdout():
        loaded = networks.load_network(options.network, options.weights, getattr(options, "compile", False))
    if options.mean is None and options.std is None:
        return loaded
    mean = options.mean if options.mean is not None else loaded.mean
    std = options.std if options.std is not None else loaded.std
    return loaded.replace(mean=mean, std=std)


@contextmanager
def quiet_stdout(stderr: bool = False) -> Iterator[None]:
    """Keep what libraries print, such as downloads, off stdout, which is for results; show it where stderr is a terminal.

    Args:
        stderr: hide stderr too where it is no terminal.
    """
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()
    with redirect_stdout(shown), redirect_stderr(shown if stderr else sys.stderr):
        yield
