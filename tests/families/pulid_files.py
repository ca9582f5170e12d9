"""PuLID files of both versions with random weights, in the layouts in which they are met; and their tokens, written out
from the authors' `encoders.py` and `encoders_transformer.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from lib_controlnet.nets.config import UNetConfig
from tests.families.ip_files import Draw, channels_of

IDENTITY, LOOK, TOKENS = 1280, 48, 17
"""Of the embedding; of what EVA-CLIP's blocks see (the true width is 1024), and how many tokens that has (577)."""
INNER, QUERIES, HEADS = 96, 32, 2

Table = dict[str, Tensor]


def _mapping(draw: Draw, name: str, reads: int, gives: int) -> Table:
    return (
        draw.linear(f"{name}.0", reads, 40)
        | draw.norm(f"{name}.1", 40)
        | draw.linear(f"{name}.3", 40, 44)
        | draw.norm(f"{name}.4", 44)
        | draw.linear(f"{name}.6", 44, gives)
    )


def _first(draw: Draw, width: int) -> Table:
    made = _mapping(draw, "body", IDENTITY, 5 * width)
    for level in range(5):
        made |= _mapping(draw, f"mapping_{level}", LOOK, width) | _mapping(draw, f"mapping_patch_{level}", LOOK, width)
    return made


def _former(draw: Draw, width: int) -> Table:
    made: Table = {"latents": draw.of(1, QUERIES, INNER), "proj_out": draw.of(INNER, width) * INNER**-0.5}
    made |= _mapping(draw, "id_embedding_mapping", IDENTITY, 5 * INNER)
    for level in range(5):
        made |= _mapping(draw, f"mapping_{level}", LOOK, INNER)
    for layer in range(10):
        attend, feed = f"layers.{layer}.0", f"layers.{layer}.1"
        made |= draw.norm(f"{attend}.norm1", INNER) | draw.norm(f"{attend}.norm2", INNER)
        made |= draw.linear(f"{attend}.to_q", INNER, 64 * HEADS, False)
        made |= draw.linear(f"{attend}.to_kv", INNER, 128 * HEADS, False)
        made |= draw.linear(f"{attend}.to_out", 64 * HEADS, INNER, False)
        made |= draw.norm(f"{feed}.0", INNER) | draw.linear(f"{feed}.1", INNER, 4 * INNER, False)
        made |= draw.linear(f"{feed}.3", 4 * INNER, INNER, False)
    return made


KINDS: Mapping[str, Callable[[Draw, int], Table]] = {"v1": _first, "v1.1": _former}


def weights_of(kind: str, config: UNetConfig, seed: int = 5) -> dict[str, Table]:
    """{"id_adapter": ..., "id_adapter_attn_layers": ...} under the authors' names."""
    draw = Draw(seed)
    adapter = KINDS[kind](draw, config.context_dim)
    layers: Table = {}
    for index, channels in enumerate(channels_of(config)):
        for part, strength in (("id_to_k", 1.0), ("id_to_v", 4.0)):
            made = draw.linear(f"{2 * index + 1}.{part}", config.context_dim, channels, False)
            layers |= {name: strength * weight for name, weight in made.items()}
    return {"id_adapter": adapter, "id_adapter_attn_layers": layers}


def _flat(weights: Mapping[str, Table]) -> Table:
    return {f"{part}.{key}": value for part, table in weights.items() for key, value in table.items()}


def _converted(weights: Mapping[str, Table]) -> dict[str, Table]:
    layers = {re.sub(r"id_to_(.)", r"to_\1_ip", key): value for key, value in weights["id_adapter_attn_layers"].items()}
    return {"image_proj": weights["id_adapter"], "ip_adapter": layers}


def _save(path: Path, table: Table) -> Path:
    save_file({key: value.contiguous() for key, value in table.items()}, path)
    return path


def _save_bin(path: Path, content: object) -> Path:
    torch.save(content, path.with_suffix(".bin"))
    return path.with_suffix(".bin")


LAYOUTS: Mapping[str, Callable[[Path, dict[str, Table]], Path]] = {
    "authors": lambda path, weights: _save(path, _flat(weights)),
    "authors' bin": lambda path, weights: _save_bin(path, _flat(weights)),
    "converted": lambda path, weights: _save(path, _flat(_converted(weights))),
    "converted bin": lambda path, weights: _save_bin(path, _converted(weights)),
    "half": lambda path, weights: _save(path, {k: v.half() for k, v in _flat(_converted(weights)).items()}),
    "wrapped": lambda path, weights: _save_bin(path, {"state_dict": _flat(weights)}),
    "prefixed": lambda path, weights: _save(path, {f"model.{key}": value for key, value in _flat(weights).items()}),
}
"""By name: writes the weights in that layout; gives the file."""


