"""The one doorway to Optuna: a study in memory that proposes settings and is told how they did.

A suggestion depends on the history alone: its sampler is seeded from (study seed, trial number), and the
study is rebuilt from the ledger's rows. So an interrupted study goes on bit for bit as if it never had been,
as long as it sees what it would have seen (tests/search/test_replay.py).

Rebuilding enters each row as Optuna would hold it. CMA-ES keeps its state beside the trials that it was asked
for, so its rows are replayed in order: the trials that a trial had seen finished are told, then it is placed
with its recorded parameters. A sampler that looks at no results needs no rows at all (`resume`). Nothing that
came from a store is unpickled, and no sampler has to agree with what it once drew.

A trial that waits for a slot was asked for and not told, which Optuna calls RUNNING.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import datetime

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from sweeper.errors import SearchError, SettingError
from sweeper.records import ParameterValue, TrialState
from sweeper.search.samplers import Samplers, SamplerSpec, distributions, is_history_free
from sweeper.space import Parameter

_STUDY = "proposer"
_RENEWED = 1000  # trials, after which one that no result matters to has its study in memory replaced


@dataclass(frozen=True, slots=True)
class PastTrial:
    """A trial as the ledger remembers it.

    Attributes:
        number: its place in the study, from 0.
        params: a value for each parameter.
        state: WAITING counts as RUNNING: asked for, not told.
        value: COMPLETE: the validation loss; PRUNED: the last one measured, if any.
        step: PRUNED: the epoch that `value` was measured at.
        running: numbers asked for and not told when it was asked for; empty at concurrency 1.
        enqueued: whether a user chose its parameters, not the sampler.
    """

    number: int
    params: Mapping[str, ParameterValue]
    state: TrialState
    value: float | None = None
    step: int = 0
    running: tuple[int, ...] = ()
    enqueued: bool = False


@dataclass(frozen=True, slots=True)
class Proposal:
    """A trial to run, and the history that it was drawn from.

    Attributes:
        number: its place in the study, from 0.
        params: a plain float or bool for each parameter, in their order.
        seconds: what the suggestion took.
        told: how many trials had been told.
        running: numbers asked for and not told. `told` were all other numbers below `number`.
        enqueued: whether the parameters were given, not drawn.
    """

    number: int
    params: dict[str, ParameterValue]
    seconds: float
    told: int
    running: tuple[int, ...]
    enqueued: bool


class Proposer:
    """One Optuna study, minimised, in memory. Not for use by two threads at once.

    Args:
        parameters: what to search; none at all is fine, as for a space that fixes everything.
        spec: the sampler.
        seed: the study's; any whole number.

    Raises:
        SearchError: the sampler can't search these parameters.
    """

    def __init__(self, parameters: Sequence[Parameter], spec: SamplerSpec, seed: int) -> None:
        self._parameters = tuple(parameters)
        self._distributions = distributions(spec, parameters)
        self._samplers = Samplers(spec, parameters, seed)
        self._remembers = spec.kind == "cmaes"  # its generations are kept beside the trials that it drew
        self.needs_history = not is_history_free(spec)
        """Whether suggestions depend on results; otherwise `resume` does for `rehydrate`."""
        self._begin()
        self._running: dict[int, None] = {}  # an ordered set: trials are asked for in ascending order
        self._asked = 0
        self._drawn = 0

    @property
    def size(self) -> int | None:
        """How many trials the sampler can draw; None where there is no end. A grid has a size."""
        return self._samplers.size

    @property
    def is_exhausted(self) -> bool:
        """Whether every point of a grid has been asked for; `ask()` would then raise."""
        return self.size is not None and self._drawn >= self.size

    def rehydrate(self, past: Sequence[PastTrial]) -> None:
        """Take in the ledger's trials, as if they had been asked for and told here.

        Args:
            past: in the order of their numbers, which go on from those that this proposer knows.

        Raises:
            SearchError: a number is missing or twice there, or a trial has parameters or a value that can't be.
        """
        by_number: dict[int, PastTrial] = {}
        for trial in past:
            if trial.number != self._asked:
                raise SearchError(
                    f"trial {trial.number} follows on {self._asked} trials, but numbers are consecutive "
                    f"from 0. Give the study's trials in order, each once."
                )
            if not self._remembers:
                self._enter(trial)
                continue
            self._tell_finished(by_number, except_for=trial.running)
            by_number[trial.number] = trial
            self._place(trial.number, trial.params, trial.enqueued)
        self._tell_finished(by_number, except_for=())

    def resume(self, asked: int, drawn: int, running: Sequence[int]) -> None:
        """Go on with a study that no result matters to (not `needs_history`), as if `rehydrate` had been given it.

        Args:
            asked: how many trials it has.
            drawn: how many of them the sampler drew.
            running: those that are not told, by number, in order.
        """
        self._asked, self._drawn, self._running = asked, drawn, dict.fromkeys(running)

    def ask(self, fixed: Mapping[str, ParameterValue] | None = None) -> Proposal:
        """The next trial.

        Args:
            fixed: the parameters of a setting that a user enqueued, all of them; None lets the sampler draw.

        Returns:
            A proposal; its number is the count of trials asked for before.

        Raises:
            SearchError: the grid is exhausted, or `fixed` isn't a value in range for each parameter.
        """
        start = time.perf_counter()
        running = tuple(self._running)
        number, told = self._asked, self._asked - len(running)
        if not self.needs_history and number % _RENEWED == 0:
            self._begin()
        trial = self._draw(number) if fixed is None else self._place(number, fixed, enqueued=True)
        params = {p.name: _plain(p, trial.params[p.name]) for p in self._parameters}
        return Proposal(number, params, time.perf_counter() - start, told, running, fixed is not None)

    def tell(self, number: int, state: TrialState, value: float | None = None, step: int = 0) -> None:
        """Say how a trial ended. The first word stands: a second one on the same trial changes nothing.

        Args:
            number: the trial's.
            state: COMPLETE, PRUNED or FAIL.
            value: COMPLETE: the validation loss; PRUNED: the last one measured, or None; ignored for FAIL.
            step: PRUNED: the epoch that `value` was measured at; samplers rank a later one higher.

        Raises:
            SearchError: no such trial was asked for, the state is not an end, or the value is missing or not finite.
        """
        if not 0 <= number < self._asked:
            raise SearchError(f"trial {number} was never asked for; this study has {self._asked} trials.")
        _check_end(number, state, value)
        if number not in self._running:
            return
        if self.needs_history:
            self._tell(number, state, value, step)
        del self._running[number]

    @property
    def _study_id(self) -> int:
        return self._storage.get_study_id_from_name(_STUDY)

    def _begin(self) -> None:
        """An empty study in memory."""
        self._storage = InMemoryStorage()
        self._study = new_study(self._storage, self._samplers.random)

    def _enter(self, trial: PastTrial) -> None:
        """A trial as the ledger has it, all at once."""
        self._check_params(trial.number, trial.params)
        if trial.state.is_finished:
            _check_end(trial.number, trial.state, trial.value)
        if self.needs_history:
            params = {p.name: _plain(p, trial.params[p.name]) for p in self._parameters}
            self._storage.create_new_trial(self._study_id, _told(trial, params, self._distributions))
        if not trial.state.is_finished:
            self._running[trial.number] = None
        self._asked += 1
        self._drawn += not trial.enqueued

    def _tell(self, number: int, state: TrialState, value: float | None, step: int) -> None:
        if state is TrialState.PRUNED and value is not None:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            self._storage.set_trial_intermediate_value(trial_id, step, value)
        told = value if state is TrialState.COMPLETE else None
        self._study.tell(number, told, state=optuna.trial.TrialState[state.name])

    def _draw(self, number: int) -> Trial:
        if self.is_exhausted:
            raise SearchError(
                f"all {self.size} points of the grid have been asked for. Set fewer trials or more "
                f"`points`, or use qmc, which never ends."
            )
        return self._next(self._samplers.at(number, self._drawn), enqueued=False)

    def _place(self, number: int, params: Mapping[str, ParameterValue], enqueued: bool) -> Trial:
        """A trial with given parameters: a user's, or those that the sampler once drew."""
        self._check_params(number, params)
        self._study.enqueue_trial({p.name: _plain(p, params[p.name]) for p in self._parameters})
        if enqueued or not self._remembers:
            return self._next(self._samplers.random, enqueued)
        trial = self._next(self._samplers.at(number, self._drawn), enqueued)
        _ = trial.relative_params  # the sampler draws, and notes its state; the given parameters stand
        return trial

    def _next(self, sampler: BaseSampler, enqueued: bool) -> Trial:
        self._study.sampler = sampler
        trial = self._study.ask(self._distributions)
        self._running[self._asked] = None
        self._asked += 1
        self._drawn += not enqueued
        return trial

    def _tell_finished(self, past: Mapping[int, PastTrial], except_for: tuple[int, ...]) -> None:
        for number in [n for n in self._running if n in past and n not in except_for]:
            trial = past[number]
            if trial.state.is_finished:
                self.tell(number, trial.state, trial.value, trial.step)

    def _check_params(self, number: int, params: Mapping[str, ParameterValue]) -> None:
        names = {parameter.name for parameter in self._parameters}
        if names != set(params):
            raise SearchError(
                f"trial {number} has the parameters {sorted(params)}, but this study searches "
                f"{sorted(names)}. Give each of them once."
            )
        try:
            for parameter in self._parameters:
                parameter.check(params[parameter.name])
        except SettingError as error:
            raise SearchError(f"trial {number}: {error}") from error


