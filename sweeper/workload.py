"""A sweep file made concrete: its data divided, its spaces built, its network ready to be drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from sweeper.blueprint import Access, Blueprint, construct
from sweeper.config import PS, Grouped, NoPruner, Sweep, SweepFile, parse_sweep, with_defaults
from sweeper.data import SplitPlan, Table, load, split
from sweeper.errors import DataError, SettingError, SweepFileError
from sweeper.ledger.rows import StudyPlan, SweepPlan
from sweeper.ledger.rows import Sweep as LaunchedSweep
from sweeper.networks import Network
from sweeper.price import SpaceShape
from sweeper.records import Fold, Setting, Task, Training
from sweeper.search import Proposer, Pruner, SamplerSpec, explicit_arguments, is_history_free, pruner
from sweeper.seeds import seed_of, study_seed
from sweeper.space import Fixed, Ranges, Space, Way

EXTENDABLE = (("search", "trials"), ("search", "replicates"))
NETWORK = "network"  # where a recorded config keeps the blueprint
_CHANGED_MARKS = {
    "code": "model: its code is not what the sweep was launched with",
    "weights": "model.weights: the file's content is not what the sweep was launched with",
}


@dataclass(frozen=True)
class Workload:
    """Everything that training a sweep's trials needs.

    Attributes:
        file: the sweep file.
        table: its data; under a head, the activations.
        folds: per replicate the folds of a trial; `fold_index` says where in the engine each stands.
        spaces: by name, in the file's order.
        blueprint: what is fixed about the network.
        build: makes the plain network.
        per_channel: whether dropout before a convolution drops whole channels.
        notes: what a user should know about the network before it is trained.
    """

    file: SweepFile
    table: Table
    folds: tuple[tuple[Fold, ...], ...]
    spaces: Mapping[str, Space]
    blueprint: Blueprint
    build: Callable[[], Network]
    per_channel: bool = False
    notes: tuple[str, ...] = ()

    @property
    def sweep(self) -> Sweep:
        """What the file says."""
        return self.file.sweep

    @property
    def task(self) -> Task:
        """What the network's output means."""
        return self.table.task

    @property
    def training(self) -> Training:
        """How every fit is trained."""
        return self.sweep.training

    @property
    def sampler(self) -> SamplerSpec:
        """Which sampler searches."""
        return sampler_spec(self.sweep)

    @property
    def folds_per_trial(self) -> int:
        """Fits of one trial."""
        return len(self.folds[0])

    @property
    def engine_folds(self) -> tuple[Fold, ...]:
        """All folds of all replicates, as the engine counts them."""
        return tuple(fold for folds in self.folds for fold in folds)

    def fold_index(self, replicate: int, fold: int) -> int:
        """Where one fold of one replicate stands among `engine_folds`."""
        return replicate * self.folds_per_trial + fold

    @property
    def layers(self) -> int:
        """L, the number of weight layers."""
        return len(self.blueprint.layers)

    @property
    def undropped(self) -> frozenset[int]:
        """The layers whose keep_prob is 1 in every setting of every space: nobody needs masks for them."""
        every = [space.undropped for space in self.spaces.values()]
        return every[0].intersection(*every)

    @property
    def trials(self) -> int:
        """Trials of the whole sweep."""
        return sum(plan.trials for plan in self.studies())

    def starts(self, space: str) -> tuple[Setting, ...]:
        """The settings that each study of a space tries first."""
        return self.sweep.starts(space, self.layers)

    @property
    def order_is_free(self) -> bool:
        """Whether trials don't know of each other: their sampler looks at no results, and nothing compares them."""
        return is_history_free(self.sampler) and not self.prunes

    @property
    def prunes(self) -> bool:
        """Whether trials may be ended because others did better."""
        return not isinstance(self.sweep.search.pruner, NoPruner)

    def pruner(self, study_seed: int) -> Pruner | None:
        """What judges the trials of one study; None where every trial is trained to its end."""
        if not self.prunes:
            return None
        arguments = self.sweep.search.pruner.model_dump()
        return pruner(arguments.pop("kind"), arguments, epochs=self.training.epochs, seed=study_seed)

    def proposer(self, space: str, seed: int) -> Proposer:
        """A fresh Optuna study of one space."""
        return Proposer(self.spaces[space].parameters, self.sampler, seed)

    def shapes(self) -> dict[str, SpaceShape]:
        """How each space searches, for the price."""
        return sweep_shapes(self.sweep, self.layers)

    def studies(self) -> list[StudyPlan]:
        """One study per space and replicate, their turns drawn so that spaces interleave at random."""
        pairs = list(product(self.spaces, range(self.sweep.search.replicates)))
        turns = list(range(len(pairs)))
        random.Random(seed_of(self.sweep.seed, "turns")).shuffle(turns)
        return [self._study(space, r, turn) for (space, r), turn in zip(pairs, turns, strict=True)]

    def plan(self, numerics: Mapping[str, Any]) -> SweepPlan:
        """What the ledger is told at launch.

        Args:
            numerics: what decides a fit's last bits on this machine.
        """
        return SweepPlan(
            name=self.sweep.name,
            mode=self.sweep.mode,
            file_path=self.file.name,
            file_text=self.file.text,
            config=self.sweep.model_dump(mode="json", by_alias=True) | {NETWORK: self.blueprint.recorded()},
            data_sha256=self.blueprint.marks.get("rows", self.table.sha256),
            numerics=numerics,
            studies=tuple(self.studies()),
        )

    def _study(self, space: str, replicate: int, turn: int) -> StudyPlan:
        seed = study_seed(self.sweep.seed, replicate)
        parameters, search = self.spaces[space].parameters, self.sweep.search
        drawable = self.proposer(space, seed).size
        most = search.trials if drawable is None else min(search.trials, drawable + len(self.starts(space)))
        sampler = {"kind": self.sampler.kind, **explicit_arguments(self.sampler, parameters)}
        return StudyPlan(space, replicate, len(parameters), sampler, seed, most, turn)


