"""The image encoder of EVA02-CLIP, with the names of its published weights.

Written anew after "EVA-02: A Visual Representation for Neon Genesis" (Fang et al., 2023, arXiv:2303.11331) and
"EVA-CLIP" (Sun et al., 2023, arXiv:2303.15389); the original is https://github.com/baaivision/EVA, MIT. timm has the
network too, under other names, and brings torchvision and all its other networks along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...renaming import Weights, count

HEAD_WIDTH = 64
READ = (4, 8, 12, 16, 20)
"""Whose blocks' inputs PuLID reads."""
_LEARNED_SIDE = 16
"""Patches along the side of the pictures of the first training; positions are told in its unit."""
_BASE = 10_000.0
_NORM_EPSILON = 1e-6
_PREFIX = "visual."


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a file tell. patch: pixels along one. side: patches along the picture. inner: in the MLPs."""

    width: int
    layers: int
    patch: int
    side: int
    inner: int
    embedding: int

    @property
    def pixels(self) -> int:
        """Of the picture's side."""
        return self.patch * self.side


def network_of(weights: Weights) -> tuple[Eva, Weights]:
    """The image encoder of the sizes of `weights`, which may hold the text's too, and its own weights among them.

    Raises KeyError with the name of a tensor that is not there.
    """
    if any(name.startswith(_PREFIX) for name in weights):
        weights = {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items() if name.startswith(_PREFIX)}
    # the tables of rotations follow from the sizes; the file has them once, or once a block
    weights = {name: tensor for name, tensor in weights.items() if ".freqs_" not in name}
    sizes = Sizes(
        width=weights["cls_token"].shape[-1],
        layers=count(weights, r"^blocks\.(\d+)\."),
        patch=weights["patch_embed.proj.weight"].shape[-1],
        side=math.isqrt(weights["pos_embed"].shape[1] - 1),
        inner=weights["blocks.0.mlp.w1.weight"].shape[0],
        embedding=weights["head.weight"].shape[0],
    )
    return Eva(sizes), weights


def rotations(side: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (side², 64): half of a head's numbers are turned by the row, half by the column.

    Su et al., 2021 (arXiv:2104.09864), over two axes: 16 speeds each, from 1 down to nearly 1 / 10000.
    """
    half = HEAD_WIDTH // 2
    speeds = _BASE ** -(torch.arange(0, half, 2).float() / half)
    angles = torch.outer(torch.arange(side) / side * _LEARNED_SIDE, speeds).repeat_interleave(2, dim=1)
    rows, columns = angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)
    both = torch.cat((rows, columns), dim=-1).flatten(0, 1)
    return both.cos(), both.sin()


class _Attention(nn.Module):
    """Keys have no bias; queries and keys of patches are turned by where they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.inner_attn_ln = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """(B, 1 + N, C) to the same."""
        q = _turned(self._split(self.q_proj(x) + self.q_bias), cosines, sines)
        k = _turned(self._split(self.k_proj(x)), cosines, sines)
        v = self._split(self.v_proj(x) + self.v_bias)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(self.inner_attn_ln(mixed))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, HEAD_WIDTH)).transpose(1, 2)


def _turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """(B, heads, 1 + N, 64): all but the first token, each pair of neighbouring numbers as a point in a plane."""
    patches = x[:, :, 1:]
    first, second = patches.unflatten(-1, (-1, 2)).unbind(-1)
    across = torch.stack((-second, first), dim=-1).flatten(-2)
    return torch.cat((x[:, :, :1], patches * cosines + across * sines), dim=2)


class _Mlp(nn.Module):
    """SwiGLU (Shazeer, 2020, arXiv:2002.05202) with a norm."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, inner)
        self.w2 = nn.Linear(width, inner)
        self.ffn_ln = nn.LayerNorm(inner, eps=_NORM_EPSILON)
        self.w3 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class _Block(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.width, eps=_NORM_EPSILON)
        self.attn = _Attention(sizes.width)
        self.norm2 = nn.LayerNorm(sizes.width, eps=_NORM_EPSILON)
        self.mlp = _Mlp(sizes.width, sizes.inner)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cosines, sines)
        return x + self.mlp(self.norm2(x))


class _Patches(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, N, C), row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Eva(nn.Module):
    """Of square pictures of `sizes.pixels`."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + sizes.side**2, sizes.width))
        self.patch_embed = _Patches(sizes.width, sizes.patch)
        self.blocks = nn.ModuleList([_Block(sizes) for _ in range(sizes.layers)])
        self.norm = nn.LayerNorm(sizes.width, eps=_NORM_EPSILON)
        self.head = nn.Linear(sizes.width, sizes.embedding)
        cosines, sines = rotations(sizes.side)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, P, P), normalised as CLIP, to its embedding (B, E) and what `READ`'s blocks see, (B, 1 + N, C)."""
        patches = self.patch_embed(x)
        tokens = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), patches), dim=1) + self.pos_embed
        seen: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            if number in READ:
                seen.append(tokens)
            tokens = block(tokens, self.cosines, self.sines)
        return self.head(self.norm(tokens[:, 0])), seen
