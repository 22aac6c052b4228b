"""ERT: the expected running time to a target, as COCO and IOHanalyzer measure optimisers (arXiv 1605.03560).

Target: the smaller space's mean test loss after n0 trials, from *other* replicates (every second one sets it for the
rest, and the other way round), so that no study sets its own target. Hit: the first trial from which on the
incumbent's test loss stays at or below the target to the end of the study; a single lucky observation of a noisy loss
is no hit (arXiv 1706.05086). ERT = sum_r min(C_r, N) / hits: studies that never got there are paid for.

For noise-free random search that is the maximum-likelihood estimate of a censored geometric waiting time, and the
ratio of two is F-distributed with twice the hits as degrees of freedom, if all replicates are equally hard. Real ones
are not, so the interval is the wider one, at each end, of that and the block jackknife. Simulated on problem A at
R = 10 it covers .97 to .98; with splits that differ by as much as spaces do .94 to 1.00, where F alone falls to .89.

The target is one level for all replicates. Where these differ by more than the spaces do, hits tell replicates apart
rather than spaces, and the ratio goes to 1; PRICE, which compares means of paired curves, does not.

All studies are censored at the same N. So the Kaplan-Meier curve is one minus the share of studies that have hit, and
its area up to N (the restricted mean survival time) is the mean of min(C_r, N).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from sweeper.price.curves import Doubles
from sweeper.price.intervals import CONFIDENCE, Estimate, jackknife_t
from sweeper.price.pairs import Pair


@dataclass(frozen=True, slots=True)
class Hits:
    """When the studies of one space were at a target for good.

    Attributes:
        times: `R`, trials, counted from 1; inf where a study was not there after `horizon` trials.
        horizon: N, the trials that were looked at.
    """

    times: tuple[float, ...]
    horizon: int

    @property
    def hits(self) -> int:
        """How many studies got there."""
        return sum(math.isfinite(time) for time in self.times)

    @property
    def exposure(self) -> float:
        """Trials that were paid for until a hit, or in vain."""
        return sum(min(time, self.horizon) for time in self.times)

    @property
    def expected(self) -> float:
        """ERT in trials; inf without a hit."""
        return self.exposure / self.hits if self.hits else math.inf

    @property
    def at_least(self) -> float:
        """A one-sided 95 % bound of ERT where there is no hit: exposure / 3.0; 0 where there is one."""
        return 0.0 if self.hits else self.exposure / -math.log(1 - CONFIDENCE)

    @property
    def restricted_mean(self) -> float:
        """The mean of min(C_r, N): the area under the Kaplan-Meier curve up to N."""
        return self.exposure / len(self.times)


@dataclass(frozen=True, slots=True)
class ErtPrice:
    """The price of an edge by first hits.

    Attributes:
        n0: trials of the smaller space whose mean test loss is the target.
        target: the mean of the cross-fitted targets.
        smaller, larger: when the studies of each space got there.
        ratio: ERT of the larger over that of the smaller space; a bound alone where one of them has no hit.
    """

    n0: int
    target: float
    smaller: Hits
    larger: Hits
    ratio: Estimate


def ert_price(n0: int, pair: Pair) -> ErtPrice | None:
    """The expected running times of both spaces to what the smaller one reaches in n0 trials.

    Args:
        n0: one of the pair's budgets.
        pair: the two spaces.

    Returns:
        The price, or None where no target can be cross-fitted: fewer than two replicates, or a target that is not
        finite because too many trials failed.
    """
    losses = pair.smaller.curves[:, pair.budgets == n0][:, 0]
    if len(losses) < 2 or not np.isfinite(losses).all():
        return None
    targets = cross_fitted(losses)
    smaller, larger = (_hits(side.traces, targets) for side in (pair.smaller, pair.larger))
    return ErtPrice(n0, float(targets.mean()), smaller, larger, _ratio(smaller, larger))


def cross_fitted(losses: Doubles) -> Doubles:
    """For each replicate the mean over the other half of them: `R` to `R`, R >= 2."""
    even = np.arange(len(losses)) % 2 == 0
    targets: Doubles = np.where(even, losses[~even].mean(), losses[even].mean())
    return targets


def hitting_times(traces: Doubles, targets: Doubles) -> Doubles:
    """The first trial from which on a trace stays at or below its target.

    Args:
        traces: `R x N`, the incumbent's test loss after each trial.
        targets: `R`.

    Returns:
        `R`, from 1 to N; inf where the last trial's incumbent is above the target.
    """
    above = traces > targets[:, None]
    trials = traces.shape[1]
    last_above = np.where(above.any(axis=1), trials - above[:, ::-1].argmax(axis=1), 0)  # counted from 1; 0: never
    return np.where(last_above == trials, np.inf, last_above + 1.0)


def _hits(traces: Doubles, targets: Doubles) -> Hits:
    return Hits(tuple(hitting_times(traces, targets).tolist()), traces.shape[1])


def _ratio(smaller: Hits, larger: Hits) -> Estimate:
    if not (smaller.hits and larger.hits):
        return _bound(smaller, larger)
    ratio = larger.expected / smaller.expected
    freedom = 2 * larger.hits, 2 * smaller.hits
    low, high = (ratio / float(special.fdtri(*freedom, q)) for q in ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2))
    sides = _without_each(smaller), _without_each(larger)
    if not np.isfinite(sides).all():  # one study has a space's only hit
        return Estimate(ratio, low, high)
    jackknife = jackknife_t(math.log(ratio), sides[1] - sides[0]).exp()
    return Estimate(ratio, min(low, jackknife.lower), max(high, jackknife.upper))


def _without_each(found: Hits) -> Doubles:
    """Log ERT without each of the studies, `R`; inf where the others have no hit."""
    times = np.array(found.times)
    with np.errstate(divide="ignore"):
        exposures: Doubles = np.log(found.exposure - np.minimum(times, found.horizon))
        hits: Doubles = np.log(found.hits - np.isfinite(times).astype(float))
    return exposures - hits


def _bound(smaller: Hits, larger: Hits) -> Estimate:
    """What is known of the ratio where one side has no hit (one-sided 95 %).

    Given k hits in all, those of one side are binomial with odds (exposure / ERT); none of k rules out large odds.
    """
    hits = smaller.hits + larger.hits
    if not hits:
        return Estimate(math.nan, 0.0, math.inf)
    chance = 1 - (1 - CONFIDENCE) ** (1 / hits)
    odds = chance / (1 - chance)
    exposures = larger.exposure / smaller.exposure
    if larger.hits:
        return Estimate(0.0, 0.0, exposures * odds)
    return Estimate(math.inf, exposures / odds, math.inf)
