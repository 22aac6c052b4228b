"""Matrix products that do not depend on how many slots there are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional

from sweeper.engine.products import ONEDNN_ABOVE, linear, onednn_is_exact, steady_products, widened

CPU = torch.device("cpu")
# rows, inputs, outputs: the narrow ones are those for which MKL takes another kernel as slots are added
SHAPES = [
    (1, 1, 1),
    (1, 64, 10),
    (3, 5, 2),
    (7, 5, 3),
    (7, 64, 64),
    (13, 40, 7),
    (32, 2, 1),
    (32, 3, 7),
    (32, 7, 3),
    (32, 64, 64),
    (50, 10, 1),
    (97, 13, 5),
    (100, 17, 33),
    (748, 64, 10),
]
SLOTS = (1, 2, 3, 8, 17)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def operands(shape: tuple[int, int, int], slots: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, inputs, outputs = shape
    generator = torch.Generator().manual_seed(batch + 1000 * inputs + 1_000_000 * outputs)
    sizes = ((slots, batch, inputs), (slots, outputs, inputs), (slots, outputs))
    rows, weight, bias = (torch.randn(*size, generator=generator) for size in sizes)
    return rows, weight, bias


def energy(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return linear(rows, weight, bias).square().sum()


@each_shape
def test_linear_is_torchs_linear_within_float32_rounding(shape: tuple[int, int, int]) -> None:
    rows, weight, bias = (operand[0] for operand in operands(shape, 1))
    exact = functional.linear(rows.double(), weight.double(), bias.double())
    allowed = 4 * float((functional.linear(rows, weight, bias) - exact).abs().max()) + 1e-6
    with steady_products(CPU):
        ours = linear(rows, weight, bias)
    assert ours.shape == exact.shape
    assert float((ours - exact).abs().max()) < allowed
    assert torch.equal(linear(rows, weight, None), linear(rows, weight, torch.zeros_like(bias)))


@each_shape
def test_products_and_gradients_have_the_same_bits_at_any_number_of_slots(shape: tuple[int, int, int]) -> None:
    stacked = operands(shape, max(SLOTS))
    forward, backward = vmap(linear), vmap(grad(energy, argnums=(0, 1, 2)))
    with steady_products(CPU):
        alone = [
            (forward(*own), *backward(*own))
            for own in ([operand[slot : slot + 1] for operand in stacked] for slot in range(max(SLOTS)))
        ]
        for slots in SLOTS:
            some = [operand[:slots] for operand in stacked]
            together = (forward(*some), *backward(*some))
            for slot in range(slots):
                for many, one in zip(together, alone[slot], strict=True):
                    assert torch.equal(many[slot], one[0])


@each_shape
def test_a_widened_product_lies_above_onednns_limit(shape: tuple[int, int, int]) -> None:
    batch, inputs, outputs = shape
    wide_in, wide_out = widened(*shape)
    assert batch * wide_in * wide_out > ONEDNN_ABOVE
    assert wide_in >= inputs
    assert wide_out >= outputs
    if batch * inputs * outputs > ONEDNN_ABOVE:
        assert (wide_in, wide_out) == (inputs, outputs)


def test_precision_is_set_inside_and_given_back() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with steady_products(CPU):
            assert torch.get_float32_matmul_precision() == ("medium" if onednn_is_exact() else "highest")
        assert torch.get_float32_matmul_precision() == "high"
        with steady_products(torch.device("cuda")):
            assert torch.get_float32_matmul_precision() == "highest"
        with pytest.raises(ZeroDivisionError), steady_products(CPU):
            _ = 1 / 0
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_probe_leaves_the_precision_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    onednn_is_exact.cache_clear()
    onednn_is_exact()
    assert torch.get_float32_matmul_precision() == before