class _Entered(FrozenTrial):
    """A trial whose params and distributions nobody changes: a storage that copies it need not copy those."""

    def __deepcopy__(self, memo: dict[int, object]) -> FrozenTrial:
        return copy(self)


def _told(
    trial: PastTrial, params: dict[str, ParameterValue], distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    """A trial as Optuna has it that was asked for, and told if it is finished."""
    has_value = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.value is not None
    is_pruned = trial.state is TrialState.PRUNED
    name, now = trial.state.name if trial.state.is_finished else "RUNNING", datetime.now()
    return _Entered(
        number=trial.number,
        trial_id=trial.number,
        state=optuna.trial.TrialState[name],
        value=trial.value if has_value else None,
        datetime_start=now,
        datetime_complete=now if trial.state.is_finished else None,
        params=dict(params),
        distributions=distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={trial.step: trial.value} if is_pruned and trial.value is not None else {},
    )


def _plain(parameter: Parameter, value: ParameterValue) -> ParameterValue:
    return bool(value) if parameter.kind == "bool" else float(value)


def _check_end(number: int, state: TrialState, value: float | None) -> None:
    if not state.is_finished:
        raise SearchError(f"trial {number} can't be told as {state}. Tell COMPLETE, PRUNED or FAIL.")
    missing = value is None and state is TrialState.COMPLETE
    if missing or (state is not TrialState.FAIL and value is not None and not math.isfinite(value)):
        raise SearchError(
            f"trial {number} is {state} with the value {value}, which must be a finite number. Tell a trial "
            f"that diverged as FAIL."
        )


def new_study(storage: InMemoryStorage, sampler: BaseSampler) -> Study:
    """An Optuna study in memory that is minimised and never prunes."""
    with _quiet():
        return optuna.create_study(
            study_name=_STUDY, storage=storage, sampler=sampler, pruner=NopPruner(), direction="minimize"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from announcing each study; nothing else that we call logs below a warning."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
