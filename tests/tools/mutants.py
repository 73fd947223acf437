"""Apply planted faults one at a time and report which tests notice them: ``python tests/tools/mutants.py``.

The faults stand in ``mutants.toml`` beside this file (Python 3.11 or later reads it). Each is applied to a copy of the
checkout in a temporary folder, which then runs the tests of the fault's room, and, when these pass, the whole default
suite; with ``--slow`` also the tests marked slow. The exit code is 1 when fewer than 95 % of the faults are caught, and
2 when the old text of a fault does not occur exactly once in its file, or tests fail without a fault.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_suffix(".toml")
LEAST_CAUGHT = 0.95
TIMEOUT = 1200  # seconds that one run of tests may take; a fault that makes a test hang is caught by that
TESTS = {"callbacks": ["tests/callbacks", "callbacks"], "rendering": ["tests/test_render.py"]}  # where they differ


@dataclass(frozen=True)
class Fault:
    """Hold one replacement of a text in a file, and a line that describes it."""

    file: str
    old: str
    new: str
    what: str

    @property
    def room(self) -> str:
        """Return the room of the file: the folder or module of the package that it is in."""
        parts = Path(self.file).with_suffix("").parts
        return "callbacks" if parts[0] == "callbacks" else parts[1]

    def problem(self, root: Path) -> str | None:
        """Return why the fault cannot be applied, or None."""
        path = root / self.file
        count = path.read_text(encoding="utf-8").count(self.old) if path.is_file() else 0
        return None if count == 1 and self.old != self.new else f"{self.file}: {count} times {self.old!r}"


def read_faults() -> list[Fault]:
    """Return the faults of the table."""
    import tomllib  # not in Python 3.10, whose tests import this file too

    return [Fault(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["fault"]]


def copy_checkout(folder: Path) -> Path:
    """Copy the files that git tracks, or would track, into a folder; ``../shared`` is linked beside the copy."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    copy = folder / "checkout"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    if (ROOT.parent / "shared").exists():
        (folder / "shared").symlink_to((ROOT.parent / "shared").resolve())
    return copy


@contextmanager
def applied(fault: Fault, copy: Path, index: int) -> Iterator[None]:
    """Apply a fault to the copy and take it back afterwards."""
    path = copy / fault.file
    source, times = path.read_text(encoding="utf-8"), path.stat()
    path.write_text(source.replace(fault.old, fault.new), encoding="utf-8")
    os.utime(path, (times.st_atime, times.st_mtime + index + 1))  # bytecode is cached by whole seconds and size
    try:
        yield
    finally:
        path.write_text(source, encoding="utf-8")
        os.utime(path, (times.st_atime, times.st_mtime))


def run_tests(copy: Path, arguments: list[str]) -> str | None:
    """Run pytest in the copy; return the first test that fails, or None where all pass."""
    environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'callbacks'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-rfE", "-p", "no:cacheprovider", *arguments]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"no end after {TIMEOUT} s"
    if done.returncode in (0, 5):  # 5: no test was selected
        return None
    first = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return first[1] if first else f"pytest exits with {done.returncode}: {(done.stdout + done.stderr)[-200:]!r}"


def stages(room: str, copy: Path, slow: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield the runs of tests for a room, the quickest first: a name and the arguments of pytest."""
    folders = TESTS.get(room, [f"tests/{room}", f"featviz_pl/{room}"])
    tests = [name for name in folders if (copy / name).exists()]
    if tests:
        yield "room", tests
    yield "suite", ["-n", "2"]
    if slow:
        yield "slow", ["-n", "2", "-m", "slow"]


def main() -> int:
    """Run the faults that the command line names and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ROOM", help="rooms whose faults are applied (default: all)")
    parser.add_argument("--slow", action="store_true", help="run the slow tests too, for what the default suite misses")
    parser.add_argument("--list", action="store_true", help="check and print the faults, and apply none")
    options = parser.parse_args()
    faults = [fault for fault in read_faults() if not options.only or fault.room in options.only]
    problems = [problem for fault in faults if (problem := fault.problem(ROOT))]
    if problems or not faults:
        print("\n".join(["the old text of a fault must occur exactly once:", *problems]) if faults else "no such room")
        return 2
    if options.list:
        print("\n".join(f"{fault.room} | {fault.file} | {fault.what}" for fault in faults))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_checkout(Path(folder))
        missed, passing = 0, set[str]()
        print("room | file | fault | caught by", flush=True)
        for index, fault in enumerate(faults):
            caught = "NOTHING"
            for stage, arguments in stages(fault.room, copy, options.slow):
                if " ".join(arguments) not in passing and (failed := run_tests(copy, arguments)):
                    print(f"a test fails without any fault: {failed}")
                    return 2
                passing.add(" ".join(arguments))
                with applied(fault, copy, index):
                    failed = run_tests(copy, arguments)
                if failed:
                    caught = f"{stage}: {failed}"
                    break
            missed += caught == "NOTHING"
            print(f"{fault.room} | {fault.file} | {fault.what} | {caught}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} faults are caught")
    return int(missed > (1 - LEAST_CAUGHT) * len(faults))


if __name__ == "__main__":
    sys.exit(main())
