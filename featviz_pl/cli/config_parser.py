"""What a configuration's parser says: help that can be read, and mistakes in one line that names the key."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml  # type: ignore[import-untyped]
from jsonargparse import ActionConfigFile, DefaultHelpFormatter  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningArgumentParser

from featviz_pl import callbacks, images, networks, objectives, transforms
from featviz_pl.numerics.checks import near

# Importing the public classes lets a configuration call them by their short names.
SHORT_NAMES = [name for room in (callbacks, images, networks, objectives, transforms) for name in room.__all__]
_OWN = "featviz_pl"
_MOST_NAMES = 50  # of classes that help lists; any nn.Module may be a network
_MARK = "\x1f"  # around the key and the text of a mistake that a parser within the parser has found
_UNKNOWN_KEY = re.compile(r"(?:Option|Key|key) ['\"]([\w.+-]+)['\"] is not (?:accepted|expected)")
_UNKNOWN_IN_GROUP = re.compile(r"Group '([\w.]+)' does not accept option '([\w.]+)'")
_MISSING = re.compile(r"the following arguments are required: ([\w.]+)|Key ['\"]([\w.]+)['\"] is required")
_LINKED = re.compile(r"Linked \"([\w.]+)\" must be given via \"([\w.]+)\"")
_UNKNOWN_CLASS = (
    re.compile(r"Expected a dot import path string: (\S+)"),
    re.compile(r"Unexpected import path format: (\S+)"),
    re.compile(r"module '[\w.]+' has no attribute '(\w+)'"),
    re.compile(r"No module named '([\w.]+)'"),
)
_OF_THE_PARSER = ("Expected a", "Does not validate", "Not a valid subclass", "a class path (str)", "a dict with")


class ConfigError(ValueError):
    """Say what is wrong with a configuration, in one line."""


class MarkedError(ConfigError):
    """Carry a mistake through a parser, which puts the texts of what it has tried together."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{_MARK}{key}{_MARK}{text}{_MARK}")
        self.key, self.text = key, text


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
        of_a_class = action.dest.endswith(".help")  # said once, at the end
        of_a_file = action.metavar == "CONFIG"  # --model FILE: one way to give a configuration will do
        return "" if of_a_class or of_a_file else super()._format_action(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            return super()._format_action_invocation(action)
        return max(action.option_strings, key=lambda name: (not name.endswith("+"), len(name)))

    def _get_help_string(self, action: argparse.Action) -> str:
        said = super()._get_help_string(action)
        text = " ".join((action.help or "").replace("``", "").split())
        sentence = re.split(r"(?<=[.;])\s", text, maxsplit=1)[0].rstrip(".;")
        notes = ["required"] if action.required else []
        notes += [] if action.default in (None, argparse.SUPPRESS) else ["default: %(default)s"]
        known = re.search(r"known subclasses: ([^)]*)", said)
        own = (
            sorted({path.rpartition(".")[2] for path in re.findall(r"[\w.]+", known[1]) if path.startswith(_OWN)})
            if known
            else []
        )
        notes += [f"one of {', '.join(own)}"] if 1 < len(own) <= _MOST_NAMES else []
        return sentence + (f" ({'; '.join(notes)})" if notes else "")


class ConfigFile(ActionConfigFile):
    """Read a file, and refuse in it what follows from another key: silently it would count for nothing."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file."""
        try:
            super().__call__(parser, cfg, values, option_string)  # type: ignore[no-untyped-call]
        except MarkedError as error:
            text = error.text if _has_keys(values) else "holds no keys; give such as model: {steps: 64}"
            raise MarkedError(error.key or str(values), text) from error.__cause__
        for target, source in parser.follows.items():
            if target in cfg:
                raise TypeError(f'Linked "{target}" must be given via "{source}"')


class ConfigParser(LightningArgumentParser):
    """Parse a configuration; every mistake is one line, ``key: what is wrong; what would be right``."""

    def __init__(self, *args: Any, formatter_class: type[argparse.HelpFormatter] = CompactHelp, **kwargs: Any) -> None:
        super().__init__(*args, formatter_class=formatter_class, **kwargs)
        self.follows: dict[str, str] = {}  # keys that follow from others

    def link_arguments(self, source: str | tuple[str, ...], target: str, **more: Any) -> None:  # type: ignore[override]
        """Let one key follow from others."""
        super().link_arguments(source, target, **more)
        self.follows[target] = source if isinstance(source, str) else source[0]

    def refuse_what_follows(self, flags: Sequence[str]) -> None:
        """Refuse flags of keys that follow from others, where the parser takes them and they would count for nothing."""
        given = {
            flag.removeprefix("--").partition("=")[0].replace(".init_args", "")
            for flag in flags
            if flag.startswith("--")
        }
        for target, source in self.follows.items():
            if target.replace(".init_args", "") in given:
                self.error(f'Linked "{target}" must be given via "{source}"')

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the mistake in one line, also where this parser works within another one."""
        raise MarkedError(*self.explained(message)) from ex

    def explained(self, message: str) -> tuple[str, str]:
        """Return the key, as far as it is known, and what is wrong with it."""
        within = re.match(r"Parser key \"([^\"]*)\":\s*(.*)", message, re.DOTALL)
        key, rest = (within[1], within[2]) if within else ("", message)
        if inner := re.search(f"{_MARK}([^{_MARK}]*){_MARK}([^{_MARK}]*){_MARK}", rest):
            return _joined(key, inner[1]), inner[2]
        if found := _LINKED.search(rest):
            return found[1].replace(
                ".init_args", ""
            ), f"follows from {found[2].replace('.init_args', '')}; leave it out"
        if found := _UNKNOWN_IN_GROUP.search(rest):
            return self._unknown(key, f"{found[1]}.{found[2]}")
        if found := _UNKNOWN_KEY.search(rest):
            return self._unknown(key, found[1])
        if found := re.match(r"unrecognized arguments: (\S+)", rest):
            name = found[1].lstrip("-").partition("=")[0]
            return (
                self._unknown(key, name)
                if found[1].startswith("--")
                else (name, "there is no such argument; give --KEY VALUE")
            )
        if found := _MISSING.search(rest):
            return _joined(key, found[1] or found[2]), "must be given"
        for pattern in _UNKNOWN_CLASS:
            if found := pattern.search(rest):
                names = self._class_names(key) or SHORT_NAMES
                return key, f"there is no class {found[1]!r}; {near(found[1].rpartition('.')[2], names)}"
        return key, _wrong_value(rest)

    def _unknown(self, key: str, name: str) -> tuple[str, str]:
        """Name the keys like the first part of one that does not exist, of those in the same place."""
        keys = {
            action.dest
            for action in self._actions
            if not action.dest.endswith(("help", "==", "print_config", "print_shtab"))
        }
        parts, place = name.split("."), ""
        while len(parts) > 1 and any(known.startswith(f"{place}{parts[0]}.") for known in keys):
            place += f"{parts.pop(0)}."
        known = sorted({known.removeprefix(place).partition(".")[0] for known in keys if known.startswith(place)})
        return _joined(key, place + parts[0]), f"there is no such key; {near(parts[0], known)}"

    def _class_names(self, key: str) -> list[str]:
        """Return the names of the classes that a key takes."""
        said = next(
            (action.extra_help() for action in self._actions if action.dest == key and hasattr(action, "extra_help")),
            "",
        )
        return sorted({path.rpartition(".")[2] for path in re.findall(r"[\w.]+\.[\w.]+", said)})


def as_line(error: BaseException) -> str:
    """Return what is wrong with a configuration, or why a class of it could not be made, as one line."""
    if isinstance(error, MarkedError):
        return f"{error.key}: {error.text}" if error.key else error.text
    return _wrong_value(str(error)) if "Does not validate" in str(error) else str(error)


def _has_keys(path: Any) -> bool:
    """Say whether a file holds keys and values, or cannot be read, which the parser says better."""
    try:
        return isinstance(yaml.safe_load(Path(str(path)).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, yaml.YAMLError):
        return True


def _joined(*keys: str) -> str:
    return ".".join(filter(None, keys))


def _wrong_value(text: str) -> str:
    """Say why a class refused its arguments, else what a value must be, else what the parser says."""
    reasons = [line for line in re.findall(r"^\s*- (.*)", text, re.MULTILINE) if not line.startswith(_OF_THE_PARSER)]
    if reasons:
        return str(reasons[0])
    tried = re.search(r"Subtypes: \[(.*)\]", text) or re.search(r"Expected a (.*?)\. Got value:", text)
    given = re.search(r"(?:Given|Got) value: (.*)", text, re.DOTALL)
    if tried is None or given is None:
        return " ".join(text.split())
    types = re.sub(r"<class '([^']*)'>", r"\1", tried[1])
    types = re.sub(r"(?:\w+\.)+(\w+)", r"\1", types).replace(", NoneType", "")
    value = " ".join(given[1].split())
    listed = re.split(r",\s*(?![^\[]*\])", types)  # at the commas that stand in no brackets
    return f"must be {' or '.join(listed)}, got {value[:80]}{'…' if len(value) > 80 else ''}"
