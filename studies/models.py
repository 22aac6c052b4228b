"""A network of one's own, in plain PyTorch: all that a sweep file needs is the function's name.

    model: {kind: "python:models:digits_conv", channels: 16}

The function is called with the shape of the problem and the sweep file's further arguments, and returns a module that
turns rows into raw outputs (logits, or the regression value). Its linear layers and convolutions are found by running
it; it needs no dropout and no weight decay of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIDE = 8  # a digit of scikit-learn's is 8 x 8


class DigitsConv(nn.Module):
    """Two convolutions with batch normalisation, the second beside a residual connection, and a linear layer."""

    def __init__(self, outputs: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(2)
        self.block = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.block_norm = nn.BatchNorm2d(channels)
        self.classify = nn.Linear(channels * (SIDE // 2) ** 2, outputs)

    def forward(self, rows: Tensor) -> Tensor:
        """`B x 64` numbers to `B x outputs`."""
        images = rows.view(-1, 1, SIDE, SIDE)
        maps = self.pool(torch.relu(self.stem_norm(self.stem(images))))
        maps = torch.relu(maps + self.block_norm(self.block(maps)))
        return self.classify(maps.flatten(1))


def digits_conv(inputs: int, outputs: int, channels: int = 16) -> nn.Module:
    """A small convolutional network for 8 x 8 images.

    Args:
        inputs: numbers per row; 64.
        outputs: C classes, 1 for binary classification and regression.
        channels: of both convolutions.
    """
    if inputs != SIDE**2:
        raise ValueError(f"digits_conv takes rows of {SIDE**2} numbers ({SIDE} x {SIDE}), but these have {inputs}.")
    return DigitsConv(outputs, channels)
