"""UniFormer's backbone for dense prediction, with the names of its published weights.

Written anew after "UniFormer: Unifying Convolution and Self-attention for Visual Recognition" (Li et al., 2022,
arXiv:2201.09450); the original is https://github.com/Sense-X/UniFormer, Apache-2.0. No library that we could use has
it. The head is transformers' UPerNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64
PATCHES = (4, 2, 2, 2)


class _Patches(nn.Module):
    """Each square of `patch` pixels as one vector, normed."""

    def __init__(self, inside: int, outside: int, patch: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(outside)
        self.proj = nn.Conv2d(inside, outside, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Mlp(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.fc1 = first
        self.fc2 = second

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Local(nn.Module):
    """A block of the first two stages: neighbours are mixed by a depthwise convolution of 5x5."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 1)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.attn = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm2 = nn.BatchNorm2d(width)
        self.mlp = _Mlp(nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed(x)
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        return x + self.mlp(self.norm2(x))


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, width * 3)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same: all positions see one another."""
        batch, count, width = x.shape
        heads = self.qkv(x).view(batch, count, 3, width // HEAD_WIDTH, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _Global(nn.Module):
    """A block of the last two stages: self-attention over the whole picture."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _Mlp(nn.Linear(width, inner), nn.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attn(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).view_as(x)


class UniFormer(nn.Module):
    """widths, inner: channels of the four stages and inside their MLPs; depths: blocks in each."""

    def __init__(self, widths: Sequence[int], inner: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        before = 3
        for stage, (width, hidden, depth) in enumerate(zip(widths, inner, depths, strict=True), start=1):
            block = _Local if stage <= 2 else _Global
            self.add_module(f"patch_embed{stage}", _Patches(before, width, PATCHES[stage - 1]))
            self.add_module(f"blocks{stage}", nn.ModuleList([block(width, hidden) for _ in range(depth)]))
            self.add_module(f"norm{stage}", nn.LayerNorm(width, eps=1e-6))
            before = width

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to four maps (B, width, h, w) at 1/4, 1/8, 1/16 and 1/32."""
        maps: list[Tensor] = []
        for stage in range(1, len(PATCHES) + 1):
            x = self.get_submodule(f"patch_embed{stage}")(x)
            for block in self.get_submodule(f"blocks{stage}").children():
                x = block(x)
            normed = self.get_submodule(f"norm{stage}")(x.permute(0, 2, 3, 1))
            maps.append(normed.permute(0, 3, 1, 2).contiguous())
        return maps


class Segmentor(nn.Module):
    """Backbone and head; the logits come at a quarter of the picture's size."""

    def __init__(self, backbone: UniFormer, head: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = head

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) normalised to (B, classes, H / 4, W / 4)."""
        return self.decode_head(self.backbone(x))
