"""Philox 4x32-10 and Box-Muller: the numbers of `torch.randn(device="cuda")`, computed on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
SCALE = np.float32(2.3283064e-10)
SCALE_2PI = np.float32(2.3283064e-10 * 6.2831855)


def philox(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Ten rounds over a counter (4, N) with a key (2, N), all uint32 (Salmon et al., 2011)."""
    c = counter.astype(np.uint64)
    k = key.astype(np.uint64)
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a = c[0] * np.uint64(MULTIPLIERS[0])
        b = c[2] * np.uint64(MULTIPLIERS[1])
        shift = np.uint64(32)
        c = np.stack([(b >> shift) ^ c[1] ^ k[0], b & low, (a >> shift) ^ c[3] ^ k[1], a & low])
        k = np.stack([(k[0] + np.uint64(WEYL[0])) & low, (k[1] + np.uint64(WEYL[1])) & low])
    return c.astype(np.uint32)


class Generator:
    """One stream of normal numbers."""

    def __init__(self, seed: int, offset: int = 0) -> None:
        self.seed, self.offset = seed, offset

    def randn(self, shape: Sequence[int]) -> np.ndarray:
        """Normal numbers, float32, of this shape; the next call gives others."""
        n = int(np.prod(shape))
        call, self.offset = self.offset, self.offset + 1
        nothing = np.zeros(n, dtype=np.uint32)
        counter = np.stack([nothing + np.uint32(call), nothing, np.arange(n, dtype=np.uint32), nothing])
        low, high = self.seed & 0xFFFFFFFF, (self.seed >> 32) & 0xFFFFFFFF
        g = philox(counter, np.stack([np.full(n, half, dtype=np.uint32) for half in (low, high)]))
        u = g[0] * SCALE + SCALE / 2
        v = g[1] * SCALE_2PI + SCALE_2PI / 2
        return (np.sqrt(-2.0 * np.log(u)) * np.sin(v)).astype(np.float32).reshape(shape)
