"""A sweep: a model, its data and training, the spaces to compare, and the budget.

The shape of a sweep file as strict, frozen models. Every field has a description, which the JSON Schema and
the error messages show. What can only be judged across sections is judged in `Sweep`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from sweeper.config.base import (
    Count,
    CountOrZero,
    Flag,
    Name,
    Number,
    Positive,
    Problem,
    Section,
    Share,
    Text,
    refuse,
    refuse_here,
)
from sweeper.config.models import Model
from sweeper.config.pruners import NoPruner, Pruner
from sweeper.config.samplers import Random, Sampler
from sweeper.config.spaces import PS, Dimensions, Ranges, Space, dimensions, is_fixed, layer_problems, setting_of
from sweeper.errors import SettingError
from sweeper.records import Setting, Training

SCHEMES = ("sklearn", "csv", "parquet", "npz")
_NEED_TARGET = ("csv", "parquet")
_DEFAULT_SHARES: Mapping[str, float] = {"train": 0.6, "validation": 0.5}
_DEFAULT_SHARES_OF_FOLDS: Mapping[str, float] = {"test": 0.2}


def _known_source(source: str) -> str:
    scheme, _, rest = source.partition(":")
    if scheme not in SCHEMES or not rest:
        near = get_close_matches(scheme, SCHEMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near and near[0] != scheme else ""
        refuse_here(
            f"{source!r} is no data source.{hint} Write sklearn:NAME (as sklearn:digits), csv:PATH, "
            "parquet:PATH or npz:PATH."
        )
    return source


class Data(Section):
    """Where the rows come from and how they are divided."""

    source: Annotated[Text, AfterValidator(_known_source)] = Field(
        description="sklearn:NAME, csv:PATH, parquet:PATH or npz:PATH; relative to the sweep file's folder"
    )
    target: Text | None = Field(None, description="column to predict; csv and parquet need it, sklearn and npz know it")
    columns: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        None, description="columns to predict from; null takes all but the target"
    )
    task: Literal["auto", "classification", "regression"] = Field(
        "auto",
        description="what to predict; auto: classes for text, booleans and few whole numbers, else a number",
    )
    train: Share | None = Field(
        None,
        description="training rows: a count, or a fraction of all rows; default 0.6, with folds every row "
        "that is not for testing",
    )
    validation: Share | None = Field(
        None,
        description="validation rows: a count, or a fraction of the rows not trained on; default 0.5; not with folds",
    )
    test: Share | None = Field(
        None,
        description="test rows, only with folds: a count, or a fraction of all rows; default 0.2; "
        "without folds, what train and validation leave",
    )
    folds: Annotated[int, Field(strict=True, ge=2)] | None = Field(
        None, description="k of k-fold cross-validation over the training rows; each fold validates once"
    )
    repeats: Count = Field(1, description="times that training and validation rows are divided anew")
    standardise: Flag = Field(
        True,
        description="shift and scale inputs (and the target of a regression) by the training rows' mean and deviation",
    )
    stratify: Flag = Field(True, description="keep the classes' shares in every part")
    label_noise: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of the training rows that are given a wrong class on purpose; validation and test rows "
        "stay true",
    )

    @model_validator(mode="before")
    @classmethod
    def _write_out_shares(cls, given: Any) -> Any:
        """Put in the default shares, so that a recorded sweep says how it divided its rows."""
        if not isinstance(given, Mapping):
            return given
        return {**(_DEFAULT_SHARES_OF_FOLDS if given.get("folds") else _DEFAULT_SHARES), **given}

    @model_validator(mode="after")
    def _is_whole(self) -> Data:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        scheme = self.source.partition(":")[0]
        if scheme in _NEED_TARGET and self.target is None:
            yield Problem((), f"{self.source} needs a target: the name of the column to predict.")
        if self.columns and self.target in self.columns:
            why = f"{self.target!r} is the target and would give its own answer away. Take it out of columns."
            yield Problem(("columns",), why)
        if self.columns and len(set(self.columns)) < len(self.columns):
            twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
            yield Problem(("columns",), f"named more than once: {', '.join(twice)}. Name each column once.")
        if self.folds and self.validation is not None:
            yield Problem(("validation",), "with folds, each fold validates in turn. Leave validation out.")
        if not self.folds and self.validation is None:
            yield Problem(("validation",), "without folds, give the rows to validate on.")
        if not self.folds and self.train is None:
            yield Problem(("train",), "without folds, give the rows to train on.")
        if not self.folds and self.test is not None:
            why = "without folds, the test rows are those that train and validation leave. Leave test out."
            yield Problem(("test",), why)
        if self.folds and self.test is None:
            yield Problem(("test",), "some rows must be left for testing. Give a count or a fraction.")


class Train(Section):
    """How every fit is trained."""

    epochs: Count = Field(description="passes over the training rows, at most")
    batch_size: Count = Field(32, description="rows per step")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="the optimiser")
    learning_rate: Positive = Field(1e-3, description="step size")
    momentum: Annotated[Number, Field(ge=0, lt=1)] = Field(0.0, description="momentum, for sgd")
    patience: CountOrZero = Field(
        0, description="epochs without a better validation loss after which a fit stops; 0 never stops early"
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="of matrix products; all else is float32. tf32 (GPUs) is faster and off by about 3e-4 per product, "
        "bfloat16 faster still and off by 1e-3 to 1e-2",
    )

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> Train:
        if self.momentum and self.optimizer != "sgd":
            why = f"{self.optimizer} has no momentum to set. Leave it out, or write optimizer: sgd."
            refuse([Problem(("momentum",), why)])
        return self


class Budget(Section):
    """What all trials of a sweep together may take, whichever of these runs out first; left out, nothing is capped."""

    device_seconds: Positive | None = Field(
        None, description="seconds of training and evaluation, summed over all devices; slots without a fit don't count"
    )
    joules: Positive | None = Field(
        None, description="the same of the devices' energy; every machine that works must be able to measure it"
    )


class Search(Section):
    """How the spaces are searched, and for how long."""

    sampler: Sampler = Field(
        Random(kind="random"),
        description="random, tpe, gp, cmaes, qmc or grid; or {kind: tpe, n_startup_trials: 20, ...}",
    )
    trials: Count = Field(description="settings that each study tries")
    replicates: Count = Field(
        description="studies per space, each on its own split of the data; prices need 10 or more"
    )
    budget: Budget = Field(
        Budget(), description="what all trials together may take, e.g. {device_seconds: 3600, joules: 1.0e+6}"
    )
    concurrency: Count = Field(
        1, description="trials of one study that may run at once; 1 keeps suggestions and pruning up to date"
    )
    pruner: Pruner = Field(
        NoPruner(kind="none"),
        description="what stops hopeless trials early: none, median, asha or hyperband; or "
        "{kind: asha, reduction_factor: 3, ...}",
    )


class Sweep(Section):
    """A sweep file: spaces of regularisation to compare on one model and data set."""

    name: Name = Field(description="name of the sweep: a letter, then letters, digits, - and _")
    seed: CountOrZero = Field(0, description="where all chance of the sweep comes from")
    data: Data = Field(description="where the rows come from and how they are divided")
    model: Model = Field(description="the network")
    train: Train = Field(description="how every fit is trained")
    search: Search = Field(description="how the spaces are searched, and for how long")
    ranges: Ranges = Field(
        Ranges(), description="between which values searched hyperparameters lie, the same in every space"
    )
    spaces: Mapping[Name, Space] = Field(description="the search spaces to compare, by name")

    @property
    def mode(self) -> Literal["measurement", "product"]:
        """Whether prices can be measured (independent draws, nothing pruned) or only traces shown."""
        independent = isinstance(self.search.sampler, Random) and isinstance(self.search.pruner, NoPruner)
        return "measurement" if independent else "product"

    @property
    def training(self) -> Training:
        """How every fit is trained, for the engine."""
        return Training(**dict(self.train))

    def input_keep_prob(self, space: str) -> float | Literal["searched"]:
        """What becomes of the input's keep_prob in a space (R4)."""
        section, in_ranges = self.spaces[space], self.ranges.input_keep_prob
        if section.input_keep_prob is not None:
            return section.input_keep_prob
        if isinstance(in_ranges, tuple) and not is_fixed(section.keep_prob):
            return "searched"
        return in_ranges if isinstance(in_ranges, float) else self._usual_input

    @property
    def _usual_input(self) -> float:
        """What is kept of the input where nobody says: all of it, or what a head's ps leave."""
        return self.model.keep_prob[0] if self.model.keep_prob else 1.0

    def dimensions(self, space: str, layers: int) -> Dimensions:
        """How many hyperparameters a space has over a network of so many weight layers."""
        section = self.spaces[space]
        return (
            dimensions(self.input_keep_prob(space), 1)
            + dimensions(section.keep_prob, layers - 1)
            + dimensions(section.lambda_, layers)
            + Dimensions(section.placebo, 0)
        )

    def starts(self, space: str, layers: int) -> tuple[Setting, ...]:
        """The settings that each study of a space tries first, written out for each of so many weight layers."""
        section, kept = self.spaces[space], self._kept(space)
        return tuple(setting_of(start, section, kept, layers) for start in section.start)

    def _kept(self, space: str) -> tuple[float, ...]:
        """What a start keeps of the input unless it says so itself, and of a head's hidden layers if it says ps."""
        given = self.input_keep_prob(space)
        return (given if isinstance(given, float) else self._usual_input, *(self.model.keep_prob or ())[1:])

    @model_validator(mode="before")
    @classmethod
    def _write_out_ps(cls, given: Any) -> Any:
        """With a head, what ranges and spaces leave out is what its ps say; a recorded sweep shows that."""
        model = given.get("model") if isinstance(given, Mapping) else None
        if not isinstance(model, Mapping) or model.get("kind") != "head":
            return given
        ranges, spaces = given.get("ranges", {}), given.get("spaces")
        if isinstance(ranges, Mapping):
            given = {**given, "ranges": {"input_keep_prob": PS, **ranges}}
        if isinstance(spaces, Mapping):
            given = {**given, "spaces": {name: _with_ps(space) for name, space in spaces.items()}}
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Sweep:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if not self.spaces:
            yield Problem(("spaces",), "name at least one space, e.g. `per_layer: {keep_prob: per_layer}`.")
        in_ranges = self.ranges.input_keep_prob
        for name, space in self.spaces.items():
            if space.input_keep_prob == "searched" and not isinstance(in_ranges, tuple):
                fixed = self._usual_input if in_ranges == PS else in_ranges
                why = f"ranges.input_keep_prob fixes it at {fixed}. Give a range there, e.g. [0.8, 1.0]."
                yield Problem(("spaces", name, "input_keep_prob"), why)
        if self.model.keep_prob is None:
            yield from self._ps_problems()
        if self.model.weight_layers is not None:
            yield from self.layer_problems(self.model.weight_layers)

    def _ps_problems(self) -> Iterator[Problem]:
        """Where the file says `ps` of a model that has none."""
        places: list[tuple[str | int, ...]] = []
        if self.ranges.input_keep_prob == PS:
            places.append(("ranges", "input_keep_prob"))
        for name, space in self.spaces.items():
            if space.keep_prob == PS:
                places.append(("spaces", name, "keep_prob"))
            starts = enumerate(space.start)
            places += [("spaces", name, "start", n, "keep_prob") for n, start in starts if start.keep_prob == PS]
        for place in places:
            yield Problem(place, "ps are a head's, and this model is none. Give numbers.")

    def layer_problems(self, layers: int) -> Iterator[Problem]:
        """What the spaces and their starts ask of layers that a network of so many weight layers doesn't have."""
        for name, space in self.spaces.items():
            for problem in layer_problems(space, layers):
                yield Problem(("spaces", name, *problem.at), problem.why)
            for number, start in enumerate(space.start):
                try:
                    setting_of(start, space, self._kept(name), layers)
                except SettingError as error:
                    yield Problem(("spaces", name, "start", number), str(error))


def _with_ps(space: Any) -> Any:
    says_so = not isinstance(space, Mapping) or {"keep_prob", "p", "ps"} & space.keys()
    return space if says_so else {**space, "keep_prob": PS}


def with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recorded sweep as it would be recorded today: with the defaults of keys that it is too old to know."""
    try:
        return Sweep.model_validate(config).model_dump(mode="json", by_alias=True)
    except ValidationError:
        return config  # it says what can't be said any more


def json_schema() -> dict[str, Any]:
    """The JSON Schema of sweep files, for editors that complete and check YAML."""
    schema = Sweep.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
