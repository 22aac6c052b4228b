"""LD bands of a single study: opda's own, exact at all budgets at once, and nowhere where they don't apply."""

import numpy as np
from opda.nonparametric import EmpiricalDistribution
from scipy import interpolate

from sweeper.price import Mode, space_curve
from sweeper.price.bands import MOST_TRIALS, ld_band
from sweeper.price.plots import curve_chart

from .problems import A, hit_chance, losses, problem_a, studies, study

INF = float("inf")
BUDGETS = np.arange(1, 33)


def test_it_is_opda_s_own_band_of_these_losses():
    drawn = np.random.default_rng(4).lognormal(size=64)
    low, itself, high = EmpiricalDistribution.confidence_bands(
        drawn, 0.95, generator=np.random.default_rng(0), method="ld_equal_tailed", n_jobs=1
    )
    found = ld_band(drawn, BUDGETS)
    for part, distribution in ((found.median, itself), (found.lower, high), (found.upper, low)):
        np.testing.assert_array_equal(part, distribution.quantile_tuning_curve(BUDGETS, minimize=True))
    assert found.trials == 64


def test_all_of_it_holds_the_true_median_in_95_percent_at_least():
    """Problem A, 64 trials: P(best of n <= t) = 1 - (1 - P(t))^n is a half at the median.

    The band of the distribution is exact; its medians for n = 1..32 are 32 points of the lower half: .99 measured.
    """
    t = np.linspace(0, 1, 20_001)
    chance, first = np.unique(hit_chance(t, "per_layer"), return_index=True)
    truth = 0.1 + interpolate.interp1d(chance, t[first])(1 - 0.5 ** (1 / BUDGETS)) ** 2
    drawn, held = losses(A, (2000, 64), np.random.default_rng(8)), 0
    for row in drawn:
        band = ld_band(row, BUDGETS)
        held += bool(((band.lower <= truth) & (truth <= band.upper)).all())
    assert 0.98 < held / 2000 < 1


def test_it_has_a_lower_end_only_as_far_as_the_sample_vouches_for():
    found = ld_band(np.arange(1.0, 65.0), BUDGETS)
    bounded = np.isfinite(found.lower)
    assert bounded[:6].all()
    assert not bounded[7:].any()
    assert np.isfinite(found.upper).all()
    assert (found.lower <= found.median).all()
    assert (found.median <= found.upper).all()


def test_failed_trials_are_infinite_losses():
    drawn = np.random.default_rng(4).random(64)
    worst = np.argsort(drawn)[-40:]
    failed = np.where(np.isin(np.arange(64), worst), INF, drawn)
    found, whole = ld_band(failed, BUDGETS), ld_band(drawn, BUDGETS)
    np.testing.assert_array_equal(np.where(whole.upper > np.sort(drawn)[23], INF, whole.upper), found.upper)
    assert found.upper[0] == INF
    assert np.isfinite(found.upper[-1])


def test_of_a_long_study_the_first_trials_are_a_sample_like_any_other():
    drawn = np.random.default_rng(4).random(5000)
    found, first = ld_band(drawn, BUDGETS), ld_band(drawn[:MOST_TRIALS], BUDGETS)
    assert found.trials == MOST_TRIALS == 128
    np.testing.assert_array_equal(found.upper, first.upper)


def test_a_single_study_s_curve_has_one_of_its_validation_loss():
    validation, test = np.random.default_rng(1).random((2, 1, 64))
    curve = space_curve("s", studies(test, validation))
    expected = ld_band(validation[0], curve.budgets)
    np.testing.assert_array_equal(curve.validation_band.upper, expected.upper)
    assert np.isneginf(curve.lower).all()  # of the test loss there is none


def test_there_is_none_where_trials_are_not_alike():
    """Splits differ in difficulty; trials of a sampler that learns depend on each other."""
    drawn = problem_a(2, 16, np.random.default_rng(1))["shared"]
    assert space_curve("s", drawn).validation_band is None
    assert space_curve("s", {0: drawn[0]}, Mode.PRODUCT).validation_band is None
    assert space_curve("s", {0: drawn[0]}).validation_band is not None


def test_the_picture_names_it_and_draws_it_where_it_has_both_ends():
    one = space_curve("s", {0: study(np.random.default_rng(1).random(64))})
    drawn = curve_chart([one], "one").to_dict()
    assert "LD band" in str(drawn["title"]["subtitle"])
    (band,) = [rows["values"] for rows in drawn["datasets"].values()] if "datasets" in drawn else [ld_rows(drawn)]
    assert [row["trials"] for row in band] == [1, 2, 3, 4, 5, 6]
    assert all(row["lower"] <= row["median"] <= row["upper"] for row in band)
    several = curve_chart([space_curve("s", problem_a(10, 16, np.random.default_rng(1))["shared"])], "ten").to_dict()
    assert "LD band" not in str(several)


def ld_rows(node):
    """The rows of the band, wherever in the chart they are."""
    found = []

    def visit(part):
        if isinstance(part, dict):
            rows = part.get("data", {}).get("values", []) if isinstance(part.get("data"), dict) else []
            if rows and "median" in rows[0]:
                found.append(rows)
            for each in part.values():
                visit(each)
        elif isinstance(part, list):
            for each in part:
                visit(each)

    visit(node)
    return found[0]
