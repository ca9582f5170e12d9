"""ZoeDepth: BEiT under DPT's decoder, and bins of depth that move; with the names of its published weights.

Written anew after "ZoeDepth" (Bhat et al., 2023, arXiv:2302.12288), "BEiT" (Bao et al., 2021, arXiv:2106.08254) and
"Vision Transformers for Dense Prediction" (Ranftl et al., 2021, arXiv:2103.13413). transformers has the network since
4.44, and AUTOMATIC1111 stays at 4.30.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...dpt import Fusion, larger
from ...renaming import Weights, count

_PATCH = 16
_HEAD_WIDTH = 64
_NORM_EPSILON = 1e-6
_PARTS = (1, 2, 3, 4)
_STRENGTH = 300.0
"""How strongly a point attracts centres of bins (alpha)."""
_COLDEST, _HOTTEST = 0.0212, 50.0
_LEFT_OUT = (
    "relative_position_index",  # follow from the size
    "log_binomial_transform",
    "pretrained.model.head.",  # of the backbone's classifier
    "pretrained.model.fc_norm.",
    "pretrained.model.norm.",
)


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a file tell.

    table: offsets between patches that the backbone has learned. inner: width inside its MLPs. neck: channels of its
    four maps. fused: while they are fused. relative: of the head for depth without a scale. bottleneck, embedding,
    mixed, bins: of the head for metres. hidden: within the first bins' parts, projectors and attractors.
    """

    width: int
    layers: int
    heads: int
    table: int
    inner: int
    neck: tuple[int, ...]
    fused: int
    relative: tuple[int, int]
    bottleneck: int
    embedding: int
    hidden: tuple[int, int, int, int]
    attractors: tuple[int, ...]
    mixed: int
    bins: int


def sizes_of(weights: Weights) -> Sizes:
    """Raises KeyError with the name of a tensor that is not there."""
    core = "core.core"
    first = f"{core}.pretrained.model.blocks.0"
    table = weights[f"{first}.attn.relative_position_bias_table"]
    return Sizes(
        width=weights[f"{core}.pretrained.model.cls_token"].shape[-1],
        layers=count(weights, r"^core\.core\.pretrained\.model\.blocks\.(\d+)\."),
        heads=table.shape[1],
        table=table.shape[0],
        inner=weights[f"{first}.mlp.fc1.weight"].shape[0],
        neck=tuple(weights[f"{core}.scratch.layer{part}_rn.weight"].shape[1] for part in _PARTS),
        fused=weights[f"{core}.scratch.layer1_rn.weight"].shape[0],
        relative=(
            weights[f"{core}.scratch.output_conv.0.weight"].shape[0],
            weights[f"{core}.scratch.output_conv.2.weight"].shape[0],
        ),
        bottleneck=weights["conv2.weight"].shape[0],
        embedding=weights["seed_projector._net.2.weight"].shape[0],
        hidden=(
            weights["seed_bin_regressor._net.0.weight"].shape[0],
            weights["seed_projector._net.0.weight"].shape[0],
            weights["projectors.0._net.0.weight"].shape[0],
            weights["attractors.0._net.0.weight"].shape[0],
        ),
        attractors=tuple(weights[f"attractors.{number}._net.2.weight"].shape[0] for number in range(4)),
        mixed=weights["conditional_log_binomial.mlp.0.weight"].shape[0],
        bins=weights["seed_bin_regressor._net.2.weight"].shape[0],
    )


def zoe(weights: Weights) -> tuple[nn.Module, Weights]:
    """The network of the sizes of `weights`, and those of them that it reads."""
    kept = {name: tensor for name, tensor in weights.items() if not any(part in name for part in _LEFT_OUT)}
    return ZoeDepth(sizes_of(weights)), kept


