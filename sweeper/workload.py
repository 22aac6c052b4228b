"""A sweep file made concrete: its data divided, its spaces built, its network ready to be drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

from sweeper.blueprint import Blueprint
from sweeper.config import NoPruner, Sweep, SweepFile, with_defaults
from sweeper.construction import Access, construct
from sweeper.data import SplitPlan, Table, split
from sweeper.errors import DataError, SettingError, SweepFileError
from sweeper.launched import NETWORK, launched_blueprint, space_of, sweep_shapes, table_of
from sweeper.ledger.rows import StudyPlan, SweepPlan
from sweeper.ledger.rows import Sweep as LaunchedSweep
from sweeper.networks import Network
from sweeper.price import SpaceShape
from sweeper.records import Fold, Setting, Task, Training
from sweeper.search import Proposer, Pruner, SamplerSpec, explicit_arguments, is_history_free, pruner
from sweeper.seeds import seed_of, study_seed
from sweeper.space import Space

EXTENDABLE = (
    ("search", "trials"),
    ("search", "replicates"),
    ("search", "budget", "device_seconds"),
    ("search", "budget", "joules"),
)
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
            file_path=self.file.path,
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
    access = access or Access()
    with _at_data(file):
        table = table_of(file, access.roots)
    made = construct(file, table, access, known)
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
    elif at in EXTENDABLE and _extends(old, new):
        return
    elif at in EXTENDABLE:
        yield f"{where}: {old} -> {new}, but a sweep can only be extended"
    elif old != new:
        yield f"{where}: {old} -> {new}"


def _extends(old: float | None, new: float | None) -> bool:
    """Whether there is at least as much to do as before; None caps nothing."""
    return new is None or (old is not None and new >= old)


@contextmanager
def _at_data(file: SweepFile) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise SweepFileError(f"{file.where('data')}: {error}") from error


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
