"""The parser of a configuration: short help, and mistakes in one line."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml  # type: ignore[import-untyped]
from jsonargparse import ActionConfigFile, DefaultHelpFormatter  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningArgumentParser

from featviz_pl import callbacks, images, networks, objectives, transforms

# Importing the public classes lets a configuration call them by their short names.
SHORT_NAMES = [name for room in (callbacks, images, networks, objectives, transforms) for name in room.__all__]
_PACKAGE = "featviz_pl"
_MAX_NAMES = 50  # of classes that help lists; any nn.Module may be a network
_MAX_VALUES = 100_000  # of a file: aliases within aliases multiply
_MAX_MESSAGE = 300  # characters
# Lines with which jsonargparse surrounds the reason of a mistake.
_NOISE: tuple[str, ...] = (
    "Expected a <class",
    "Expected a path",
    "Does not validate",
    "Not a valid subclass",
    "Subclass types",
    "Errors:",
)
_NOISE += ("Subtypes:", "Given value", "a class path (str)", "a dict with")
_UNKNOWN = ("not accept", "unrecognized", "import path", "has no attribute", "there is no")  # of a key or class


class ConfigError(ValueError):
    """Say what is wrong with a configuration, in one line."""


class CompactHelp(DefaultHelpFormatter):
    """Give each argument its first sentence and its default, and of classes only this library's, by their short names."""

    def __init__(self, prog: str, *more: Any, **named: Any) -> None:
        super().__init__(prog, max_help_position=44, width=140)  # type: ignore[no-untyped-call]

    def start_section(self, heading: str | None) -> None:
        """Begin a group of arguments."""
        super().start_section(heading and heading.replace("`", ""))

    def _format_usage(self, *more: Any, **named: Any) -> str:
        whole = self._prog.startswith("featviz ")  # else the help of one class
        return f"usage: {self._prog} [--config FILE.yaml] [--KEY VALUE …]\n\n" if whole else ""

    def _format_action(self, action: argparse.Action) -> str:
        # Left out: the help of a class, which the epilog mentions, and --model FILE, another way to give --config.
        hidden = action.dest.endswith(".help") or action.metavar == "CONFIG"
        return "" if hidden else super()._format_action(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            return super()._format_action_invocation(action)
        return max(action.option_strings, key=lambda name: (not name.endswith("+"), len(name)))

    def _get_help_string(self, action: argparse.Action) -> str:
        text = " ".join((action.help or "").replace("``", "").split())
        sentence = re.split(r"(?<=[.;])\s", text, maxsplit=1)[0].rstrip(".;")
        notes = ["required"] if action.required else []
        notes += [] if action.default in (None, argparse.SUPPRESS) else ["default: %(default)s"]
        subclasses = super()._get_help_string(action).partition("known subclasses: ")[2].partition(")")[0]
        paths = [path.strip() for path in subclasses.split(",") if path.strip().startswith(_PACKAGE)]
        names = sorted({path.rpartition(".")[2] for path in paths})
        notes += [f"one of {', '.join(names)}"] if 1 < len(names) <= _MAX_NAMES else []
        return sentence + (f" ({'; '.join(notes)})" if notes else "")


class ConfigFile(ActionConfigFile):
    """Read a file, and refuse in it what has no effect."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file."""
        check_file(str(values))
        super().__call__(parser, cfg, values, option_string)  # type: ignore[no-untyped-call]
        parser.check_linked(cfg)


class ConfigParser(LightningArgumentParser):
    """Parse a configuration; every mistake is one line, ``key: what is wrong``."""

    def __init__(self, *args: Any, formatter_class: type[argparse.HelpFormatter] = CompactHelp, **kwargs: Any) -> None:
        super().__init__(*args, formatter_class=formatter_class, **kwargs)
        self.linked: dict[str, str] = {}  # keys that follow from others

    def link_arguments(self, source: str | tuple[str, ...], target: str, **more: Any) -> None:  # type: ignore[override]
        """Let one key follow from others."""
        super().link_arguments(source, target, **more)
        self.linked[target] = source if isinstance(source, str) else source[0]

    def check_linked(self, keys: Any) -> None:
        """Refuse keys that follow from others: the parser takes some of them, and they have no effect."""
        for target, source in self.linked.items():
            names = [key.replace(".init_args", "") for key in (target, source)]
            if target in keys or names[0] in keys:
                raise ConfigError(f"{names[0]}: follows from {names[1]}; leave it out")

    def check_linked_flags(self, flags: Sequence[str]) -> None:
        """Refuse flags of such keys."""
        names = {flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")}
        self.check_linked({name.replace(".init_args", "") for name in names})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the mistake in one line."""
        names = [*SHORT_NAMES, *(part for action in self._actions for part in action.dest.split("."))]
        raise ConfigError(first_reason(message, names)) from ex


def first_reason(message: str, names: Sequence[str] = ()) -> str:
    """Return the first meaningful line of a message of jsonargparse, after the keys that lead to it.

    Args:
        message: lines of keys and reasons, one for each type that was tried.
        names: keys and classes that exist; one that is near to the last word is suggested.

    Example:
        >>> first_reason("there is no 'Chanel'", ["Channel"])
        "there is no 'Chanel'; did you mean 'Channel'?"
    """
    keys: list[str] = []
    reason = ""
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    for line in lines:
        if line.startswith('Parser key "'):
            key, _, line = line.removeprefix('Parser key "').partition('":')
            keys.append(key)
            line = line.strip()
        if line and not line.startswith(_NOISE):
            reason = line
            break
    if not reason:  # no type that was tried takes the value
        reason = " ".join(line for line in lines if line.startswith(("Expected a <", "Given value:")))
    close: list[str] = []
    if "did you mean" not in reason and any(words in reason for words in _UNKNOWN):
        path = re.sub(r"--|=.*|['\"]|( is)? not accepted$", "", reason).split()[-1]
        unknown = next((part for part in path.split(".") if part not in names), "")
        close = difflib.get_close_matches(unknown, names, 1)
    reason = reason if len(reason) <= _MAX_MESSAGE else f"{reason[:_MAX_MESSAGE]}…"
    return ".".join(keys) + ": " * bool(keys) + reason + (f"; did you mean {close[0]!r}?" if close else "")


def check_file(path: str) -> None:
    """Refuse what jsonargparse would take for an empty configuration, or could not come to an end with.

    Raises:
        ConfigError: naming the file.
    """
    if not Path(path).is_file():
        raise ConfigError(f"config: there is no file {path!r}")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"config: cannot read {path!r}: {' '.join(str(error).split())[:_MAX_MESSAGE]}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config: {path!r} holds no keys; give such as model: {{steps: 64}}")
    if _count(content, {}) > _MAX_VALUES:
        raise ConfigError(f"config: {path!r} refers to itself, or holds more than {_MAX_VALUES} values")


def _count(node: Any, counts: dict[int, float]) -> float:
    """Return how many values a node holds when all aliases are written out; infinite within itself."""
    if not isinstance(node, (dict, list)):
        return 1
    if id(node) not in counts:
        counts[id(node)] = float("inf")  # until it is known: an alias of a node that holds it
        children = node.values() if isinstance(node, dict) else node
        counts[id(node)] = 1 + sum(_count(child, counts) for child in children)
    return counts[id(node)]
