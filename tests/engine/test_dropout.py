"""Inverted dropout as the lectures teach it (R1, R2, R14, R16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from engine.workloads import build, fold
from sweeper.engine import Engine
from sweeper.engine.dropout import WHOLE, inverted_dropout, thresholds
from sweeper.engine.layers import DroppedLinear, in_slots
from sweeper.engine.random import slot_keys, uniform24
from sweeper.networks import regularize
from sweeper.records import Fit, Fold, Setting, Task, Training

pytestmark = pytest.mark.usefixtures("one_thread")
Doubles = npt.NDArray[np.float64]

KEEP_PROBS = [0.05, 0.3, 0.5, 0.7, 0.8, 0.95]
each_keep_prob = pytest.mark.parametrize("keep_prob", KEEP_PROBS)
NUMBERS = 1 << 18


def bar(keep_prob: float) -> Tensor:
    return thresholds(torch.tensor(keep_prob, dtype=torch.float64))


def keys(seed: int = 7, layer: int = 0, step: int = 0) -> tuple[Tensor, Tensor]:
    key0, key1 = slot_keys(torch.tensor(seed), torch.tensor(layer), torch.tensor(step))
    return key0, key1


def dropped(rows: Tensor, keep_prob: float, seed: int = 7, layer: int = 0, step: int = 0) -> Tensor:
    return inverted_dropout(rows, *keys(seed, layer, step), bar(keep_prob))


def over_masks(rows: Tensor, keep_prob: float, masks: int) -> Tensor:
    """`masks x ...`: the same rows under the masks of successive steps."""
    key = slot_keys(torch.tensor(7), torch.tensor(0), torch.arange(masks))
    drop = torch.func.vmap(inverted_dropout, in_dims=(None, 0, 0, None))
    result: Tensor = drop(rows, key[:, 0], key[:, 1], bar(keep_prob))
    return result


def lecture(a: Tensor, keep_prob: float, rand: Tensor) -> Tensor:
    """The lecture's three lines."""
    d = rand < keep_prob
    a = a * d
    return a / keep_prob


@each_keep_prob
def test_it_is_the_lectures_three_lines(keep_prob: float) -> None:
    a = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    element = torch.arange(a.numel(), dtype=torch.int32).view(a.shape)
    rand = uniform24(*keys(), element).double() / WHOLE
    assert torch.allclose(dropped(a, keep_prob).double(), lecture(a.double(), keep_prob, rand), rtol=1e-5, atol=0)


@each_keep_prob
def test_the_kept_fraction_is_keep_prob(keep_prob: float) -> None:
    kept = (dropped(torch.ones(NUMBERS), keep_prob) != 0).double().mean()
    assert float(kept) == pytest.approx(keep_prob, abs=4 * (keep_prob * (1 - keep_prob) / NUMBERS) ** 0.5)


@each_keep_prob
def test_the_mean_is_kept_and_the_variance_is_what_it_must_be(keep_prob: float) -> None:
    a = dropped(torch.ones(NUMBERS), keep_prob).double()
    variance = (1 - keep_prob) / keep_prob
    fourth = (1 - keep_prob) + keep_prob * (1 / keep_prob - 1) ** 4  # E (a - 1)^4
    assert float(a.mean()) == pytest.approx(1, abs=4 * (variance / NUMBERS) ** 0.5)
    allowed = 4 * (max(0.0, fourth - variance**2) / NUMBERS) ** 0.5 + 1e-6
    assert float((a - 1).square().mean()) == pytest.approx(variance, abs=allowed)


@each_keep_prob
def test_torch_drops_what_we_do_not_keep(keep_prob: float) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = nn.Dropout(p=1 - keep_prob)(torch.ones(NUMBERS)).double()
    ours = dropped(torch.ones(NUMBERS), keep_prob).double()
    variance = (1 - keep_prob) / keep_prob
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=4 * (2 * variance / NUMBERS) ** 0.5)
    assert float(ours.var()) == pytest.approx(float(theirs.var()), rel=0.05)
    assert float(ours.max()) == pytest.approx(float(theirs.max()), rel=1e-5)


