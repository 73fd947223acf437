"""The shorthand of targets, by a literal table."""

from __future__ import annotations

from typing import Any

import pytest

from featviz_pl.objectives import Channel, ClassLogit, DeepDream, Neuron, parse_target

GOOD = {
    "features.9": "DeepDream('features.9')",
    "output": "DeepDream('output')",
    "features.9:33": "Channel('features.9', 33)",
    "features.9:0": "Channel('features.9', 0)",
    "features.9:0-63": "Channel('features.9', range(64))",
    "features.9:4-6": "Channel('features.9', range(4, 7))",
    "features.9:5-5": "Channel('features.9', [5])",
    "features.9:3,5,8": "Channel('features.9', [3, 5, 8])",
    "features.9:8,3": "Channel('features.9', [8, 3])",
    "features.9:0-2,7": "Channel('features.9', [0, 1, 2, 7])",
    " features.9 : 3 , 5 ": "Channel('features.9', [3, 5])",
    "features.9:33@4,5": "Neuron('features.9', 33, (4, 5))",
    "features.9:33@4 , 5": "Neuron('features.9', 33, (4, 5))",
    "features.9:33@": "Neuron('features.9', 33)",
    "features.9:0-2@4,5": "Neuron('features.9', range(3), (4, 5))",
    "encoder.ln:7@0": "Neuron('encoder.ln', 7, 0)",
    "output:3": "Channel('output', 3)",
    "output:0-2": "Channel('output', range(3))",
    "output:church": "ClassLogit('church')",
    "output:golf ball": "ClassLogit('golf ball')",
    "output:church,French horn": "ClassLogit(['church', 'French horn'])",
}
BAD = {
    "": "does not parse",
    "   ": "does not parse",
    ":": "does not parse",
    ":3": "does not parse",
    "features.9:": "does not parse",
    "features.9: ": "does not parse",
    "features.9:-1": "negative unit; units are 0 or more",
    "features.9:-3-1": "negative unit",
    "features.9:3,-1": "negative unit",
    "output:-1": "negative unit",
    "features.9:5-3": "a range that ends before it begins",
    "features.9:3,": "does not parse",
    "features.9:,3": "does not parse",
    "features.9:3,,5": "does not parse",
    "features.9:3 5": "does not parse",
    "features.9:3-": "does not parse",
    "features.9:3--5": "does not parse",
    "features.9:1-2-3": "does not parse",
    "features.9:1.5": "does not parse",
    "features.9:cat": "does not parse",
    "features.9:3:4": "does not parse",
    "features 9:3": "does not parse",
    "features\t9": "does not parse",
    "features.9:3@-1,0": "no position",
    "features.9:3@1,2,3": "no position",
    "features.9:3@1,": "no position",
    "features.9:3@a": "no position",
    "features.9:3@1@2": "no position",
    "features.9:@1,2": "does not parse",
    "output:church,3": "does not parse",
    "output:church@1,2": "does not parse",
}


@pytest.mark.parametrize("target", GOOD)
def test_every_form_builds_its_objective(target: str) -> None:
    assert repr(parse_target(target)) == GOOD[target]


@pytest.mark.parametrize("target", BAD)
def test_every_bad_form_is_refused_with_the_text_and_a_reason(target: str) -> None:
    with pytest.raises(ValueError, match=r"^target: ") as caught:
        parse_target(target)
    assert repr(target) in str(caught.value)
    assert BAD[target] in str(caught.value)
    if "does not parse" in str(caught.value):
        assert "layer:3,5,8" in str(caught.value)  # the forms


@pytest.mark.parametrize("target", [None, 3, ["features.9"]])
def test_what_is_no_text_is_refused(target: Any) -> None:
    with pytest.raises(ValueError, match="does not parse"):
        parse_target(target)


def test_single_units_serve_any_number_of_pictures_and_ranges_their_own() -> None:
    assert parse_target("a:3").count() is None
    assert parse_target("a:3-3").count() == 1
    assert parse_target("a:0-63").count() == 64
    assert parse_target("output:church").count() is None
    assert parse_target("output:church,tench").count() == 2


@pytest.mark.parametrize("target", ["a:3", "a:3@", "a:3@4,5", "a", "output:church"])
def test_the_target_of_a_picture_is_the_text_that_builds_it(target: str) -> None:
    assert parse_target(target).targets(1) == [target]


def test_the_kinds() -> None:
    kinds = [type(parse_target(target)) for target in ("a", "a:1", "a:1@", "output:church")]
    assert kinds == [DeepDream, Channel, Neuron, ClassLogit]
