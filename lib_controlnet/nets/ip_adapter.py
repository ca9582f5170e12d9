"""IP-Adapter: keys and values of a picture's tokens for each of the U-Net's attentions to the prompt.

Ye et al., 2023 (arXiv:2308.06721). Keys as the files of tencent-ailab/IP-Adapter: `image_proj.*`, and under
`ip_adapter.N` what belongs to the N-th attention, counted through encoder, decoder and then the middle, the
self-attentions (even) among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from torch import Tensor, nn

from .image_tokens import HEAD, FacePlusTokens, FaceTokens, LinearTokens, PatchTokens, Resampler
from .operations import Operations

PROJECTION = "image_proj."
LAYERS = "ip_adapter."
_LAYER = re.compile(r"ip_adapter\.(\d+)\.(to_\w+?)(_ip|_lora\.down|_lora\.up)\.weight")


class Projection(str, Enum):
    """How an embedding becomes tokens."""

    linear = "linear"
    """Base, light and vit-G: CLIP's embedding of the whole picture."""
    patches = "patches"
    """Full-face: CLIP's hidden states, each one a token."""
    resampler = "resampler"
    """Plus, plus-face, composition: CLIP's hidden states; InstantID and FaceID portrait unnorm: a face's embedding."""
    face = "face"
    """FaceID and FaceID portrait."""
    face_plus = "face_plus"
    """FaceID-plus: a face's embedding and CLIP's hidden states of it."""


@dataclass(frozen=True)
class ProjectionSizes:
    """reads: width of the embedding. width: of the tokens. tokens: their number, 0 where it is the embedding's.

    inner: width between. depth, heads: of a resampler. clip: width of the hidden states beside a face's embedding.
    """

    kind: Projection
    reads: int
    width: int
    tokens: int = 0
    inner: int = 0
    depth: int = 0
    heads: int = 0
    clip: int = 0


@dataclass(frozen=True)
class LayerSizes:
    """What belongs to one attention. number: the file's. pair: (tokens' width, channels) of `to_k_ip`, `to_v_ip`.

    added: (name, inputs, rank, outputs) of low-rank changes to the attention's own layers.
    """

    number: int
    pair: tuple[int, int] | None
    added: tuple[tuple[str, int, int, int], ...] = ()


