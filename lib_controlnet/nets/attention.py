"""Transformers of the LDM U-Net: self-attention, attention to the prompt, gated feed-forward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .operations import Operations

_LARGEST_PART = 6 << 20
LARGEST_SCORES = 256 << 20
"""Bytes, counted in float32, of the scores of every query against every key that may be in memory at once."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries (B, H, N, C), keys and values (B, H, M, C) -> (B, H, N, C): each query's mean of the values.

    One fused kernel where the device has it. Elsewhere the whole N x M matrix would be made (SD 1.x at 1024 pixels
    with guidance: 8 GiB), so the queries come in parts, none of which needs more than `LARGEST_SCORES`.
    """
    queries = q.shape[-2]
    most = max(LARGEST_SCORES // (4 * q.shape[:-2].numel() * k.shape[-2]), 1)
    if queries <= most or _is_fused(q, k, v):
        return F.scaled_dot_product_attention(q, k, v)
    parts = (q[..., start : start + most, :] for start in range(0, queries, most))
    return torch.cat([F.scaled_dot_product_attention(part, k, v) for part in parts], dim=-2)


def _is_fused(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch's attention never holds the whole matrix here."""
    if q.device.type == "cpu":
        return True
    choice = getattr(torch, "_fused_sdp_choice", None)  # what torch itself asks; 0 is plain arithmetic
    return q.device.type == "cuda" and (choice is None or choice(q, k, v) != 0)


class CrossAttention(nn.Module):
    """Tokens (B, N, C) attend to `context` (B, M, D), or to themselves without one."""

    def __init__(self, channels: int, context_dim: int, heads: int, ops: Operations) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = ops.linear(channels, channels, bias=False)
        self.to_k = ops.linear(context_dim, channels, bias=False)
        self.to_v = ops.linear(context_dim, channels, bias=False)
        # Index 1 is LDM's dropout, never active here.
        self.to_out = nn.Sequential(ops.linear(channels, channels), nn.Identity())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        source = x if context is None else context
        q, k, v = self._split(self.to_q(x)), self._split(self.to_k(source)), self._split(self.to_v(source))
        attended = attention(q, k, v)
        return self.to_out(attended.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads), a view."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class GEGLU(nn.Module):
    """(B, N, C) -> (B, N, inner): half of the projection, gated by the GELU of the other half."""

    def __init__(self, channels: int, inner: int, ops: Operations) -> None:
        super().__init__()
        self.proj = ops.linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        opened = F.gelu(gate)
        return opened * value if torch.is_grad_enabled() else opened.mul_(value)


class FeedForward(nn.Module):
    """(B, N, C) -> (B, N, C), four times as wide inside."""

    def __init__(self, channels: int, ops: Operations) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(channels, 4 * channels, ops), nn.Identity(), ops.linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return self.net(x)
        # The inner tensor is eight times as wide as x. In parts that fit a processor's last cache and that the memory
        # allocator keeps for the next part: three quarters of the time for 64x64 latents, the same numbers.
        rows = x.flatten(0, -2)
        parts = -(-8 * rows.numel() // _LARGEST_PART)
        return torch.cat([self.net(part) for part in rows.chunk(max(parts, 1))]).reshape(x.shape)


class BasicTransformerBlock(nn.Module):
    """Tokens (B, N, C), context (k * B, M, D) -> (k * B, N, C): the tokens as often as there are contexts for them."""

    def __init__(self, channels: int, context_dim: int, heads: int, ops: Operations) -> None:
        super().__init__()
        self.attn1 = CrossAttention(channels, channels, heads, ops)
        self.ff = FeedForward(channels, ops)
        self.attn2 = CrossAttention(channels, context_dim, heads, ops)
        self.norm1 = ops.layer_norm(channels)
        self.norm2 = ops.layer_norm(channels)
        self.norm3 = ops.layer_norm(channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = repeated(self.attn1(self.norm1(x)) + x, context)
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


def repeated(rows: Tensor, like: Tensor | None) -> Tensor:
    """`rows` over and over, until they are as many as those of `like`."""
    times = 1 if like is None else like.shape[0] // rows.shape[0]
    return rows if times == 1 else rows.repeat(times, *(1 for _ in rows.shape[1:]))


class SpatialTransformer(nn.Module):
    """Feature map (B, C, h, w), context (B, M, D) -> (B, C, h, w): a residual branch over its pixels as tokens.

    With k * B contexts, the prompts of which B pictures are drawn, k * B maps come out; what precedes the first look
    at a prompt is computed once.
    """

    def __init__(
        self,
        channels: int,
        context_dim: int,
        heads: int,
        depth: int,
        use_linear: bool,
        groups: int,
        ops: Operations,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm = ops.group_norm(groups, channels, eps=eps)
        self.proj_in = ops.projection(channels, channels, use_linear)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(channels, context_dim, heads, ops) for _ in range(depth)
        )
        self.proj_out = ops.zeroed(ops.projection(channels, channels, use_linear))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        tokens = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        tokens = self.proj_out(tokens)
        x = repeated(x, context)
        # x first: the sum takes the memory layout of the first operand.
        return x + tokens.reshape(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)
