"""BrushNet (arXiv 2403.06976) for SD 1.x and SDXL: paints a hole in a picture so that it fits what is around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ..core.checkpoint import of_rows
from ..core.errors import PreprocessorError
from ..core.hints import Hint
from ..core.placed import Placed
from ..core.sites import FeaturePatch, SiteCall, UNetSites
from ..core.step import Step
from ..loading.build import fill
from ..loading.detect import KeyCondition
from ..loading.lazy import outlines
from ..nets.brushnet import Additions, BrushNet
from ..nets.config import UNetConfig
from ..nets.operations import Operations
from ..nets.residence import Residence
from .base import (
    BaseModel,
    BoundControl,
    PlainModel,
    Runtime,
    Sheet,
    UnitSettings,
    Weights,
    check_base,
    describe_config,
    disagreements,
)
from .hinted import joined

_LATENT = 4
_READ = 2 * _LATENT + 1
"""Channels: what is drawn, what is kept, and where."""


class BrushNetFamily:
    """Detects by the connections to the base's decoder; what has attentions is PowerPaint's."""

    id = "brushnet"
    shares: Mapping[str, float] = {"SD 1.x": 0.55, "SD 2.x": 0.55, "SDXL": 0.254}
    before: Sequence[str] = ("controlnet",)
    condition = KeyCondition(
        all_of=("zero_convs.0.0.weight", "up_zero_convs.0.0.weight", "input_blocks.0.0.weight"),
        none_of=("input_blocks.1.1.*", "middle_block.1.*"),
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedBrushNet:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        del metadata
        return LoadedBrushNet(path, filled(path, weights, runtime))

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        config = UNetConfig.from_weights(outlines(weights))
        return Sheet(0, _made_for(config), lambda base: not _disagreement(config, base.config))


def filled(path: Path, weights: Weights, runtime: Runtime) -> BrushNet:
    """The network of a file. Raises ModelFileError where names or shapes do not fit."""
    config = UNetConfig.from_weights(outlines(weights))
    return fill(
        lambda: BrushNet(config, Operations()),
        weights,
        dtype=runtime.dtype,
        device="cpu",
        name=path.name,
        layout=runtime.layout,
    )


FAMILY = BrushNetFamily()


class LoadedBrushNet(PlainModel):
    """One file's network."""

    def __init__(self, path: Path, net: BrushNet) -> None:
        self.path = path
        self.net = net
        self.residence = Residence(net)

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where `base` has not the layers to which it adds."""
        check_base(self.path, base, _made_for(self.net.config), _disagreement(self.net.config, base.config))

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundBrushNet:
        """The network with pictures in which a mask says what to paint: one, or one for each image of the batch."""
        return BoundBrushNet(self, self.known(hints, settings))

    def known(self, hints: Sequence[Hint], settings: UnitSettings) -> Tensor:
        """(B, 5, h, w): the latents of what is kept, and 1 where that is. Raises PreprocessorError without masks."""
        pixels = joined(hints, 3, settings, self.path).clamp(min=0.0)  # the hole is black
        masks = [hint.mask for hint in hints if hint.mask is not None]
        if len(masks) != len(hints):
            raise PreprocessorError(
                f'"{self.path.name}" takes a picture with a mask of what to paint in it',
                unit=settings.unit,
                field="module",
                found="a control map without a mask",
                remedy="choose the preprocessor inpaint_global_harmonious and draw a mask",
            )
        latents = settings.checkpoint().encode(pixels)
        kept = functional.interpolate(1.0 - torch.cat(masks).to(latents), latents.shape[2:], mode="nearest")
        return torch.cat([latents, kept], dim=1)


class BoundBrushNet(BoundControl):
    """The network with one unit's pictures; it computes before the U-Net does, and adds while that computes."""

    def __init__(self, model: LoadedBrushNet, known: Tensor) -> None:
        """known: see `LoadedBrushNet.known`."""
        self._model = model
        self._known = Placed(known)
        self._made: Additions | None = None

    def attach(self, sites: UNetSites) -> None:
        """After every block, but for the first: its skip tensor stays as it is."""
        config, up = self._model.net.config, 0
        sites.before("input_blocks.1", _adding(lambda: self._additions.encoder[0]))
        for index in range(1, len(config.input_channels)):
            sites.after(f"input_blocks.{index}", _adding(self._encoder(index)))
        sites.after("middle_block", _adding(lambda: self._additions.middle))
        for index in range(len(config.input_channels)):
            name = f"output_blocks.{index}"
            enlarges = (index + 1) % (config.num_res_blocks + 1) == 0 and index + 1 < len(config.input_channels)
            if enlarges:
                last = 2 if sites.has(f"{name}.2") else 1
                sites.before(f"{name}.{last}", _adding(self._decoder(up)))
                up += 1
            sites.after(name, _adding(self._decoder(up)))
            up += 1

    def prepare(self, step: Step, plain: object) -> None:
        """All that is added in one call."""
        del plain
        net = self._model.net
        place = self._model.residence.place, net.dtype
        known = of_rows(self._known.on(*place), step).expand(step.batch, -1, -1, -1)
        x = torch.cat([step.x[:, :_LATENT].to(*place), known], dim=1)
        y = None if step.y is None or net.num_classes is None else step.y.to(*place)
        self._made = net.additions(x, step.timesteps.to(place[0]), self.heard(step), y)

    def heard(self, step: Step) -> Tensor | None:
        """The context (B, N, D) of its attentions, for the rows of `step`: it has none."""
        del step

    def predicted(self, step: Step, output: Tensor) -> Tensor:
        """Nothing is changed, but what was added is let go of."""
        self._made = None
        return output

    @property
    def _additions(self) -> Additions:
        assert self._made is not None
        return self._made

    def _encoder(self, index: int) -> Callable[[], Tensor]:
        return lambda: self._additions.encoder[index]

    def _decoder(self, index: int) -> Callable[[], Tensor]:
        return lambda: self._additions.decoder[index]


def _adding(addition: Callable[[], Tensor]) -> FeaturePatch:
    def added(call: SiteCall, given: Tensor) -> Tensor:
        return given + addition().to(given) * call.weight

    return added


def _made_for(config: UNetConfig) -> str:
    """It reads no prompt, so that its widths have to tell."""
    if config.model_channels == 320 and config.adm_channels is None:
        return "SD 1.x or 2.x"
    return describe_config(replace(config, in_channels=_LATENT))


def _disagreement(own: UNetConfig, base: UNetConfig) -> str:
    """Why its layers' outputs cannot be added, "" where they can."""
    return disagreements(
        ("input blocks", own.input_channels, base.input_channels, own.input_channels == base.input_channels),
        ("width of y", own.adm_channels, base.adm_channels, own.adm_channels in (None, base.adm_channels)),
        ("channels that it reads", own.in_channels, _READ, own.in_channels == _READ),
    )
