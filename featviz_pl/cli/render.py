"""The command ``featviz render``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from featviz_pl.cli.arguments import (
    RUN_OPTIONS,
    add_json_argument,
    add_network_arguments,
    add_run_arguments,
    check_run_options,
    load_network,
    trainer_arguments,
)
from featviz_pl.cli.exit_codes import INTERRUPTED, TERMINATED

if TYPE_CHECKING:
    from featviz_pl.rendering import RenderResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``featviz render`` takes."""
    add_network_arguments(parser)
    forms = "layer, layer:unit, layer:0-63, layer:3,5,8, layer:unit@y,x, output:class"
    parser.add_argument("target", nargs="?", help=forms)
    add_run_arguments(parser)
    resume = "keep a checkpoint beside the output, and go on from it where there is one"
    parser.add_argument("--resume", action="store_true", help=resume)
    output = "file to write (default: feature.png)"
    parser.add_argument("-o", "--output", metavar="FILE", default="feature.png", help=output)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Render pictures, save them, and return the exit code: 0, 130 for Ctrl-C, 143 for a termination."""
    from featviz_pl.io.files import check_output
    from featviz_pl.objectives import Target

    output = check_output(options.output)
    if options.target is not None:
        Target.parse(options.target)
    check_run_options(options)
    arguments = {name: getattr(options, name) for name in (*RUN_OPTIONS, "precision")} | trainer_arguments(options)

    from featviz_pl.cli.progress import announced, quiet_lightning
    from featviz_pl.rendering import render
    from featviz_pl_callbacks.render_checkpoint import checkpoint_beside, discard

    quiet_lightning()
    checkpoint = checkpoint_beside(output) if options.resume else None
    network, progress = load_network(options), sys.stderr.isatty()
    try:
        with announced("featviz render"):
            result = render(network, options.target, **arguments, resume=checkpoint, progress=progress)
    except SystemExit as stop:
        if stop.code != TERMINATED:
            raise
        saved = "nothing was saved" if checkpoint is None else "the same command goes on from the last checkpoint"
        print(f"featviz render: terminated; {saved}", file=sys.stderr)
        return TERMINATED
    if result.is_writer:  # else another process of the same run writes and reports
        paths = result.save(output)
        if checkpoint is not None and not result.interrupted:
            discard(checkpoint)
        _report(options, output, result, paths)
    return INTERRUPTED if result.interrupted else 0


def _report(options: argparse.Namespace, output: Path, result: RenderResult, paths: list[Path]) -> None:
    steps, seconds = result.provenance[0]["steps"], round(result.seconds, 3)
    target, score = options.target or result.targets[0], sum(result.scores) / len(result.scores)
    if options.json:
        report = {"path": str(output), "network": options.network, "target": target, "steps": steps}
        report |= {"seed": options.seed, "score": score, "seconds": seconds}
        if len(paths) > 1:
            report |= {"paths": [str(path) for path in paths], "targets": result.targets, "scores": result.scores}
        print(json.dumps(report))
    else:
        what = f"{len(paths)} pictures" if len(paths) > 1 else target
        counts = f"score {score:.4g}, {steps} steps in {seconds:.1f} s"
        print(f"{output}: {what} of {options.network}, {counts}")
    if result.interrupted:
        more = "; the same command goes on" if options.resume else ""
        saved = f"interrupted after {steps} steps; the picture so far was saved{more}"
        print(f"featviz render: {saved}", file=sys.stderr)
