"""fast.ai's head for a pretrained network: what stands on its activations, and alone is trained (R12).

Letters: L linear layers, the extra ones and the one to the outputs. Each is batch normalisation, dropout, linear; ReLU
follows all but the last. The dropouts are not in the module: keep_prob[l] = 1 - ps[l] acts on the input of linear layer
l + 1, which is where fast.ai's dropout stands.

Source: fast.ai 0.7, `ConvnetBuilder` (its log-softmax is part of our loss).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def head(inputs: int, xtra_fc: Sequence[int], outputs: int) -> nn.Sequential:
    """A head `inputs - xtra_fc... - outputs`; its output is raw (logits, or the regression value).

    Args:
        inputs: activations per row.
        xtra_fc: units of each extra linear layer; with none, one linear layer leads to the outputs.
        outputs: C; 1 for binary classification and regression.

    Returns:
        The head with fast.ai's initial weights: He normal, biases 0, drawn from torch's global generator.
    """
    layers: list[nn.Module] = []
    for wide, narrow in pairwise([inputs, *xtra_fc, outputs]):
        layers += [nn.BatchNorm1d(wide), _linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
