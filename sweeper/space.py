"""Search spaces: named parameters on one side, a Setting on the other, and the way between, both ways.

Letters: L weight layers. keep_prob[0] acts on the input, keep_prob[1..L-1] on the hidden layers' outputs, and
lambda_ belongs to the weight layers 1..L. The input, the hidden layers and the weights are searched apart.

A number of layers is searched in one of five ways (the words of a sweep file):

    fixed       a number           no parameter         (in Python also Fixed, a number per layer)
    shared      "shared"           keep_prob                        lambda
    masked      "masked"           keep_prob, drop_1 .. drop_L-1    lambda, l2_1 .. l2_L      (R7)
    grouped     ((1, 2), (3,))     keep_prob_1_2, keep_prob_3       lambda_1_2, lambda_3
    per_layer   "per_layer"        keep_prob_1 .. keep_prob_L-1     lambda_1 .. lambda_L

The input's own parameter is keep_prob_0. A placebo's parameters, placebo_1 .., map to nothing: what they cost
is what the search pays for a hyperparameter that does nothing.

Parameters that a point makes irrelevant have one canonical value, the one that `Space.params` returns: a
layer that is not regularised has its switch off; a shared keep_prob that no layer uses is its range's high
end, a shared lambda its low end (the ends nearest to no regularisation), and a placebo is 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from sweeper.errors import SettingError
from sweeper.records import ParameterValue, Setting, check_keep_prob

Group = tuple[int, ...]
Groups = tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Fixed:
    """A number per layer, none of them searched: what a model's own dropouts say."""

    values: tuple[float, ...]


Way = float | Fixed | Literal["shared", "masked", "per_layer"] | Groups
Kind = Literal["fixed", "shared", "masked", "grouped", "per_layer"]
Values = dict[int, float]
"""One value per layer, by the layer's number."""

PLACEBO_IDLE = 0.5


@dataclass(frozen=True, slots=True)
class Parameter:
    """One searched number or switch.

    Attributes:
        name: stable, e.g. "keep_prob_2", "lambda", "drop_1".
        kind: "float", or "bool" for a switch.
        low, high: the range of a float, both ends included.
        log: whether a float is searched on a logarithmic scale.
    """

    name: str
    kind: Literal["float", "bool"] = "float"
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def check(self, value: ParameterValue) -> None:
        """Refuse a value that this parameter can't take.

        Raises:
            SettingError: a switch that is not true or false, or a number outside the range.
        """
        if self.kind == "bool":
            if not isinstance(value, bool):
                raise SettingError(f"{self.name} = {value!r} is a switch: give true or false.")
        elif isinstance(value, bool | str) or not self.low <= value <= self.high:
            raise SettingError(
                f"{self.name} = {value!r} lies outside its range [{self.low}, {self.high}]. "
                f"Give a number within it, or widen the range."
            )


@dataclass(frozen=True, slots=True)
class Ranges:
    """Where searched values lie; the same for every space of a sweep.

    Attributes:
        keep_prob: low and high for the hidden layers, searched on a linear scale, 0 < low < high <= 1.
        input_keep_prob: a number fixes the input's keep_prob; a pair is the range of keep_prob_0 (R4).
        lambda_: low and high, searched on a logarithmic scale, 0 < low < high.

    Raises:
        SettingError: a range is empty or leaves what its parameter can be.
    """

    keep_prob: tuple[float, float] = (0.2, 1.0)
    input_keep_prob: float | tuple[float, float] = 1.0
    lambda_: tuple[float, float] = (1e-3, 30.0)

    def __post_init__(self) -> None:
        _check_range("keep_prob", self.keep_prob, highest=1.0)
        _check_range("lambda", self.lambda_, highest=math.inf)
        if isinstance(self.input_keep_prob, tuple):
            _check_range("input_keep_prob", self.input_keep_prob, highest=1.0)
        else:
            check_keep_prob(self.input_keep_prob, "input_keep_prob")


