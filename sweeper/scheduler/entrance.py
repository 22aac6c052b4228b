"""Claimed trials on their way into the engine: their initial weights drawn, or what they had come to before."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from sweeper.engine import Engine, Prepared, Snapshot
from sweeper.errors import EngineError
from sweeper.ledger.rows import Claimed
from sweeper.records import Fit, FitResult
from sweeper.scheduler.cases import Case
from sweeper.scheduler.saving import Saver
from sweeper.seeds import fit_seed
from sweeper.workload import Workload


@dataclass
class Entrance:
    """Where trials wait for free slots.

    Attributes:
        saver: knows how far trials had come.
    """

    workload: Workload
    engine: Engine
    saver: Saver
    _waiting: deque[tuple[Case, tuple[Prepared, ...]]] = field(default_factory=deque)

    @property
    def waiting(self) -> int:
        """How many trials are not in the engine yet."""
        return len(self._waiting)

    def receive(self, claimed: Claimed, replicate: int) -> Case:
        """Make a claimed trial ready; the device may be at work.

        Args:
            claimed: which trial.
            replicate: of its study.
        """
        case = self.case(claimed, replicate)
        past = self.saver.past(case)
        ready = [self._made_ready(case, fit, past.get(fold)) for fold, fit in enumerate(case.fits)]
        self._waiting.append((case, tuple(one for one in ready if one is not None)))
        return case

    def case(self, claimed: Claimed, replicate: int) -> Case:
        """A claimed trial and its fits."""
        return Case(claimed, self._fits(claimed, replicate))

    def admit(self) -> list[Case]:
        """Put trials into free slots, all folds of each together; returns those that entered.

        Raises:
            EngineError: a trial needs more slots than there are.
        """
        folds, entered = self.workload.folds_per_trial, []
        while self._waiting and self.engine.free >= folds:
            case, prepared = self._waiting.popleft()
            self.engine.admit(prepared)
            entered.append(case)
        if self._waiting and folds > self.engine.slots:
            raise EngineError(
                f"a trial's {folds} folds train side by side, but there are only {self.engine.slots} slots. Take at "
                f"least {folds}: --slots {folds}"
            )
        return entered

    def clear(self) -> None:
        """Let go of all of them."""
        self._waiting.clear()

    def _fits(self, claimed: Claimed, replicate: int) -> tuple[Fit, ...]:
        seed = self.workload.sweep.seed
        return tuple(
            Fit(
                key=f"{claimed.attempt_id}/{fold}",
                setting=claimed.setting,
                seed=fit_seed(seed, replicate, claimed.number, fold),
                fold=self.workload.fold_index(replicate, fold),
            )
            for fold in range(self.workload.folds_per_trial)
        )

    def _made_ready(self, case: Case, fit: Fit, past: Snapshot | FitResult | None) -> Prepared | None:
        """One fold, ready for a slot; None for one that had ended when the trial was saved."""
        if isinstance(past, FitResult):
            case.end(replace(past, key=fit.key))
            return None
        for score in past.scores if past else ():
            case.note(fit.key, score)
        return self.engine.prepare(fit, past)
