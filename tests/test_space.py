"""Spaces map parameters to settings and back without loss, and say which layer they can't reach."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sweeper.errors import SettingError
from sweeper.records import Setting
from sweeper.space import Fixed, Parameter, Ranges, Space, describe

RANGES = Ranges(keep_prob=(0.2, 1.0), input_keep_prob=1.0, lambda_=(1e-3, 30.0))


def names(space: Space) -> list[str]:
    return [parameter.name for parameter in space.parameters]


@st.composite
def groups(draw: st.DrawFn, layers: range) -> tuple[tuple[int, ...], ...]:
    labels = {layer: draw(st.integers(0, len(layers) - 1)) for layer in layers}
    shuffled = draw(st.permutations(sorted(set(labels.values()))))
    return tuple(tuple(layer for layer in layers if labels[layer] == label) for label in shuffled)


def ways(layers: range, fixed: list[float]) -> st.SearchStrategy[Any]:
    if not layers:
        return st.sampled_from(fixed)
    return st.sampled_from([*fixed, "shared", "masked", "per_layer"]) | groups(layers)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    layers = draw(st.integers(1, 5))
    return Space(
        name="any",
        layers=layers,
        keep_prob=draw(ways(range(1, layers), [1.0, 0.7])),
        lambda_=draw(ways(range(1, layers + 1), [0.0, 2.5])),
        input_keep_prob=draw(st.sampled_from([None, 0.9])),
        ranges=Ranges(
            keep_prob=draw(st.sampled_from([(0.2, 1.0), (0.3, 0.9)])),
            input_keep_prob=draw(st.just(1.0) | st.just((0.8, 1.0))),
        ),
        placebo=draw(st.integers(0, 2)),
    )


def point(space: Space) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {p.name: st.booleans() if p.kind == "bool" else st.floats(p.low, p.high) for p in space.parameters}
    )


space_and_point = spaces().flatmap(lambda space: st.tuples(st.just(space), point(space)))


def canonical(space: Space, params: dict[str, Any]) -> dict[str, Any]:
    """The module's rule, written down a second time: what does nothing stands at its canonical value."""
    params = dict(params)
    for shared, switch, off, idle in [
        ("keep_prob", "drop_", 1.0, space.ranges.keep_prob[1]),
        ("lambda", "l2_", 0.0, space.ranges.lambda_[0]),
    ]:
        switches = [name for name in params if name.startswith(switch)]
        if not switches:
            continue
        if params[shared] == off:
            params |= dict.fromkeys(switches, False)
        if not any(params[name] for name in switches):
            params[shared] = idle
    return params | {name: 0.5 for name in params if name.startswith("placebo")}


@given(space_and_point)
@example((Space("m", 3, "masked"), {"keep_prob": 1.0, "drop_1": True, "drop_2": False}))
def test_a_setting_survives_the_way_to_parameters_and_back(case: tuple[Space, dict[str, Any]]) -> None:
    space, params = case
    setting = space.setting(params)
    assert space.setting(space.params(setting)) == setting


@given(space_and_point)
@example((Space("m", 3, "masked"), {"keep_prob": 1.0, "drop_1": True, "drop_2": False}))
@example((Space("m", 2, lambda_="masked"), {"lambda": 4.0, "l2_1": False, "l2_2": False}))
def test_parameters_survive_the_way_to_a_setting_and_back(case: tuple[Space, dict[str, Any]]) -> None:
    space, params = case
    assert space.params(space.setting(params)) == canonical(space, params)


@given(space_and_point)
def test_every_point_is_a_setting_within_the_ranges(case: tuple[Space, dict[str, Any]]) -> None:
    space, params = case
    setting = space.setting(params)
    assert len(setting.keep_prob) == len(setting.lambda_) == space.layers
    low, high = space.ranges.keep_prob
    assert all(low <= keep <= high or keep in (1.0, 0.7) for keep in setting.keep_prob[1:])


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (Space("none", 4), []),
        (Space("shared", 4, "shared"), ["keep_prob"]),
        (Space("masked", 4, "masked"), ["keep_prob", "drop_1", "drop_2", "drop_3"]),
        (Space("grouped", 4, ((3,), (2, 1))), ["keep_prob_1_2", "keep_prob_3"]),
        (Space("per_layer", 4, "per_layer"), ["keep_prob_1", "keep_prob_2", "keep_prob_3"]),
        (Space("l2", 2, lambda_="shared"), ["lambda"]),
        (Space("l2", 2, lambda_="masked"), ["lambda", "l2_1", "l2_2"]),
        (Space("l2", 3, lambda_=((1, 3), (2,))), ["lambda_1_3", "lambda_2"]),
        (Space("both", 2, "per_layer", "per_layer"), ["keep_prob_1", "lambda_1", "lambda_2"]),
        (
            Space("all", 2, "shared", "shared", ranges=Ranges(input_keep_prob=(0.8, 1.0)), placebo=2),
            ["keep_prob_0", "keep_prob", "lambda", "placebo_1", "placebo_2"],
        ),
    ],
    ids=lambda case: case.name if isinstance(case, Space) else "",
)
def test_names_and_order_are_stable(space: Space, expected: list[str]) -> None:
    assert names(space) == expected
    assert space.dimensions == len(expected)


