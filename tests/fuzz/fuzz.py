"""Random command lines and calls: none may end in a traceback, hang, or leave files outside its folder.

``python tests/fuzz/fuzz.py --seed 0 --lines 500 --calls 500`` prints every fault with the line or call that reproduces it and
exits 1 if there is any. Each case runs in a forked process of its own, at most four at a time, with a time limit; everything
that was started is ended.

A command line is right when it exits with 0, 2 (the user's mistake) or 3 (some units failed), and 2 comes with at most three lines
on stderr. A call is right when it returns or raises ``ValueError`` or ``TypeError``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import itertools
import json
import os
import random
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROCESSES = 4
SECONDS = 60  # of one case
ALLOWED_CODES = {0, 2, 3}


@dataclass
class Case:
    """One command line or call.

    Args:
        name: what reproduces it, printed where it fails.
        run: called in a process and folder of its own; returns the exit code.
        pid: of its process, while it runs.
        started: when, in seconds.
        folder: in which it runs.
    """

    name: str
    run: Callable[[], int]
    pid: int = 0
    started: float = 0.0
    folder: Path = Path()


# --- command lines

NUMBERS = ["0", "-1", "1", "2", "1.5", "nan", "inf", "1e40", "9" * 23, "", "x", "0x10", "½", "--", "1000000"]
TEXTS = [
    "",
    " ",
    "-",
    "..",
    "/",
    "a" * 300,
    "字" * 90,
    "\u202egnp.exe",
    "a\nb",
    "<script>",
    "%s",
    "'",
    "$HOME",
    "~",
    "*",
]
FILES = [
    *(
        "picture.png",
        "text.txt",
        "empty.png",
        "truncated.png",
        "folder",
        "pipe",
        "missing.png",
        "nested.json",
        "cycle.yaml",
    ),
    *("list.yaml", "binary.pt", "/dev/null", "/dev/zero", "weights.pth"),
]
TARGETS = [
    *(
        "stem:0",
        "blocks.0:1",
        "output:3",
        "stem",
        "stem:all",
        "stem:0-1",
        "stem:1-0",
        "stem:9999",
        "stem:-1",
        "stem:0@1,1",
    ),
    *(
        "stem:0@99,99",
        "stem:",
        ":",
        ":0",
        "stem:0:1",
        "stems:0",
        "output:x",
        "stem:0,0",
        "stem:0-999999999",
        "*:0",
        "stem:٣",
    ),
]
NETWORKS = [
    "embedded",
    "embeded",
    "squeezenet1_0",
    "os:getcwd",
    "missing:factory",
    "math:pi",
    "json:",
    ":x",
    "torch.nn:Conv2d",
]


def command_line(draw: random.Random) -> list[str]:
    """Return the arguments of a random command; about half of what is drawn is valid."""

    def number() -> str:
        return draw.choice(NUMBERS)

    def text() -> str:
        return draw.choice(TEXTS)

    def file() -> str:
        return draw.choice(FILES)

    usual = {"--steps": "2", "--size": "32", "--seed": "0", "--views": "1"}
    flags: dict[str, list[Callable[[], str]]] = {
        **{name: [number] for name in ("--steps", "--size", "--seed", "--views", "--lr", "--devices", "--num-nodes")},
        **{name: [file, text] for name in ("--start", "--stats", "--weights", "-o")},
        **{name: [text, lambda: draw.choice(["cpu", "gpu", "tpu", "auto"])] for name in ("--accelerator", "--image")},
        "--preset": [text, lambda: draw.choice(["lucid", "fast", "maco", "vit", "lucidd"])],
        "--precision": [text, lambda: draw.choice(["bf16-mixed", "64-true", "16", "transformer-engine", "auto"])],
        "--mean": [number],
        "--std": [number],
    }
    command = draw.choice(
        ["render"] * 6
        + ["sweep"] * 4
        + ["layers", "evaluate", "evaluate", "stats", "fit", "predict", "presets", text()]
    )
    arguments = [command]
    if command in ("fit", "predict"):
        arguments += draw.choice(
            [["--config", file()], [], [text()], ["--model.steps", number()], ["--trainer.max_steps", number()]]
        )
        return arguments
    if command in ("render", "sweep", "layers"):
        arguments += [draw.choice(["embedded"] * 4 + NETWORKS)]
    if command in ("render", "sweep"):
        arguments += [draw.choice(TARGETS)]
    if command in ("evaluate", "stats"):
        arguments += [draw.choice([file(), "picture.png", "folder"])]
    if command in ("render", "sweep"):
        usual = {name: value for name, value in usual.items() if command == "render" or name != "--views"}
        chosen = draw.sample(sorted(flags), k=draw.choice([0, 1, 1, 2, 3]))
        values = {**usual, **{name: draw.choice(flags[name])() for name in chosen}}
        values.setdefault("-o", "out.png" if command == "render" else "out")
        arguments += [part for name, value in values.items() for part in (name, value)]
    elif draw.random() < 0.5:
        name = draw.choice(["--size", "-o", "--photos", "--network", "--weights", "--json"])
        arguments += [name] if name == "--json" else [name, draw.choice([number(), file(), text()])]
    return [argument.replace("\0", "") for argument in arguments]


def make_files() -> None:
    """Write the files that command lines name into the current folder."""
    from PIL import Image

    Image.new("RGB", (24, 20), (200, 60, 30)).save("picture.png")
    content = Path("picture.png").read_bytes()
    Path("truncated.png").write_bytes(content[: len(content) // 2])
    Path("empty.png").touch()
    Path("text.txt").write_text("stem:0\nnot a picture\n", encoding="utf-8")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    Path("nested.json").write_text("[" * 5000)
    Path("cycle.yaml").write_text("model: &a {b: *a}\n")
    Path("list.yaml").write_text("- 1\n- model\n")
    Path("binary.pt").write_bytes(bytes(range(256)) * 8)
    Path("weights.pth").write_bytes(b"PK\x03\x04" + bytes(200))


def line_case(draw: random.Random) -> Case:
    """Return a case that runs a command line."""
    arguments = command_line(draw)

    def run() -> int:
        from featviz_pl.cli.main import main

        make_files()
        try:
            return main(arguments)
        except SystemExit as stopped:
            return stopped.code if isinstance(stopped.code, int) else 1

    return Case("featviz " + shlex.join(arguments), run)


# --- calls


def values(draw: random.Random) -> list[tuple[str, Any]]:
    """Return values that an argument is given, with the text that makes each."""
    import numpy as np
    import torch

    texts = [
        *(
            "None",
            "True",
            "-1",
            "0",
            "1",
            "2",
            "7",
            "1.5",
            "-0.5",
            "10**30",
            "float('nan')",
            "float('inf')",
            "''",
            "'x'",
            "'0:1'",
        ),
        *("[]", "[1]", "[0.5, 2]", "(3, 4)", "(-1, 2)", "{}", "{'a': 1}", "object()", "b'x'", "print", "torch.rand(2)"),
        *(
            "torch.rand(1, 3, 8, 8)",
            "torch.tensor(float('nan'))",
            "np.ones(3)",
            "np.array(['a'])",
            "torch.nn.Identity()",
            "range(3)",
        ),
    ]
    text = draw.choice(texts)
    return [(text, eval(text, {"torch": torch, "np": np}))]


def callables() -> dict[str, Callable[..., Any]]:
    """Return the public classes and functions of the rooms, by name."""
    import featviz_pl as fv

    rooms = {
        name: getattr(fv, name)
        for name in ("images", "transforms", "objectives", "networks", "statistics", "metrics", "io")
    }
    found = {f"{room}.{name}": getattr(module, name) for room, module in rooms.items() for name in module.__all__}
    found |= {
        name: getattr(fv, name)
        for name in ("render", "load_network", "FeatureVisualization", "FeatureSweep", "FeatureTargets")
    }
    found |= {f"callbacks.{name}": getattr(fv.callbacks, name) for name in fv.callbacks.__all__}
    return {name: value for name, value in found.items() if callable(value) and not inspect.isabstract(value)}


VALID: dict[str, str] = {  # arguments with which calls can work, by the name of the parameter
    "size": "8",
    "layer": "'0'",
    "network": "torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))",
    "target": "'0:1'",
    "targets": "'0:0-1'",
    "objective": "fv.objectives.Channel('0', 1)",
    "objectives": "['0:1', '0:2']",
    "image": "fv.images.FourierImage(8)",
    "images": "torch.rand(1, 3, 8, 8)",
    "transforms": "[fv.transforms.Jitter(1)]",
    "steps": "2",
    "units": "1",
    "classes": "0",
    "unit": "0",
    "folder": "'out'",
    "path": "'out.png'",
    "accelerator": "'cpu'",
}


def call_case(draw: random.Random) -> Case:
    """Return a case that calls a public class or function with arguments, one or two of which are strange."""
    import torch

    import featviz_pl as fv

    names = callables()
    name = draw.choice(sorted(names))
    try:
        parameters = [
            (key, parameter)
            for key, parameter in inspect.signature(names[name]).parameters.items()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
    except (TypeError, ValueError):
        parameters = []
    strange = set(draw.sample([key for key, _ in parameters], k=min(len(parameters), draw.choice([1, 1, 2]))))
    texts, arguments = [], {}
    for key, parameter in parameters:
        if key in strange:
            text, value = values(draw)[0]
        elif parameter.default is parameter.empty or key in ("steps", "accelerator"):
            text = VALID.get(key, "1")
            value = eval(text, {"fv": fv, "torch": torch})
        else:
            continue
        texts.append(f"{key}={text}")
        arguments[key] = value

    def run() -> int:
        made = names[name](**arguments)
        if isinstance(made, fv.images.Image):
            made.initialize(1, [torch.Generator().manual_seed(0)])
            made()
        if isinstance(made, fv.transforms.Transform):
            made(torch.rand(1, 3, 8, 8), torch.Generator().manual_seed(0))
        if isinstance(made, fv.objectives.Objective):
            fv.render(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), made, size=8, steps=2, accelerator="cpu")
        return 0

    return Case(f"fv.{name}({', '.join(texts)})", run)


# --- processes


def start(case: Case, root: Path) -> None:
    """Run a case in a forked process, in a folder of its own, with its output in files beside it."""
    case.folder = Path(tempfile.mkdtemp(dir=root))
    case.started = time.monotonic()
    case.pid = os.fork()
    if case.pid:
        return
    try:
        os.setsid()
        work = case.folder / "work"
        work.mkdir()
        os.chdir(work)
        for name, stream in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(case.folder / name, os.O_WRONLY | os.O_CREAT, 0o600), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(HOME=str(work), TMPDIR=str(work))
        tempfile.tempdir = str(work)
        try:
            code = case.run()
        except (ValueError, TypeError):
            code = 2 if case.name.startswith("fv.") else 70
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def end(case: Case) -> None:
    """End the process of a case and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(case.pid, signal.SIGKILL)


