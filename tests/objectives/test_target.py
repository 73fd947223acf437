"""The shorthand of targets, by a literal table."""

from __future__ import annotations

from typing import Any

import pytest

from featviz_pl.objectives import Channel, ClassLogit, DeepDream, Neuron, Target, parse_target
from featviz_pl.objectives.target_syntax import parse_objective, parse_targets, picture_names

GOOD = {
    "features.9": "DeepDream('features.9')",
    "output": "DeepDream('output')",
    "features.9:33": "Channel('features.9', 33)",
    "features.9:0": "Channel('features.9', 0)",
    "features.9:0-63": "Channel('features.9', range(64))",
    "features.9:4-6": "Channel('features.9', range(4, 7))",
    "features.9:5-5": "Channel('features.9', 5)",
    "features.9:3,5,8": "Channel('features.9', [3, 5, 8])",
    "features.9:8,3": "Channel('features.9', [8, 3])",
    "features.9:0-2,7": "Channel('features.9', [0, 1, 2, 7])",
    " features.9 : 3 , 5 ": "Channel('features.9', [3, 5])",
    "features.9:33@4,5": "Neuron('features.9', 33, (4, 5))",
    "features.9:33@4 , 5": "Neuron('features.9', 33, (4, 5))",
    "features.9:33@": "Neuron('features.9', 33)",
    "features.9:0-2@4,5": "Neuron('features.9', range(3), (4, 5))",
    "encoder.ln:7@0": "Neuron('encoder.ln', 7, 0)",
    "odd name:3": "Channel('odd name', 3)",
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
    "features 9": "does not parse",
    "features\t9": "does not parse",
    "a:1 & b:2": "does not parse",
    "features.9:3@-1,0": "no position",
    "features.9:3@1,2,3": "no position",
    "features.9:3@1,": "no position",
    "features.9:3@a": "no position",
    "features.9:3@1@2": "no position",
    "features.9:@1,2": "does not parse",
    "output:church,3": "does not parse",
    "output:church,": "does not parse",
    "features.9:all,3": "does not parse",
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
    assert parse_target("a:0-63").count() == 64
    assert parse_target("output:church").count() is None
    assert parse_target("output:church,tench").count() == 2


@pytest.mark.parametrize("target", ["a:3", "a:3@", "a:3@4,5", "a", "output:church"])
def test_the_target_of_a_picture_is_the_text_that_builds_it(target: str) -> None:
    assert parse_target(target).targets(1) == [target]


def test_the_kinds() -> None:
    kinds = [type(parse_target(target)) for target in ("a", "a:1", "a:1@", "output:church")]
    assert kinds == [DeepDream, Channel, Neuron, ClassLogit]


# The value between text and objective.

PRINTED = {  # text: what is printed
    "a": "a",
    "a:3": "a:3",
    " a : 3 , 5 ": "a:3,5",
    "a:0-63": "a:0-63",
    "a:0,1": "a:0,1",
    "a:4,5,6,9,2,1,0": "a:4-6,9,2,1,0",
    "a:3,3,3": "a:3,3,3",
    "a:all": "a:all",
    "a:3@": "a:3@",
    "a:0-2@4 , 5": "a:0-2@4,5",
    "a:all@": "a:all@",
    "ln:7@0": "ln:7@0",
    "features.*:all": "features.*:all",
    "output:church, French horn": "output:church,French horn",
}


@pytest.mark.parametrize("text", PRINTED)
def test_what_is_printed_parses_to_an_equal_target(text: str) -> None:
    target = Target.parse(text)
    assert str(target) == PRINTED[text]
    assert Target.parse(str(target)) == target


def test_the_fields() -> None:
    assert Target.parse("a.1:3,5@4,0") == Target("a.1", (3, 5), (4, 0))
    assert Target.parse("a.1:3@") == Target("a.1", (3,), ())
    assert Target.parse("a.1:all") == Target("a.1", "all")
    assert Target.parse("output:church") == Target("output", ("church",))
    assert Target.parse("output:all") == Target("output", "all")


def test_single_targets_are_those_of_the_pictures() -> None:
    for text in ("a:3,5@2,1", "output:church,tench", "a:4"):
        target = Target.parse(text)
        assert [str(single) for single in target.singles()] == target.objective().targets(len(target.singles()))
    assert Target("a").singles() == [Target("a")]


def test_all_units_are_those_of_the_layer() -> None:
    everything = Target.parse("a:all@1,2")
    assert everything.resolve(4) == Target("a", (0, 1, 2, 3), (1, 2))
    assert Target("a", (7,)).resolve(4) == Target("a", (7,))
    for unknown in (everything.singles, everything.objective):
        with pytest.raises(ValueError, match=r"number of units of 'a:all@1,2' is not known"):
            unknown()
    assert repr(parse_objective("target", "a:all", {"a": 3}.__getitem__)) == "Channel('a', range(3))"


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "a": "'a' is the whole layer, one picture; write 'a:all'",
        "a:3@1,2": "one position.*leave '@' out",
        "output:church": "names a class; give the number",
    }.items(),
)
def test_units_by_number_are_told_from_what_has_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^targets: .*{message}"):
        Target.parse(text).by_number()


def test_the_unit_and_the_class_of_a_single_target() -> None:
    assert (Target.parse("a:3").unit, Target.parse("a:3").class_name) == (3, None)
    assert Target.parse("output:church").class_name == "church"
    assert Target.parse("output:church,tench").class_name is None
    for text in ("a", "a:all", "a:3,5", "output:church"):
        with pytest.raises(ValueError, match="not one unit"):
            _ = Target.parse(text).unit


def test_several_targets_are_listed_each_once() -> None:
    listed = parse_targets(["a:0-2", Target("a", (1, 5)), "b", "c:all", "b"])
    assert [str(target) for target in listed] == ["a:0", "a:1", "a:2", "a:5", "b", "c:all"]
    assert parse_targets("a:3") == parse_targets(Target("a", (3,))) == [Target("a", (3,))]
    with pytest.raises(ValueError, match="targets: none"):
        parse_targets([])
    for wrong in (3, [3], None, {"a": 1}):
        with pytest.raises(TypeError, match="targets must be a text"):
            parse_targets(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [3, None, ["a:3", 3], [], DeepDream])
def test_what_is_no_objective_is_named_with_its_argument(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^second must be an Objective or a target such as"):
        parse_objective("second", value)


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (["a.1:3", "a.1:12"], ["3", "12"]),
        (["a:3@1,2", "a:4@1,2"], ["3@1,2", "4@1,2"]),
        (["output:French horn"], ["French-horn"]),
        (["a:1", "b:1"], ["0", "1"]),
        ([f"{'ab'[index % 2]}:{index // 2}" for index in range(12)], [f"{index:02d}" for index in range(12)]),
    ],
)
def test_pictures_are_named_by_what_tells_their_targets_apart(targets: list[str], names: list[str]) -> None:
    assert picture_names(targets) == names