def write(path: Path, kind: str, config: UNetConfig, layout: str = "authors", seed: int = 5) -> Path:
    """A file of a version for a U-Net."""
    return LAYOUTS[layout](path, weights_of(kind, config, seed))


def embeddings(pictures: int = 1, seed: int = 3) -> dict[str, Tensor]:
    """What the preprocessor gives of that many pictures, narrower."""
    generator = torch.Generator().manual_seed(seed)
    made = {"id_cond": torch.randn(pictures, IDENTITY, generator=generator)}
    for level in range(5):
        made[f"id_vit_hidden_{level}"] = torch.randn(pictures, TOKENS, LOOK, generator=generator)
    return made


# -- the authors' networks, written out ------------------------------------------------------------------------------


def tokens(weights: Mapping[str, Table], given: Mapping[str, Tensor]) -> Tensor:
    """The tokens (1, T, width) of some pictures: the first one's all, of the others what tells faces apart."""
    table = weights["id_adapter"]
    looks = [given[f"id_vit_hidden_{level}"] for level in range(5)]
    if "latents" in table:
        return _resampled(table, given["id_cond"], looks)
    width = table["mapping_0.6.bias"].shape[0]
    each = [_encoded(table, given["id_cond"][i : i + 1], [look[i : i + 1] for look in looks], width)
            for i in range(len(given["id_cond"]))]  # fmt: skip
    return torch.cat([each[0], *(one[:, :5] for one in each[1:])], dim=1)


def _linear(table: Table, name: str, x: Tensor) -> Tensor:
    return F.linear(x, table[f"{name}.weight"], table.get(f"{name}.bias"))


def _norm(table: Table, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], table[f"{name}.weight"], table[f"{name}.bias"])


def _mapped(table: Table, name: str, x: Tensor) -> Tensor:
    for linear, norm in ((0, 1), (3, 4)):
        x = F.leaky_relu(_norm(table, f"{name}.{norm}", _linear(table, f"{name}.{linear}", x)), 0.01)
    return _linear(table, f"{name}.6", x)


def _encoded(table: Table, identity: Tensor, looks: Sequence[Tensor], width: int) -> Tensor:
    parts = [_mapped(table, "body", identity).reshape(1, 5, width)]
    for level, look in enumerate(looks):
        first = _mapped(table, f"mapping_{level}", look[:, :1])
        parts.append(first + _mapped(table, f"mapping_patch_{level}", look[:, 1:]).mean(dim=1, keepdim=True))
    return torch.cat(parts, dim=1)


def _resampled(table: Table, identity: Tensor, looks: Sequence[Tensor]) -> Tensor:
    told = _mapped(table, "id_embedding_mapping", identity).reshape(1, -1, INNER)
    latents = torch.cat([table["latents"], told], dim=1)
    for level, look in enumerate(looks):
        side_by_side = torch.cat(list(look[:, None]), dim=1)
        context = torch.cat([told, _mapped(table, f"mapping_{level}", side_by_side)], dim=1)
        for layer in (2 * level, 2 * level + 1):
            name = f"layers.{layer}"
            latents = latents + _attended(table, f"{name}.0", context, latents)
            x = _linear(table, f"{name}.1.1", _norm(table, f"{name}.1.0", latents))
            latents = latents + _linear(table, f"{name}.1.3", F.gelu(x))
    return latents[:, :QUERIES] @ table["proj_out"]


def _attended(table: Table, name: str, context: Tensor, latents: Tensor) -> Tensor:
    context, latents = _norm(table, f"{name}.norm1", context), _norm(table, f"{name}.norm2", latents)
    q = _linear(table, f"{name}.to_q", latents)
    k, v = _linear(table, f"{name}.to_kv", torch.cat([context, latents], dim=1)).chunk(2, dim=-1)
    q, k, v = (part.unflatten(-1, (HEADS, 64)).transpose(1, 2) for part in (q, k, v))
    weights = (q @ k.transpose(-2, -1) / 64**0.5).softmax(dim=-1)
    return _linear(table, f"{name}.to_out", (weights @ v).transpose(1, 2).flatten(2))
