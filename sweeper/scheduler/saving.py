"""Trials that are under way are saved from time to time, so that whoever goes on with them need not start anew.

A place that can't be written to costs nothing but that: training goes on, and it is said once. What saving takes is
charged to the trials that were saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sweeper.checkpoints import Checkpoints, Progress
from sweeper.engine import Engine
from sweeper.errors import CheckpointError
from sweeper.records import Cost
from sweeper.scheduler.cases import Case
from sweeper.scheduler.spool import Spool

NO_SPOOL = Spool()


def _nobody(note: str) -> None:
    pass


@dataclass(frozen=True)
class Saving:
    """What the user wants to be saved.

    Attributes:
        place: where checkpoints are kept; None keeps none.
        every_s: seconds from one time to the next, at least; inf saves only where a worker ends.
        on_note: told once why nothing can be saved.
        spool: where results wait that the store can't take yet.
    """

    place: Checkpoints | None
    every_s: float = math.inf
    on_note: Callable[[str], None] = _nobody
    spool: Spool = NO_SPOOL


NEVER = Saving(None)


@dataclass
class Saver:
    """Saves the trials of one worker.

    Attributes:
        wanted: where and how often.
        engine: that trains the trials.
        name_of: a trial's name there.
    """

    wanted: Saving
    engine: Engine
    name_of: Callable[[Case], str]
    _saved: set[int] = field(default_factory=set)  # trials with a checkpoint
    _last: float = field(default_factory=time.perf_counter)

    @property
    def place(self) -> Checkpoints | None:
        """Where checkpoints are kept, unless that failed."""
        return self.wanted.place

    @property
    def is_due(self) -> bool:
        """Whether the last time was long enough ago."""
        return self.place is not None and time.perf_counter() - self._last >= self.wanted.every_s

    def save(self, cases: Iterable[Case]) -> None:
        """Save how far trials have come, between ticks; those of which a fold has yet to begin are left out."""
        if self.place is None:  # copying the engine's memory would be for nobody
            return
        snapshots = self.engine.snapshots()
        for case in cases:
            found = {fold: case.results.get(fit.key) or snapshots.get(fit.key) for fold, fit in enumerate(case.fits)}
            known = {fold: one for fold, one in found.items() if one is not None}
            if self.place is not None and case.training and len(known) == len(case.fits):
                self._save(self.place, case, known)
        self._last = time.perf_counter()

    def past(self, case: Case) -> Progress:
        """How far a trial came that others began, or this worker before; empty where it has to start anew."""
        if self.place is None or case.claimed.attempt == 1:
            return {}
        try:
            found = self.place.load(self.name_of(case))
        except CheckpointError as error:
            self._give_up(error)
            return {}
        if found.keys() != set(range(len(case.fits))):
            return {}
        self._saved.add(case.claimed.trial_id)
        return found

    def forget(self, cases: Iterable[Case]) -> None:
        """Remove what is no longer needed."""
        for case in cases:
            if self.place is not None and case.claimed.trial_id in self._saved:
                self.place.forget(self.name_of(case))
                self._saved.discard(case.claimed.trial_id)

    def clear(self, sweep: str) -> None:
        """Remove what workers left behind of a sweep that were killed as they had told the store of a trial's end.

        Args:
            sweep: its unique name; none of its trials is under way.
        """
        if self.place is not None:
            self.place.forget(sweep)

    def _save(self, place: Checkpoints, case: Case, progress: Progress) -> None:
        began = time.perf_counter()
        try:
            place.save(self.name_of(case), progress)
            self._saved.add(case.claimed.trial_id)
        except CheckpointError as error:
            self._give_up(error)
        case.given_up += Cost(checkpoint_s=time.perf_counter() - began)

    def _give_up(self, error: CheckpointError) -> None:
        self.wanted.on_note(str(error))
        self.wanted = NEVER
