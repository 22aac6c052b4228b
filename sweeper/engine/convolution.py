"""A convolution as one matrix product, so that a slot gets the same bits whatever the number of slots.

Letters: B rows, I input channels, O output channels, H x W (1-d: W) places, P places of the output, T taps of a kernel.
The patches under the kernel become rows of a `B P x T I` matrix, which is multiplied by `T I x O`.

Under vmap PyTorch's own convolution becomes a grouped one, whose kernels oneDNN picks by the number of groups (measured
on 150 shapes: one slot differs from two in 117, two from three in 16, one thread from two in 9). The product never does
(tests/engine/test_layers.py) and costs for it: for two layers (8x8 images, 1-16-16 channels, 3x3, B = 32, forward and
backward, 8 slots) 1.9 ms per slot against 0.57 in eager mode, 0.43 against 0.33 compiled. CUDA was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional

from sweeper.engine.products import linear

# By kind of device. A GPU's bits hold at a fixed number of slots either way; its grouped convolutions are said to be
# slow or uneven (functorch#365, pytorch#70954, #73764), so it has products until somebody measures both there.
AS_PRODUCT = {"cpu": True, "cuda": True}


@dataclass(frozen=True)
class Window:
    """How a kernel moves over its input; sizes by dimension, one or two.

    Attributes:
        stride, dilation: places from one patch to the next, and between taps.
        before, after: places that are padded on either side.
        groups: into how many the channels fall, each with its own kernel.
        mode: "zeros", "reflect", "replicate" or "circular": what is padded with.
    """

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    groups: int
    mode: str


def window_of(layer: nn.Module) -> Window:
    """How a nn.Conv1d or nn.Conv2d moves."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    before, after = _padding(layer)
    return Window(layer.stride, layer.dilation, before, after, layer.groups, layer.padding_mode)


def _padding(layer: nn.Conv1d | nn.Conv2d) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if layer.padding == "valid":
        none = (0,) * len(layer.kernel_size)
        return none, none
    if layer.padding == "same":
        missing = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return tuple(m // 2 for m in missing), tuple(m - m // 2 for m in missing)
    assert not isinstance(layer.padding, str)
    return layer.padding, layer.padding


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """What `nn.Conv1d` and `nn.Conv2d` compute.

    Args:
        x: `B x I x H x W`, 1-d `B x I x W`; or a single row without B.
        weight: `O x I / groups x kernel`.
        bias: `O`, or None.
        window: how the kernel moves.

    Returns:
        `B x O x H' x W'`, 1-d `B x O x W'`, contiguous as PyTorch's own.
    """
    if x.dim() < weight.dim():
        return convolution(x[None], weight, bias, window)[0]
    x = _padded(x, window)
    if not AS_PRODUCT[x.device.type]:
        own = functional.conv1d if weight.dim() == 3 else functional.conv2d
        return own(x, weight, bias, window.stride, 0, window.dilation, window.groups)
    if weight.dim() == 3:  # a picture of height 1
        flat = _product(
            x[:, :, None], weight[:, :, None], bias, (1, *window.stride), (1, *window.dilation), window.groups
        )
        return flat.squeeze(2)
    return _product(x, weight, bias, window.stride, window.dilation, window.groups)


def _padded(x: Tensor, window: Window) -> Tensor:
    if window.mode == "zeros":
        sides = reversed(list(zip(window.before, window.after, strict=True)))
        return functional.pad(x, [size for pair in sides for size in pair])
    # in parts: Inductor (2.13) gets the strides of PyTorch's own backward kernels wrong
    for dim, (before, after) in enumerate(zip(window.before, window.after, strict=True), start=2):
        x = torch.cat([_beside(x, dim, before, window.mode, False), x, _beside(x, dim, after, window.mode, True)], dim)
    return x


def _beside(x: Tensor, dim: int, size: int, mode: str, is_after: bool) -> Tensor:
    """What is padded with on one side."""
    last = x.shape[dim] - 1
    if mode == "circular":
        return x.narrow(dim, 0 if is_after else last + 1 - size, size)
    if mode == "reflect":
        return x.narrow(dim, last - size if is_after else 1, size).flip(dim)
    edge = x.narrow(dim, last if is_after else 0, 1)
    return edge.expand(*(size if each == dim else -1 for each in range(x.dim())))


def _product(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Tensor:
    patches = _patches(x, tuple(weight.shape[2:]), stride, dilation)  # (B, H', W', T, I)
    kernel = weight.permute(0, 2, 3, 1)  # (O, taps down, taps across, I / groups)
    places, outputs = patches.shape[:3], weight.shape[0]
    if groups == 1:
        product = linear(patches.reshape(places.numel(), -1), kernel.reshape(outputs, -1), bias)
    else:
        columns = patches.reshape(places.numel(), patches.shape[3], groups, -1).permute(2, 0, 1, 3).flatten(2)
        by_group = vmap(linear, in_dims=(0, 0, None))(columns, kernel.reshape(groups, outputs // groups, -1), None)
        product = by_group.permute(1, 0, 2).reshape(places.numel(), outputs)
        product = product if bias is None else product + bias
    return product.view(*places, outputs).permute(0, 3, 1, 2).contiguous()


def _patches(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """What each tap of the kernel sees: `B x H' x W' x T x I` of `B x I x H x W`, a place's numbers together."""
    height, width = (
        (size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    )
    x = x.permute(0, 2, 3, 1)
    taps = [
        x[
            :,
            top : top + (height - 1) * stride[0] + 1 : stride[0],
            left : left + (width - 1) * stride[1] + 1 : stride[1],
        ]
        for top in range(0, dilation[0] * kernel[0], dilation[0])
        for left in range(0, dilation[1] * kernel[1], dilation[1])
    ]
    return torch.stack(taps, dim=3)
