"""Measurement and product mode told apart: what each of them reads of the same trials."""

from dataclasses import replace

import numpy as np
import pytest

from sweeper.price import Mode, Reach, price_sweep, space_curve, trace

from .problems import A_SHAPES, problem_a, studies, study


def as_learnt(sweep):
    """The same trials, drawn by a sampler that learns."""
    return {
        space: {r: [replace(t, exchangeable=False) for t in trials] for r, trials in rows.items()}
        for space, rows in sweep.items()
    }


@pytest.fixture
def sweep():
    return problem_a(12, 32, np.random.default_rng(6))


def test_product_mode_reads_single_traces_to_their_end(sweep):
    found = price_sweep(as_learnt(sweep), A_SHAPES, mode=Mode.PRODUCT).prices[0]
    assert (found.mode, found.budget, [at.n0 for at in found.prices]) == (Mode.PRODUCT, 32, [4, 8, 16])
    ends = [np.mean([trace(trials)[1][-1] for trials in rows.values()]) for rows in sweep.values()]
    assert found.buys.value == pytest.approx(ends[0] - ends[1])


def test_measurement_mode_reads_the_mean_over_all_orders(sweep):
    shuffled = {
        space: {r: [replace(t, number=31 - t.number) for t in trials] for r, trials in rows.items()}
        for space, rows in sweep.items()
    }
    table = price_sweep(sweep, A_SHAPES)
    again = price_sweep(shuffled, A_SHAPES).prices[0]
    assert (table.mode, again.prices, again.buys) == (Mode.MEASUREMENT, table.prices[0].prices, table.prices[0].buys)
    traced = [price_sweep(each, A_SHAPES, mode=Mode.PRODUCT).prices[0].prices for each in (sweep, shuffled)]
    assert traced[0] != traced[1]


def test_trials_that_a_sampler_learnt_are_no_measurement(sweep):
    assert price_sweep(as_learnt(sweep), A_SHAPES).prices == ()


def test_enqueued_starts_count_in_a_trace_and_in_no_measurement():
    start = replace(study([0.0])[0], exchangeable=False)
    trials = [start, *(replace(t, number=t.number + 1) for t in study([0.4, 0.2, 0.3]))]
    assert space_curve("s", {0: trials}, Mode.PRODUCT).mean.tolist() == [0, 0, 0, 0]
    assert space_curve("s", {0: trials}).mean[0] == pytest.approx(0.3)


def test_a_pruned_trial_of_a_trace_was_paid_for_and_is_never_the_incumbent():
    test = np.random.default_rng(1).random((10, 8))
    pruned = test.copy()
    pruned[:, ::2] = np.inf
    table = price_sweep({"shared": studies(test), "per_layer": studies(pruned)}, A_SHAPES, mode=Mode.PRODUCT)
    found = table.prices[0]
    assert found.trials == 8
    assert found.buys.value == pytest.approx(np.mean(test.min(axis=1) - test[:, 1::2].min(axis=1)))
    assert found.prices[0].reach is not Reach.NO_TARGET


def test_a_trace_that_has_just_begun_is_unmeasured(sweep):
    table = price_sweep({"shared": sweep["shared"]}, A_SHAPES, mode=Mode.PRODUCT)
    assert (table.prices, len(table.unmeasured)) == ((), 1)
    assert "Let the sweep run on" in table.unmeasured[0].reason
    assert "random" not in table.unmeasured[0].reason
