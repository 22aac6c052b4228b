"""What a sweep will take: time, energy and memory, each from a least to a most, said before it begins.

What is measured is a tick; what is not known is how many epochs the fits train until early stopping or the pruner ends
them. Without a pilot the interval has the bounds of that: every fit ends as early as the sweep file allows, or none
does. A pilot trains some random settings of the sweep to their end; its interval covers the mean epochs of such
settings with 95 % confidence and the machine's speed as it varied meanwhile. Not covered: a sampler that comes to
prefer settings that train longer or shorter, and a machine that becomes busier.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, mean, quantiles, stdev
from typing import Any

from sweeper.calibration.choice import most_parallel
from sweeper.calibration.setup import Setup
from sweeper.engine import Tick, energy_note, find_meter
from sweeper.records import Fit, TrialState
from sweeper.search import Proposer, SamplerSpec
from sweeper.seeds import seed_of
from sweeper.workload import Workload

Span = tuple[float, float]
"""Least and most."""

CONFIDENCE = 0.95
PILOT_S = 8.0
FULL = 0.75  # a tick tells the speed of a busy engine if so many of its slots are busy
POWER_S = 0.3  # NVML renews its counter every 20 to 100 ms
STORAGE_S = 4e-3  # of a trial: one commit and its share of others, measured with SQLite on two busy cores
ASKED = 3  # suggestions per space that are timed


@dataclass(frozen=True)
class Estimate:
    """What some trials of a sweep will take.

    Attributes:
        trials, fits: how many.
        basis: what the interval of the epochs comes from.
        epochs: mean per fit.
        seconds: of the clock, from the first tick to the last.
        device_s: training and evaluation of the fits, summed over processes.
        joules: the device's energy; None where nothing measures it.
        energy: what measures it, or why nothing does.
        peak_bytes: of each process's memory, or of a GPU's.
        processes: how many.
    """

    trials: int
    fits: int
    basis: str
    epochs: Span
    seconds: Span
    device_s: Span
    joules: Span | None
    energy: str
    peak_bytes: Span
    processes: int

    @property
    def trials_per_s(self) -> Span:
        """Trials per second of the clock."""
        least, most = self.seconds
        return self.trials / most if most else math.inf, self.trials / least if least else math.inf

    def recorded(self, setup: Setup) -> dict[str, Any]:
        """For the ledger, with the choice that it holds for."""
        return {**asdict(self), "setup": setup.recorded()}


@dataclass(frozen=True)
class Pace:
    """How fast a busy engine is, and how long its fits train.

    Attributes:
        basis: what it was measured by.
        epochs: mean per fit.
        epoch_s: the device's seconds for one epoch of one fit.
        watts: while one process's engine is busy; None where nothing measures it.
    """

    basis: str
    epochs: Span
    epoch_s: Span
    watts: float | None


def rehearsed_pace(setup: Setup) -> Pace:
    """From the engine's rehearsal alone: the bounds that early stopping and pruning leave."""
    epoch_s = setup.tick_s / setup.engine.slots
    return Pace("a rehearsal", epoch_bounds(setup.workload), (epoch_s, epoch_s), _watts(setup))


def epoch_bounds(workload: Workload) -> Span:
    """The fewest and the most epochs that a fit which does not diverge can train."""
    training = workload.training
    least = min(training.epochs, 1 + training.patience) if training.patience else training.epochs
    pruner = workload.pruner(seed_of(workload.sweep.seed, "pilot"))
    if pruner is not None:
        least = min([least, *(epoch for epoch in range(1, least) if pruner.is_rung(0, epoch))])
    return float(least), float(training.epochs)


def estimate(setup: Setup, pace: Pace, trials: int) -> Estimate:
    """What so many trials of a sweep will take at a pace."""
    workload, processes, slots = setup.workload, setup.processes, setup.engine.slots
    fits = trials * workload.folds_per_trial
    device_s = tuple(fits * epochs * each for epochs, each in zip(pace.epochs, pace.epoch_s, strict=True))
    side_by_side = max(1, min(slots * processes, most_parallel(workload), fits))
    longest, rounds = workload.training.epochs, fits / side_by_side
    least = rounds * pace.epochs[0] * pace.epoch_s[0] * slots
    # the last fits may train long while other slots are empty; nothing takes longer than if every fit was the longest
    most = min(rounds * pace.epochs[1] + longest, math.ceil(rounds) * longest) * pace.epoch_s[1] * slots
    host_s = trials * _host_s(setup) / processes
    seconds = least + host_s, most + host_s
    watts = pace.watts
    return Estimate(
        trials=trials,
        fits=fits,
        basis=pace.basis,
        epochs=pace.epochs,
        seconds=seconds,
        device_s=(device_s[0], device_s[1]),
        joules=None if watts is None else (least * watts, most * watts * processes),
        energy=energy_note(str(setup.engine.device)),
        peak_bytes=setup.peak_bytes,
        processes=processes,
    )


