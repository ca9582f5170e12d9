"""IP-Adapter (arXiv 2308.06721): base, light, vit-G, plus, plus-face, full-face, composition, FaceID (plus, plus v2,
portrait) and InstantID's, for SD 1.x, SD 2.x and SDXL, as tencent-ailab and others publish and train them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..core.embeddings import CLIP_G, CLIP_H, FACE_ID, FACE_ID_PLUS, INSTANT_ID
from ..core.errors import ModelFileError, PreprocessorError
from ..core.hints import Hint
from ..loading.build import fill
from ..loading.detect import KeyCondition
from ..loading.lazy import outlines
from ..loading.sidecar import FACE_EMBEDDING, FACEID_PLUS
from ..nets.config import UNetConfig
from ..nets.ip_adapter import IPAdapter, IPAdapterConfig, Projection, ProjectionSizes
from ..nets.operations import Operations
from ..nets.residence import Residence
from .base import BaseModel, PlainModel, Runtime, Sheet, UnitSettings, Weights, check_base
from .image_prompts import BoundIPAdapter

_LINEAR = {1024: CLIP_H, 1280: CLIP_G}
"""By the width of CLIP's embedding."""
_HIDDEN = {1280: CLIP_H, 1664: CLIP_G}
"""By the width of CLIP's tokens."""
_FACE = 512
_KOLORS = 1024
"""Width of the tokens of CLIP ViT-L at 336 pixels, which Kolors' adapters read."""
_WIDTHS = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}
_PAIRS_OF_SDXL, _TRANSFORMERS_OF_SDXL = 70, 11