class _Attention(nn.Module):
    """Self-attention that knows how far two patches lie apart."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.qkv = nn.Linear(sizes.width, sizes.width * 3, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(sizes.width))
        self.v_bias = nn.Parameter(torch.zeros(sizes.width))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(sizes.table, sizes.heads))
        self.proj = nn.Linear(sizes.width, sizes.width)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 1 + rows x columns, C) to the same."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        q, k, v = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._apart(*grid)[None].to(q.dtype))
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _apart(self, rows: int, columns: int) -> Tensor:
        """(heads, N, N): what is added for each pair of tokens. The table's last three are for the class token."""
        table = self.relative_position_bias_table.float()
        side = math.isqrt(table.shape[0] - 3)
        learned = table[:-3].T.reshape(1, -1, side, side)
        offsets = F.interpolate(learned, (2 * rows - 1, 2 * columns - 1), mode="bilinear", align_corners=False)[0]
        y, x = (torch.arange(length, device=table.device) for length in (rows, columns))
        down = y[:, None, None, None] - y[None, None, :, None] + rows - 1
        right = x[None, :, None, None] - x[None, None, None, :] + columns - 1
        patches = offsets[:, down, right].flatten(3).flatten(1, 2)
        ofself, given, seen = table[-1], table[-3], table[-2]
        first = torch.cat((ofself[:, None], given[:, None].expand(-1, rows * columns)), dim=1)
        rest = torch.cat((seen[:, None, None].expand(-1, rows * columns, 1), patches), dim=2)
        return torch.cat((first[:, None], rest), dim=1)


class _Mlp(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.width, sizes.inner)
        self.fc2 = nn.Linear(sizes.inner, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.width, eps=_NORM_EPSILON)
        self.attn = _Attention(sizes)
        self.gamma_1 = nn.Parameter(torch.ones(sizes.width))
        self.norm2 = nn.LayerNorm(sizes.width, eps=_NORM_EPSILON)
        self.mlp = _Mlp(sizes)
        self.gamma_2 = nn.Parameter(torch.ones(sizes.width))

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = x + self.gamma_1 * self.attn(self.norm1(x), grid)
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class _Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, _PATCH, _PATCH)


class _Beit(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.patch_embed = _Patches(sizes.width)
        self.blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.layers))

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """(B, 3, H, W) to the tokens after each quarter of the layers, and their rows and columns."""
        patches = self.patch_embed.proj(pixels)
        grid = int(patches.shape[2]), int(patches.shape[3])
        x = torch.cat((self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)), dim=1)
        read = {len(self.blocks) * part // len(_PARTS) for part in _PARTS}
        found: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, grid)
            if number in read:
                found.append(x)
        return found, grid


