"""ControlNet (arXiv 2302.05543): v1.0, v1.1 and diffusers files for SD 1.x, SD 2.x and SDXL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import ModelFileError
from ..core.hints import Hint
from ..core.residuals import Residuals
from ..core.step import Step
from ..loading.build import fill
from ..loading.detect import KeyCondition
from ..loading.difference import add_base
from ..loading.lazy import FP8, outlines
from ..loading.reader import legacy_hash
from ..loading.sidecar import CHANNELS, FACE_CONTEXT, POOLED
from ..nets.attention import repeated
from ..nets.config import ControlNetConfig, UNetConfig
from ..nets.controlnet import ControlNet
from ..nets.operations import Operations
from ..nets.residence import Residence
from .base import (
    CONTROLNET_SHARES,
    BaseModel,
    BoundControl,
    Runtime,
    Sheet,
    UnitSettings,
    Weights,
    check_base,
    describe_config,
    disagreements,
)
from .hinted import joined
from .instant_id import NAMES, FaceContext

Network = TypeVar("Network", bound=ControlNet)
Loaded = TypeVar("Loaded")

DIFFERENCE_KEY = "difference"
_HINT_LEVELS = 4
"""Sizes in the hint encoder: as many halvings as lie between picture and latents, and its input."""


class ControlNetFamily:
    """Detects by the hint encoder and the zero convolutions, which no other kind has together."""

    id = "controlnet"
    shares: Mapping[str, float] = CONTROLNET_SHARES
    before: Sequence[str] = ()
    condition = KeyCondition(
        all_of=("input_hint_block.0.weight", "zero_convs.0.0.weight", "middle_block_out.0.weight"),
        none_of=("control_add_embedding.linear_1.weight", "task_embedding"),
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> AnyControlNet:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        holds_base = DIFFERENCE_KEY in weights
        if holds_base:
            weights = add_base(weights, runtime.needed_base(path))
        return load_controlnet(
            path, weights, metadata, runtime, holds_base=holds_base, network=ControlNet, model=LoadedControlNet
        )

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        return sheet_of(ControlNetConfig.from_weights(outlines(weights)).unet)


FAMILY = ControlNetFamily()


def sheet_of(unet: UNetConfig) -> Sheet:
    """Of a network with the encoder of `unet`."""
    outputs = len(unet.input_channels) + 1
    return Sheet(outputs, describe_config(unet), lambda base: not _disagreement(unet, base.config))


_KINDS = {(12, 768): "SD 1.x", (12, 1024): "SD 2.x", (9, 2048): "SDXL"}
"""By the number of input blocks and the width of the text."""


def sheet_of_blocks(blocks: int, context: int) -> Sheet:
    """Of a file with a part of the network: so many input blocks, and a text width, 0 where nothing says it."""
    made_for = _KINDS.get((blocks, context), f"a U-Net of {blocks} input blocks with a text width of {context}")

    def fits(base: BaseModel) -> bool:
        own = len(base.config.input_channels), base.config.context_dim
        return own == (blocks, context or base.config.context_dim)

    return Sheet(blocks + 1, made_for, fits)


def load_controlnet(
    path: Path,
    weights: Weights,
    metadata: Mapping[str, str],
    runtime: Runtime,
    *,
    holds_base: bool,
    network: Callable[[ControlNetConfig, Operations], Network],
    model: Callable[..., Loaded],
) -> Loaded:
    """A `model` of a `network` of the sizes of `weights`, all of which are its own by now.

    Raises ModelFileError; see `fill`.
    """
    config = ControlNetConfig.from_weights(outlines(weights))
    if len(config.hint_widths) != _HINT_LEVELS:
        raise ModelFileError(
            f'the hint encoder of "{path.name}" gives features of another size than the latents',
            field="model",
            found=f"1/{2 ** (len(config.hint_widths) - 1)} of the control image instead of 1/8",
            remedy="use a ControlNet whose control image has 8 pixels for each latent one",
        )
    from_fp8 = any(tensor.dtype in FP8 for tensor in outlines(weights).values())
    keeps = from_fp8 and runtime.keeps_fp8
    net = fill(
        lambda: network(config, Operations(runtime.dtype if keeps else None)),
        weights,
        dtype=runtime.dtype,
        device="cpu",
        name=path.name,
        kept=FP8 if keeps else (),
        layout=runtime.layout,
    )
    faces = None if FACE_CONTEXT not in metadata else metadata[FACE_CONTEXT] == "true"
    reads = Reading(_pools(path, metadata), metadata.get(CHANNELS) == "bgr", faces)
    return model(path, net, config, reads, holds_base=holds_base, from_fp8=from_fp8)


@dataclass(frozen=True)
class Reading:
    """What must be known of a file besides its weights. bgr: the hint's order. faces: it hears a face in place of the
    prompt (InstantID). None where nothing says it."""

    pooled: bool | None = None
    bgr: bool = False
    faces: bool | None = None


class LoadedControlNet(Generic[Network]):
    """One ControlNet file's network."""

    ramp: Sequence[float] = ()
    embeddings: Sequence[str] = ()
    options: Collection[str] = ()
    reusable = True

    def __init__(
        self,
        path: Path,
        net: Network,
        config: ControlNetConfig,
        reads: Reading,
        *,
        holds_base: bool,
        from_fp8: bool = False,
    ) -> None:
        self.path = path
        self.net = net
        self.residence = Residence(net)
        self.config = config
        self.reads = reads
        self.holds_base = holds_base
        self.from_fp8 = from_fp8
        self.outputs = len(config.unet.input_channels) + 1

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where `base` has not the blocks, text and embeddings that this file needs."""
        own = self.config.unet
        check_base(self.path, base, describe_config(own), _disagreement(own, base.config))

    def residual_bytes(self, rows: int, height: int, width: int) -> int:
        """What its residuals take of `rows` rows of a latent of that size."""
        return rows * self.config.unet.residual_numbers(height, width) * self.net.dtype.itemsize

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundControlNet[Network]:
        """The network with hints `(1, hint_channels, H, W)` of one size: one, or one for each image of the batch."""
        face = FaceContext(self.path.name, settings) if self._hears_faces(settings) else None
        return BoundControlNet(self, self._hint(hints, settings), pooled=self._pools(settings), face=face)

    def _hint(self, hints: Sequence[Hint], settings: UnitSettings) -> Tensor:
        hint = joined(hints, self.config.hint_channels, settings, self.path)
        return hint.flip(1) if self.reads.bgr else hint

    def _pools(self, settings: UnitSettings) -> bool:
        """Where nothing says it, a name that tells of a shuffle model counts, if the hint was shuffled indeed."""
        if self.reads.pooled is not None:
            return self.reads.pooled
        return settings.scattered and "shuffle" in self.path.stem.lower()

    def _hears_faces(self, settings: UnitSettings) -> bool:
        """Nothing in the weights tells InstantID's ControlNet from others: see `instant_id.NAMES`."""
        if self.reads.faces is not None:
            return self.reads.faces
        return settings.face_points or any(name in self.path.stem.lower() for name in NAMES)


