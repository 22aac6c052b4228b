"""A small convolutional backbone for 8x8 digits, pretrained here without a single label, for digits_head.yaml.

    python studies/backbone.py        # writes studies/digits_backbone.safetensors in a few seconds

It learns as SimCLR does (Chen et al. 2020): two distorted views of one digit shall lie closer to each other than to the
views of all other digits of the batch. It sees the pixels of all rows and the class of none, so that the head's
validation and test rows stay what they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = Path(__file__).with_name("digits_backbone.safetensors")
SIDE, DARKEST = 8, 16.0


class Scaled(nn.Module):
    """Rows of 64 pixels from 0 to 16 as images from 0 to 1."""

    def forward(self, rows: Tensor) -> Tensor:
        """`B x 64` to `B x 1 x 8 x 8`."""
        return (rows / DARKEST).view(-1, 1, SIDE, SIDE)


def digits_features(inputs: int, channels: int = 16) -> nn.Module:
    """Rows of 64 pixels to feature maps, `4 channels x 4 x 4`.

    Args:
        inputs: numbers per row; 64.
        channels: of the first convolution; each further one has twice as many.
    """
    if inputs != SIDE * SIDE:
        raise ValueError(f"a digit has {SIDE * SIDE} pixels, but rows have {inputs} numbers")
    layers: list[nn.Module] = [Scaled()]
    for wide, narrow in ((1, channels), (channels, 2 * channels), (2 * channels, 4 * channels)):
        layers += [nn.Conv2d(wide, narrow, 3, padding=1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()]
    return nn.Sequential(*layers[:7], nn.MaxPool2d(2), *layers[7:])


def distorted(rows: Tensor) -> Tensor:
    """A random view of each row: turned, stretched, slanted, shifted and noisy."""
    count = len(rows)
    angle, size, slant = ((torch.rand(count) - 0.5) * span for span in (0.7, 0.4, 0.4))
    cos, sin = angle.cos() * (1 + size), angle.sin()
    across = torch.stack([cos, slant - sin, (torch.rand(count) - 0.5) / 2], 1)
    down = torch.stack([sin, cos, (torch.rand(count) - 0.5) / 2], 1)
    grid = functional.affine_grid(torch.stack([across, down], 1), (count, 1, SIDE, SIDE), align_corners=False)
    views = functional.grid_sample(rows.view(-1, 1, SIDE, SIDE), grid, align_corners=False)
    return (views + 0.05 * DARKEST * torch.randn_like(views)).flatten(1)


def contrast(one: Tensor, other: Tensor, temperature: float = 0.2) -> Tensor:
    """How hard it is to tell which two of `B x F` and `B x F` are views of the same row."""
    nearness = functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T / temperature
    same = torch.arange(len(one))
    return (functional.cross_entropy(nearness, same) + functional.cross_entropy(nearness.T, same)) / 2


def pretrained(rows: Tensor, epochs: int, channels: int = 16) -> tuple[nn.Module, float]:
    """A backbone trained on rows alone, and its last loss."""
    backbone = digits_features(rows.shape[1], channels)
    pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    projected = nn.Sequential(pooling, nn.Linear(4 * channels, 64), nn.ReLU(), nn.Linear(64, 32))
    optimizer = torch.optim.Adam([*backbone.parameters(), *projected.parameters()], 2e-3)
    loss = torch.zeros(())
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(256):
            loss = contrast(*(projected(backbone(distorted(rows[batch]))) for _ in range(2)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return backbone, float(loss.detach())


def main() -> None:
    """Train the backbone and write its weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = torch.from_numpy(load_digits().data).float()
    backbone, loss = pretrained(rows, given.epochs)
    save_file(backbone.state_dict(), given.out)
    said = f"trained on {len(rows)} digits without their classes, loss {loss:.2f} after {given.epochs} epochs"
    print(f"{given.out}: {said}")  # noqa: T201


if __name__ == "__main__":
    main()
