"""Inverted dropout (R1) whose mask is a function of the fit's seed, the layer, the step and the element.

In training a -> a * 1[u < keep] / keep; in evaluation, and at keep_prob = 1, a stays as it is, bit for bit.
keep_prob is a tensor, so a new setting in a slot recompiles nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sweeper.engine.products import linear
from sweeper.engine.random import HASH_BITS, uniform24

WHOLE = 1 << HASH_BITS


class DroppedLinear(nn.Module):
    """A linear layer that sees each number of its input with a chance of keep_prob, scaled by 1 / keep_prob.

    The engine hands in the three buffers through `torch.func.functional_call`, one value per slot under vmap:
    `key0`, `key1` (int32) pick the mask; `threshold` (int32) is round(keep_prob * 2^24).
    """

    key0: Tensor
    key1: Tensor
    threshold: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        for name, value in (("key0", 0), ("key1", 0), ("threshold", WHOLE)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.int32), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """`B x I` to `B x O`; drops in training mode only."""
        if self.training:
            rows = inverted_dropout(rows, self.key0, self.key1, self.threshold)
        return linear(rows, self.weight, self.bias)


def inverted_dropout(rows: Tensor, key0: Tensor, key1: Tensor, threshold: Tensor) -> Tensor:
    """Keep each number where its hash stays below the threshold, and scale what is kept by 2^24 / threshold.

    Args:
        rows: any shape.
        key0: int32, one value.
        key1: int32, one value.
        threshold: int32, one value; see `thresholds`.

    Returns:
        The shape of `rows`; its mean over masks is `rows`, exactly.
    """
    element = torch.arange(rows.numel(), dtype=torch.int32, device=rows.device).view(rows.shape)
    kept = uniform24(key0, key1, element) < threshold
    # where(), not a product with the mask: a NaN that is dropped must not come back as 0 * NaN
    return torch.where(kept, rows * (float(WHOLE) / threshold), 0.0)


def thresholds(keep_prob: Tensor) -> Tensor:
    """What `uniform24` must stay below to be kept: int32 round(keep_prob * 2^24), of float64 `keep_prob`.

    The scale uses the same rounded chance, so that the mean is kept exactly; 1.0 keeps every value.
    """
    return torch.round(keep_prob * float(WHOLE)).clamp(min=1).to(torch.int32)