def launched_file(sweep: LaunchedSweep) -> SweepFile:
    """The sweep file as the ledger keeps it; relative paths start in the folder of its recorded name."""
    return parse_sweep(sweep.file_text, sweep.file_path, Path(sweep.file_path).parent)


def launched_blueprint(sweep: LaunchedSweep) -> Blueprint:
    """The network of a launched sweep, from the ledger alone: no code of the user's own is imported."""
    recorded = sweep.config.get(NETWORK)
    # a sweep that is too old to have it recorded has a network that its file and data tell
    return Blueprint.of(recorded) if recorded else workload_of(launched_file(sweep)).blueprint


def launched_shapes(sweep: LaunchedSweep) -> dict[str, SpaceShape]:
    """How each space of a launched sweep searches, for the price; from the ledger alone."""
    return {name: _shape(space) for name, space in launched_spaces(sweep).items()}


def launched_spaces(sweep: LaunchedSweep) -> dict[str, Space]:
    """The spaces of a launched sweep, from the ledger alone."""
    said = launched_file(sweep).sweep
    layers = said.model.weight_layers or len(launched_blueprint(sweep).layers)
    return {name: space_of(said, name, layers) for name in said.spaces}


def workload_of(file: SweepFile, access: Access | None = None, launched: LaunchedSweep | None = None) -> Workload:
    """Load the data of a sweep file, divide it, make its network, and build its spaces.

    Args:
        file: the sweep file.
        access: what may be touched beyond it; by default no code of the user's own, and nothing is kept on disk.
        launched: the sweep that the file was read back from, where it comes from a ledger.

    Raises:
        SweepFileError: the data, the network, a space or a start don't fit what the file says; names file and line.
    """
    known = launched_blueprint(launched) if launched and NETWORK in launched.config else None
    with _at_data(file):
        table = _table(file)
    made = construct(file, table, access or Access(), known)
    layers = len(made.blueprint.layers)
    file = file.for_layers(layers)
    sweep, plan = file.sweep, split_plan(file.sweep)
    with _at_data(file):
        folds = tuple(split(made.table, plan, replicate, sweep.seed) for replicate in range(sweep.search.replicates))
    made.check_batches(file, {len(fold.y_train) for each in folds for fold in each})
    spaces = {name: space_of(sweep, name, layers) for name in sweep.spaces}
    notes = made.notes
    workload = Workload(file, made.table, folds, spaces, made.blueprint, made.build, made.per_channel, notes)
    _check_starts(workload)
    return workload


