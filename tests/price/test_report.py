"""What a user reads: never more than the interval says."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sweeper.price import Estimate, Reach, difference_text, price_sweep, price_text, sentence
from sweeper.price.report import ratio_text

from .problems import A_SHAPES, studies

INF, NAN = float("inf"), float("nan")


@pytest.fixture
def priced():
    """An edge whose figures the tests put in."""
    test = np.random.default_rng(1).random((10, 32))
    return price_sweep({"shared": studies(test), "per_layer": studies(test)}, A_SHAPES).prices[0]


def with_figures(priced, *, price, buys, reach=Reach.MEASURED):
    headline = replace(priced.headline, trials=Estimate(*price), reach=reach)
    return replace(priced, prices=(headline,), buys=Estimate(*buys))


@pytest.mark.parametrize(
    ("buys", "verdict"),
    [
        ((0.004, -0.002, 0.010), "not shown to pay."),
        ((0.008, 0.002, 0.014), "pays at this budget."),
        ((-0.008, -0.014, -0.002), "costs more than it buys."),
    ],
)
def test_the_sentence_claims_what_the_interval_shows(priced, buys, verdict):
    assert sentence(with_figures(priced, price=(2.9, 1.8, 3.6), buys=buys)) == (
        "On this workload, a keep_prob per layer (per_layer over shared: 2 more hyperparameters) needs "
        "2.9x [1.8, 3.6] the trials for the test loss of 4 trials of shared, and buys "
        f"{difference_text(Estimate(*buys))} at 16 trials: {verdict}"
    )


def test_a_smoke_sized_run_claims_nothing(priced):
    small = replace(with_figures(priced, price=(2.9, 1.8, 3.6), buys=(0.08, 0.02, 0.14)), replicates=(0, 1, 2, 3, 4))
    assert sentence(small).endswith(": too few replicates for any claim (R = 5).")


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


def test_where_too_many_trials_failed_the_sentence_says_so(priced):
    edge = with_figures(priced, price=(NAN, 0, INF), buys=(NAN, -INF, INF), reach=Reach.NO_TARGET)
    assert sentence(replace(edge, extra=1)) == (
        "On this workload, a keep_prob per layer (per_layer over shared: 1 more hyperparameter) has no measurable "
        "price against 4 trials of shared (too many trials failed), and what it buys at 16 trials is not measurable: "
        "too many trials failed."
    )


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
