"""What is allowed in a sweep, but probably not what was meant."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.config.base import Problem
from sweeper.config.model import Sweep
from sweeper.config.models import Head
from sweeper.config.pruners import MedianRule, NoPruner
from sweeper.config.samplers import CmaEs, Grid

LOWEST_USUAL_INPUT = 0.8
"""The input is seldom dropped at all, sometimes to 0.9, never near a half (R4)."""


def warnings_of(sweep: Sweep, layers: int) -> tuple[Problem, ...]:
    """Everything in a valid sweep that deserves a second look, with its place; `layers` are its weight layers."""
    of_layers = (*_switch_warnings(sweep, layers), *_grid_warnings(sweep, layers))
    return (*_input_warnings(sweep), *of_layers, *_pruner_warnings(sweep))


def _input_warnings(sweep: Sweep) -> Iterator[Problem]:
    if isinstance(sweep.model, Head):
        return  # its input are activations, of which fast.ai drops a quarter
    in_ranges = sweep.ranges.input_keep_prob
    lowest = in_ranges[0] if isinstance(in_ranges, tuple) else in_ranges
    if isinstance(lowest, float) and lowest < LOWEST_USUAL_INPUT:
        yield Problem(("ranges", "input_keep_prob"), _input_advice(lowest))
    for name, space in sweep.spaces.items():
        if isinstance(space.input_keep_prob, float) and space.input_keep_prob < LOWEST_USUAL_INPUT:
            yield Problem(("spaces", name, "input_keep_prob"), _input_advice(space.input_keep_prob))


def _input_advice(lowest: float) -> str:
    return (
        f"keeps as little as {lowest:g} of the input. 1.0 is usual for an input and 0.9 is seen; "
        f"consider {LOWEST_USUAL_INPUT} or more."
    )


def _switch_warnings(sweep: Sweep, layers: int) -> Iterator[Problem]:
    if not isinstance(sweep.search.sampler, CmaEs):
        return
    for name in sweep.spaces:
        if switches := sweep.dimensions(name, layers).switches:
            yield Problem(
                ("spaces", name),
                f"CMA-ES can't search on/off switches, so the {switches} of this space are drawn at random. "
                "Use tpe, gp or random.",
            )


def _grid_warnings(sweep: Sweep, layers: int) -> Iterator[Problem]:
    sampler, trials = sweep.search.sampler, sweep.search.trials
    if not isinstance(sampler, Grid):
        return
    for name in sweep.spaces:
        space = sweep.dimensions(name, layers)
        points = sampler.points**space.numbers * 2**space.switches
        if 1 < points < trials:
            why = f"its grid has {points} points, fewer than the {trials} trials of search.trials. Add points."
            yield Problem(("spaces", name), why)
        if points > trials:
            why = f"its grid has {points} points, of which {trials} trials see a random few. Take fewer points."
            yield Problem(("spaces", name), why)


def _pruner_warnings(sweep: Sweep) -> Iterator[Problem]:
    pruner, trials, epochs = sweep.search.pruner, sweep.search.trials, sweep.train.epochs
    if isinstance(pruner, NoPruner):
        return
    if pruner.first_rung(epochs) is None:
        why = f"judges no trial before the last of its {epochs} epochs, so that none is pruned. Let it begin sooner."
        yield Problem(("search", "pruner"), why)
    if isinstance(pruner, MedianRule) and pruner.n_startup_trials >= trials:
        why = f"waits for {pruner.n_startup_trials} complete trials, and a study has {trials}, so that none is pruned."
        yield Problem(("search", "pruner"), f"{why} Lower n_startup_trials.")