@each_keep_prob
def test_a_real_layers_mean_output_is_that_of_evaluation(keep_prob: float) -> None:
    generator = torch.Generator().manual_seed(1)
    rows, weight = torch.randn(8, 20, generator=generator), torch.randn(5, 20, generator=generator)
    masks = 4096
    outputs = (over_masks(rows, keep_prob, masks) @ weight.T).double()
    error = outputs.std(0) / masks**0.5
    z = (outputs.mean(0) - (rows @ weight.T).double()) / error
    assert float(z.abs().max()) < 4
    assert float(z.square().mean().sqrt()) == pytest.approx(1, abs=0.5)  # not so small that nothing was dropped


@each_keep_prob
def test_a_linear_models_expected_loss_gains_the_ridge_term(keep_prob: float) -> None:
    generator = torch.Generator().manual_seed(2)
    x, y, w = (torch.randn(*shape, generator=generator) for shape in ((200, 5), (200,), (5,)))
    masks = 4096
    losses = (over_masks(x, keep_prob, masks) @ w - y).double().square().sum(1)
    ridge = (1 - keep_prob) / keep_prob * (w.double() ** 2 * x.double().square().sum(0)).sum()
    exact = (x @ w - y).double().square().sum() + ridge
    assert float(losses.mean()) == pytest.approx(float(exact), abs=4 * float(losses.std()) / masks**0.5)


def test_the_scale_is_that_of_the_rounded_chance() -> None:
    odd = 1e-7  # 1.68 of 2^24: kept with a chance of 2 / 2^24, so scaled by 2^23
    assert int(bar(odd)) == 2
    assert int(bar(1e-12)) == 1  # never 0, which would scale by infinity
    assert float(inverted_dropout(torch.ones(1), torch.tensor(0), torch.tensor(0), bar(1.0))) == 1.0
    whole = dropped(torch.ones(NUMBERS), 1 / 3)
    assert float(whole.max()) == pytest.approx(WHOLE / round(WHOLE / 3), rel=1e-7)


@pytest.mark.parametrize("step", range(5))
def test_keep_prob_1_is_the_plain_network_bit_for_bit(step: int) -> None:
    rows = torch.randn(100, 40, generator=torch.Generator().manual_seed(3))
    assert torch.equal(dropped(rows, 1.0, step=step), rows)


def test_evaluation_is_the_plain_network_bit_for_bit() -> None:
    plain = regularize(build(20, (30, 30), 4)(), torch.zeros(2, 20), in_slots()).module
    rows = torch.randn(100, 20, generator=torch.Generator().manual_seed(4))
    whole = plain.train()(rows)
    for place, module in enumerate(module for module in plain if isinstance(module, DroppedLinear)):
        module.key0, module.key1 = keys(layer=place)
        module.threshold = bar(0.5)
    assert torch.equal(plain.eval()(rows), whole)
    assert not torch.equal(plain.train()(rows), whole)


def test_evaluation_agrees_with_torchs_own_layers() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(20, (30, 30), 4)()
    rows = torch.randn(100, 20, generator=torch.Generator().manual_seed(5))
    theirs = network(rows)
    ours = regularize(network, rows, in_slots()).module.eval()(rows)
    assert torch.allclose(ours, theirs, atol=1e-6)


OTHERS = {"step": {"step": 1}, "fit": {"seed": 8}, "layer": {"layer": 1}}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_another_step_fit_or_layer_has_another_mask(other: dict[str, int]) -> None:
    ones = torch.ones(NUMBERS)
    one, two = dropped(ones, 0.5) != 0, dropped(ones, 0.5, **other) != 0
    agree = float((one == two).double().mean())  # independent masks agree half of the time
    assert agree == pytest.approx(0.5, abs=4 * (0.25 / NUMBERS) ** 0.5)


