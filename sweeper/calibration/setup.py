"""An engine made ready for a workload, and what was measured of it; a smaller one where it runs out of memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sweeper.engine import DeviceFacts, Engine, Footprint, device_peak_bytes, let_go_of_memory
from sweeper.errors import OutOfMemoryError
from sweeper.machine import peak_bytes
from sweeper.workload import Workload

REHEARSAL_S = 0.5


@dataclass(frozen=True)
class Numerics:
    """What decides the last bits of a fit's result on one machine; chosen at launch and kept.

    Attributes:
        compiled: whether the training step is compiled.
        torch: PyTorch's version.
        device: "cpu" or "cuda".
        precision: of matrix products.
    """

    compiled: bool
    torch: str
    device: str
    precision: str


@dataclass
class Setup:
    """An engine ready to work, and what is known of it before.

    Attributes:
        workload: what it trains.
        engine: of this process; `halve` puts another in its place.
        device: where it computes.
        numerics: what its results depend on.
        processes: N.
        tick_s: seconds of one tick with all slots, measured.
        footprint: what the engine takes of the device's memory, predicted.
        before_bytes: the most that this process had of it before.
        eager_step_s: seconds of one step of one fit in eager code, measured; None where it was not.
        solo_step_s: seconds of one step, its share of evaluation included, of a fit that has the device to itself, in
            eager code; None where the memory has no room for measuring it.
        took_s: what choosing and building took.
        notes: what a user should know about how it was chosen.
        sharers: how many of the processes work on this device.
    """

    workload: Workload
    engine: Engine
    device: DeviceFacts
    numerics: Numerics
    processes: int
    tick_s: float
    footprint: Footprint
    before_bytes: int = 0
    eager_step_s: float | None = None
    solo_step_s: float | None = None
    took_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    sharers: int = 1

    @property
    def step_s(self) -> float:
        """Seconds of one step of one fit."""
        return step_s(self.engine, self.tick_s)

    @property
    def groups(self) -> int:
        """How many groups of slots take turns."""
        return -(-self.engine.slots // self.engine.width)

    @property
    def peak_bytes(self) -> tuple[int, int]:
        """The most memory that this process takes at a time: measured so far, and predicted at most."""
        predicted = self.before_bytes + self.footprint.total(self.engine.slots, self.engine.width)
        on_gpu = self.device.kind == "cuda"
        peak = device_peak_bytes(str(self.engine.device)) if on_gpu else peak_bytes()
        return peak, max(peak, predicted)

    @property
    def words(self) -> str:
        """How it will be computed, in a line."""
        slots, groups, threads = self.engine.slots, self.groups, self.device.threads
        at_once = f"{slots} fit{'s' * (slots > 1)} at once"
        if self.processes > 1:
            at_once = f"{self.processes} processes with {at_once} each"
        parts = [at_once + (f" in {groups} groups of {self.engine.width}" if groups > 1 else "")]
        parts.append("compiled" if self.numerics.compiled else "eager")
        parts += [f"{threads} thread{'s' * (threads > 1)}"] if self.device.kind == "cpu" else []
        words = f"{', '.join(parts)}: {_short(self.step_s)} a step of one fit"
        if self.numerics.compiled and self.eager_step_s is not None:
            words += f"; eager would take {_short(self.eager_step_s)}"
        return words

    def recorded(self) -> dict[str, Any]:
        """The choice and its measured rates, for the ledger."""
        return {
            **asdict(self.numerics),
            "processes": self.processes,
            "slots": self.engine.slots,
            "width": self.engine.width,
            "threads": self.device.threads,
            "tick_s": self.tick_s,
            "step_s": self.step_s,
            "eager_step_s": self.eager_step_s,
            "solo_step_s": self.solo_step_s,
            "set_up_s": self.took_s,
            "slot_bytes": self.footprint.slot,
            "notes": list(self.notes),
        }

    def halve(self, reason: str) -> None:
        """Put an engine of half the slots in the place of one that ran out of memory.

        Args:
            reason: what it said.

        Raises:
            OutOfMemoryError: there was no more than one trial in it.
        """
        maker = Maker(self.workload, str(self.engine.device), self.sharers)
        slots = maker.halved(self.engine.slots, reason)
        del self.engine  # the smaller one needs its memory
        self.engine, self.tick_s = maker.fitting(slots, self.numerics.compiled)
        self.notes.append(f"{reason} Going on with {self.engine.slots} fits at once.")

    def renew(self, reason: str) -> None:
        """Put a fresh engine in the place of one in which training failed.

        Args:
            reason: what it said.
        """
        maker, slots = Maker(self.workload, str(self.engine.device), self.sharers), self.engine.slots
        del self.engine
        let_go_of_memory(maker.device)
        self.engine, self.tick_s = maker.fitting(slots, self.numerics.compiled)
        self.notes.append(f"{reason} Its trials are tried again, in a fresh engine.")


@dataclass(frozen=True)
class Maker:
    """Builds engines for a workload on one device."""

    workload: Workload
    device: str
    sharers: int = 1

    def engine(self, slots: int, compiled: bool, width: int | None = None, *, alone: bool = False) -> Engine:
        """An engine with so many slots, see `Engine`."""
        workload = self.workload
        return Engine(
            workload.build,
            workload.engine_folds,
            workload.training,
            workload.task,
            slots=slots,
            device=self.device,
            compiled=compiled,
            width=width,
            per_channel=workload.per_channel,
            undropped=workload.undropped,
            sharers=self.sharers,
            alone=alone,
        )

    def solo_step_s(self) -> float | None:
        """Seconds of one step of a fit that trains alone, in eager code; None where there is no room to measure it."""
        try:
            engine = self.engine(1, compiled=False, alone=True)
            return step_s(engine, engine.rehearse(REHEARSAL_S))
        except OutOfMemoryError:
            return None

    def fitting(self, slots: int, compiled: bool, width: int | None = None) -> tuple[Engine, float]:
        """An engine with so many slots, or half of them, and so on, until it fits the memory; and its tick's seconds.

        Raises:
            OutOfMemoryError: there is no room for one trial.
        """
        while True:
            engine = None
            try:
                engine = self.engine(slots, compiled, width)
                return engine, engine.rehearse(REHEARSAL_S)
            except OutOfMemoryError as error:
                reason = str(error)
            del engine
            slots = self.halved(slots, reason)

    def halved(self, slots: int, reason: str) -> int:
        """Half as many slots, and one trial's at least; what nobody holds any more is given back to the device."""
        least = self.workload.folds_per_trial
        if slots <= least:
            fits = f"the {least} folds of a single trial don't" if least > 1 else "not even a single fit"
            verb = "" if least > 1 else "s"
            raise OutOfMemoryError(
                f"{fits} fit{verb} into the memory of {self.device}. {reason} Take a smaller batch_size or network, "
                f"or another --device."
            )
        let_go_of_memory(self.device)
        return max(least, slots // 2)


def step_s(engine: Engine, tick_s: float) -> float:
    """Seconds of one step of one fit."""
    return tick_s / (engine.steps * engine.slots)


def _short(seconds: float) -> str:
    """A time below a second or so, as people say it."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"
