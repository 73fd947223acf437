"""The command `featviz render`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from featviz_pl.cli.arguments import _network
from featviz_pl.cli.exit_codes import INTERRUPTED


def _render(options: argparse.Namespace) -> int:
    from featviz_pl.io.files import check_output

    output = check_output(options.output)
    _check_cheaply(options)
    import logging

    from featviz_pl.cli.progress import announced
    from featviz_pl.rendering import render
    from featviz_pl.training.stopping import TERMINATED
    from featviz_pl_callbacks.render_checkpoint import checkpoint_beside, discard

    for name in ("lightning.pytorch", "lightning.fabric"):  # stdout and stderr are ours here
        logging.getLogger(name).setLevel(logging.ERROR)
    devices = int(options.devices) if options.devices.lstrip("-").isdigit() else options.devices
    taken = (
        "steps",
        "size",
        "views",
        "seed",
        "preset",
        "lr",
        "image",
        "start",
        "stats",
        "accelerator",
        "num_nodes",
        "precision",
    )
    try:
        with announced("featviz render"):
            result = render(
                _network(options),
                options.target,
                **{name: getattr(options, name) for name in taken},
                resume=checkpoint_beside(output) if options.resume else None,
                devices=devices,
                progress=sys.stderr.isatty(),
            )
    except SystemExit as stopped:
        if stopped.code != TERMINATED:
            raise
        kept = "the same command goes on from the last checkpoint" if options.resume else "nothing was saved"
        print(f"featviz render: terminated; {kept}", file=sys.stderr)
        return TERMINATED
    if not result.is_writer:  # another process of the same run writes and reports
        return INTERRUPTED if result.interrupted else 0
    paths = result.save(output)
    if options.resume and not result.interrupted:
        discard(checkpoint_beside(output))
    report: dict[str, Any] = {
        "path": str(output),
        "network": options.network,
        "target": options.target or result.targets[0],
        "steps": result.provenance[0]["steps"],
        "seed": options.seed,
        "score": result.scores[0] if len(paths) == 1 else sum(result.scores) / len(result.scores),
        "seconds": round(result.seconds, 3),
    }
    if len(paths) > 1:
        report |= {"paths": [str(path) for path in paths], "targets": result.targets, "scores": result.scores}
    if options.json:
        print(json.dumps(report))
    else:
        what = f"{len(paths)} pictures" if len(paths) > 1 else report["target"]
        print(
            f"{output}: {what} of {options.network}, score {report['score']:.4g}, {report['steps']} steps in {report['seconds']:.1f} s"
        )
    if result.interrupted:
        more = "; the same command goes on" if options.resume else ""
        print(
            f"featviz render: interrupted after {report['steps']} steps; the picture so far was saved{more}",
            file=sys.stderr,
        )
    return INTERRUPTED if result.interrupted else 0


def _check_cheaply(options: argparse.Namespace) -> None:
    """Refuse what needs no network to be refused, before one is loaded or downloaded."""
    for name in ("steps", "views", "num_nodes"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    sides = options.size if isinstance(options.size, tuple) else (options.size,)
    if any(side is not None and side < 1 for side in sides):
        raise ValueError(f"size must be at least 1, got {options.size}")
    from featviz_pl.io import read_picture
    from featviz_pl.objectives import Target
    from featviz_pl.presets import image_class, recipe

    recipe(options.preset)
    if options.image is not None:
        image_class(options.image)
    if options.start is not None:
        read_picture(options.start, argument="start")
    if options.stats is not None:
        from featviz_pl.statistics.arguments import as_statistics

        as_statistics(options.stats)
    if options.target is not None:
        Target.parse(options.target)