def test_each_example_has_another_mask_and_the_same_draw_comes_back() -> None:
    ones = torch.ones(64, 100)
    kept = dropped(ones, 0.5)
    assert len({tuple(row) for row in kept.tolist()}) == 64
    assert torch.equal(kept, dropped(ones, 0.5))


def test_what_is_kept_at_a_low_keep_prob_is_kept_at_a_higher_one() -> None:
    low, high = dropped(torch.ones(NUMBERS), 0.3) != 0, dropped(torch.ones(NUMBERS), 0.7) != 0
    assert bool((high | ~low).all())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")], ids=["nan", "infinity"])
def test_what_is_dropped_stays_dropped_whatever_it_was(poison: float) -> None:
    kept = dropped(torch.ones(1000), 0.5) != 0
    poisoned = dropped(torch.full((1000,), poison), 0.5)
    assert torch.equal(poisoned[~kept], torch.zeros(int((~kept).sum())))
    assert not bool(poisoned[kept].isfinite().any())


# A linear model with dropout on its inputs is ridge regression. With standardised inputs every ||X_j||^2 is m, so that
# keep_prob k amounts to Ng's lambda = m (1 - k) / k (R8). Both are run through the engine.
RIDGE_KEEPS = (1.0, 0.9, 0.8, 0.5, 0.3)
SEEDS = 40


def standardised_fold() -> Fold:
    one = fold(Task.REGRESSION, 5, (200, 10, 10), classes=1)
    x, y = one.x_train.astype(np.float64), one.y_train - one.y_train.mean()
    return replace(one, x_train=((x - x.mean(0)) / x.std(0)).astype(np.float32), y_train=y)


def ridge(one: Fold, keep_prob: float) -> Doubles:
    """The minimiser of the expected loss, in closed form."""
    x, y = one.x_train.astype(np.float64), one.y_train.astype(np.float64)
    gram = x.T @ x
    return np.asarray(np.linalg.solve(gram + (1 - keep_prob) / keep_prob * np.diag(np.diag(gram)), x.T @ y))


def descended(one: Fold, settings: Sequence[Setting]) -> Doubles:
    """`settings x 5`: weights of full-batch gradient descent, averaged over its second half and over seeds."""
    training = Training(epochs=10_000, batch_size=200, optimizer="sgd", learning_rate=0.1)
    fits = [
        Fit(f"{number} {seed}", setting, seed, 0) for number, setting in enumerate(settings) for seed in range(SEEDS)
    ]
    engine = Engine(build(5, (), 1), [one], training, Task.REGRESSION, slots=len(fits))
    engine.admit(fits)
    steps, total = 400, np.zeros((len(fits), 5))
    for step in range(steps):
        engine.train()
        if step >= steps // 2:
            total += engine.arena.weights[engine.network.weight_names[0]][:, 0].numpy()
    return (total / (steps - steps // 2)).reshape(len(settings), SEEDS, 5).mean(1)


def test_dropout_on_the_inputs_of_a_linear_model_is_ridge_regression() -> None:
    one = standardised_fold()
    exact = np.stack([ridge(one, keep_prob) for keep_prob in RIDGE_KEEPS])
    ours = descended(one, [Setting((keep_prob,), (0.0,)) for keep_prob in RIDGE_KEEPS])
    errors = np.linalg.norm(ours - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert errors.max() < 0.01
    norms = np.linalg.norm(ours, axis=1)
    assert (np.diff(norms) < 0).all()  # the less is kept, the smaller the weights


def test_lambda_does_the_same_where_it_equals_m_times_the_odds_of_dropping() -> None:
    one = standardised_fold()
    lambdas = [200 * (1 - keep_prob) / keep_prob for keep_prob in RIDGE_KEEPS]
    ours = descended(one, [Setting((1.0,), (lambda_,)) for lambda_ in lambdas])
    exact = np.stack([ridge(one, keep_prob) for keep_prob in RIDGE_KEEPS])
    np.testing.assert_allclose(ours, exact, atol=1e-5)
