"""The command ``featviz presets``."""

from __future__ import annotations

import argparse
import json

from featviz_pl.cli.arguments import add_json_argument
from featviz_pl.cli.table import print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``featviz presets`` takes."""
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """List the named recipes with their sources, and return the exit code."""
    from featviz_pl.presets import PRESETS

    recipes = [(make(), make().optimizer.__name__) for make in PRESETS.values()]
    if options.json:
        keys = ("name", "source", "views", "lr", "steps")
        print(json.dumps([{key: getattr(one, key) for key in keys} | {"optimizer": name} for one, name in recipes]))
    else:
        rows = [(one.name, str(one.views), f"{name} {one.lr:g}", str(one.steps), one.source) for one, name in recipes]
        print_table([("preset", "views", "optimizer", "steps", "source"), *rows])
    return 0