class IPAdapterFamily:
    """Detects by the projection and the first attention's keys; PuLID's own projections are another family's."""

    id = "ip_adapter"
    shares: Mapping[str, float] = {}
    before: Sequence[str] = ()
    condition = KeyCondition(
        all_of=("image_proj.*", "ip_adapter.*"),
        none_of=("image_proj.mapping_0.*", "image_proj.id_embedding_mapping.*"),
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedIPAdapter:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        config = IPAdapterConfig.from_weights(outlines(weights))
        embeddings = _embeddings(config.projection, path, metadata)
        exact = Operations(torch.float32)
        net = fill(
            lambda: IPAdapter(config, Operations(), exact), weights, dtype=runtime.dtype, device="cpu", name=path.name
        )
        second = metadata.get(FACEID_PLUS, "2" if "v2" in path.stem.lower() else "1") == "2"
        return LoadedIPAdapter(path, net, embeddings, second)

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        config = IPAdapterConfig.from_weights(outlines(weights))
        return Sheet(
            outputs_of(config.pairs),
            made_for(config.pairs),
            lambda base: not disagreement(config.pairs, base.config),
            embeddings=_embeddings(config.projection, path, {}),
        )


FAMILY = IPAdapterFamily()


class LoadedIPAdapter(PlainModel):
    """One file's network. second: a FaceID-plus of the second version, which no key tells."""

    def __init__(self, path: Path, net: IPAdapter, embeddings: Sequence[str], second: bool) -> None:
        self.path = path
        self.net = net
        self.residence = Residence(net, streams=False)
        self.embeddings = embeddings
        self.outputs = outputs_of(net.config.pairs)
        self.ramp = (1.0,) * self.outputs
        """The control mode says nothing to a picture that acts as a prompt."""
        self._second = second

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where `base` has not the attentions for which this file has keys and values."""
        check_attentions(self.path, self.net.config.pairs, base, "an IP-Adapter")

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundIPAdapter:
        """The picture's embeddings, one table or one for each image of the batch, as what the U-Net is to hear.

        Raises PreprocessorError where there are none, or others than this file reads.
        """
        if hints or not settings.tensors or not any(settings.tensors):
            raise PreprocessorError(
                f'"{self.path.name}" takes an embedding of the picture, and the preprocessor makes a map',
                unit=settings.unit,
                field="module",
                remedy="choose ip-adapter-auto, or another preprocessor that makes embeddings",
            )
        shortcut = settings.image_prompt.shortcut if self._second else None
        return BoundIPAdapter(self.net, self.residence, self.outputs, shortcut, settings)


def _embeddings(sizes: ProjectionSizes, path: Path, metadata: Mapping[str, str]) -> Sequence[str]:
    """The kinds of embeddings that a projection reads, the usual one first. Raises ModelFileError for unknown ones."""
    kind, found = sizes.kind, f"an embedding of {sizes.reads} numbers"
    if kind is Projection.linear and sizes.reads in _LINEAR:
        return (_LINEAR[sizes.reads],)
    if kind is Projection.face and sizes.reads == _FACE:
        return (FACE_ID,)
    if kind is Projection.face_plus:
        found = f"tokens of {sizes.clip} numbers"
        if sizes.reads == _FACE and _HIDDEN.get(sizes.clip) == CLIP_H:
            return (FACE_ID_PLUS,)
    if kind in (Projection.resampler, Projection.patches):
        found = f"tokens of {sizes.reads} numbers"
        if sizes.reads in _HIDDEN:
            return (_HIDDEN[sizes.reads],)
    if kind is Projection.resampler and sizes.reads == _FACE:
        return _of_faces(path, metadata)
    theirs = _KOLORS in (sizes.clip, sizes.reads) and kind in (Projection.resampler, Projection.face_plus)
    raise ModelFileError(
        f'"{path.name}" is an IP-Adapter for Kolors' if theirs else f'"{path.name}" is an unknown kind of IP-Adapter',
        field="model",
        found=f"it reads {found}" + (" of CLIP ViT-L at 336 pixels" if theirs else ", which no encoder here gives"),
        remedy="choose an IP-Adapter for SD 1.x or SDXL",
    )


def _of_faces(path: Path, metadata: Mapping[str, str]) -> Sequence[str]:
    """InstantID's projection and that of FaceID portrait unnorm have the same shapes; the face tells which it is.

    Which is the usual one is said beside the file, or else by the name under which InstantID's is published.
    """
    instant = INSTANT_ID if "instant" in path.as_posix().lower() else FACE_ID
    first = metadata.get(FACE_EMBEDDING, instant)
    return (first, FACE_ID if first == INSTANT_ID else INSTANT_ID)


def check_attentions(path: Path, pairs: Sequence[tuple[int, int]], base: BaseModel, kind: str) -> None:
    """Raises BaseModelError where `base` has not the attentions for which a file has keys and values."""
    check_base(path, base, made_for(pairs), disagreement(pairs, base.config), kind)


def outputs_of(pairs: Sequence[tuple[int, int]]) -> int:
    """SDXL's attentions take a weight for each of its transformers, which have 2 or 10; all others one each."""
    return _TRANSFORMERS_OF_SDXL if len(pairs) == _PAIRS_OF_SDXL else len(pairs)


def made_for(pairs: Sequence[tuple[int, int]]) -> str:
    """The checkpoints that have these attentions, in words."""
    width = pairs[0][0]
    return _WIDTHS.get(width, f"a U-Net with a text width of {width}")


def _pairs_of(config: UNetConfig) -> list[tuple[int, int]]:
    """(text's width, channels) of each attention to the prompt: encoder, decoder, middle."""
    widths = [mult * config.model_channels for mult in config.channel_mult]
    levels = list(zip(widths, config.transformer_depth, strict=True))
    down = [width for width, depth in levels for _ in range(depth * config.num_res_blocks)]
    up = [width for width, depth in reversed(levels) for _ in range(depth * (config.num_res_blocks + 1))]
    middle = [widths[-1]] * max(config.middle_depth, 0)
    return [(config.context_dim, width) for width in (*down, *up, *middle)]


def disagreement(pairs: Sequence[tuple[int, int]], base: UNetConfig) -> str:
    """Why a file's attentions do not fit, "" where they do."""
    mine, theirs = list(pairs), _pairs_of(base)
    if mine == theirs:
        return ""
    if len(mine) != len(theirs):
        return f"keys and values for {len(mine)} attentions, the checkpoint has {len(theirs)}"
    pair, other = next((a, b) for a, b in zip(mine, theirs, strict=True) if a != b)
    return f"keys and values of {pair[1]} channels from {pair[0]}, the checkpoint's have {other[1]} from {other[0]}"
