"""Depth Anything: DINOv2's vision transformer under DPT's decoder, with the names of its published weights.

Written anew after "Depth Anything" (Yang et al., 2024, arXiv:2401.10891), "DINOv2" (Oquab et al., 2023,
arXiv:2304.07193) and "Vision Transformers for Dense Prediction" (Ranftl et al., 2021, arXiv:2103.13413). transformers
has the network since 4.38, and AUTOMATIC1111 stays at 4.30.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...dpt import Fusion, larger
from ...renaming import Weights, count

PATCH = 14
_HEAD_WIDTH = 64
_LAYERS = {12: (3, 6, 9, 12), 24: (5, 12, 18, 24), 40: (10, 20, 30, 40)}
"""By the number of layers, after which of them the second version reads; the first reads the last four."""
_NORM_EPSILON = 1e-6
_FINEST = 4
"""The finest of the four maps has this many points along a patch."""


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a file tell.

    side: patches along the side of the picture that the positions were learned at. inner: width inside the MLPs. gated:
    these are SwiGLU's. neck: channels of the four maps. fused, head: channels while they are fused and after.
    """

    width: int
    layers: int
    side: int
    inner: int
    gated: bool
    neck: tuple[int, ...]
    fused: int
    head: tuple[int, int]


def sizes_of(weights: Weights) -> Sizes:
    """Raises KeyError with the name of a tensor that is not there."""
    first = "pretrained.blocks.0.mlp"
    gated = f"{first}.w12.weight" in weights
    scratch = "depth_head.scratch"
    return Sizes(
        width=weights["pretrained.cls_token"].shape[-1],
        layers=count(weights, r"^pretrained\.blocks\.(\d+)\."),
        side=math.isqrt(weights["pretrained.pos_embed"].shape[1] - 1),
        inner=weights[f"{first}.w3.weight"].shape[1] if gated else weights[f"{first}.fc1.weight"].shape[0],
        gated=gated,
        neck=tuple(weights[f"depth_head.projects.{number}.weight"].shape[0] for number in range(4)),
        fused=weights[f"{scratch}.layer1_rn.weight"].shape[0],
        head=(
            weights[f"{scratch}.output_conv1.weight"].shape[0],
            weights[f"{scratch}.output_conv2.0.weight"].shape[0],
        ),
    )


def network_of(weights: Weights, *, version: int, metric: bool) -> tuple[nn.Module, Weights]:
    """The network of the sizes of `weights`, and these."""
    sizes = sizes_of(weights)
    last = tuple(range(sizes.layers - 3, sizes.layers + 1))
    return DepthAnything(sizes, _LAYERS.get(sizes.layers, last) if version == 2 else last, metric=metric), weights


class _Scale(nn.Module):
    """DINOv2's LayerScale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(width // _HEAD_WIDTH, 1)
        self.qkv = nn.Linear(width, width * 3)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _GatedMlp(nn.Module):
    """SwiGLU (Shazeer, 2020, arXiv:2002.05202), which the giant network has."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, inner * 2)
        self.w3 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class _Block(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.width, eps=_NORM_EPSILON)
        self.attn = _Attention(sizes.width)
        self.ls1 = _Scale(sizes.width)
        self.norm2 = nn.LayerNorm(sizes.width, eps=_NORM_EPSILON)
        self.mlp = (_GatedMlp if sizes.gated else _Mlp)(sizes.width, sizes.inner)
        self.ls2 = _Scale(sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, N, C), row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)