def test_every_pair_of_kinds_combines() -> None:
    keeps: dict[str, Any] = {
        "fixed": 0.9,
        "shared": "shared",
        "masked": "masked",
        "grouped": ((1, 2),),
        "per_layer": "per_layer",
    }
    lambdas = keeps | {"fixed": 3.0, "grouped": ((1, 3), (2,))}
    for keep, lambda_ in itertools.product(keeps, lambdas):
        assert Space("any", 3, keeps[keep], lambdas[lambda_]).kinds == (keep, lambda_)


def test_keep_prob_is_linear_lambda_logarithmic_and_placebo_plain() -> None:
    space = Space("all", 2, "masked", "shared", ranges=RANGES, placebo=1)
    assert space.parameters == (
        Parameter("keep_prob", "float", 0.2, 1.0, log=False),
        Parameter("drop_1", "bool"),
        Parameter("lambda", "float", 1e-3, 30.0, log=True),
        Parameter("placebo_1", "float", 0.0, 1.0, log=False),
    )


def test_a_masked_layer_is_on_with_the_shared_value_or_off() -> None:
    params = {"keep_prob": 0.6, "drop_1": True, "drop_2": False, "lambda": 2.0}
    params |= {"l2_1": False, "l2_2": True, "l2_3": False}
    space = Space("masked", 3, "masked", "masked")
    assert space.setting(params) == Setting((1.0, 0.6, 1.0), (0.0, 2.0, 0.0))


def test_groups_share_their_value() -> None:
    space = Space("grouped", 4, ((1, 3), (2,)), 0.5)
    setting = space.setting({"keep_prob_1_3": 0.4, "keep_prob_2": 0.8})
    assert setting == Setting((1.0, 0.4, 0.8, 0.4), (0.5, 0.5, 0.5, 0.5))


def test_the_input_has_its_own_range_and_can_be_fixed_in_one_space() -> None:
    ranges = Ranges(input_keep_prob=(0.8, 1.0))
    assert Space("a", 2, ranges=ranges).setting({"keep_prob_0": 0.85}).keep_prob == (0.85, 1.0)
    assert Space("b", 2, ranges=ranges, input_keep_prob=0.9).setting({}).keep_prob == (0.9, 1.0)


def test_a_placebo_changes_nothing() -> None:
    plain, placebo = Space("a", 3, "shared"), Space("b", 3, "shared", placebo=2)
    params = {"keep_prob": 0.7, "placebo_1": 0.1, "placebo_2": 0.9}
    assert placebo.setting(params) == plain.setting({"keep_prob": 0.7})


