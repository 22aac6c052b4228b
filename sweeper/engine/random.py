"""Randomness without state: every draw is a pure function of (fit seed, stream, step, element).

Letters: K slots. Only int32 and int64 add, multiply, xor, and, shift are used (PyTorch lacks several of them for
unsigned types on a CPU); they wrap modulo 2^n, so eager, compiled and CUDA code agree bit for bit.

Sources: Philox4x32-10, Salmon et al. 2011 (known answers in tests/engine/test_random.py); the 32-bit finaliser is
"lowbias32" of Chris Wellons' hash prospector.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
ORDER_STREAM = 0xFFFF  # dropouts use their layer's index, so the order of rows takes the far end
HASH_BITS = 24  # of each element: exactly what float32 can tell apart


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox4x32 on int64 tensors that hold 32-bit words.

    Args:
        counter: four words, any broadcastable shapes.
        key: two words.

    Returns:
        Four words, each in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # the low 64 bits; they wrap, and their bits are right
        c0, c1, c2, c3 = ((p1 >> 32) & WORD) ^ c1 ^ k0, p1 & WORD, ((p0 >> 32) & WORD) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


def slot_keys(seed: Tensor, stream: Tensor, step: Tensor) -> Tensor:
    """Two keys for `hashed`, from a fit's seed, a stream (layer or purpose) and the fit's own step.

    Args:
        seed: int64, any shape.
        stream: int64, broadcastable against `seed`.
        step: int64, broadcastable against both; S is the shape of all three.

    Returns:
        int32 `S x 2`.
    """
    counter = (step & WORD, (step >> 32) & WORD, stream, torch.zeros_like(stream))
    words = philox4x32(counter, (seed & WORD, (seed >> 32) & WORD))[:2]
    return torch.stack([_as_int32(word) for word in words], dim=-1)  # every word mixed all counters: shape S


def _as_int32(word: Tensor) -> Tensor:
    return (word - ((word >> 31) << 32)).to(torch.int32)  # 32-bit word to two's complement, exactly


def _mix(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -0x7B935975  # 0x846CA68B as int32
    return x ^ ((x >> 16) & 0xFFFF)


def hashed(key0: Tensor, key1: Tensor, element: Tensor) -> Tensor:
    """A 32-bit hash of each element's index under two keys.

    Args:
        key0: int32, broadcastable against `element`.
        key1: int32, likewise.
        element: int32 indices.

    Returns:
        int32, every bit pattern equally likely.
    """
    return _mix(_mix(element ^ key0) + key1)


def uniform24(key0: Tensor, key1: Tensor, element: Tensor) -> Tensor:
    """`hashed`, cut to int32 uniform on [0, 2^24)."""
    return (hashed(key0, key1, element) >> (32 - HASH_BITS)) & ((1 << HASH_BITS) - 1)


def row_order(seed: Tensor, epoch: Tensor, rows: Tensor, longest: int) -> Tensor:
    """Each slot's order of training rows in one epoch.

    Sorting unique keys gives the same order from any sorting algorithm, so no device can disagree.

    Args:
        seed: int64 `K`.
        epoch: int64 `K`.
        rows: int64 `K`, training rows of each slot's fold.
        longest: the largest number of training rows of any fold.

    Returns:
        int64 `K x longest`; the first rows[k] entries are a permutation of 0..rows[k]-1, the tail lies beyond.
    """
    keys = slot_keys(seed, torch.full_like(seed, ORDER_STREAM), epoch)
    index = torch.arange(longest, dtype=torch.int32, device=seed.device)[None]
    bits = hashed(keys[:, :1], keys[:, 1:], index).to(torch.int64) & WORD
    key = ((bits >> 2) << 32) | index.to(torch.int64)  # 30 hash bits, then the index: unique
    key = torch.where(index < rows[:, None], key, key | (1 << 62))  # rows that a fold lacks sort last
    return key.sort(dim=1).values & WORD
