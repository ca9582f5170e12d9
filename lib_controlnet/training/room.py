"""How much of a device's memory there is for what happens between the steps, and what fits into it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.func import functional_call

from ..engine.device_memory import free_bytes, give_back, is_out_of_memory
from ..nets.unet import UNetModel
from .base import Autoencoder, Base
from .counting import PeakCounter
from .kinds import Control

MOST_AT_ONCE = 8
PAUSE = 2.0
"""Seconds."""
SHARE = 0.6
"""Of what is free: allocators round up, kernels take room of their own, and other programs grow."""
Item = TypeVar("Item")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def in_portions(
    items: Sequence[Item], most: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Sequence[Item]]:
    """`items`, up to `most` at once, and no more than are done within `PAUSE` as the last ones went: between portions
    one can be asked to stop."""
    count, start = 1, 0
    while start < len(items):
        began = clock()
        yield items[start : start + count]
        start, each = start + count, (clock() - began) / count
        count = max(1, min(most, int(PAUSE / max(each, 1e-6))))


class Room:
    """Memory of `device` for encoding and decoding. `precision`: the training's. `deep`: this base's auto-encoder
    overflows in fp16 (SDXL's)."""

    def __init__(self, device: torch.device, precision: str = "no", deep: bool = False) -> None:
        self.device = device
        self._dtype = None if precision == "fp16" and deep else _DTYPES.get(precision)
        self._tiled = False
        self._counts: dict[tuple[str, tuple[int, int]], int] = {}

    def free(self) -> int:
        """Bytes that may be used now."""
        found = free_bytes(self.device)
        return int((psutil.virtual_memory().available if found is None else found) * SHARE)

    def give_back(self) -> None:
        """What PyTorch keeps for later goes back to the device."""
        give_back(self.device)

    def encoding(self, size: tuple[int, int]) -> str:
        """How pictures of `size` are encoded, as far as it shows in the numbers."""
        return f"{self._dtype}"

    def pictures_at_once(self, autoencoder: Autoencoder, size: tuple[int, int], wanted: int) -> int:
        """How many pictures of `size` (width, height) can be encoded or decoded together: at least one."""
        if size not in {known for _, known in self._counts}:
            for way in ("encode", "decode"):
                self._counts[way, size] = count_vae(autoencoder, way, size, self._dtype)
        each = max(self._counts[way, size] for way in ("encode", "decode"))
        return max(1, min(wanted, MOST_AT_ONCE, self.free() // each))

    def samples_at_once(self, base: Base, control: Control, size: tuple[int, int], wanted: int) -> int:
        """How many pictures of `size` (width, height) can be drawn together: at least one."""
        each = count_sampling(base.unet, control, size, self._dtype)
        return max(1, min(wanted, MOST_AT_ONCE, self.free() // each))

    def encode(self, autoencoder: Autoencoder, pictures: Tensor) -> Tensor:
        """(n, 4, h, w) on the processor of pictures (n, 3, 8h, 8w) in -1..1."""
        return self._run(autoencoder, autoencoder.encode, pictures)

    def decode(self, autoencoder: Autoencoder, latents: Tensor) -> Tensor:
        """Pictures (n, 3, 8h, 8w) in -1..1 on the processor."""
        return self._run(autoencoder, autoencoder.decode, latents)

    def _run(self, autoencoder: Autoencoder, work: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """One by one, and at last in tiles, where memory is short in spite of all counting."""
        autoencoder.to(self.device)
        try:
            return self._at_once(work, inputs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.give_back()
        if len(inputs) > 1:
            return torch.cat([self._run(autoencoder, work, one) for one in inputs.split(1)])
        autoencoder.model.enable_tiling()
        try:
            return self._at_once(work, inputs)
        finally:
            autoencoder.model.disable_tiling()

    def _at_once(self, work: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            return work(inputs.to(self.device)).float().cpu()


class _Way(torch.nn.Module):
    """One direction of an auto-encoder as a module's forward."""

    def __init__(self, model: Any, way: str) -> None:
        super().__init__()
        self.model, self._way = model, way

    def forward(self, x: Tensor) -> Tensor:
        if self._way == "encode":
            return self.model.encode(x).latent_dist.mean
        return self.model.decode(x).sample


@torch.no_grad()
def count_vae(autoencoder: Autoencoder, way: str, size: tuple[int, int], dtype: torch.dtype | None) -> int:
    """Bytes that encoding or decoding one picture of `size` (width, height) takes besides the weights, counted without
    computing."""
    width, height = size
    shape = (1, 3, height, width) if way == "encode" else (1, autoencoder.channels, height // 8, width // 8)
    return _count(_Way(autoencoder.model, way), dtype, lambda: (torch.empty(shape),))


class _Prediction(torch.nn.Module):
    """One call of the U-Net under control as a module's forward."""

    def __init__(self, unet: UNetModel, control: Control) -> None:
        super().__init__()
        self.unet, self.control = unet, control

    def forward(self, x: Tensor, hints: Tensor, times: Tensor, context: Tensor, y: Tensor | None) -> Tensor:
        return self.control.predict(self.unet, x, times, context, self.control.encode(hints), y)


@torch.no_grad()
def count_sampling(unet: UNetModel, control: Control, size: tuple[int, int], dtype: torch.dtype | None) -> int:
    """The same for drawing one picture under control with guidance, which are two rows."""
    width, height = size
    config = unet.config

    def inputs() -> tuple[Any, ...]:
        y = None if config.adm_channels is None else torch.empty(2, config.adm_channels)
        return (
            torch.empty(2, 4, height // 8, width // 8), torch.empty(2, *hint_shape(control, size)),
            torch.zeros(2, dtype=torch.long), torch.empty(2, 77, config.context_dim), y,
        )  # fmt: skip

    return _count(_Prediction(unet, control), dtype, inputs)


def hint_shape(control: Control, size: tuple[int, int]) -> tuple[int, int, int]:
    """Of the map of one picture of `size` (width, height), as `control` takes it."""
    width, height = size
    return (4, height // 8, width // 8) if control.latent_hints else (3, height, width)


def _count(network: torch.nn.Module, dtype: torch.dtype | None, inputs: Callable[[], tuple[Any, ...]]) -> int:
    fake = FakeTensorMode()
    weights = {name: fake.from_tensor(value.detach().to("meta")) for name, value in network.named_parameters()}
    counter = PeakCounter()
    with fake, counter, torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        weights = {name: torch.empty_like(value, device="cpu") for name, value in weights.items()}
        held = counter.now
        functional_call(network, weights, inputs())
    return counter.peak - held
