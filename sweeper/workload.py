"""A sweep file made concrete: its data divided, its spaces built, its network ready to be drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from sweeper.config import Grouped, Sweep, SweepFile, parse_sweep
from sweeper.data import SplitPlan, Table, load, split
from sweeper.errors import DataError, SettingError, SweepFileError
from sweeper.ledger.rows import StudyPlan, SweepPlan
from sweeper.ledger.rows import Sweep as LaunchedSweep
from sweeper.networks import Network, mlp
from sweeper.price import SpaceShape
from sweeper.records import Fold, Setting, Task, Training
from sweeper.search import Proposer, SamplerSpec, explicit_arguments
from sweeper.seeds import seed_of, study_seed
from sweeper.space import Ranges, Space, Way

EXTENDABLE = (("search", "trials"), ("search", "replicates"))


@dataclass(frozen=True)
class Workload:
    """Everything that training a sweep's trials needs.

    Attributes:
        file: the sweep file.
        table: its data.
        folds: per replicate the folds of a trial; `fold_index` says where in the engine each stands.
        spaces: by name, in the file's order.
        sizes: units of the input, the hidden layers and the output.
    """

    file: SweepFile
    table: Table
    folds: tuple[tuple[Fold, ...], ...]
    spaces: Mapping[str, Space]
    sizes: tuple[int, ...]

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
    def build(self) -> Callable[[], Network]:
        """Makes the plain network."""
        return partial(mlp, self.sizes[0], self.sizes[1:-1], self.sizes[-1], self.sweep.model.activation)

    @property
    def trials(self) -> int:
        """Trials of the whole sweep."""
        return sum(plan.trials for plan in self.studies())

    def starts(self, space: str) -> tuple[Setting, ...]:
        """The settings that each study of a space tries first."""
        return self.sweep.starts(space)

    def proposer(self, space: str, seed: int) -> Proposer:
        """A fresh Optuna study of one space."""
        return Proposer(self.spaces[space].parameters, self.sampler, seed)

    def shapes(self) -> dict[str, SpaceShape]:
        """How each space searches, for the price."""
        return sweep_shapes(self.sweep)

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
            config=self.sweep.model_dump(mode="json", by_alias=True),
            data_sha256=self.table.sha256,
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


def workload_of(file: SweepFile) -> Workload:
    """Load the data of a sweep file, divide it, and build its spaces.

    Raises:
        SweepFileError: the data or a start don't fit what the file says; names file and line.
    """
    sweep = file.sweep
    try:
        table = _table(file)
        plan = split_plan(sweep)
        folds = tuple(split(table, plan, replicate, sweep.seed) for replicate in range(sweep.search.replicates))
    except DataError as error:
        raise SweepFileError(f"{file.where('data')}: {error}") from error
    sizes = (table.x.shape[1], *sweep.model.hidden, len(table.classes) if table.task is Task.MULTICLASS else 1)
    spaces = {name: space_of(sweep, name) for name in sweep.spaces}
    workload = Workload(file, table, folds, spaces, sizes)
    _check_starts(workload)
    return workload


def space_of(sweep: Sweep, name: str) -> Space:
    """One of a sweep file's spaces."""
    section, ranges = sweep.spaces[name], sweep.ranges
    given = sweep.input_keep_prob(name)
    return Space(
        name=name,
        layers=sweep.model.weight_layers,
        keep_prob=_way(section.keep_prob),
        lambda_=_way(section.lambda_),
        input_keep_prob=None if given == "searched" else given,
        ranges=Ranges(ranges.keep_prob, ranges.input_keep_prob, ranges.lambda_),
    )


def sweep_shapes(sweep: Sweep) -> dict[str, SpaceShape]:
    """How each space of a sweep searches, for the price."""
    spaces = {name: space_of(sweep, name) for name in sweep.spaces}
    return {name: SpaceShape(*space.kinds, space.dimensions) for name, space in spaces.items()}


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
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two sweep files in ways that more trials, replicates or spaces don't explain."""
    return list(_differences(old, new, ()))


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
