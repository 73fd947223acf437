"""Mistakes of configurations that are told without building a parser."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featviz_pl.cli.config_parser import ConfigError, check_file, first_reason

ALIASES = "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefg", "bcdefgh"))
FILES = {
    "model: {steps: 3, lr: &lr 0.1}\ntrainer: {other: *lr}\n": None,
    "": "holds no keys",
    "- model\n- steps\n": "holds no keys",
    "model:\n  steps: 3\n seed: 4\n": "cannot read .*line 3",
    "model: &a {b: *a}\n": "refers to itself",
    "model: &a [1, *a]\n": "refers to itself",
    f"a: &a [{','.join('1' * 10)}]\n{ALIASES}": "more than 100000 values",
    "\x00": "cannot read",
}


@pytest.mark.parametrize("text", FILES, ids=lambda text: repr(text[:16]))
def test_files_that_hold_no_configuration_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    if (message := FILES[text]) is None:
        check_file(str(path))
    else:
        with pytest.raises(ConfigError, match=rf"^config: .*config\.yaml.*{message}|^config: {message}"):
            check_file(str(path))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing.yaml", "."):
        with pytest.raises(ConfigError, match="there is no file"):
            check_file(str(tmp_path / name))


UNION = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'Module'>, <class 'NoneType'>]
  Errors:
    - Parser key "steps":
        {}
    - Expected a <class 'NoneType'>
  Given value: many"""


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Option 'modle.steps' is not accepted", "Option 'modle.steps' is not accepted; did you mean 'model'?"),
        ("unrecognized arguments: --model.stepz=3", "unrecognized arguments: --model.stepz=3; did you mean 'steps'?"),
        ("the following arguments are required: step", "the following arguments are required: step"),
        (UNION.format("- steps must be at least 1"), "model.steps: steps must be at least 1"),
        (UNION.format("Expected a <class 'int'>. Got value: x"), "model.steps: Expected a <class 'int'>. Got value: x"),
        ("x" * 1000, "x" * 300 + "…"),
    ],
    ids=["key", "flag", "required", "reason", "type", "long"],
)
def test_the_first_reason_is_one_line_after_its_keys(message: str, expected: str) -> None:
    assert first_reason(message, ["model", "steps", "Channel"]).startswith(expected)
