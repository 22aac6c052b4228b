"""Every draw is a pure function of (seed, stream, step, element), and looks like chance."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import plain
from sweeper.engine.random import ORDER_STREAM, hashed, philox4x32, row_order, slot_keys, uniform24

pytestmark = pytest.mark.usefixtures("one_thread")

# kat_vectors of Random123 (Salmon et al. 2011), "philox4x32 10": counter, key, answer
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
SEEDS = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62 + 12345, 2**63 - 1]

FITS, ELEMENTS = 512, 8192


def words(text: str) -> list[Tensor]:
    return [torch.tensor([int(word, 16)]) for word in text.split()]


def keys_of(seed: Tensor, stream: int | Tensor = 0, step: int | Tensor = 0) -> Tensor:
    return slot_keys(seed, torch.as_tensor(stream), torch.as_tensor(step))


def draws(keys: Tensor, element: Tensor) -> Tensor:
    """`FITS x ELEMENTS` numbers of mean 0 and variance 1."""
    bits = uniform24(keys[:, :1], keys[:, 1:], element.to(torch.int32)[None])
    return ((bits + 0.5) / 2**24 - 0.5) * 12**0.5


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_known_answers(counter: str, key: str, answer: str) -> None:
    c0, c1, c2, c3 = words(counter)
    k0, k1 = words(key)
    assert list(philox4x32((c0, c1, c2, c3), (k0, k1))) == words(answer)


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_and_hashes_are_those_of_the_definition(seed: int) -> None:
    for stream, step in [(0, 0), (3, 1), (ORDER_STREAM, 2**32 + 7)]:
        key0, key1 = slot_keys(torch.tensor(seed), torch.tensor(stream), torch.tensor(step))
        assert [int(key0) & plain.WORD, int(key1) & plain.WORD] == list(plain.keys(seed, stream, step))
        ours = hashed(key0, key1, torch.arange(1000, dtype=torch.int32))
        definition = plain.hashed(plain.keys(seed, stream, step), 1000)
        np.testing.assert_array_equal(ours.numpy().view(np.uint32), definition)


@pytest.mark.parametrize("shift", [0, 7, 14], ids=["low bits", "middle bits", "high bits"])
def test_hashed_bits_are_uniform(shift: int) -> None:
    keys = keys_of(torch.arange(16))
    bits = uniform24(keys[:, :1], keys[:, 1:], torch.arange(2**16, dtype=torch.int32)[None])
    counts = ((bits >> shift) & 1023).flatten().bincount(minlength=1024).double()
    expected = bits.numel() / 1024
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi2 - 1023) < 4 * (2 * 1023) ** 0.5


ELEMENT = torch.arange(ELEMENTS)
FIT = torch.arange(FITS)  # neighbouring seeds are the hardest: they differ in the lowest bits alone


def shifted(lag: int) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (draws(keys_of(FIT), ELEMENT), draws(keys_of(FIT), ELEMENT + lag))


def flipped(lag: int) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (draws(keys_of(FIT), ELEMENT), draws(keys_of(FIT), ELEMENT ^ lag))


def against(**other: int) -> Callable[[], tuple[Tensor, Tensor]]:
    seed = FIT + other.pop("seed", 0)
    return lambda: (draws(keys_of(FIT), ELEMENT), draws(keys_of(seed, **other), ELEMENT))


PAIRS = {
    "next seed": against(seed=1),
    "seed of another high word": against(seed=2**32),
    "next layer": against(stream=1),
    "order of rows": against(stream=ORDER_STREAM),
    "next step": against(step=1),
    "step of another high word": against(step=2**32),
    "lag 1": shifted(1),
    "lag 10": shifted(10),
    "lag 64": shifted(64),
    "lag 4096": shifted(4096),
}
# a pair (i, i ^ lag) is met twice, so half of the products tell something
FLIPS = {"flip 1": flipped(1), "flip 64": flipped(64), "flip 4096": flipped(4096)}


@pytest.mark.parametrize("name", [*PAIRS, *FLIPS])
def test_masks_are_uncorrelated(name: str) -> None:
    left, right = (PAIRS | FLIPS)[name]()
    independent = ELEMENTS // 2 if name in FLIPS else ELEMENTS
    z = (left * right).mean(1).double() * independent**0.5  # per fit, standard normal if there is no correlation
    assert float(z.abs().max()) < 5
    assert float(z.square().mean().sqrt()) == pytest.approx(1, abs=4 / (2 * FITS) ** 0.5)


def test_a_mask_does_not_depend_on_the_number_of_slots() -> None:
    seeds = torch.tensor(SEEDS)
    together = draws(keys_of(seeds, stream=2, step=5), ELEMENT)
    for slot, seed in enumerate(seeds):
        assert torch.equal(together[slot], draws(keys_of(seed[None], stream=2, step=5), ELEMENT)[0])


def test_the_order_of_rows_is_a_permutation_of_the_folds_own_rows() -> None:
    rows = torch.tensor([1, 7, 97, 100])
    orders = row_order(torch.tensor(SEEDS[:4]), torch.tensor([0, 1, 2, 3]), rows, longest=100)
    for row, count in zip(orders, rows, strict=True):
        assert sorted(row[:count].tolist()) == list(range(count))
        assert sorted(row[count:].tolist()) == list(range(count, 100))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_rows_is_that_of_the_definition(seed: int) -> None:
    ours = row_order(torch.tensor([seed]), torch.tensor([3]), torch.tensor([97]), longest=97)
    assert ours[0].tolist() == plain.order(seed, 3, 97).tolist()


def test_the_order_of_rows_is_the_fits_own() -> None:
    seeds, epochs = torch.tensor(SEEDS), torch.arange(len(SEEDS))
    rows = torch.full_like(seeds, 97)
    together = row_order(seeds, epochs, rows, longest=128)  # in company, beside a longer fold
    for slot in range(len(SEEDS)):
        own = slice(slot, slot + 1)
        alone = row_order(seeds[own], epochs[own], rows[own], longest=97)
        assert torch.equal(together[slot, :97], alone[0])


def test_the_order_of_rows_differs_per_seed_and_per_epoch() -> None:
    seeds, epochs = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    orders = row_order(seeds.flatten(), epochs.flatten(), torch.full((400,), 50), longest=50)
    assert len({tuple(order) for order in orders.tolist()}) == 400


def test_every_order_of_rows_is_equally_likely() -> None:
    seeds = torch.arange(24_000)
    orders = row_order(seeds, torch.zeros_like(seeds), torch.full_like(seeds, 4), longest=4).tolist()
    counts = dict.fromkeys(permutations(range(4)), 0)
    for order in orders:
        counts[tuple(order)] += 1
    chi2 = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert abs(chi2 - 23) < 4 * (2 * 23) ** 0.5
