"""Noise: one generator per image, so that a batch gives the same pictures as single images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from modules import devices, errors, rng_philox, shared
from torch import Tensor

_nv_generator: Any = None


LARGEST_SEED = 1 << 62
"""PyTorch's end at 63 bits; a batch counts on from the first."""


def checked(seed: Any) -> Any:
    """A job's seed or list of seeds as it is. Raises WrongRequest for one that no generator takes."""
    if any(abs(one) >= LARGEST_SEED for one in (seed if isinstance(seed, list) else [seed])):
        raise errors.WrongRequest("a seed is too large: they end at 2 to the power of 62")
    return seed


def _on_cpu() -> bool:
    return shared.opts.randn_source == "CPU" or devices.device.type == "mps"


def _source_device() -> torch.device:
    return devices.cpu if _on_cpu() else devices.device


def create_generator(seed: int) -> Any:
    if shared.opts.randn_source == "NV":
        return rng_philox.Generator(int(seed))
    return torch.Generator(_source_device()).manual_seed(int(seed))


def manual_seed(seed: int) -> None:
    """Seed the global generator."""
    global _nv_generator
    if shared.opts.randn_source == "NV":
        _nv_generator = rng_philox.Generator(int(seed))
        return
    torch.manual_seed(int(seed))


def randn_without_seed(shape: Sequence[int], generator: Any = None) -> Tensor:
    """Next normal numbers of `generator` (or of the global one), float32 on the host's device."""
    if shared.opts.randn_source == "NV":
        return torch.asarray((generator or _nv_generator).randn(shape), device=devices.device)
    return torch.randn(tuple(shape), device=_source_device(), generator=generator).to(devices.device)


def randn(seed: int, shape: Sequence[int], generator: Any = None) -> Tensor:
    """Seed the global generator, then normal numbers from `generator` (or from the global one)."""
    manual_seed(seed)
    return randn_without_seed(shape, generator)


def randn_local(seed: int, shape: Sequence[int]) -> Tensor:
    """First numbers of a seed without touching the global generator."""
    return randn_without_seed(shape, create_generator(seed))


def randn_like(x: Tensor) -> Tensor:
    """Next numbers of the global generator in the shape of `x`."""
    if shared.opts.randn_source == "NV" or _on_cpu():
        return randn_without_seed(x.shape).to(device=x.device, dtype=x.dtype)
    return torch.randn_like(x)


def slerp(val: float, low: Tensor, high: Tensor) -> Tensor:
    """Spherical interpolation along dimension 1 of (C, h, w); linear where both nearly agree."""
    directions = [x / torch.norm(x, dim=1, keepdim=True) for x in (low, high)]
    cosine = (directions[0] * directions[1]).sum(1)
    if cosine.mean() > 0.9995:
        return low * (1 - val) + high * val
    angle = torch.acos(cosine)
    shares = [(torch.sin(x * angle) / torch.sin(angle)).unsqueeze(1) for x in (1.0 - val, val)]
    return shares[0] * low + shares[1] * high


class ImageRNG:
    """Noise of one batch: `next()` gives (B, C, h, w); the first call mixes in variations and resizing."""

    def __init__(
        self,
        shape: Sequence[int],
        seeds: Sequence[int],
        subseeds: Sequence[int] | None = None,
        subseed_strength: float = 0.0,
        seed_resize_from_h: int = 0,
        seed_resize_from_w: int = 0,
    ) -> None:
        self.shape = tuple(map(int, shape))
        self.seeds, self.subseeds, self.subseed_strength = seeds, subseeds, subseed_strength
        self.seed_resize_from_h, self.seed_resize_from_w = seed_resize_from_h, seed_resize_from_w
        self.is_first = True
        self.generators = [create_generator(seed) for seed in seeds]

    def _noise_shape(self) -> tuple[int, ...]:
        if self.seed_resize_from_h <= 0 or self.seed_resize_from_w <= 0:
            return self.shape
        return (self.shape[0], int(self.seed_resize_from_h) // 8, int(self.seed_resize_from_w) // 8)

    def _first_of(self, index: int, seed: int, generator: Any) -> Tensor:
        small = self._noise_shape()
        variation = None
        if self.subseeds is not None and self.subseed_strength != 0:
            variation = randn(self.subseeds[index] if index < len(self.subseeds) else 0, small)
        noise = randn(seed, small, generator=None if small != self.shape else generator)
        if variation is not None:
            noise = slerp(self.subseed_strength, noise, variation)
        if small != self.shape:
            noise = _paste_centred(randn(seed, self.shape, generator=generator), noise)
        return noise

    def first(self) -> Tensor:
        pairs = zip(self.seeds, self.generators, strict=True)
        noises = [self._first_of(i, seed, generator) for i, (seed, generator) in enumerate(pairs)]
        delta = shared.opts.eta_noise_seed_delta or 0
        if delta:
            self.generators = [create_generator(seed + delta) for seed in self.seeds]
        return torch.stack(noises).to(shared.device)

    def next(self) -> Tensor:
        first, self.is_first = self.is_first, False
        if first:
            return self.first()
        return torch.stack([randn_without_seed(self.shape, x) for x in self.generators]).to(shared.device)


def _paste_centred(x: Tensor, noise: Tensor) -> Tensor:
    """`noise` pasted into the centre of `x` (both (C, h, w)), cut where it is larger. Changes `x`."""
    spans = []
    for size, source in zip(x.shape[1:], noise.shape[1:], strict=True):
        shift = (size - source) // 2
        length = source if shift >= 0 else source + 2 * shift
        spans.append((max(shift, 0), max(-shift, 0), length))
    (ty, sy, h), (tx, sx, w) = spans
    x[:, ty : ty + h, tx : tx + w] = noise[:, sy : sy + h, sx : sx + w]
    return x


for _function in (randn, randn_local, randn_like, randn_without_seed, manual_seed):
    setattr(devices, _function.__name__, _function)