class _Dino(nn.Module):
    """DINOv2 without registers. `read`: after which layers it is read, from 1."""

    def __init__(self, sizes: Sizes, read: tuple[int, ...]) -> None:
        super().__init__()
        self.side = sizes.side
        self.read = read
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.mask_token = nn.Parameter(torch.zeros(1, sizes.width))  # of its training: in the file, not in the picture
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + sizes.side**2, sizes.width))
        self.patch_embed = _Patches(sizes.width)
        self.blocks = nn.ModuleList([_Block(sizes) for _ in range(sizes.layers)])
        self.norm = nn.LayerNorm(sizes.width, eps=_NORM_EPSILON)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to the four maps (B, C, H / 14, W / 14)."""
        rows, columns = (side // PATCH for side in x.shape[-2:])
        tokens = self.patch_embed(x)
        tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        tokens = tokens + self._positions(rows, columns)
        found: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if number in self.read:
                found.append(self.norm(tokens)[:, 1:].transpose(1, 2).unflatten(2, (rows, columns)))
        return found

    def _positions(self, rows: int, columns: int) -> Tensor:
        """(1, 1 + rows x columns, C): the learned positions at this size.

        As DINOv2 has it, by a factor that is a tenth of a patch too great: transformers gives the size instead, whose
        samples lie elsewhere, and the depth of an oblong picture would differ by several steps.
        """
        learned = self.pos_embed
        if (rows, columns) == (self.side, self.side):
            return learned
        grid = learned[:, 1:].float().reshape(1, self.side, self.side, -1).permute(0, 3, 1, 2)
        factors = ((rows + 0.1) / self.side, (columns + 0.1) / self.side)
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        return torch.cat((learned[:, :1], grid.flatten(2).transpose(1, 2).to(learned.dtype)), dim=1)


class _Scratch(nn.Module):
    """What DPT calls what is trained from scratch. metric: the last function is a sigmoid instead of a ReLU."""

    def __init__(self, sizes: Sizes, *, metric: bool) -> None:
        super().__init__()
        for number, channels in enumerate(sizes.neck, start=1):
            self.add_module(f"layer{number}_rn", nn.Conv2d(channels, sizes.fused, 3, padding=1, bias=False))
            self.add_module(f"refinenet{number}", Fusion(sizes.fused))
        before, after = sizes.head
        self.output_conv1 = nn.Conv2d(sizes.fused, before, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(after, 1, 1),
            nn.Sigmoid() if metric else nn.ReLU(),
        )

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Four maps, the finest first, to (B, 1, *size)."""
        own = [self.get_submodule(f"layer{number}_rn")(x) for number, x in enumerate(maps, start=1)]
        fused: Tensor | None = None
        for place in (3, 2, 1, 0):
            # each reaches the size of the next finer map; the last one doubles
            height, width = own[place - 1].shape[-2:] if place else (2 * side for side in own[0].shape[-2:])
            fused = self.get_submodule(f"refinenet{place + 1}")(own[place], fused, (height, width))
        return self.output_conv2(larger(self.output_conv1(fused), size))


class _Head(nn.Module):
    """DPT's decoder: tokens as maps of 4, 2, 1 and 1/2 points a patch, fused from the coarsest on."""

    def __init__(self, sizes: Sizes, *, metric: bool) -> None:
        super().__init__()
        first, second, _, fourth = sizes.neck
        self.projects = nn.ModuleList([nn.Conv2d(sizes.width, channels, 1) for channels in sizes.neck])
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, _FINEST, _FINEST),
                nn.ConvTranspose2d(second, second, _FINEST // 2, _FINEST // 2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, 2, padding=1),
            ]
        )
        self.scratch = _Scratch(sizes, metric=metric)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        steps = zip(self.projects, self.resize_layers, maps, strict=True)
        return self.scratch([resize(project(x)) for project, resize, x in steps], size)


class DepthAnything(nn.Module):
    """read: after which layers DINOv2 is read, from 1. metric: greater is farther, as a part of the greatest depth."""

    def __init__(self, sizes: Sizes, read: tuple[int, ...], *, metric: bool = False) -> None:
        super().__init__()
        self.pretrained = _Dino(sizes, read)
        self.depth_head = _Head(sizes, metric=metric)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), multiples of the patch, normalised as ImageNet, to (B, H, W) disparity, or metric depth."""
        return self.depth_head(self.pretrained(x), (x.shape[-2], x.shape[-1]))[:, 0]
