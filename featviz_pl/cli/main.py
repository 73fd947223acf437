"""The table of commands. Heavy libraries are imported when a command runs, so that help is immediate."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NoReturn

from featviz_pl.cli import evaluate, layers, presets, render, stats, sweep
from featviz_pl.cli.exit_codes import INTERRUPTED, USAGE_ERROR
from featviz_pl.numerics.host_memory import keep_freed_memory

COMMANDS = {
    "render": (render, "render a target of a network to a PNG"),
    "sweep": (sweep, "render every unit of layers into a folder"),
    "stats": (stats, "measure photos: colors and spectrum, or activations"),
    "evaluate": (evaluate, "measure how far pictures can be trusted"),
    "layers": (layers, "list the layers of a network"),
    "presets": (presets, "list the named recipes"),
}
CONFIGURED = {  # with a parser of their own: importing it is slow
    "fit": "run a Lightning configuration: featviz fit --config FILE.yaml",
    "predict": "sweep as a Lightning configuration: featviz predict --config FILE.yaml",
}
_OUT_OF_MEMORY = ("allocate memory", "out of memory", "not enough memory")  # torch's words, on all devices


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line instead of the whole usage."""
        self.exit(USAGE_ERROR, f"{self.prog}: error: {_one_line(message)} (see {self.prog} --help)\n")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C.

    Args:
        args: the command line without the program's name; that of the process unless given.
    """
    words = list(sys.argv[1:] if args is None else args)
    if args is None:  # the process is ours
        keep_freed_memory()
    if words[:1] and words[0] in CONFIGURED:
        return _guarded(lambda: _run_configured(words[0], words[1:]), f"featviz {words[0]}")
    options = parser().parse_args(words)
    return _guarded(lambda: COMMANDS[options.command][0].run(options), f"featviz {options.command}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = _OneLineParser(prog="featviz", description="See what the units of a trained network look for.")
    whole.add_argument("--version", action="version", version=f"featviz {version('featviz_pl')}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (command, text) in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}."))
    for name, text in CONFIGURED.items():
        commands.add_parser(name, help=text, add_help=False)
    return whole


def _run_configured(command: str, args: list[str]) -> int:
    from featviz_pl.cli import lightning
    from featviz_pl.cli.progress import quiet_lightning
    from featviz_pl.networks.importing import current_folder_importable

    quiet_lightning()
    with current_folder_importable():  # for the user's own classes
        return lightning.fit(args) if command == "fit" else lightning.predict(args)


def _guarded(run: Callable[[], int], program: str) -> int:
    # Lightning's own, under torch 2.10 and newer: https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).* is deprecated", FutureWarning)
    try:
        return run()
    except KeyboardInterrupt:
        print(f"{program}: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # a full disk, a folder that has gone
        message = f"{error.strerror or error}{f': {error.filename!r}' if error.filename else ''}"
    except Exception as error:
        # ImportError: a precision whose package is not installed.
        usage = isinstance(error, (ValueError, TypeError, ImportError, MemoryError))
        misconfigured = type(error).__name__ == "MisconfigurationException"  # Lightning's
        if not usage and not misconfigured and not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        message = str(error)
    print(f"{program}: error: {_one_line(message)}", file=sys.stderr)
    return USAGE_ERROR


def _one_line(message: str) -> str:
    return " ".join(message.split())
