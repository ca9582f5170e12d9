"""TencentARC's style adapter and CoAdapter fuser, written out with torch's own attention: the independent reference."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 8)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=QuickGELU(), c_proj=nn.Linear(4 * width, width))
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ReferenceStyle(nn.Module):
    def __init__(self, width: int, text: int, tokens: int = 8) -> None:
        super().__init__()
        self.transformer_layes = nn.Sequential(*[Block(width) for _ in range(3)])
        self.style_embedding = nn.Parameter(torch.zeros(1, tokens, width))
        self.ln_post, self.ln_pre = nn.LayerNorm(width), nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, text))

    def forward(self, seen: Tensor) -> Tensor:
        count = self.style_embedding.shape[1]
        x = self.ln_pre(torch.cat([seen, self.style_embedding.repeat(len(seen), 1, 1)], dim=1))
        x = self.transformer_layes(x.permute(1, 0, 2)).permute(1, 0, 2)
        return self.ln_post(x[:, -count:]) @ self.proj


class ReferenceFuser(nn.Module):
    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.task_embedding = nn.Parameter(torch.zeros(16, width))
        self.positional_embedding = nn.Parameter(torch.zeros(len(channels), width))
        self.spatial_feat_mapping = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(c, width)) for c in channels)
        self.transformer_layes = nn.Sequential(*[Block(width) for _ in range(3)])
        self.ln_post, self.ln_pre = nn.LayerNorm(width), nn.LayerNorm(width)
        self.spatial_ch_projs = nn.ModuleList(nn.Linear(width, c) for c in channels)
        self.seq_proj = nn.Parameter(torch.zeros(width, width))

    def forward(self, given: dict[int, list[Tensor] | Tensor]) -> tuple[list[Tensor], Tensor | None]:
        """Task number -> features (a list) or tokens; the summed features and the joined tokens."""
        parts = []
        for task, value in given.items():
            if isinstance(value, Tensor):
                parts.append(value + self.task_embedding[task])
                continue
            means = [mapping(f.mean(dim=(2, 3))) for mapping, f in zip(self.spatial_feat_mapping, value, strict=True)]
            parts.append(torch.stack(means, 1) + self.task_embedding[task] + self.positional_embedding)
        x = self.ln_pre(torch.cat(parts, 1)).permute(1, 0, 2)
        x = self.ln_post(self.transformer_layes(x).permute(1, 0, 2))
        total: list[Tensor] = []
        tokens: list[Tensor] = []
        at = 0
        for value in given.values():
            if isinstance(value, Tensor):
                tokens.append(value * (x[:, at : at + value.shape[1]] @ self.seq_proj + 1))
                at += value.shape[1]
                continue
            scaled = [
                f * (self.spatial_ch_projs[level](x[:, at + level])[:, :, None, None] + 1)
                for level, f in enumerate(value)
            ]
            total = scaled if not total else [a + b for a, b in zip(total, scaled, strict=True)]
            at += len(value)
        return total, torch.cat(tokens, 1) if tokens else None
