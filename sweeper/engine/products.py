"""Matrix products that give a slot the same bits whatever the number of slots.

On a CPU, PyTorch hands batched products either to MKL, which picks its kernel by the number of slots for narrow
matrices (measured: 77 of 729 small shapes differ), or to oneDNN, which never does (0 of 14,460 shapes, 1 and 2
threads) and is twice as fast on AMD. "medium" precision chooses oneDNN, but only for products of more than 16^3
multiplications, counted over all slots. So: "medium", and narrow layers are widened with zeros until one slot alone
is above that limit. On CPUs with AMX "medium" really computes in bfloat16; that is probed, and MKL is kept there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

ONEDNN_ABOVE = 16**3  # aten/native/mkldnn/Matmul.cpp, mkldnn_gemm_min_size


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`rows @ weight.T + bias`, by a kernel that does not depend on the number of slots.

    Args:
        rows: `B x I`.
        weight: `O x I`.
        bias: `O`, or None.

    Returns:
        `B x O`.
    """
    batch, (outputs, inputs) = rows.shape[0], weight.shape
    wide_in, wide_out = widened(batch, inputs, outputs)
    if (wide_in, wide_out) != (inputs, outputs):
        rows = functional.pad(rows, (0, wide_in - inputs))
        weight = functional.pad(weight, (0, wide_in - inputs, 0, wide_out - outputs))
    product = _multiplied(rows, weight.T)[:, :outputs]
    return product if bias is None else product + bias


def widened(batch: int, inputs: int, outputs: int) -> tuple[int, int]:
    """The inputs and outputs that lift `batch * inputs * outputs` above oneDNN's limit; the smaller one grows first."""
    while batch * inputs * outputs <= ONEDNN_ABOVE:
        if inputs <= outputs:
            inputs *= 2
        else:
            outputs *= 2
    return inputs, outputs


@contextmanager
def steady_products(device: torch.device, precision: str = "float32") -> Iterator[None]:
    """Inside, products have the bits that a fit may rely on.

    float32 products on a CPU go to oneDNN where that is exact; a GPU keeps full float32 (1e-6 a product) unless TF32
    was asked for (3e-4). "bfloat16" rounds both factors and sums in float32 (4e-3): as quick again where the processor
    has such instructions. Weights, moments and losses are float32 always.
    """
    before, narrow = torch.get_float32_matmul_precision(), _narrow.set(precision == "bfloat16")
    torch.set_float32_matmul_precision(_library_precision(device, precision))
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        _narrow.reset(narrow)


# Whether `linear` rounds its factors to bfloat16. A compiled step keeps what it was made under.
_narrow: ContextVar[bool] = ContextVar("narrow", default=False)


def _multiplied(left: Tensor, right: Tensor) -> Tensor:
    if _narrow.get():
        return (left.to(torch.bfloat16) @ right.to(torch.bfloat16)).to(left.dtype)
    return left @ right


def _library_precision(device: torch.device, precision: str) -> str:
    if device.type == "cpu":
        return "medium" if onednn_is_exact() else "highest"
    return "high" if precision == "tf32" else "highest"


@cache
def onednn_is_exact() -> bool:
    """Whether "medium" products on this CPU are as close to float64 as "highest" ones (no bfloat16 behind them)."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(4, 64, 64, generator=generator) for _ in range(2))
    exact = torch.bmm(left.double(), right.double())
    before = torch.get_float32_matmul_precision()
    errors = []
    for name in ("highest", "medium"):
        torch.set_float32_matmul_precision(name)
        errors.append(float((torch.bmm(left, right) - exact).abs().max()))
    torch.set_float32_matmul_precision(before)
    return errors[1] <= 2 * errors[0]
