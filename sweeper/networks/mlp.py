"""The multilayer perceptron of the lectures: linear layers with one activation between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import nn

Network = nn.Module
"""What the engine trains."""

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def mlp(inputs: int, hidden: Sequence[int], outputs: int, activation: str = "relu") -> nn.Sequential:
    """A plain network `inputs - hidden... - outputs`; its output is raw (logits, or the regression value).

    Args:
        inputs: D, numbers per row.
        hidden: units of each hidden layer.
        outputs: C; 1 for binary classification and regression.
        activation: a key of `ACTIVATIONS`.

    Returns:
        The network with PyTorch's own initial weights, drawn from torch's global generator.
    """
    layers: list[nn.Module] = []
    for wide, narrow in pairwise([inputs, *hidden, outputs]):
        layers += [nn.Linear(wide, narrow), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])
