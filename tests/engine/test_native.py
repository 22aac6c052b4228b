"""The compiled step's own kernels against the plain formulas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sweeper.engine import can_compile, native
from sweeper.engine.dropout import kept_elements, thresholds
from sweeper.engine.random import slot_keys
from sweeper.errors import EngineError

pytestmark = pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")

# rows, inner, columns: vectors' multiples and their neighbours, single numbers, and the lecture's narrow layers
SHAPES = [(1, 1, 1), (32, 20, 64), (5, 3, 2), (13, 17, 15), (7, 16, 16), (7, 9, 17), (33, 31, 65), (64, 10, 130)]


@pytest.fixture(scope="module", autouse=True)
def kernels() -> None:
    native.load_native()


def products(left: Tensor, right: Tensor) -> Tensor:
    result: Tensor = torch.ops.sweeper_cpu.products(left, right)
    return result


def strided(matrix: Tensor, how: str) -> Tensor:
    """The same numbers with neighbours side by side, one above the other, or with gaps between them."""
    if how == "across":
        return matrix.contiguous()
    if how == "down":
        return matrix.transpose(1, 2).contiguous().transpose(1, 2)
    return torch.stack([matrix, torch.full_like(matrix, torch.nan)], dim=-1)[..., 0]


@pytest.mark.parametrize("right_is", ["across", "down", "gaps"])
@pytest.mark.parametrize("left_is", ["across", "down", "gaps"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_right_whatever_the_strides(shape: tuple[int, int, int], left_is: str, right_is: str) -> None:
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(rows + 100 * columns)
    left = torch.randn(3, rows, inner, generator=generator)
    right = torch.randn(3, inner, columns, generator=generator)
    exact = left.double() @ right.double()
    ours = products(strided(left, left_is), strided(right, right_is))
    bound = inner * 2**-23 * (left.double().abs() @ right.double().abs())  # of any order of float32 sums
    assert ((ours - exact).abs() <= bound).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_slots_product_has_the_same_bits_in_any_company(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    left, right = torch.randn(9, rows, inner), torch.randn(9, inner, columns)
    together = products(left, right)
    for slot in range(9):
        assert torch.equal(products(left[slot : slot + 1], right[slot : slot + 1])[0], together[slot])


def test_a_product_keeps_nan_and_infinity() -> None:
    left, right = torch.zeros(1, 2, 3), torch.zeros(1, 3, 20)
    left[0, 0, 1], right[0, 2, 5] = torch.nan, torch.inf
    assert products(left, right)[0, 0].isnan().all()
    assert products(left, right)[0, 1, 5].isnan()  # 0 * inf


@pytest.mark.parametrize("keep_prob", [1e-7, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("numbers", [1, 15, 4096, 5001])
def test_masks_are_those_of_the_formula_bit_for_bit(keep_prob: float, numbers: int) -> None:
    seeds = torch.tensor([0, 7, 2**62 + 12345, 2**63 - 1])
    keys = slot_keys(seeds, torch.tensor(2), torch.arange(4))
    limit = thresholds(torch.full((4,), keep_prob, dtype=torch.float64))
    ours = torch.ops.sweeper_cpu.masks(keys[:, 0], keys[:, 1], limit, numbers)
    assert torch.equal(ours, kept_elements(keys[:, 0], keys[:, 1], limit, numbers))


def test_a_library_that_cannot_be_built_is_an_error_that_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "SOURCE", tmp_path / "broken.cpp")
    (tmp_path / "broken.cpp").write_text("this is no C++")
    with pytest.raises(EngineError, match="can't be compiled here"):
        native.load_native.__wrapped__()
    assert not list((tmp_path / "sweeper").glob("*.so"))  # no half of a library is left behind


def test_the_library_lies_where_nobody_else_may_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = native._folder()
    assert folder == tmp_path / "sweeper"
    assert folder.stat().st_mode & 0o077 == 0