def _watts(setup: Setup) -> float | None:
    """The device's power in a rehearsal that is long enough for its counter."""
    meter = find_meter(str(setup.engine.device))
    if meter is None:
        return None
    before, began = meter.read(), time.perf_counter()
    while time.perf_counter() - began < POWER_S:
        setup.engine.rehearse(POWER_S)
    watts = (meter.read() - before) / (time.perf_counter() - began)
    return watts if math.isfinite(watts) else None


def _host_s(setup: Setup) -> float:
    """What a trial costs beside the device: a suggestion, initial weights, and a commit."""
    if setup.engine.overlaps:
        return 0.0  # it hides behind the ticks
    workload = setup.workload
    proposers = [workload.proposer(name, 0) for name in workload.spaces]
    took = [min(_ask_s(proposer) for _ in range(ASKED)) for proposer in proposers if proposer.size is None]
    fit = pilot_fits(workload, 1)[0]
    began = time.perf_counter()
    setup.engine.prepare(fit)
    prepared_s = time.perf_counter() - began
    return (mean(took) if took else 0.0) + workload.folds_per_trial * prepared_s + STORAGE_S


def _ask_s(proposer: Proposer) -> float:
    proposal = proposer.ask()
    proposer.tell(proposal.number, TrialState.FAIL)
    return proposal.seconds


# the pilot ------------------------------------------------------------------------------------------------------------


def pilot_fits(workload: Workload, count: int) -> list[Fit]:
    """So many random settings of a sweep, its spaces and replicates in turns; their seeds are not the sweep's."""
    turns = sorted(workload.studies(), key=lambda study: study.turn)
    fits = []
    for number, study in zip(range(count), itertools.cycle(turns), strict=False):
        seed, space = seed_of(workload.sweep.seed, "pilot", number), workload.spaces[study.space]
        params = Proposer(space.parameters, SamplerSpec("random"), seed).ask().params
        fold = workload.fold_index(study.replicate, number % workload.folds_per_trial)
        fits.append(Fit(f"pilot/{number}", space.setting(params), seed, fold))
    return fits


def pilot(setup: Setup, within_s: float = PILOT_S) -> Pace | None:
    """Train a slot's worth of random settings each to their end; None where a single tick takes too long for that.

    Nothing but their epochs and the ticks' cost is looked at.

    Args:
        setup: its engine, empty; is left empty.
        within_s: after so long what still trains is given up.
    """
    if setup.tick_s > within_s / 4:
        return None
    engine = setup.engine
    engine.admit(pilot_fits(setup.workload, engine.slots))
    began, ticks, ended = time.perf_counter(), list[tuple[int, Tick]](), list[float]()
    while engine.free < engine.slots and time.perf_counter() - began < within_s:
        busy = engine.slots - engine.free
        ticks.append((busy, engine.train()))
        ended += [float(len(result.scores)) for result in ticks[-1][1].results]
    cut_off = [float(cost.epochs) for cost in engine.evict().values()]
    full = [(busy, tick) for busy, tick in ticks if busy >= FULL * engine.slots]
    bounds, fits = epoch_bounds(setup.workload), len(ended) + len(cut_off)
    least, most = mean_span([*ended, *cut_off])[0], mean_span([*ended, *[bounds[1]] * len(cut_off)])[1]
    least = bounds[0] if setup.workload.prunes or fits < 2 else max(1.0, least)
    basis = f"a pilot of {fits} fit{'s' * (fits > 1)}" + (f", {len(cut_off)} of them cut off" if cut_off else "")
    watts = _watts_of([tick for _, tick in full], setup.sharers)
    return Pace(basis, (least, min(most, bounds[1])), _spread([_epoch_s(*one) for one in full]), watts)


def mean_span(values: Sequence[float]) -> Span:
    """The mean's confidence interval by Student's t; of a single value there is none."""
    if len(values) < 2:
        return 0.0, math.inf
    half = student_t(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def student_t(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of Student's t, by its expansion around the normal one.

    Within 1 % from 3 degrees of freedom on (Abramowitz & Stegun 1964, 26.7.5).
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    if freedom == 1:
        return math.tan(math.pi * confidence / 2)
    if freedom == 2:
        return confidence * math.sqrt(2 / (1 - confidence**2))
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, start=1)))


def _epoch_s(busy: int, tick: Tick) -> float:
    """The device's seconds for one fit's epoch."""
    return (tick.train_s + tick.evaluate_s - tick.idle_s) / busy


def _spread(values: Sequence[float]) -> Span:
    """What nine of ten values lie between."""
    if len(values) < 2:
        return values[0], values[0]
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[0], cuts[-1]


def _watts_of(ticks: Sequence[Tick], sharers: int) -> float | None:
    """The device's power over some ticks, whose energy was divided among sharers."""
    joules = [tick.joules for tick in ticks]
    measured = [value for value in joules if value is not None and math.isfinite(value)]
    seconds = sum(tick.train_s + tick.evaluate_s for tick in ticks)
    return sharers * sum(measured) / seconds if len(measured) == len(joules) and seconds else None
