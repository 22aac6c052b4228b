"""How long does pricing a sweep take, and how much memory, as the sweep grows?

    python tests/benchmarks/price.py [--trials 1000 10000 100000] [--target-s 30 --target-gib 2]

A sweep of eight spaces as studies/digits.yaml has them, with a placebo and a shared lambda, in 20 replicates: losses
are those of problem A (tests/price/problems.py) with noise, which every function takes for those of a network. What is
timed is what `sweeper price` and `sweeper report` do between the ledger and the page: edges, spaces, curves, the
importance of the largest space, and the picture of the curves. Each size runs in a process of its own, so that its
peak memory is its own. "long" is the other shape that a sweep can have: two spaces with two endless studies each.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.price import SpaceShape, edge_cells, price_sweep, sentence, space_curve, summarise_spaces
from sweeper.records import PricedTrial, TrialState
from sweeper.search import PastTrial
from sweeper.space import Parameter

GIB = 2**30
CENTRE = np.array([0.4, 0.5, 0.6])
SHAPES = {
    "none": SpaceShape("fixed", "fixed", 0),
    "shared": SpaceShape("shared", "fixed", 1),
    "placebo": SpaceShape("shared", "fixed", 4, placebo=3),
    "masked": SpaceShape("masked", "fixed", 4, bits=3),
    "per_layer": SpaceShape("per_layer", "fixed", 3),
    "shared_l2": SpaceShape("fixed", "shared", 1),
    "per_layer_l2": SpaceShape("fixed", "per_layer", 4),
    "both": SpaceShape("per_layer", "per_layer", 7),
}
LONG = {name: SHAPES[name] for name in ("shared", "per_layer")}
PARAMETERS = [Parameter(f"x_{i}") for i in range(7)]

Sweep = dict[str, dict[int, list[PricedTrial]]]


def sweep_of(shapes: Mapping[str, SpaceShape], replicates: int, trials: int, rng: np.random.Generator) -> Sweep:
    """Trials whose loss depends on as many draws as their space has kinds of hyperparameters."""
    return {
        space: {r: _study(min(3, shape.dimensions), trials, rng) for r in range(replicates)}
        for space, shape in shapes.items()
    }


def _study(dimensions: int, trials: int, rng: np.random.Generator) -> list[PricedTrial]:
    centre = CENTRE[:dimensions] if dimensions else np.zeros(1)
    theta = rng.random((trials, len(centre))) if dimensions else np.full((trials, 1), 0.3)
    truth = 0.1 + np.abs(theta - centre).max(axis=1) ** 2
    losses = truth + 0.01 * rng.standard_normal((2, trials))
    costs = zip(*losses, rng.uniform(1, 2, trials), strict=True)
    return [PricedTrial(n, v, t, True, s, 10**6, 50 * s, 1e-3) for n, (v, t, s) in enumerate(costs)]


def past_of(studies: Mapping[int, list[PricedTrial]], rng: np.random.Generator) -> list[list[PastTrial]]:
    """The same losses with parameters, as the importance wants them."""
    names = [parameter.name for parameter in PARAMETERS]

    def past(trial: PricedTrial) -> PastTrial:
        params = dict(zip(names, rng.random(len(names)).tolist(), strict=True))
        return PastTrial(trial.number, params, TrialState.COMPLETE, trial.validation_loss)

    return [list(map(past, trials)) for trials in studies.values()]


def measure(trials: int, shape: str) -> dict[str, Any]:
    """Time of each part, and the peak memory of this process."""
    rng = np.random.default_rng(0)
    shapes, replicates = (SHAPES, 20) if shape == "wide" else (LONG, 2)
    sweep = sweep_of(shapes, replicates, max(2, trials // (len(shapes) * replicates)), rng)
    past = past_of(sweep.get("both", {}), rng)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    base = _peak()
    table = timed("edges", lambda: price_sweep(sweep, shapes, device_hour=1.0))
    timed("words", lambda: [(sentence(edge), edge_cells(edge)) for edge in table.prices])
    timed("spaces", lambda: summarise_spaces(sweep, shapes, device_hour=1.0))
    curves = timed("curves", lambda: [space_curve(space, rows) for space, rows in sweep.items()])
    timed("importance", lambda: _importance(past))
    timed("picture", lambda: _picture(curves))
    count = sum(len(rows) for studies in sweep.values() for rows in studies.values())
    return {"trials": count, "shape": shape, "seconds": seconds, "peak": _peak(), "before": base}


def _importance(past: list[list[PastTrial]]) -> Any:
    from sweeper.search.importance import importances

    return importances(PARAMETERS, past) if past else None


def _picture(curves: list[Any]) -> None:
    from sweeper.price import plots

    with tempfile.TemporaryDirectory() as folder:
        plots.save_chart(plots.curve_chart([curve for curve in curves if curve], "benchmark"), Path(folder) / "c.svg")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_own_process(trials: int, shape: str) -> dict[str, Any]:
    """One measurement in a fresh interpreter."""
    command = [sys.executable, __file__, "--one", str(trials), shape]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> int:
    """Print the table; 1 where the largest size misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--target-s", type=float, default=30.0)
    parser.add_argument("--target-gib", type=float, default=2.0)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(int(options.one[0]), options.one[1])))
        return 0
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.processor() or platform.machine()}, "
        f"Python {platform.python_version()}, numpy {np.__version__}; seconds"
    )
    sizes = [(trials, "wide") for trials in options.trials] + [(max(options.trials), "long")]
    parts = ("edges", "words", "spaces", "curves", "importance", "picture")
    print(f"{'trials':>8} {'shape':5} " + " ".join(f"{part:>10}" for part in parts) + f" {'all':>7} {'peak GiB':>9}")
    missed = False
    for trials, shape in sizes:
        found = in_own_process(trials, shape)
        total, peak = sum(found["seconds"].values()), found["peak"] / GIB
        figures = " ".join(f"{found['seconds'][part]:10.2f}" for part in parts)
        print(f"{found['trials']:8,} {shape:5} {figures} {total:7.2f} {peak:9.2f}", flush=True)
        missed |= total > options.target_s or peak > options.target_gib
    print(f"target: {options.target_s:g} s and {options.target_gib:g} GiB: {'MISSED' if missed else 'met'}")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