class _Readout(nn.Module):
    """Every patch hears what the class token says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat((x[:, 1:], x[:, :1].expand_as(x[:, 1:])), dim=-1))


class _Pretrained(nn.Module):
    """BEiT, and its tokens as maps of 4, 2, 1 and 1/2 points a patch."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.model = _Beit(sizes)
        for part, channels in zip(_PARTS, sizes.neck, strict=True):
            # places 1 and 2 are the publication's, for layers without weights
            layers = {"0": _Readout(sizes.width), "3": nn.Conv2d(sizes.width, channels, 1)}
            if part in (1, 2):
                layers["4"] = nn.ConvTranspose2d(channels, channels, 8 // 2**part, 8 // 2**part)
            if part == len(_PARTS):
                layers["4"] = nn.Conv2d(channels, channels, 3, 2, padding=1)
            self.add_module(f"act_postprocess{part}", nn.ModuleDict(layers))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to four maps, the finest first."""
        tokens, grid = self.model(pixels)
        maps: list[Tensor] = []
        for part, x in zip(_PARTS, tokens, strict=True):
            for name, layer in self.get_submodule(f"act_postprocess{part}").named_children():
                x = layer(x).transpose(1, 2).unflatten(2, grid) if name == "0" else layer(x)
            maps.append(x)
        return maps


class _Scratch(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        for part, channels in zip(_PARTS, sizes.neck, strict=True):
            self.add_module(f"layer{part}_rn", nn.Conv2d(channels, sizes.fused, 3, padding=1, bias=False))
            self.add_module(f"refinenet{part}", Fusion(sizes.fused))
        before, after = sizes.relative
        self.output_conv = nn.ModuleDict(
            {
                "0": nn.Conv2d(sizes.fused, before, 3, padding=1),
                "2": nn.Conv2d(before, after, 3, padding=1),
                "4": nn.Conv2d(after, 1, 1),
            }
        )

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Four maps, the finest first, to the coarsest one, what each step of the decoder gives, and the last features
        with the relative depth as one more channel.
        """
        own = [self.get_submodule(f"layer{part}_rn")(x) for part, x in zip(_PARTS, maps, strict=True)]
        steps: list[Tensor] = []
        for place in (3, 2, 1, 0):
            height, width = own[place - 1].shape[-2:] if place else (2 * side for side in own[0].shape[-2:])
            coarser = steps[-1] if steps else None
            steps.append(self.get_submodule(f"refinenet{place + 1}")(own[place], coarser, (height, width)))
        x = self.output_conv["0"](steps[-1])
        last = F.relu(self.output_conv["2"](larger(x, (2 * x.shape[-2], 2 * x.shape[-1]))))
        return own[3], steps, torch.cat((last, F.relu(self.output_conv["4"](last))), dim=1)


class _Dpt(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.pretrained = _Pretrained(sizes)
        self.scratch = _Scratch(sizes)


class _Core(nn.Module):
    """MiDaS as ZoeDepth's authors wrap it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.core = _Dpt(sizes)

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        return self.core.scratch(self.core.pretrained(pixels))


class _Two(nn.Module):
    """Two 1x1 convolutions."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self._net = nn.Sequential(nn.Conv2d(inputs, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._net(x)


class _LogBinomial(nn.Module):
    """How likely each bin is, by a binomial distribution whose parameters are seen at each point."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.bins = sizes.bins
        seen = sizes.relative[1] + 1 + sizes.embedding
        self.mlp = nn.Sequential(
            nn.Conv2d(seen, sizes.mixed, 1), nn.GELU(), nn.Conv2d(sizes.mixed, 4, 1), nn.Softplus()
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, h, w) twice to (B, bins, h, w), which sum to 1."""
        yes, no, hot, cold = (self.mlp(torch.cat((x, embedding), dim=1)) + 1e-4).chunk(4, dim=1)
        p = yes / (yes + no)
        temperature = (_HOTTEST - _COLDEST) * hot / (hot + cold) + _COLDEST
        k = torch.arange(self.bins, device=x.device, dtype=x.dtype).view(1, -1, 1, 1)
        scores = _ways(self.bins - 1, k) + k * p.clamp(1e-4, 1.0).log()
        scores = scores + (self.bins - 1 - k) * (1.0 - p).clamp(1e-4, 1.0).log()
        return torch.softmax(scores / temperature, dim=1)


def _ways(n: int, k: Tensor) -> Tensor:
    """The logarithm of n over k, by Stirling's formula as the authors have it."""
    small = 1e-7
    of, n_ = k + small, n + small
    return n_ * math.log(n_) - of * of.log() - (n_ - of) * (n_ - of + small).log()


class ZoeDepth(nn.Module):
    """With one head for metres, as the network for rooms has it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        bins, seed, project, attract = sizes.hidden
        self.core = _Core(sizes)
        self.conv2 = nn.Conv2d(sizes.fused, sizes.bottleneck, 1)
        self.seed_bin_regressor = _Two(sizes.bottleneck, bins, sizes.bins)
        self.seed_projector = _Two(sizes.bottleneck, seed, sizes.embedding)
        self.projectors = nn.ModuleList(_Two(sizes.fused, project, sizes.embedding) for _ in sizes.attractors)
        self.attractors = nn.ModuleList(_Two(sizes.embedding, attract, points) for points in sizes.attractors)
        self.conditional_log_binomial = _LogBinomial(sizes)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1, multiples of 32, to (B, 1, h, w) metres at the size of the head."""
        coarsest, steps, relative = self.core(pixels)
        x = self.conv2(coarsest)
        centres, embedding = F.softplus(self.seed_bin_regressor(x)), self.seed_projector(x)
        for project, attract, step in zip(self.projectors, self.attractors, steps, strict=True):
            size = (step.shape[-2], step.shape[-1])
            before, embedding = larger(embedding, size), project(step)
            points = F.softplus(attract(embedding + before))
            centres = _attracted(larger(centres, size), points)
        size = (relative.shape[-2], relative.shape[-1])
        likely = self.conditional_log_binomial(relative, larger(embedding, size))
        return (likely * larger(centres, size)).sum(dim=1, keepdim=True)


def _attracted(centres: Tensor, points: Tensor) -> Tensor:
    """Each centre (B, bins, h, w) drawn by the mean of the points (B, n, h, w), one after the other."""
    moved = torch.zeros_like(centres)
    for number in range(points.shape[1]):
        apart = points[:, number : number + 1] - centres
        moved += apart / (1.0 + _STRENGTH * apart**2)
    return centres + moved / points.shape[1]
