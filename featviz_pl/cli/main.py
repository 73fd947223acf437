"""The command line. Heavy libraries are imported inside the commands, so that help is immediate."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, NoReturn

from featviz_pl.cli.arguments import _network, _network_arguments
from featviz_pl.cli.evaluate import add_evaluate_arguments
from featviz_pl.cli.exit_codes import INTERRUPTED, USAGE_ERROR
from featviz_pl.cli.render import _render
from featviz_pl.cli.stats import add_stats_arguments
from featviz_pl.cli.sweep import add_sweep_arguments
from featviz_pl.numerics.host_memory import keep_freed_memory


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line instead of the whole usage."""
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C.

    Args:
        args: the command line without the program's name; that of the process unless given.
    """
    given = list(sys.argv[1:] if args is None else args)
    if args is None:  # the process is ours
        keep_freed_memory()
    if given[:1] in (["fit"], ["predict"]):
        return _guarded(lambda: _configured(given[0], given[1:]), f"featviz {given[0]}")
    options = _parser().parse_args(given)
    return _guarded(lambda: options.run(options), f"featviz {options.command}")


def _guarded(run: Any, program: str) -> int:
    # Lightning's own, under torch 2.10 and newer: https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    warnings.filterwarnings(
        "ignore", message=r".*isinstance\(treespec, LeafSpec\).* is deprecated", category=FutureWarning
    )
    try:
        return int(run() or 0)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError) as error:
        message = " ".join(str(error).split())
    except OSError as error:  # a full disk, a folder that has gone
        message = f"{error.strerror or error}{f': {error.filename!r}' if error.filename else ''}"
    except Exception as error:
        if type(error).__name__ != "MisconfigurationException":  # Lightning's word for a wrong flag
            raise
        message = " ".join(str(error).split())
    print(f"{program}: error: {message}", file=sys.stderr)
    return USAGE_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="featviz", description="See what the units of a trained network look for.")
    parser.add_argument("--version", action="version", version=f"featviz {version('featviz_pl')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    render = commands.add_parser(
        "render", help="render a target of a network to a PNG", description="Render a target of a network."
    )
    render.set_defaults(run=_render)
    _network_arguments(render)
    render.add_argument(
        "target", nargs="?", help="layer, layer:unit, layer:0-63, layer:3,5,8, layer:unit@y,x, output:class"
    )
    render.add_argument("--steps", type=int, help="optimisation steps (the preset's unless given)")
    render.add_argument("--views", type=int, help="views per step (the preset's unless given)")
    render.add_argument("--seed", type=int, default=0, help="of every draw (default: 0)")
    render.add_argument(
        "--preset", default="featviz", help="named recipe; `featviz presets` lists them (default: featviz)"
    )
    render.add_argument("--lr", type=float, help="learning rate (the preset's unless given)")
    render.add_argument(
        "--image", metavar="NAME", help="parameterization: fourier, pixel, maco … (the preset's unless given)"
    )
    render.add_argument("--start", metavar="PICTURE", help="picture file to start from")
    render.add_argument(
        "--stats", metavar="FILE", help="from `featviz stats`: colors of your own photos, and with maco their spectrum"
    )
    render.add_argument(
        "--resume",
        action="store_true",
        help="keep a checkpoint beside the output, and go on from it where there is one",
    )
    render.add_argument("--accelerator", default="auto", help="of the Lightning Trainer (default: auto)")
    render.add_argument("--devices", default="1", help="of the Lightning Trainer (default: 1)")
    render.add_argument("--num-nodes", type=int, default=1, help="of the Lightning Trainer (default: 1)")
    render.add_argument(
        "--precision", default="32-true", help="of the network: bf16-mixed, auto (measured) … (default: 32-true)"
    )
    render.add_argument(
        "--compile",
        action="store_true",
        help="use torch.compile on the network: a minute or more before the first step",
    )
    render.add_argument("-o", "--output", default="feature.png", help="file to write (default: feature.png)")
    render.add_argument("--json", action="store_true", help="print one line of JSON on stdout, and nothing else there")

    sweep = commands.add_parser(
        "sweep", help="render every unit of layers into a folder", description="Render every unit of layers."
    )
    sweep.set_defaults(run=_sweep)
    _network_arguments(sweep, default=None)
    add_sweep_arguments(sweep)

    stats = commands.add_parser(
        "stats", help="measure photos: colors and spectrum, or activations", description="Measure photos."
    )
    stats.set_defaults(run=_stats)
    add_stats_arguments(stats)
    _network_arguments(
        stats,
        "--network",
        purpose="record activations of ",
        size="of the spectrum (128), or of what the network sees (its own)",
    )

    evaluate = commands.add_parser(
        "evaluate", help="measure how far pictures can be trusted", description="Measure pictures, a row for each."
    )
    evaluate.set_defaults(run=_evaluate)
    add_evaluate_arguments(evaluate)
    _network_arguments(
        evaluate, "--network", purpose="that of the pictures unless given: ", size="of photos, where pictures differ"
    )

    layers = commands.add_parser(
        "layers", help="list the layers of a network", description="List layers, shapes and units."
    )
    layers.set_defaults(run=_layers)
    _network_arguments(layers)
    layers.add_argument("--json", action="store_true", help="print one line of JSON on stdout, and nothing else there")

    presets = commands.add_parser(
        "presets", help="list the named recipes", description="List the named recipes with their sources."
    )
    presets.set_defaults(run=_presets)
    presets.add_argument("--json", action="store_true", help="print one line of JSON on stdout, and nothing else there")

    commands.add_parser("fit", help="run a Lightning configuration: featviz fit --config FILE.yaml", add_help=False)
    commands.add_parser(
        "predict", help="sweep as a Lightning configuration: featviz predict --config FILE.yaml", add_help=False
    )
    return parser


def _configured(command: str, args: list[str]) -> int:
    import logging

    from featviz_pl.cli.lightning import fit, predict
    from featviz_pl.networks.importing import current_folder_importable

    for name in ("lightning.pytorch", "lightning.fabric"):  # stdout and stderr are ours here
        logging.getLogger(name).setLevel(logging.ERROR)
    with current_folder_importable():  # for the user's own classes
        return fit(args) if command == "fit" else predict(args)


def _sweep(options: argparse.Namespace) -> int:
    from featviz_pl.cli.sweep import run_sweep

    return run_sweep(options, lambda: _network(options))


def _stats(options: argparse.Namespace) -> int:
    from featviz_pl.cli.stats import run_stats

    return run_stats(options, lambda: _network(options))


def _evaluate(options: argparse.Namespace) -> int:
    from featviz_pl.cli.evaluate import run_evaluate

    return run_evaluate(options, lambda: _network(options))


def _layers(options: argparse.Namespace) -> int:
    infos = _network(options).layers(options.size)
    if options.json:
        print(json.dumps([asdict(info) for info in infos]))
        return 0
    _print_table(
        [
            ("layer", "kind", "shape", "units", "axes"),
            *((i.name, i.kind, " x ".join(map(str, i.shape)), str(i.units), i.axes) for i in infos),
        ]
    )
    return 0


def _presets(options: argparse.Namespace) -> int:
    from featviz_pl.presets import PRESETS

    recipes = [make() for make in PRESETS.values()]
    if options.json:
        keys = ("name", "source", "views", "lr", "steps")
        print(
            json.dumps(
                [{key: getattr(one, key) for key in keys} | {"optimizer": one.optimizer.__name__} for one in recipes]
            )
        )
        return 0
    rows = [
        (one.name, str(one.views), f"{one.optimizer.__name__} {one.lr:g}", str(one.steps), one.source)
        for one in recipes
    ]
    _print_table([("preset", "views", "optimizer", "steps", "source"), *rows])
    return 0


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns as wide as they need to be; the last one as it is."""
    widths = [max(map(len, column)) for column in zip(*rows)][:-1]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]))
