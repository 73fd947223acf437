"""Count assigned names that say nothing about what they hold: ``python tests/tools/filler_names.py [FOLDER ...]``.

Prints the share of such names among all assigned names (variables, loop and comprehension targets, ``with`` and walrus
targets, parameters and attributes) and where the most frequent ones stand.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

FILLERS = {
    *("own", "one", "ones", "found", "place", "places", "held", "kept", "given", "chosen", "shown", "other", "others"),
    *("wanted", "made", "taken", "seen", "asked", "said", "what", "which", "whole", "rest", "again", "there", "here"),
}
ROOT = Path(__file__).resolve().parents[2]


def assigned(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every assigned name of a file, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def count(folders: list[Path]) -> tuple[int, list[tuple[str, Path, int]]]:
    """Return the number of assigned names, and those that are fillers with file and line."""
    total, fillers = 0, []
    for folder in folders:
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
            for name, line in assigned(path):
                total += 1
                if name.strip("_") in FILLERS:
                    fillers.append((name, path, line))
    return total, fillers


def main() -> None:
    """Print the share, and each filler with its line where asked for single files."""
    folders = [Path(argument) for argument in sys.argv[1:]] or [ROOT / "featviz_pl", ROOT / "callbacks"]
    total, fillers = count(folders)
    for name, path, line in fillers:
        print(f"{path}:{line}: {name}")
    print(Counter(name for name, _, _ in fillers).most_common(12))
    print(f"{len(fillers)} of {total} assigned names are fillers: {100 * len(fillers) / max(1, total):.1f} %")


if __name__ == "__main__":
    main()
