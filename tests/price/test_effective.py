"""The effective number of hyperparameters on problem C, where it is known, and against opda's own fit."""

import math

import numpy as np
import pytest
from opda.parametric import NoisyQuadraticDistribution

from sweeper.price import Effective, effective_text, summarise_spaces
from sweeper.price.curves import Block
from sweeper.price.effective import effective_dimensions

from .problems import A_SHAPES, A, losses, problem_a, studies


def blocks_of(drawn):
    return [Block.of(trials) for trials in studies(drawn).values()]


def problem_c(dimensions, rng, replicates=20, noise=0.0, split=0.0):
    drawn = losses((0.5,) * dimensions, (replicates, 128), rng)
    return drawn + noise * rng.standard_normal(drawn.shape) + split * rng.standard_normal((replicates, 1))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_every_dimension_of_problem_c_matters(dimensions, noise):
    """Splits that differ by .05 in difficulty are brought to one level."""
    found = effective_dimensions(blocks_of(problem_c(dimensions, np.random.default_rng(7), noise=noise, split=0.05)))
    assert found.value == dimensions
    assert dimensions in found.plausible


def test_hyperparameters_that_do_nothing_are_not_counted():
    """Five are searched, two matter: random search finds what it would find with these two alone."""
    rng = np.random.default_rng(8)
    theta = rng.random((20, 128, 5))
    drawn = 0.1 + np.abs(theta[..., :2] - 0.5).max(axis=-1) ** 2
    assert effective_dimensions(blocks_of(drawn)).value == 2


def test_the_set_of_plausible_numbers_holds_the_true_one():
    """Nine in ten at least, over 30 searches of ten replicates in three dimensions with noise."""
    rng = np.random.default_rng(9)
    found = [effective_dimensions(blocks_of(problem_c(3, rng, 10, noise=0.01))) for _ in range(30)]
    assert sum(3 in each.plausible for each in found) >= 27


@pytest.mark.slow
def test_opda_s_own_fit_agrees():
    drawn = problem_c(2, np.random.default_rng(10), 10, noise=0.01).ravel()
    ours = effective_dimensions(blocks_of(drawn[None]))
    theirs = NoisyQuadraticDistribution.fit(
        drawn,
        limits=(-np.inf, float(np.quantile(drawn, 0.5))),
        constraints={"convex": True, "c": (1, 3)},
        generator=np.random.default_rng(0),
    )
    assert ours.value == theirs.c
    assert ours.best == pytest.approx(theirs.a, abs=0.01)
    assert ours.noise == pytest.approx(theirs.o, abs=0.01)


def test_the_summary_of_a_space_has_it_beside_the_nominal_number():
    """Problem A, per_layer: F = (4 (y - .1))^(3/2) in the better half."""
    _, per_layer = summarise_spaces(problem_a(20, 128, np.random.default_rng(11)), A_SHAPES)
    assert (per_layer.dimensions, per_layer.effective.value) == (3, 3)


@pytest.mark.parametrize(
    "drawn",
    [
        np.random.default_rng(1).random((4, 15)),  # too few
        np.full((10, 32), math.inf),
        np.where(np.arange(32) < 20, math.inf, np.random.default_rng(1).random((10, 32))),  # most failed
        np.full((10, 32), 0.5),  # all alike
    ],
)
def test_without_a_tail_there_is_no_number(drawn):
    assert effective_dimensions(blocks_of(drawn)) is None


def test_failed_trials_lie_beyond_the_tail():
    drawn = problem_c(2, np.random.default_rng(12))
    drawn[:, ::8] = math.inf
    assert effective_dimensions(blocks_of(drawn)).value == 2


def test_it_does_not_depend_on_the_loss_s_unit():
    drawn = losses(A, (10, 128), np.random.default_rng(13))
    one, other = (effective_dimensions(blocks_of(scale * drawn)) for scale in (1.0, 1e4))
    assert (one.value, one.plausible) == (other.value, other.plausible)
    assert other.best == pytest.approx(1e4 * one.best, rel=1e-3)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, "-"),
        (Effective(2, (2,), 0.1, 0.01), "2"),
        (Effective(2, (1, 2, 3), 0.1, 0.01), "2 (1 to 3)"),
        (Effective(10, (8, 9, 10), 0.1, 0.01), "10 or more (8 to 10)"),
    ],
)
def test_it_is_told_with_what_is_left_open(found, text):
    assert effective_text(found) == text
