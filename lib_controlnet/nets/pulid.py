"""PuLID: tokens of a face's identity, and keys and values of them for each of the U-Net's attentions to the prompt.

Guo et al., "PuLID: Pure and Lightning ID Customization via Contrastive Alignment", 2024 (arXiv:2404.16022); layers as
in the authors' `encoders.py` (v1) and `encoders_transformer.py` (v1.1), names as in files that were made for
IP-Adapter's loaders: the authors' `id_adapter.*` is `image_proj.*` there, `id_adapter_attn_layers.N.id_to_k` is
`ip_adapter.N.to_k_ip`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .image_tokens import HEAD, PerceiverAttention, feed_forward
from .ip_adapter import PROJECTION, AdapterLayer, LayerSizes, layers_of
from .operations import Operations

IDENTITY_TOKENS = 5
"""The first tokens of a face: what the networks that tell faces apart say of it, without what EVA-CLIP sees."""

LEVELS = 5
"""Blocks of EVA-CLIP whose inputs are seen."""
FORMER = PROJECTION + "id_embedding_mapping."
"""What v1.1 has alone."""
_DEPTH = re.compile(re.escape(PROJECTION) + r"layers\.(\d+)\.")


@dataclass(frozen=True)
class MlpSizes:
    """Widths before, between and after the three linear layers of a `mapping`."""

    reads: int
    first: int
    second: int
    gives: int


@dataclass(frozen=True)
class PulidConfig:
    """Sizes of `Pulid`, read from its weights.

    width: of the tokens. identity: of the part that reads the face's embedding. seen: of those that read what five of
    EVA-CLIP's blocks see. patches: the same for all but the first token of each, empty in v1.1. queries, depth, heads:
    of v1.1's resampler, 0 in v1.
    """

    width: int
    identity: MlpSizes
    seen: tuple[MlpSizes, ...]
    patches: tuple[MlpSizes, ...]
    queries: int
    depth: int
    heads: int
    layers: tuple[LayerSizes, ...]

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(tokens' width, channels) for each attention to the prompt, in the file's order."""
        return tuple(layer.pair for layer in self.layers if layer.pair is not None)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> PulidConfig:
        """Raises KeyError or ValueError where the keys do not describe a PuLID."""
        layers = layers_of(weights)

        def shape(key: str) -> tuple[int, ...]:
            return tuple(weights[PROJECTION + key].shape)

        def mlp(name: str) -> MlpSizes:
            (first, reads), (second, _), (gives, _) = (shape(f"{name}.{place}.weight") for place in (0, 3, 6))
            return MlpSizes(reads, first, second, gives)

        def mlps(name: str) -> tuple[MlpSizes, ...]:
            return tuple(mlp(f"{name}_{level}") for level in range(LEVELS))

        width = next(layer.pair[0] for layer in layers if layer.pair is not None)
        if not any(key.startswith(FORMER) for key in weights):
            return cls(width, mlp("body"), mlps("mapping"), mlps("mapping_patch"), 0, 0, 0, layers)
        depth = 1 + max((int(match[1]) for key in weights if (match := _DEPTH.match(key))), default=0)
        heads = shape("layers.0.0.to_q.weight")[0] // HEAD
        queries = shape("latents")[1]
        return cls(width, mlp("id_embedding_mapping"), mlps("mapping"), (), queries, depth, heads, layers)


def mapping(sizes: MlpSizes, ops: Operations) -> nn.Sequential:
    """(..., reads) -> (..., gives)."""
    return nn.Sequential(
        ops.linear(sizes.reads, sizes.first),
        ops.layer_norm(sizes.first),
        nn.LeakyReLU(),
        ops.linear(sizes.first, sizes.second),
        ops.layer_norm(sizes.second),
        nn.LeakyReLU(),
        ops.linear(sizes.second, sizes.gives),
    )


class IdentityEncoder(nn.Module):
    """v1. Embeddings (n, reads) and, of each of EVA-CLIP's five blocks, (n, M, C) -> (1, tokens, width).

    The first picture's tokens are all there, of each further one those of its embedding alone, as the authors mix them.
    """

    def __init__(self, config: PulidConfig, ops: Operations) -> None:
        super().__init__()
        self._width = config.width
        self.body = mapping(config.identity, ops)
        for level, (first, others) in enumerate(zip(config.seen, config.patches, strict=True)):
            self.add_module(f"mapping_{level}", mapping(first, ops))
            self.add_module(f"mapping_patch_{level}", mapping(others, ops))

    def forward(self, identity: Tensor, seen: Sequence[Tensor]) -> Tensor:
        told = self.body(identity).reshape(identity.shape[0], -1, self._width)
        looks = [
            self.get_submodule(f"mapping_{level}")(part[:1, :1])
            + self.get_submodule(f"mapping_patch_{level}")(part[:1, 1:]).mean(dim=1, keepdim=True)
            for level, part in enumerate(seen)
        ]
        return torch.cat([told[:1], *looks, told[1:].reshape(1, -1, self._width)], dim=1)


class IdentityFormer(nn.Module):
    """v1.1. Embeddings (n, reads) and, of each of EVA-CLIP's five blocks, (n, M, C) -> (1, queries, width)."""

    def __init__(self, config: PulidConfig, ops: Operations) -> None:
        super().__init__()
        self.operations = ops
        channels = config.seen[0].gives
        self._channels = channels
        self.latents = nn.Parameter(torch.zeros(1, config.queries, channels))
        self.proj_out = nn.Parameter(torch.zeros(channels, config.width))
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(channels, config.heads, ops), feed_forward(channels, ops)])
            for _ in range(config.depth)
        )
        self.id_embedding_mapping = mapping(config.identity, ops)
        for level, sizes in enumerate(config.seen):
            self.add_module(f"mapping_{level}", mapping(sizes, ops))

    def forward(self, identity: Tensor, seen: Sequence[Tensor]) -> Tensor:
        told = self.id_embedding_mapping(identity).reshape(1, -1, self._channels)
        own = self.operations.parameter(self.latents)
        queries, latents = own.shape[1], torch.cat([own, told], dim=1)
        layers = list(self.layers.children())
        each = len(layers) // len(seen)
        for level, part in enumerate(seen):
            looks = self.get_submodule(f"mapping_{level}")(part).flatten(0, 1)[None]
            context = torch.cat([told, looks], dim=1)
            for layer in layers[level * each : (level + 1) * each]:
                attend, feed = layer.children()
                latents = attend(context, latents) + latents
                latents = feed(latents) + latents
        return latents[:, :queries] @ self.operations.parameter(self.proj_out)


class Pulid(nn.Module):
    """The tokens' part computes in float32, once a pass; the others in the type in which they are stored."""

    image_proj: IdentityEncoder | IdentityFormer

    def __init__(self, config: PulidConfig, operations: Operations, exact: Operations) -> None:
        super().__init__()
        self.config = config
        make: Callable[..., IdentityEncoder | IdentityFormer] = IdentityFormer if config.queries else IdentityEncoder
        self.image_proj = make(config, exact)
        self.ip_adapter = nn.ModuleDict({str(layer.number): AdapterLayer(layer, operations) for layer in config.layers})

    def layer(self, number: int) -> AdapterLayer | None:
        """What belongs to the attention of that number; None where there is nothing."""
        found = dict(self.ip_adapter.items()).get(str(number))
        return found if isinstance(found, AdapterLayer) else None
