"""Inverted dropout (R1) whose mask is a function of the fit's seed, the layer, the step and the element.

In training a -> a * 1[u < keep] / keep; in evaluation, and at keep_prob = 1, a stays as it is, bit for bit.
keep_prob is a tensor, so a new setting in a slot recompiles nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sweeper.engine.random import HASH_BITS, uniform24

WHOLE = 1 << HASH_BITS
GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: its multiples lie as far apart as can be


def inverted_dropout(
    rows: Tensor, key0: Tensor, key1: Tensor, threshold: Tensor, *, use: int = 0, per_channel: bool = False
) -> Tensor:
    """Keep each number where its hash stays below the threshold, and scale what is kept by 2^24 / threshold.

    Args:
        rows: any shape.
        key0: int32, one value.
        key1: int32, one value.
        threshold: int32, one value; see `thresholds`.
        use: which of a layer's runs within one step; each has a mask of its own.
        per_channel: whether the first two dimensions have one draw for all that lies behind them.

    Returns:
        The shape of `rows`; its mean over masks is `rows`, exactly.
    """
    drawn = rows.shape[:2] + (1,) * (rows.dim() - 2) if per_channel else rows.shape
    kept = masks(key0, key1 + _as_int32(use * GOLDEN) if use else key1, threshold, drawn.numel()).view(drawn) != 0
    # where(), not a product with the mask: a NaN that is dropped must not come back as 0 * NaN
    return torch.where(kept, rows * (float(WHOLE) / threshold), 0.0)


def kept_elements(key0: Tensor, key1: Tensor, threshold: Tensor, numbers: int) -> Tensor:
    """1 for the elements that are kept and 0 else: int32 `... x numbers`, of int32 keys and thresholds `...`."""
    element = torch.arange(numbers, dtype=torch.int32, device=key0.device)
    return (uniform24(key0[..., None], key1[..., None], element) < threshold[..., None]).to(torch.int32)


# One operation under a name of its own, so that a compiler can put other code in its place (see `compiler`).
@torch.library.custom_op("sweeper::masks", mutates_args=())
def masks(key0: Tensor, key1: Tensor, threshold: Tensor, numbers: int) -> Tensor:
    """`kept_elements`, as an operation of PyTorch's."""
    return kept_elements(key0, key1, threshold, numbers)


@masks.register_fake
def _(key0: Tensor, key1: Tensor, threshold: Tensor, numbers: int) -> Tensor:
    return key0.new_empty((*key0.shape, numbers))


@masks.register_vmap
def _(
    info: Any, in_dims: tuple[int | None, ...], key0: Tensor, key1: Tensor, threshold: Tensor, numbers: int
) -> tuple[Tensor, int]:
    slots = [
        value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
        for value, dim in zip((key0, key1, threshold), in_dims, strict=False)
    ]
    return masks(*slots, numbers), 0


def _as_int32(number: int) -> int:
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def thresholds(keep_prob: Tensor) -> Tensor:
    """What `uniform24` must stay below to be kept: int32 round(keep_prob * 2^24), of float64 `keep_prob`.

    The scale uses the same rounded chance, so that the mean is kept exactly; 1.0 keeps every value.
    """
    return torch.round(keep_prob * float(WHOLE)).clamp(min=1).to(torch.int32)