@dataclass(frozen=True)
class IPAdapterConfig:
    """Sizes of `IPAdapter`, read from its weights."""

    projection: ProjectionSizes
    layers: tuple[LayerSizes, ...]

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(tokens' width, channels) for each attention to the prompt, in the file's order."""
        return tuple(layer.pair for layer in self.layers if layer.pair is not None)

    @property
    def has_added(self) -> bool:
        """The file changes the U-Net's own attentions too (FaceID's LoRA)."""
        return any(layer.added for layer in self.layers)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> IPAdapterConfig:
        """Raises KeyError or ValueError where the keys do not describe an IP-Adapter."""
        layers = layers_of(weights)
        width = next(layer.pair[0] for layer in layers if layer.pair is not None)
        return cls(_projection({key: weights[key] for key in weights if key.startswith(PROJECTION)}, width), layers)


def layers_of(weights: Mapping[str, Tensor]) -> tuple[LayerSizes, ...]:
    """What a file has for each attention. Raises ValueError where one is left out."""
    layers = tuple(_layers(weights))
    pairs = [layer.number for layer in layers if layer.pair is not None]
    expected = [2 * index + 1 for index in range(len(pairs))]
    if not pairs or pairs != expected:
        absent = sorted(set(range(1, max(pairs, default=1) + 1, 2)) - set(pairs))
        raise ValueError(f"no ip_adapter.{absent[0] if absent else pairs}.to_k_ip.weight")
    return layers


def _projection(weights: Mapping[str, Tensor], width: int) -> ProjectionSizes:
    def shape(key: str) -> tuple[int, ...]:
        return tuple(weights[PROJECTION + key].shape)

    def has(key: str) -> bool:
        return PROJECTION + key in weights

    if has("latents") or (has("proj_in.weight") and not has("proj.0.weight")):
        inner, reads = shape("proj_in.weight")
        width = shape("proj_out.weight")[0]
        return ProjectionSizes(
            Projection.resampler, reads, width, shape("latents")[1], inner, *_depth_and_heads(weights, PROJECTION)
        )
    if has("proj.weight"):
        rows, reads = shape("proj.weight")
        return ProjectionSizes(Projection.linear, reads, width, rows // width)
    inner, reads = shape("proj.0.weight")
    rows = shape("proj.2.weight")[0]
    if has("proj.3.weight"):
        return ProjectionSizes(Projection.patches, reads, rows, 0, inner)
    if not any(key.startswith(f"{PROJECTION}perceiver_resampler.") for key in weights):
        return ProjectionSizes(Projection.face, reads, width, rows // width, inner)
    clip = shape("perceiver_resampler.proj_in.weight")[1]
    depth, heads = _depth_and_heads(weights, f"{PROJECTION}perceiver_resampler.")
    return ProjectionSizes(Projection.face_plus, reads, width, rows // width, inner, depth, heads, clip)


def _depth_and_heads(weights: Mapping[str, Tensor], prefix: str) -> tuple[int, int]:
    depth = 0
    while any(key.startswith(f"{prefix}layers.{depth}.") for key in weights):
        depth += 1
    return depth, weights[f"{prefix}layers.0.0.to_q.weight"].shape[0] // HEAD


def _layers(weights: Mapping[str, Tensor]) -> Iterable[LayerSizes]:
    found: dict[int, dict[str, Tensor]] = {}
    for key in weights:
        if match := _LAYER.fullmatch(key):
            found.setdefault(int(match[1]), {})[match[2] + match[3]] = weights[key]
    for number in sorted(found):
        parts = found[number]
        pair = parts.get("to_k_ip", parts.get("to_v_ip"))
        names = sorted({name.partition(".")[0] for name in parts if "_lora." in name})
        absent = [f"{name}.{side}" for name in names for side in ("down", "up") if f"{name}.{side}" not in parts]
        if absent:
            raise ValueError(f"no {LAYERS}{number}.{absent[0]}.weight")
        added = tuple(
            (name, parts[f"{name}.down"].shape[1], parts[f"{name}.down"].shape[0], parts[f"{name}.up"].shape[0])
            for name in names
        )
        yield LayerSizes(number, None if pair is None else (pair.shape[1], pair.shape[0]), added)


class LowRank(nn.Module):
    """What is added to a linear layer's output for its input (..., inputs): (..., outputs)."""

    def __init__(self, inputs: int, rank: int, outputs: int, ops: Operations) -> None:
        super().__init__()
        self.down = ops.linear(inputs, rank, bias=False)
        self.up = ops.linear(rank, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


class AdapterLayer(nn.Module):
    """Of one attention."""

    to_k_ip: nn.Linear
    to_v_ip: nn.Linear

    def __init__(self, sizes: LayerSizes, ops: Operations) -> None:
        super().__init__()
        if sizes.pair is not None:
            self.to_k_ip = ops.linear(*sizes.pair, bias=False)
            self.to_v_ip = ops.linear(*sizes.pair, bias=False)
        self.added: dict[str, LowRank] = {}
        for name, inputs, rank, outputs in sizes.added:
            self.added[name] = LowRank(inputs, rank, outputs, ops)
            setattr(self, name, self.added[name])


class IPAdapter(nn.Module):
    """The tokens' part computes in float32, once a pass; the others in the type in which they are stored."""

    def __init__(self, config: IPAdapterConfig, operations: Operations, exact: Operations) -> None:
        super().__init__()
        self.config = config
        self.image_proj = _made(config.projection, exact)
        self.ip_adapter = nn.ModuleDict({str(layer.number): AdapterLayer(layer, operations) for layer in config.layers})

    def layer(self, number: int) -> AdapterLayer | None:
        """What belongs to the attention of that number; None where there is nothing."""
        found = dict(self.ip_adapter.items()).get(str(number))
        return found if isinstance(found, AdapterLayer) else None


def _made(sizes: ProjectionSizes, ops: Operations) -> nn.Module:
    if sizes.kind is Projection.linear:
        return LinearTokens(sizes.reads, sizes.tokens, sizes.width, ops)
    if sizes.kind is Projection.patches:
        return PatchTokens(sizes.reads, sizes.inner, sizes.width, ops)
    if sizes.kind is Projection.face:
        return FaceTokens(sizes.reads, sizes.inner, sizes.tokens, sizes.width, ops)
    if sizes.kind is Projection.face_plus:
        return FacePlusTokens(
            sizes.reads, sizes.inner, sizes.tokens, sizes.width, sizes.clip, sizes.depth, sizes.heads, ops
        )
    return Resampler(sizes.reads, sizes.inner, sizes.tokens, sizes.depth, sizes.heads, sizes.width, ops)