AnyControlNet = LoadedControlNet[ControlNet]


class BoundControlNet(BoundControl, Generic[Network]):
    """A ControlNet with one unit's hint; the hint encoder runs once a size, not once a step."""

    piecewise = True

    def __init__(
        self, model: LoadedControlNet[Network], hint: Tensor, *, pooled: bool, face: FaceContext | None = None
    ) -> None:
        self._model = model
        self._hint = hint
        self._face = face
        self.piecewise = face is None
        self._features: dict[tuple[int, int], Tensor] = {}
        self._repeated: dict[tuple[int, ...], bool] = {}
        self.pooled = pooled

    def meet(self, others: Sequence[BoundControl]) -> None:
        """InstantID's finds who tells it of the face. Raises UnitError where nobody does."""
        if self._face is not None:
            self._face.meet(self, others)

    def residuals(self, step: Step) -> Residuals:
        """Residuals of the rows of `step`: one a input block, then the middle one."""
        net, forward = self._model.net, self._forward(step)
        place = self._model.residence.place, net.dtype
        distinct = step.select(range(self._distinct(step)))
        x = distinct.x[:, : self._model.config.unet.in_channels].to(*place)
        outputs = forward(
            x,
            self._features_of(distinct, x),
            distinct.timesteps.to(place[0]),
            step.context.to(*place) if self._face is None else self._face.of(step, x),
            None if step.y is None or self._model.config.unet.adm_channels is None else step.y.to(*place),
            self._further(),
        )
        return Residuals(skip=outputs[:-1], middle=outputs[-1])

    def _forward(self, step: Step) -> Callable[..., tuple[Tensor, ...]]:
        """The network, told what a kind needs to know of the rows of `step` besides."""
        del step
        return self._model.net

    def _further(self) -> Tensor | None:
        """What belongs to the embedding of the timesteps besides, (1, E)."""
        return None

    def _encoded_at(self, x: Tensor) -> Tensor:
        """What the network adds to features of `x` (B, 4, h, w) for the hint: (1 or n, C, h, w)."""
        return self._model.net.encode_hint(sized(self._hint, x))

    def _distinct(self, step: Step) -> int:
        """How many rows the others merely repeat with other prompts, as guidance does; all of them otherwise.

        Hosts give every row of a picture the same latents, but another extension may not, so they are compared: at
        every step on the processor, where it costs nothing, elsewhere at the first of a kind, because it would make
        the processor wait for the GPU.
        """
        rows = len(set(step.images))
        repeats = step.batch // rows
        if repeats == 1 or step.y is not None or step.images != step.images[:rows] * repeats:
            return step.batch
        if step.x.device.type == "cpu" or step.images not in self._repeated:
            x = step.x[:, : self._model.config.unet.in_channels]
            pairs = [(x, x[:rows]), (step.timesteps, step.timesteps[:rows])]
            self._repeated[step.images] = all(torch.equal(all_, repeated(first, all_)) for all_, first in pairs)
        return rows if self._repeated[step.images] else step.batch

    def _features_of(self, step: Step, x: Tensor) -> Tensor:
        features = self._features_at(x)
        count = features.shape[0]
        return features if count == 1 else step.kept.of(features, [image % count for image in step.images])

    def _features_at(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if (height, width) not in self._features:
            self._features = {(height, width): self._encoded_at(x)}
        return self._features[height, width]


def sized(hint: Tensor, x: Tensor) -> Tensor:
    """A hint (n, C, H, W) with 8 pixels for each latent one of `x` (B, 4, h, w), in its type and place."""
    size = (x.shape[2] * 8, x.shape[3] * 8)
    hint = hint.to(x)
    if hint.shape[2:] == size:
        return hint
    return functional.interpolate(hint, size, mode="bilinear", align_corners=False)


def _disagreement(own: UNetConfig, base: UNetConfig) -> str:
    """Why residuals, text or embeddings cannot fit, "" where they do.

    Transformers may be fewer or shallower than the base's (SDXL's mid and small models), and where there are none, or
    no embedding of `y`, its width does not matter.
    """
    return disagreements(
        ("residuals", own.input_channels, base.input_channels, own.input_channels == base.input_channels),
        ("text width", own.context_dim, base.context_dim, own.context_dim in (0, base.context_dim)),
        ("width of y", own.adm_channels, base.adm_channels, own.adm_channels in (None, base.adm_channels)),
        ("latent channels", own.in_channels, base.in_channels, own.in_channels <= base.in_channels),
    )


_SHUFFLE_NAMES = frozenset(("control_v11e_sd15_shuffle", "control_v11e_sd15_shuffle_fp16"))
_SHUFFLE_HASHES = frozenset(("526bfdae", "04a71f87"))
"""The whole names and A1111's short hashes of ControlNet 1.1's shuffle model, as published and in half precision."""


def _pools(path: Path, metadata: Mapping[str, str]) -> bool | None:
    """Whether outputs are averaged over positions (cldm's `global_average_pooling`), which the weights do not tell.

    What the file says, or what lies beside it, decides; without that only the official shuffle models, which most
    people have without their `.yaml`, are known to be. None: nothing is known.
    """
    stated = metadata.get(POOLED)
    if stated is not None:
        return stated == "true"
    known = path.stem.lower() in _SHUFFLE_NAMES or legacy_hash(path) in _SHUFFLE_HASHES
    return True if known else None