def space_of(sweep: Sweep, name: str, layers: int) -> Space:
    """One of a sweep file's spaces, over a network of so many weight layers."""
    section, ranges = sweep.spaces[name], sweep.ranges
    given, in_ranges = sweep.input_keep_prob(name), ranges.input_keep_prob
    return Space(
        name=name,
        layers=layers,
        keep_prob=Fixed((sweep.model.keep_prob or ())[1:]) if section.keep_prob == PS else _way(section.keep_prob),
        lambda_=_way(section.lambda_),
        input_keep_prob=None if given == "searched" else given,
        ranges=Ranges(ranges.keep_prob, 1.0 if in_ranges == PS else in_ranges, ranges.lambda_),
        placebo=section.placebo,
    )


def sweep_shapes(sweep: Sweep, layers: int) -> dict[str, SpaceShape]:
    """How each space of a sweep over so many weight layers searches, for the price."""
    return {name: _shape(space_of(sweep, name, layers)) for name in sweep.spaces}


def _shape(space: Space) -> SpaceShape:
    return SpaceShape(*space.kinds, space.dimensions, space.placebo)


def sampler_spec(sweep: Sweep) -> SamplerSpec:
    """The sampler that a sweep file names, with the arguments that it gives or leaves at their defaults."""
    arguments = sweep.search.sampler.model_dump(exclude_none=True)
    return SamplerSpec(arguments.pop("kind"), arguments)


def split_plan(sweep: Sweep) -> SplitPlan:
    """How a sweep file divides its rows."""
    data = sweep.data
    return SplitPlan(
        train=data.train,
        validation=data.validation,
        test=data.test,
        folds=data.folds,
        repeats=data.repeats,
        standardise=data.standardise,
        stratify=data.stratify,
        label_noise=data.label_noise,
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two recorded configs in ways that more trials, replicates or spaces don't explain.

    Keys that the old one is too old to know count as having their defaults.
    """
    files = [{key: value for key, value in config.items() if key != NETWORK} for config in (old, new)]
    changed = list(_differences(with_defaults(files[0]), files[1], ()))
    if changed or not (old.get(NETWORK) and new.get(NETWORK)):
        return changed
    return list(_network_differences(Blueprint.of(old[NETWORK]), Blueprint.of(new[NETWORK])))


def _network_differences(old: Blueprint, new: Blueprint) -> Iterator[str]:
    """What the same words of a sweep file turned out to mean."""
    for mark, sentence in _CHANGED_MARKS.items():
        if old.marks.get(mark) != new.marks.get(mark):
            yield sentence
    if old.title != new.title:
        yield f"model: {old.title} -> {new.title}"


def _differences(old: Any, new: Any, at: tuple[str, ...]) -> Iterator[str]:
    where = ".".join(at)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            if key in old and key in new:
                yield from _differences(old[key], new[key], (*at, key))
            elif key in old or at != ("spaces",):
                verb = "was taken out" if key in old else "is new"
                yield f"{'.'.join((*at, key))} {verb}"
    elif at in EXTENDABLE and new >= old:
        return
    elif at in EXTENDABLE:
        yield f"{where}: {old} -> {new}, but a sweep can only be extended"
    elif old != new:
        yield f"{where}: {old} -> {new}"


@contextmanager
def _at_data(file: SweepFile) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise SweepFileError(f"{file.where('data')}: {error}") from error


def _table(file: SweepFile) -> Table:
    data = file.sweep.data
    return load(data.source, folder=file.folder, target=data.target, columns=data.columns, task=data.task)


def _way(choice: Any) -> Way:
    return tuple(tuple(group) for group in choice.grouped) if isinstance(choice, Grouped) else choice


def _check_starts(workload: Workload) -> None:
    for name, space in workload.spaces.items():
        for number, setting in enumerate(workload.starts(name)):
            try:
                space.params(setting)
            except SettingError as error:
                raise SweepFileError(f"{workload.file.where('spaces', name, 'start', number)}: {error}") from error


def enqueued(space: Space, starts: Sequence[Setting], number: int) -> dict[str, Any] | None:
    """The parameters of the number-th start, or None where the sampler draws."""
    return space.params(starts[number]) if number < len(starts) else None
