"""How much of a sweep's budget a worker asks for, whether a tick fits into what it got, and when there is no more.

A tick is the least that can be paid for, and what the next one costs is not known before. It is taken for as dear as
the dearest of the last few, and in proportion dearer where more fits are in the engine now. So a worker ends within a
tick of what it was granted, and a sweep within one tick per worker of its budget, mostly below it.

Near the end, grants grow small, so that no worker sits on what another could use. One that can't pay for a tick gives
back what it has, and waits for as long as others hold enough that they may give back. Were it to keep that, two workers
with half a tick each would wait for each other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from sweeper.ledger.budgets import Amount, Standing

GRANT_S = 3.0  # of the device's time: asking takes milliseconds
LEAST_TICKS, RECENT_TICKS = 2, 8


class Verdict(Enum):
    """What becomes of a worker that asked."""

    GO_ON = auto()
    WAIT = auto()  # others hold what it lacks, and may give it back
    SPENT = auto()


@dataclass(frozen=True)
class Share:
    """What a worker is granted.

    Attributes:
        verdict: whether that pays for a tick.
        until: how far it may go, on the scale of what it has spent itself.
    """

    verdict: Verdict
    until: Amount


def share(standing: Standing, spent: Amount, needs: Amount, wants: Amount) -> Share:
    """What a worker is granted now, in place of what it was granted before.

    Args:
        standing: of the budget.
        spent: by this worker.
        needs: what its next tick may cost.
        wants: what several ticks may cost.
    """
    free = standing.limit - standing.held - spent
    if not _pays(free, needs):
        hopeful = _pays(free + standing.unused, needs)
        return Share(Verdict.WAIT if hopeful else Verdict.SPENT, spent)
    parts = standing.others + 2  # one more than there are workers: another may come
    device_s = min(wants.device_s, max(needs.device_s, free.device_s / parts))
    joules = min(wants.joules, max(needs.joules, free.joules / parts))
    return Share(Verdict.GO_ON, spent + Amount(device_s, joules))


class Purse:
    """What one worker may still spend.

    Args:
        guess: what a tick may cost, before there was one.
        fits: how many fits are in that tick.
    """

    def __init__(self, guess: Amount, fits: int) -> None:
        self._ticks = deque([(guess, fits)], RECENT_TICKS)
        self._only_guesses = True
        self._until: Amount | None = None
        self.verdict: Verdict | None = None  # nothing was asked for yet

    def has_room(self, spent: Amount, fits: int) -> bool:
        """Whether what was granted pays for a tick with so many fits."""
        return self._until is not None and (spent + self.needs(fits)).is_within(self._until)

    def needs(self, fits: int) -> Amount:
        """What a tick with so many fits may cost."""
        dear = [took * max(1.0, fits / then) for took, then in self._ticks]
        return Amount(max(each.device_s for each in dear), max(each.joules for each in dear))

    def enter(self, took: Amount, fits: int) -> None:
        """Note what a tick with so many fits has cost."""
        if self._only_guesses:
            self._ticks.clear()
            self._only_guesses = False
        self._ticks.append((took, fits))

    def share(self, standing: Standing, spent: Amount, fits: int) -> Share:
        """What this worker would be granted now; nothing changes before it takes that."""
        needs = self.needs(fits)
        ticks = GRANT_S / needs.device_s if needs.device_s else 0.0
        return share(standing, spent, needs, needs * max(LEAST_TICKS, ticks))

    def take(self, granted: Share) -> None:
        """Go by what was granted from now on."""
        self.verdict = granted.verdict
        self._until = granted.until if granted.verdict is Verdict.GO_ON else None

    def give_back(self) -> bool:
        """Hold nothing from now on; whether anything was held."""
        held, self._until = self._until is not None, None
        return held


def _pays(free: Amount, needs: Amount) -> bool:
    return needs.is_within(free) and min(free.device_s, free.joules) > 0
