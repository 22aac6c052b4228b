"""What a user reads: never more than the interval says."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sweeper.price import (
    BreakEven,
    CostPrice,
    Estimate,
    Mode,
    Reach,
    Verdict,
    cost_text,
    difference_text,
    p_text,
    price_sweep,
    price_text,
    ratio_text,
    sentence,
)

from .problems import A_SHAPES, studies

INF, NAN = float("inf"), float("nan")


@pytest.fixture
def priced():
    """An edge whose figures the tests put in."""
    test = np.random.default_rng(1).random((10, 32))
    return price_sweep({"shared": studies(test), "per_layer": studies(test)}, A_SHAPES).prices[0]


def with_figures(priced, *, price, buys, reach=Reach.MEASURED, p_value=None, adjusted_p=None, break_even=None):
    """The figures of an edge; by default the p-values are just what the interval says."""
    p_value = (0.01 if buys[1] > 0 or buys[2] < 0 else 0.4) if p_value is None else p_value
    headline = replace(priced.headline, trials=Estimate(*price), reach=reach)
    return replace(
        priced,
        prices=(headline,),
        buys=Estimate(*buys),
        p_value=p_value,
        adjusted_p=p_value if adjusted_p is None else adjusted_p,
        break_even=BreakEven(5.0, ((3.0, 8.0),), False, 16) if break_even is None else break_even,
    )


@pytest.mark.parametrize(
    ("buys", "verdict"),
    [
        ((0.004, -0.002, 0.010), "not shown to pay."),
        ((0.008, 0.002, 0.014), "pays at this budget, and from 5 [3, 8] trials on."),
        ((-0.008, -0.014, -0.002), "costs more than it buys."),
    ],
)
def test_the_sentence_claims_what_the_interval_shows(priced, buys, verdict):
    assert sentence(with_figures(priced, price=(2.9, 1.8, 3.6), buys=buys)) == (
        "On this workload, giving each layer its own keep_prob (shared -> per_layer: 2 more hyperparameters) needs "
        "2.9x [1.8, 3.6] the trials for the same test loss (that of 4 trials of shared) and buys "
        f"{difference_text(Estimate(*buys))} at 16 trials: {verdict}"
    )


def test_what_one_comparison_shows_is_not_shown_among_seven(priced):
    edge = replace(
        with_figures(priced, price=(2.9, 1.8, 3.6), buys=(0.008, 0.002, 0.014), p_value=0.02, adjusted_p=0.14),
        comparisons=7,
    )
    assert edge.verdict is Verdict.NOT_SHOWN
    assert sentence(edge).endswith(": not shown to pay (p = 0.02, but 0.14 among 7 comparisons).")


def test_a_price_that_may_be_one_is_not_told_as_more_or_fewer(priced):
    told = sentence(with_figures(priced, price=(1.02, 0.61, 1.7), buys=(0.004, -0.002, 0.010)))
    assert "needs 1.0x [0.61, 1.7] the trials, not shown to be more or fewer, for the same test loss" in told


def test_what_pays_at_once_pays_from_the_first_trial_on(priced):
    at_once = BreakEven(0.0, (), False, 16)
    edge = with_figures(priced, price=(0.5, 0.3, 0.7), buys=(0.008, 0.002, 0.014), break_even=at_once)
    assert sentence(edge).endswith(": pays at this budget, and from the first trial on.")


def test_a_smoke_sized_run_claims_nothing(priced):
    small = replace(with_figures(priced, price=(1.0, 0.8, 1.6), buys=(0.08, 0.02, 0.14)), replicates=(0, 1, 2, 3, 4))
    assert sentence(small).endswith(": too few replicates for any claim (R = 5).")
    assert "not shown to be" not in sentence(small)


def test_single_traces_are_said_to_be_such(priced):
    traced = replace(with_figures(priced, price=(2.9, 1.8, 3.6), buys=(0.004, -0.002, 0.010)), mode=Mode.PRODUCT)
    assert sentence(traced).startswith("On this workload, in single traces (product mode), giving each layer")


@pytest.mark.parametrize(
    ("price", "verdict"),
    [
        ((1.0, 1.0, 1.0), "as a placebo should."),
        ((2.0, 1.5, 3.0), "a placebo should cost 1x and buy nothing, so something other than the spaces differs"),
    ],
)
def test_a_placebo_is_a_control(priced, price, verdict):
    placebo = replace(with_figures(priced, price=price, buys=(0.0, -0.1, 0.1)), placebo=True)
    assert verdict in sentence(placebo)


@pytest.mark.parametrize(
    ("price", "reach", "cell", "words"),
    [
        ((2.9, 1.8, 4.6), Reach.MEASURED, "2.9 [1.8, > 4.0]", "needs 2.9x [1.8, > 4.0] the trials"),
        ((INF, 2.1, INF), Reach.BEYOND, "> 4.0 [2.1, > 4.0]", "needs more than 4.0x [2.1, > 4.0] the trials"),
        ((0.0, 0.0, 0.8), Reach.BELOW, "< 0.25 [< 0.25, 0.80]", "needs less than 0.25x [< 0.25, 0.80] the trials"),
        ((NAN, 0.0, INF), Reach.NO_TARGET, "not measurable", "has no measurable price against 4 trials of shared"),
    ],
)
def test_a_price_is_read_no_further_than_it_was_measured(priced, price, reach, cell, words):
    edge = with_figures(priced, price=price, buys=(0, -1, 1), reach=reach)
    assert price_text(edge.headline) == cell
    assert words in sentence(edge)


def test_a_cost_is_read_as_far_as_trials_were_measured(priced):
    """A trial of the larger space costs twice as much, so the limit of 4 is one of 8."""
    twice = CostPrice(1.0, 2.0, 2.0, Estimate(INF, 4.2, INF), None)
    beyond = replace(priced.headline, reach=Reach.BEYOND, costs={"device_s": twice})
    assert cost_text(beyond, "device_s") == "> 8.0 [4.2, > 8.0]"
    assert cost_text(beyond, "joules") == "not measured"
    assert cost_text(replace(beyond, reach=Reach.NO_TARGET), "device_s") == "not measurable"


def test_where_too_many_trials_failed_the_sentence_says_so(priced):
    edge = with_figures(priced, price=(NAN, 0, INF), buys=(NAN, -INF, INF), reach=Reach.NO_TARGET, p_value=NAN)
    assert sentence(replace(edge, extra=1)) == (
        "On this workload, giving each layer its own keep_prob (shared -> per_layer: 1 more hyperparameter) has no "
        "measurable price against 4 trials of shared (too many trials failed) and what it buys at 16 trials is not "
        "measurable: too many trials failed."
    )


@pytest.mark.parametrize(
    ("p_value", "text"),
    [(NAN, "-"), (0.0, "< 0.001"), (0.0124, "0.012"), (0.05, "0.05"), (0.347, "0.35"), (1.0, "1.00")],
)
def test_p_values_have_two_digits(p_value, text):
    assert p_text(p_value) == text


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        ((0.00412, -0.0021, 0.0103), "+0.0041 [-0.0021, +0.0103]"),
        ((12.34, 2.3, 22.4), "+12 [+2, +22]"),
        ((0.0, 0.0, 0.0), "+0.000 [+0.000, +0.000]"),
        ((0.0312, -INF, INF), "+0.031 [no interval]"),
        ((NAN, -INF, INF), "not measurable"),
    ],
)
def test_differences_have_the_digits_of_their_interval(difference, text):
    assert difference_text(Estimate(*difference)) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.0764, "0.076"), (0.998, "1.00"), (1.0, "1.0"), (9.96, "10.0"), (12.4, "12"), (340.2, "340")]
)
def test_ratios_have_two_significant_digits(ratio, text):
    assert ratio_text(ratio) == text


def test_figures_and_sentence_come_from_the_same_trials(priced):
    numbers = re.findall(r"[-+]?\d+\.\d+", sentence(priced))
    assert numbers == ["1.0", "1.0", "1.0", "+0.000", "+0.000", "+0.000"]