def fault(case: Case, status: int | None, root: Path) -> str | None:
    """Return what is wrong with a case that has ended, or None."""
    if status is None:
        return f"did not end within {SECONDS} s"
    stderr = (case.folder / "stderr").read_text(errors="replace") if (case.folder / "stderr").exists() else ""
    lines = [line for line in stderr.splitlines() if line.strip()]
    code = os.waitstatus_to_exitcode(status)
    if code not in ALLOWED_CODES or "Traceback" in stderr:
        return f"exit code {code}: {lines[-1] if lines else 'no message'}"
    if code == 2 and case.name.startswith("featviz ") and not 1 <= len(lines) <= 3:
        return f"{len(lines)} lines on stderr: {lines[:1]}"
    outside = [path.name for path in case.folder.iterdir() if path.name not in ("work", "stdout", "stderr")]
    return f"files outside: {outside}" if outside else None


def run_cases(cases: Iterator[Case], root: Path) -> list[str]:
    """Run the cases, some at a time, and return their faults."""
    running: list[Case] = []
    faults: list[str] = []
    try:
        for case in itertools.chain(cases, itertools.repeat(None)):
            while running and (case is None or len(running) == PROCESSES):
                for ended in list(running):
                    pid, status = os.waitpid(ended.pid, os.WNOHANG)
                    late = time.monotonic() - ended.started > SECONDS
                    if pid or late:
                        end(ended)
                        if not pid:
                            os.waitpid(ended.pid, 0)
                        running.remove(ended)
                        if (reason := fault(ended, status if pid else None, root)) is not None:
                            faults.append(f"{ended.name}\n    {reason}")
                            print(faults[-1], flush=True)
                time.sleep(0.01)
            if case is None:
                break
            start(case, root)
            running.append(case)
    finally:
        for case in running:
            end(case)
    return faults


def main() -> int:
    """Run the cases of a seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument("--lines", type=int, default=500, help="command lines (default: 500)")
    parser.add_argument("--calls", type=int, default=500, help="calls (default: 500)")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    for module in ("lightning.pytorch", "featviz_pl.cli.main", "featviz_pl.rendering"):
        importlib.import_module(module)  # once, before the processes are forked
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    cases = [*(line_case(draw) for _ in range(options.lines)), *(call_case(draw) for _ in range(options.calls))]
    with tempfile.TemporaryDirectory() as folder:
        faults = run_cases(iter(cases), Path(folder))
    print(json.dumps({"seed": options.seed, "lines": options.lines, "calls": options.calls, "faults": len(faults)}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
