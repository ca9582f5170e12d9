"""What IP-Adapters make of a picture's embedding: tokens as wide as those of the prompt.

Ye et al., "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models", 2023
(arXiv:2308.06721); layers and names as tencent-ailab/IP-Adapter's `ip_adapter.py`, `ip_adapter_faceid.py` and
`resampler.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import attention
from .operations import Operations

HEAD = 64
"""Channels of each head of a resampler; their number is not in the weights' shapes otherwise."""
FORMER_RATIO = 4
"""How much wider a resampler's feed-forward is inside."""


class LinearTokens(nn.Module):
    """Embedding (n, reads) -> (n, tokens, width)."""

    def __init__(self, reads: int, tokens: int, width: int, ops: Operations) -> None:
        super().__init__()
        self.proj = ops.linear(reads, tokens * width)
        self.norm = ops.layer_norm(width)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.norm(self.proj(embedding).reshape(embedding.shape[0], -1, *self.norm.normalized_shape))


class PatchTokens(nn.Module):
    """Hidden states (n, patches, reads) -> (n, patches, width), each by itself."""

    def __init__(self, reads: int, inner: int, width: int, ops: Operations) -> None:
        super().__init__()
        self.proj = nn.Sequential(ops.linear(reads, inner), nn.GELU(), ops.linear(inner, width), ops.layer_norm(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.proj(hidden)


class FaceTokens(nn.Module):
    """A face's embedding (n, reads) -> (n, tokens, width)."""

    def __init__(self, reads: int, inner: int, tokens: int, width: int, ops: Operations) -> None:
        super().__init__()
        self.proj = nn.Sequential(ops.linear(reads, inner), nn.GELU(), ops.linear(inner, tokens * width))
        self.norm = ops.layer_norm(width)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.norm(self.proj(embedding).reshape(embedding.shape[0], -1, *self.norm.normalized_shape))


class PerceiverAttention(nn.Module):
    """Latents (n, L, C) attend to features (n, M, C) and to themselves."""

    def __init__(self, channels: int, heads: int, ops: Operations) -> None:
        super().__init__()
        inner = heads * HEAD
        self.norm1 = ops.layer_norm(channels)
        self.norm2 = ops.layer_norm(channels)
        self.to_q = ops.linear(channels, inner, bias=False)
        self.to_kv = ops.linear(channels, 2 * inner, bias=False)
        self.to_out = ops.linear(inner, channels, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        latents = self.norm2(latents)
        keys, values = self.to_kv(torch.cat([self.norm1(features), latents], dim=1)).chunk(2, dim=-1)
        attended = attention(*(self._split(part) for part in (self.to_q(latents), keys, values)))
        return self.to_out(attended.transpose(1, 2).flatten(2))

    @staticmethod
    def _split(tokens: Tensor) -> Tensor:
        """(n, L, heads * HEAD) -> (n, heads, L, HEAD), a view."""
        return tokens.reshape(*tokens.shape[:2], -1, HEAD).transpose(1, 2)


def feed_forward(channels: int, ops: Operations) -> nn.Sequential:
    """(n, L, C) -> (n, L, C), normalised first."""
    inner = FORMER_RATIO * channels
    return nn.Sequential(
        ops.layer_norm(channels),
        ops.linear(channels, inner, bias=False),
        nn.GELU(),
        ops.linear(inner, channels, bias=False),
    )


class Resampler(nn.Module):
    """Features (n, M, reads) -> tokens (n, L, width): those that `latents` have picked out of them.

    Without latents of its own (`queries` 0) it is given them.
    """

    def __init__(
        self, reads: int, channels: int, queries: int, depth: int, heads: int, width: int, ops: Operations
    ) -> None:
        super().__init__()
        self.operations = ops
        if queries:
            self.latents = nn.Parameter(torch.zeros(1, queries, channels))
        self.proj_in = ops.linear(reads, channels)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(channels, heads, ops), feed_forward(channels, ops)]) for _ in range(depth)
        )
        self.proj_out = ops.linear(channels, width)
        self.norm_out = ops.layer_norm(width)

    def forward(self, features: Tensor, latents: Tensor | None = None) -> Tensor:
        if latents is None:
            latents = self.operations.parameter(self.latents).expand(features.shape[0], -1, -1)
        features = self.proj_in(features)
        for layer in self.layers:
            attend, feed = layer.children()
            latents = attend(features, latents) + latents
            latents = feed(latents) + latents
        return self.norm_out(self.proj_out(latents))


class FacePlusTokens(FaceTokens):
    """A face's embedding (n, reads) and CLIP's hidden states of it (n, M, clip) -> (n, tokens, width).

    `shortcut`: how much of what the hidden states say is added to what the embedding says (the second version of
    these adapters); None gives it alone (the first). Nothing in the weights tells the versions apart.
    """

    def __init__(
        self, reads: int, inner: int, tokens: int, width: int, clip: int, depth: int, heads: int, ops: Operations
    ) -> None:
        super().__init__(reads, inner, tokens, width, ops)
        self.perceiver_resampler = Resampler(clip, width, 0, depth, heads, width, ops)

    def forward(self, embedding: Tensor, hidden: Tensor | None = None, shortcut: float | None = None) -> Tensor:
        identity = super().forward(embedding)
        if hidden is None:
            raise ValueError("CLIP's hidden states of the face are wanted too")
        seen = self.perceiver_resampler(hidden, identity)
        return seen if shortcut is None else identity + shortcut * seen


def attended_by(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Queries (B, N, C), keys and values (B, T, C), heads side by side -> (B, N, C)."""
    q, k, v = (part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in (queries, keys, values))
    return attention(q, k, v).transpose(1, 2).flatten(2)