@dataclass(frozen=True)
class Space:
    """One search space over a network of L weight layers.

    Attributes:
        name: as the sweep file calls it.
        layers: L.
        keep_prob: how the hidden layers 1..L-1 are searched; a number fixes them.
        lambda_: how the weight layers 1..L are searched; a number fixes them.
        input_keep_prob: a number fixes the input's keep_prob in this space; None takes
            `ranges.input_keep_prob`, so that a range there makes it the parameter keep_prob_0.
        ranges: where searched values lie.
        placebo: how many parameters to add that do nothing.

    Raises:
        SettingError: groups that don't hold each layer once, or a hidden layer to search where there is none.
    """

    name: str
    layers: int
    keep_prob: Way = 1.0
    lambda_: Way = 0.0
    input_keep_prob: float | None = None
    ranges: Ranges = field(default_factory=Ranges)
    placebo: int = 0

    def __post_init__(self) -> None:
        if self.layers < 1 or self.placebo < 0:
            raise SettingError(
                f"space {self.name}: {self.layers} weight layers and {self.placebo} placebo parameters "
                f"can't be. Give at least 1 layer and a placebo of 0 or more."
            )
        for part in self._parts:
            part.check(self.name)

    @property
    def kinds(self) -> tuple[Kind, Kind]:
        """How the hidden layers' keep_prob and the weights' lambda are searched."""
        return kind_of(self.keep_prob), kind_of(self.lambda_)

    @property
    def dimensions(self) -> int:
        """How many hyperparameters the space searches, placebos included."""
        return len(self.parameters)

    @property
    def undropped(self) -> frozenset[int]:
        """The layers whose keep_prob is 1 in every setting of this space, 0 being the input."""
        keeps = [(part.fixed, part.off) for part in self._parts if part.name == "keep_prob"]
        return frozenset(layer for fixed, off in keeps for layer, value in fixed.items() if value == off)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters in their stable order: keep_prob's, lambda's, placebos."""
        real = [parameter for part in self._parts for parameter in part.parameters()]
        return (*real, *(Parameter(f"placebo_{i + 1}") for i in range(self.placebo)))

    @property
    def switches(self) -> tuple[str, ...]:
        """The names of the parameters that are switches: those of masked layers."""
        return tuple(parameter.name for parameter in self.parameters if parameter.kind == "bool")

    def setting(self, params: Mapping[str, ParameterValue]) -> Setting:
        """The setting that these parameters stand for.

        Args:
            params: a value for each of `parameters`, by name.

        Raises:
            SettingError: a parameter is missing, unknown, or outside its range.
        """
        self._check_params(params)
        values = [part.values(params) for part in self._parts]
        keep = values[0] | values[1]
        return Setting(tuple(keep[i] for i in range(self.layers)), tuple(values[2].values()))

    def params(self, setting: Setting) -> dict[str, ParameterValue]:
        """The parameters that stand for a setting, in canonical form (see the module's head).

        Args:
            setting: of a network with as many layers.

        Raises:
            SettingError: this space can't reach the setting; the message names the layer.
        """
        if len(setting.keep_prob) != self.layers:
            raise SettingError(
                f"space {self.name} has {self.layers} weight layers, but the setting has "
                f"{len(setting.keep_prob)}. Give one keep_prob and one lambda_ per weight layer."
            )
        params: dict[str, ParameterValue] = {}
        for part, values in zip(self._parts, self._split(setting), strict=True):
            params |= part.params(self.name, values)
        ordered = {parameter.name: params.get(parameter.name, PLACEBO_IDLE) for parameter in self.parameters}
        self._check_params(ordered)
        return ordered

    @cached_property
    def _parts(self) -> tuple[_Part, _Part, _Part]:
        weights = tuple(range(1, self.layers + 1))
        given = self.ranges.input_keep_prob if self.input_keep_prob is None else self.input_keep_prob
        searched = isinstance(given, tuple)
        input_range = given if isinstance(given, tuple) else (given, given)
        return (
            _Part("keep_prob", "", (0,), "per_layer" if searched else input_range[0], input_range),
            _Part("keep_prob", "drop", weights[:-1], self.keep_prob, self.ranges.keep_prob),
            _Part("lambda", "l2", weights, self.lambda_, self.ranges.lambda_),
        )

    def _split(self, setting: Setting) -> tuple[Values, Values, Values]:
        keep = dict(enumerate(setting.keep_prob))
        return {0: keep.pop(0)}, keep, dict(enumerate(setting.lambda_, start=1))

    def _check_params(self, params: Mapping[str, ParameterValue]) -> None:
        names = [parameter.name for parameter in self.parameters]
        if set(names) != set(params):
            raise SettingError(
                f"space {self.name} has the parameters {', '.join(names) or '(none)'}, but got "
                f"{', '.join(params) or '(none)'}. Give each of its parameters once."
            )
        for parameter in self.parameters:
            parameter.check(params[parameter.name])


def kind_of(way: Way) -> Kind:
    """The word for a way to search layers: a number is "fixed", a tuple of groups is "grouped"."""
    if isinstance(way, str):
        return way
    return "grouped" if isinstance(way, tuple) else "fixed"


def describe(setting: Setting, layers: Sequence[str]) -> str:
    """A setting as readable layers: "input 1.0 | 64 units 0.81 | 64 units 1.0, lambda 0.5 | 10 outputs".

    A layer's number is its keep_prob; its lambda, where it has one, is that of the weights that lead into it.

    Args:
        setting: L keep_prob and lambda_.
        layers: L, what each weight layer leads to: "64 units", "conv1 16 channels", last "10 outputs".
    """
    keeps = setting.keep_prob
    kept = [*(f"{layer} {_rounded(keep)}" for layer, keep in zip(layers[:-1], keeps[1:], strict=True)), layers[-1]]
    lambdas = [f", lambda {lambda_:.3g}" if lambda_ > 0 else "" for lambda_ in setting.lambda_]
    described = [layer + lambda_ for layer, lambda_ in zip(kept, lambdas, strict=True)]
    return " | ".join([f"input {_rounded(keeps[0])}", *described])


def _rounded(keep: float) -> str:
    """Two digits; a layer that drops at all never reads 1.0."""
    return "1.0" if keep == 1.0 else f"{min(keep, 0.99):.2f}"


@dataclass(frozen=True)
class _Part:
    """One kind of value over some layers, searched in one way: everything that keep_prob and lambda share.

    Attributes:
        name: "keep_prob" or "lambda"; switch: "drop" or "l2", what a masked layer's switch is called.
        layers: the numbers of the layers it covers.
        way: how they are searched.
        bounds: low and high of a searched value.
    """

    name: str
    switch: str
    layers: Group
    way: Way
    bounds: tuple[float, float]

    @property
    def off(self) -> float:
        """The value that regularises nothing."""
        return 1.0 if self.name == "keep_prob" else 0.0

    @property
    def idle(self) -> float:
        """The canonical value of a parameter that no layer uses: the end of the range nearest to `off`."""
        return self.bounds[1] if self.name == "keep_prob" else self.bounds[0]

    @property
    def shares(self) -> dict[str, Group]:
        """Each float parameter's name, and the layers that take its value."""
        if isinstance(self.way, tuple):
            groups = sorted(tuple(sorted(group)) for group in self.way)
            return {"_".join([self.name, *map(str, group)]): group for group in groups}
        if self.way == "per_layer":
            return {f"{self.name}_{layer}": (layer,) for layer in self.layers}
        return {self.name: self.layers} if isinstance(self.way, str) else {}

    @property
    def switches(self) -> dict[int, str]:
        """The layers that have an on/off switch, and its name."""
        return {layer: f"{self.switch}_{layer}" for layer in self.layers} if self.way == "masked" else {}

    @property
    def fixed(self) -> Values:
        """The value of each layer where none is searched; nothing else."""
        return {} if isinstance(self.way, str | tuple) else self._fixed(self.way)

    def parameters(self) -> Iterator[Parameter]:
        low, high = self.bounds
        for name in self.shares:
            yield Parameter(name, "float", low, high, log=self.name == "lambda")
        for name in self.switches.values():
            yield Parameter(name, "bool")

    def values(self, params: Mapping[str, ParameterValue]) -> Values:
        """The value of each layer, from checked parameters."""
        if not isinstance(self.way, str | tuple):
            return self._fixed(self.way)
        given = {layer: float(params[name]) for name, group in self.shares.items() for layer in group}
        off = {layer for layer, switch in self.switches.items() if not params[switch]}
        return {layer: self.off if layer in off else given[layer] for layer in self.layers}

    def params(self, space: str, values: Values) -> dict[str, ParameterValue]:
        """The canonical parameters for the layers' values, or a SettingError that names the layer."""
        if not isinstance(self.way, str | tuple):
            every = "the" if isinstance(self.way, Fixed) else "every"
            for layer, value in self._fixed(self.way).items():
                self._check_equal(space, value, {layer: values[layer]}, f"fixes {every} layer at")
        off = {layer for layer in self.switches if values[layer] == self.off}
        params: dict[str, ParameterValue] = {}
        for name, group in self.shares.items():
            on = {layer: values[layer] for layer in group if layer not in off}
            params[name] = value = next(iter(on.values()), self.idle)
            self._check_equal(space, value, on, "gives these layers one value, here")
        return params | {switch: layer not in off for layer, switch in self.switches.items()}

    def _check_equal(self, space: str, wanted: float, values: Values, why: str) -> None:
        for layer, value in values.items():
            if value != wanted:
                raise SettingError(
                    f"space {space} can't reach {self.name}_{layer} = {value}: it {why} {wanted}. "
                    f"Change that value, or use a space that searches the layer apart."
                )

    def check(self, space: str) -> None:
        """Refuse a way that doesn't fit the layers."""
        if isinstance(self.way, tuple):
            self._check_groups(space, self.way)
        elif isinstance(self.way, str):
            if self.way not in ("shared", "masked", "per_layer"):
                raise SettingError(
                    f"space {space}: {self.name} can't be {self.way!r}. Give a number, shared, masked, "
                    f"per_layer, or groups of layers such as [[1, 2], [3]]."
                )
            if not self.layers:
                raise SettingError(
                    f"space {space}: {self.name} is {self.way}, but a network with one weight layer has no "
                    f"hidden layer. Fix it at 1.0, or search the input's keep_prob."
                )
        else:
            self._check_fixed(space, self.way)

    def _check_fixed(self, space: str, way: float | Fixed) -> None:
        if isinstance(way, Fixed) and len(way.values) != len(self.layers):
            raise SettingError(
                f"space {space}: {self.name} is fixed at {len(way.values)} numbers, but has {len(self.layers)} layers. "
                f"Give one number per layer."
            )
        for value in way.values if isinstance(way, Fixed) else (way,):
            if self.name == "keep_prob":
                check_keep_prob(value, f"space {space}: keep_prob")
            elif not (value >= 0 and math.isfinite(value)):
                raise SettingError(f"space {space}: lambda = {value} must be a finite number >= 0; 0 means no L2.")

    def _fixed(self, way: float | Fixed) -> Values:
        numbers = way.values if isinstance(way, Fixed) else (float(way),) * len(self.layers)
        return dict(zip(self.layers, numbers, strict=True))

    def _check_groups(self, space: str, groups: Groups) -> None:
        grouped = sorted(layer for group in groups for layer in group)
        if not all(groups) or not groups or tuple(grouped) != self.layers:
            layers = ", ".join(map(str, self.layers)) or "(none)"
            raise SettingError(
                f"space {space}: the {self.name} groups {[list(group) for group in groups]} must hold each "
                f"of the layers {layers} once. Put every layer in exactly one group; a layer may be a group "
                f"of its own."
            )


def _check_range(name: str, bounds: tuple[float, float], highest: float) -> None:
    low, high = bounds
    if not (0 < low < high <= highest and math.isfinite(high)):
        limit = f" <= {highest}" if math.isfinite(highest) else ""
        raise SettingError(
            f"the range of {name} is [{low}, {high}], but 0 < low < high{limit} must hold. To fix {name}, "
            f"give a number instead of a range."
        )
