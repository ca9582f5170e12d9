"""IP-Adapter files of every kind with random weights, in the layouts in which they are met."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.nets.config import UNetConfig

CLIP_H, CLIP_H_HIDDEN, CLIP_G, FACE = 1024, 1280, 1280, 512
HEADS = 2

Table = dict[str, Tensor]


def channels_of(config: UNetConfig) -> list[int]:
    """Of each attention to the prompt in the order of the file: encoder, decoder, middle."""
    level = [mult * config.model_channels for mult in config.channel_mult]
    down = [[level[i]] * d for i, d in enumerate(config.transformer_depth) for _ in range(config.num_res_blocks)]
    up = [
        [level[i]] * config.transformer_depth[i]
        for i in reversed(range(len(level)))
        for _ in range(config.num_res_blocks + 1)
    ]
    middle = [level[-1]] * max(config.middle_depth, 0)
    return [width for block in (*down, *up, middle) for width in block]


class Draw:
    """Random weights, each layer of a size that keeps the spread."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True) -> Table:
        made = {f"{name}.weight": self.of(outputs, inputs) * (1.0 / inputs) ** 0.5}
        return {**made, f"{name}.bias": 0.3 * self.of(outputs)} if bias else made

    def norm(self, name: str, width: int) -> Table:
        return {f"{name}.weight": 0.3 * self.of(width) + 1.0, f"{name}.bias": 0.3 * self.of(width)}

    def of(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)


def _resampler(draw: Draw, reads: int, inner: int, width: int, prefix: str = "", queries: int = 16) -> Table:
    made: Table = {"latents": draw.of(1, queries, inner)} if queries else {}
    made |= draw.linear("proj_in", reads, inner) | draw.linear("proj_out", inner, width) | draw.norm("norm_out", width)
    for layer in range(4):
        attend, feed = f"layers.{layer}.0", f"layers.{layer}.1"
        made |= draw.norm(f"{attend}.norm1", inner) | draw.norm(f"{attend}.norm2", inner)
        made |= draw.linear(f"{attend}.to_q", inner, 64 * HEADS, False)
        made |= draw.linear(f"{attend}.to_kv", inner, 128 * HEADS, False)
        made |= draw.linear(f"{attend}.to_out", 64 * HEADS, inner, False)
        made |= draw.norm(f"{feed}.0", inner) | draw.linear(f"{feed}.1", inner, 4 * inner, False)
        made |= draw.linear(f"{feed}.3", 4 * inner, inner, False)
    return {prefix + key: value for key, value in made.items()}


def _face(draw: Draw, width: int, tokens: int = 4) -> Table:
    return (
        draw.linear("proj.0", FACE, 2 * FACE)
        | draw.linear("proj.2", 2 * FACE, tokens * width)
        | draw.norm("norm", width)
    )


def _linear(reads: int) -> Callable[[Draw, int], Table]:
    return lambda draw, width: draw.linear("proj", reads, 4 * width) | draw.norm("norm", width)


def _full(draw: Draw, width: int) -> Table:
    reads = CLIP_H_HIDDEN
    return draw.linear("proj.0", reads, reads) | draw.linear("proj.2", reads, width) | draw.norm("proj.3", width)


def _face_plus(draw: Draw, width: int) -> Table:
    return _face(draw, width) | _resampler(draw, CLIP_H_HIDDEN, width, width, "perceiver_resampler.", queries=0)


KINDS: Mapping[str, Callable[[Draw, int], Table]] = {
    "base": _linear(CLIP_H),
    "vit-G": _linear(CLIP_G),
    "plus": lambda draw, width: _resampler(draw, CLIP_H_HIDDEN, 96, width),
    "full-face": _full,
    "faceid": _face,
    "portrait": lambda draw, width: _face(draw, width, tokens=16),
    "faceid-plus": _face_plus,
    "unnorm": lambda draw, width: _resampler(draw, FACE, 96, width),
}
"""By name: the projection's weights for tokens of a width."""
WITH_LORA = ("faceid", "faceid-plus")


def weights_of(kind: str, config: UNetConfig, seed: int = 5) -> dict[str, Table]:
    """{"image_proj": ..., "ip_adapter": ...} as tencent's `.bin` files."""
    draw = Draw(seed)
    image = KINDS[kind](draw, config.context_dim)
    layers: Table = {}
    for index, channels in enumerate(channels_of(config)):
        for part in ("to_k_ip", "to_v_ip"):
            layers |= draw.linear(f"{2 * index + 1}.{part}", config.context_dim, channels, False)
        for number in (2 * index, 2 * index + 1) if kind in WITH_LORA else ():
            read = {"to_q": channels, "to_out": channels}
            read |= dict.fromkeys(("to_k", "to_v"), config.context_dim if number % 2 else channels)
            for part, inputs in read.items():
                layers |= draw.linear(f"{number}.{part}_lora.down", inputs, 3, False)
                layers |= draw.linear(f"{number}.{part}_lora.up", 3, channels, False)
    return {"image_proj": image, "ip_adapter": layers}


def _flat(weights: Mapping[str, Table], image: str = "image_proj", layers: str = "ip_adapter") -> Table:
    flat = {f"{image}.{key}": value for key, value in weights["image_proj"].items()}
    return flat | {f"{layers}.{key}": value for key, value in weights["ip_adapter"].items()}


def _half(table: Table) -> Table:
    return {key: value.half() for key, value in table.items()}


def _save_bin(path: Path, content: object) -> Path:
    torch.save(content, path.with_suffix(".bin"))
    return path.with_suffix(".bin")


def _save(path: Path, table: Table) -> Path:
    save_file({key: value.contiguous() for key, value in table.items()}, path)
    return path


LAYOUTS: Mapping[str, Callable[[Path, dict[str, Table]], Path]] = {
    "safetensors": lambda path, weights: _save(path, _flat(weights)),
    "bin": _save_bin,
    "half": lambda path, weights: _save(path, _half(_flat(weights))),
    "wrapped": lambda path, weights: _save_bin(path, {"state_dict": weights}),
    "wrapped as model": lambda path, weights: _save_bin(path, {"model": weights}),
    "prefixed": lambda path, weights: _save(path, {f"state_dict.{k}": v for k, v in _flat(weights).items()}),
    "trained": lambda path, weights: _save(
        path, _flat(weights, "image_proj_model", "adapter_modules") | {"unet.conv_in.weight": torch.zeros(4, 4, 3, 3)}
    ),
    "adapter_modules": lambda path, weights: _save_bin(
        path, {"image_proj": weights["image_proj"], "adapter_modules": weights["ip_adapter"]}
    ),
}
"""By name: writes the weights in that layout; gives the file."""


def write(path: Path, kind: str, config: UNetConfig, layout: str = "safetensors", seed: int = 5) -> Path:
    """A file of a kind for a U-Net."""
    return LAYOUTS[layout](path, weights_of(kind, config, seed))
