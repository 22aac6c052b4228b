"""The workers of one sweep on the cluster, as the command that placed them sees them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sweeper.cluster.driver import load
from sweeper.cluster.keeper import ENDED_WELL, TO_BE_MENDED, Keeper, Look, Order

SILENT_S = 5.0  # after which a worker that says nothing is worth a word
PARTING_S = 25.0  # for saving trials and giving them back; a machine that is taken away leaves 30


@dataclass(frozen=True)
class Said:
    """A line that is worth showing.

    Attributes:
        worker: which one, and where.
        text: what it said, or what happened to it.
        is_own: whether it said so itself.
    """

    worker: str
    text: str
    is_own: bool

    def __str__(self) -> str:
        return f"{self.worker}: {self.text}"


class Workers:
    """The workers of one sweep, each wherever Ray has placed it.

    Args:
        order: what each runs.
        count: how many; those for whom the cluster has no room wait for it.
        name: of the sweep, for Ray's dashboard.
    """

    def __init__(self, order: Order, count: int, name: str) -> None:
        ray = load()
        needs = {"num_cpus": order.threads, "num_gpus": order.gpus}
        # no word of each look in Ray's own list of tasks: thousands an hour would hide everybody else's
        how = {"max_restarts": -1, "scheduling_strategy": "SPREAD", "enable_task_events": False}
        actor = ray.remote(**needs, **how)(Keeper)
        made = [actor.options(name=f"sweeper {name} {number}").remote(order) for number in range(1, count + 1)]
        self._hands = [_Hand(number, one, one.look.remote()) for number, one in enumerate(made, start=1)]

    @property
    def placed(self) -> int:
        """How many have a node."""
        return sum(bool(hand.node) for hand in self._hands)

    @property
    def working(self) -> int:
        """How many have not ended, the ones that wait for a node among them."""
        return sum(hand.code is None for hand in self._hands)

    @property
    def problem(self) -> str | None:
        """Why one of them ended for good, in its own words; None where none did or it ended well."""
        return next((f"{hand}: {hand.last}" for hand in self._hands if hand.code), None)

    def look(self) -> list[Said]:
        """What they said, and what happened to them, since the last look; does not wait for any."""
        ray = load()
        asked = {hand.asked: hand for hand in self._hands}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for ref in ready:
            hand = asked[ref]
            try:
                hand.heard(ray.get(ref))
            except ray.exceptions.RayActorError as error:
                hand.failed(error, is_for_good=isinstance(error, ray.exceptions.ActorDiedError))
            hand.asked = hand.actor.look.remote()
        for hand in self._hands:
            hand.wonder()
        return [line for hand in self._hands for line in hand.told()]

    def part(self, patience_s: float = PARTING_S) -> Iterator[list[Said]]:
        """Part from all; gives what they say meanwhile, until all have ended or the time is over."""
        ray, deadline = load(), time.monotonic() + patience_s
        for hand in self._hands:
            if hand.node:
                hand.actor.part.remote()
            else:
                ray.kill(hand.actor)  # it would be started as soon as there is room
                hand.code = ENDED_WELL
        while time.monotonic() < deadline and any(hand.node and hand.code is None for hand in self._hands):
            yield self.look()
            time.sleep(0.1)
        for hand in self._hands:
            ray.kill(hand.actor)


@dataclass
class _Hand:
    """One worker, as this side knows it."""

    number: int
    actor: Any
    asked: Any  # the answer to the last question, which may be on its way
    node: str = ""
    code: int | None = None
    last: str = ""
    _answered: float = field(default_factory=time.monotonic)
    _is_missed: bool = False
    _lines: list[Said] = field(default_factory=list)

    def __str__(self) -> str:
        return f"worker {self.number}" + (f" on {self.node}" if self.node else "")

    def heard(self, look: Look) -> None:
        """It has answered."""
        before, self.node = self.node, look.node
        if self._is_missed or before != look.node:
            self._happened("back" if before == look.node else "placed again" if before else "placed")
        self.code, self._answered, self._is_missed = look.code, time.monotonic(), False
        self._lines += [Said(str(self), line, is_own=True) for line in look.lines if line]
        self.last = next((line for line in reversed(look.lines) if line), self.last)

    def failed(self, error: Exception, *, is_for_good: bool) -> None:
        """Ray has answered in its place."""
        if is_for_good and self.code is None:
            self.code, self.last = TO_BE_MENDED, str(error).strip()
            self._happened(self.last)

    def wonder(self) -> None:
        """Notice that one who had a node says nothing."""
        if self.node and self.code is None and time.monotonic() - self._answered > SILENT_S and not self._is_missed:
            self._is_missed = True
            self._happened("no answer; where its node is dead, Ray places it on another")

    def told(self) -> list[Said]:
        """What there is to say of it, once."""
        lines, self._lines = self._lines, []
        return lines

    def _happened(self, what: str) -> None:
        self._lines.append(Said(str(self), what, is_own=False))