@pytest.mark.parametrize(
    ("space", "setting", "message"),
    [
        (Space("s", 3, "shared"), Setting((1.0, 0.5, 0.6), (0, 0, 0)), r"keep_prob_2 = 0\.6.*one value, here 0\.5"),
        (Space("m", 3, "masked"), Setting((1.0, 0.5, 0.6), (0, 0, 0)), r"keep_prob_2 = 0\.6"),
        (Space("g", 3, ((1, 2),)), Setting((1.0, 0.5, 1.0), (0, 0, 0)), r"keep_prob_2 = 1\.0"),
        (Space("f", 3), Setting((1.0, 1.0, 0.5), (0, 0, 0)), r"keep_prob_2 = 0\.5.*fixes every layer at 1\.0"),
        (Space("f", 2), Setting((0.9, 1.0), (0, 0)), r"keep_prob_0 = 0\.9"),
        (Space("f", 2), Setting((1.0, 1.0), (0, 3.0)), r"lambda_2 = 3\.0"),
        (Space("p", 2, "per_layer"), Setting((1.0, 0.1), (0, 0)), r"keep_prob_1 = 0\.1 lies outside .*\[0\.2, 1\.0\]"),
        (Space("l", 2, lambda_="per_layer"), Setting((1.0, 1.0), (1.0, 0.0)), r"lambda_2 = 0\.0 lies outside"),
        (Space("n", 3), Setting((1.0, 1.0), (0, 0)), r"3 weight layers, but the setting has 2"),
    ],
)
def test_a_setting_out_of_reach_is_refused_by_the_layers_name(space: Space, setting: Setting, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        space.params(setting)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"has the parameters keep_prob, drop_1, but got \(none\)"),
        ({"keep_prob": 0.5, "drop_1": True, "lambda": 1.0}, "Give each of its parameters once"),
        ({"keep_prob": 0.1, "drop_1": True}, r"keep_prob = 0\.1 lies outside its range"),
        ({"keep_prob": math.nan, "drop_1": True}, "keep_prob = nan lies outside"),
        ({"keep_prob": True, "drop_1": True}, "keep_prob = True lies outside"),
        ({"keep_prob": 0.5, "drop_1": 1}, "drop_1 = 1 is a switch"),
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Space("m", 2, "masked").setting(params)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep_prob": ((1,), (1, 2))}, r"\[\[1\], \[1, 2\]\] must hold each of the layers 1, 2 once"),
        ({"keep_prob": ((1,),)}, "must hold each of the layers 1, 2 once"),
        ({"keep_prob": ((1, 2), ())}, "must hold each"),
        ({"keep_prob": ()}, "must hold each"),
        ({"lambda_": ((0, 1), (2, 3))}, "the lambda groups .* must hold each of the layers 1, 2, 3 once"),
        ({"keep_prob": "each"}, "can't be 'each'"),
        ({"keep_prob": 1.5}, "outside .0, 1.*pass 1 - p"),
        ({"lambda_": -1.0}, "lambda = -1.0 must be a finite number >= 0"),
        ({"layers": 0}, "at least 1 layer"),
        ({"placebo": -1}, "placebo of 0 or more"),
        ({"layers": 1, "keep_prob": "shared"}, "no hidden layer"),
    ],
)
def test_a_space_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    layers: dict[str, Any] = {"layers": 3}
    with pytest.raises(SettingError, match=message):
        Space("odd", **(layers | arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        {"keep_prob": (0.0, 1.0)},
        {"keep_prob": (0.5, 1.1)},
        {"keep_prob": (0.5, 0.5)},
        {"lambda_": (0.0, 1.0)},
        {"lambda_": (1.0, math.inf)},
        {"input_keep_prob": (1.0, 0.8)},
        {"input_keep_prob": 0.0},
    ],
)
def test_a_range_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"must hold|outside"):
        Ranges(**arguments)


def test_a_setting_reads_as_layers() -> None:
    setting = Setting((1.0, 0.8149, 1.0, 0.9999), (0.0, 0.5, 0.0, 12.345))
    assert describe(setting, ("64 units", "32 units", "16 units", "10 outputs")) == (
        "input 1.0 | 64 units 0.81 | 32 units 1.0, lambda 0.5 | 16 units 0.99 | 10 outputs, lambda 12.3"
    )
    assert describe(Setting((0.9,), (0.0,)), ("1 output",)) == "input 0.90 | 1 output"


# fixed layer by layer -------------------------------------------------------------------------------------------------


def test_numbers_fixed_per_layer_are_no_parameters_and_reach_only_themselves() -> None:
    space = Space("head", 3, keep_prob=Fixed((0.75, 0.5)), lambda_="shared", input_keep_prob=0.9, ranges=RANGES)
    assert names(space) == ["lambda"]
    assert space.kinds == ("fixed", "shared")
    setting = space.setting({"lambda": 2.0})
    assert setting == Setting((0.9, 0.75, 0.5), (2.0, 2.0, 2.0))
    assert space.params(setting) == {"lambda": 2.0}
    with pytest.raises(SettingError, match=r"can't reach keep_prob_2 = 0\.75: it fixes the layer at 0\.5"):
        space.params(Setting((0.9, 0.75, 0.75), (2.0, 2.0, 2.0)))


@pytest.mark.parametrize(
    ("values", "says"), [((0.5,), "fixed at 1 numbers, but has 2 layers"), ((0.5, 1.5), "lies outside")]
)
def test_numbers_fixed_per_layer_must_fit_the_layers(values: tuple[float, ...], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        Space("head", 3, keep_prob=Fixed(values))


@given(spaces(), st.data())
def test_layers_said_to_be_undropped_are_kept_whole_in_every_setting(space: Space, data: st.DataObject):
    settings = [space.setting(data.draw(point(space))) for _ in range(4)]
    whole = {layer for layer in range(space.layers) if all(one.keep_prob[layer] == 1.0 for one in settings)}
    assert space.undropped <= whole
    fixed = [] if space.layers == 1 or space.keep_prob != 1.0 else range(1, space.layers)
    assert space.undropped.issuperset(fixed)


def test_fixed_numbers_say_layer_by_layer_what_is_undropped():
    space = Space("any", 3, keep_prob=Fixed((1.0, 0.5)), input_keep_prob=None, ranges=RANGES)
    assert space.undropped == {0, 1}
    searched = Ranges(input_keep_prob=(0.8, 1.0))
    assert Space("any", 3, ranges=searched).undropped == {1, 2}
    assert Space("any", 3, keep_prob="masked", input_keep_prob=0.9, ranges=searched).undropped == frozenset()
