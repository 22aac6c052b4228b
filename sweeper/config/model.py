"""A sweep: a model, its data and training, the spaces to compare, and the budget.

The shape of a sweep file as strict, frozen models. Every field has a description, which the JSON Schema and
the error messages show. What can only be judged across sections is judged in `Sweep`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

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
from sweeper.config.samplers import Random, Sampler
from sweeper.config.spaces import Dimensions, Ranges, Space, dimensions, layer_problems, setting_of
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


class Mlp(Section):
    """A multilayer perceptron, as in the lectures."""

    kind: Literal["mlp"] = Field(description="the kind of network")
    hidden: tuple[Count, ...] = Field(description="units of each hidden layer, e.g. [64, 64, 64]")
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu"] = Field(
        "relu", description="what follows each hidden layer"
    )

    @property
    def weight_layers(self) -> int:
        """L, the number of weight layers."""
        return len(self.hidden) + 1


Model = Mlp
"""Every kind of network. The next kind makes it a union told apart by `kind`:
`Annotated[Mlp | Head, Field(discriminator="kind")]`; all it needs is a `kind` and `weight_layers`."""


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

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> Train:
        if self.momentum and self.optimizer != "sgd":
            why = f"{self.optimizer} has no momentum to set. Leave it out, or write optimizer: sgd."
            refuse([Problem(("momentum",), why)])
        return self


def _available_pruner(pruner: Any) -> Any:
    if pruner != "none":
        refuse_here(f"{pruner!r} is not available yet; only none is. Write pruner: none, or leave it out.")
    return pruner


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
    concurrency: Count = Field(
        1, description="trials of one study that may run at once; 1 keeps suggestions up to date"
    )
    pruner: Annotated[Literal["none"], BeforeValidator(_available_pruner)] = Field(
        "none", description="what stops hopeless trials early"
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
        independent = isinstance(self.search.sampler, Random) and self.search.pruner == "none"
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
        if isinstance(in_ranges, float):
            return in_ranges
        return 1.0 if isinstance(section.keep_prob, float) else "searched"

    def dimensions(self, space: str) -> Dimensions:
        """How many hyperparameters a space has."""
        layers, section = self.model.weight_layers, self.spaces[space]
        return (
            dimensions(self.input_keep_prob(space), 1)
            + dimensions(section.keep_prob, layers - 1)
            + dimensions(section.lambda_, layers)
        )

    def starts(self, space: str) -> tuple[Setting, ...]:
        """The settings that each study of a space tries first, written out for every layer."""
        input_keep = self.input_keep_prob(space)
        fixed = input_keep if isinstance(input_keep, float) else 1.0
        section = self.spaces[space]
        return tuple(setting_of(start, section, fixed, self.model.weight_layers) for start in section.start)

    @model_validator(mode="after")
    def _fits_together(self) -> Sweep:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if not self.spaces:
            yield Problem(("spaces",), "name at least one space, e.g. `per_layer: {keep_prob: per_layer}`.")
        for name, space in self.spaces.items():
            at = ("spaces", name)
            for problem in layer_problems(space, self.model.weight_layers):
                yield Problem((*at, *problem.at), problem.why)
            if space.input_keep_prob == "searched" and isinstance(self.ranges.input_keep_prob, float):
                fixed = self.ranges.input_keep_prob
                why = f"ranges.input_keep_prob fixes it at {fixed}. Give a range there, e.g. [0.8, 1.0]."
                yield Problem((*at, "input_keep_prob"), why)
            yield from self._start_problems(name, space)

    def _start_problems(self, name: str, space: Space) -> Iterator[Problem]:
        input_keep = self.input_keep_prob(name)
        fixed = input_keep if isinstance(input_keep, float) else 1.0
        for number, start in enumerate(space.start):
            try:
                setting_of(start, space, fixed, self.model.weight_layers)
            except SettingError as error:
                yield Problem(("spaces", name, "start", number), str(error))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of sweep files, for editors that complete and check YAML."""
    schema = Sweep.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
