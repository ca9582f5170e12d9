"""ControlNet-XS (arXiv 2312.06573) for SD 1.x, SD 2.x and SDXL, in vislearn's and diffusers' naming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from ..core.checkpoint import of_rows
from ..core.errors import ModelFileError
from ..core.hints import Hint
from ..core.precision import own_types
from ..core.schedule import soft_ramp
from ..core.sites import SiteCall, UNetSites
from ..core.step import Step
from ..loading.build import fill
from ..loading.detect import KeyCondition
from ..loading.lazy import outlines
from ..loading.sidecar import HEADS, NAMING, TIME_MIX
from ..nets.config import UNetConfig
from ..nets.controlnet_xs import ControlNetXS, XSConfig
from ..nets.operations import Operations
from ..nets.residence import Residence
from .base import BaseModel, BoundControl, PlainModel, Runtime, Sheet, UnitSettings, Weights, check_base, disagreements
from .hinted import joined

_SCALES = "scale_list"
_SHARE = 0.3
"""Exponent that makes of the stated mix the share of the control's own embedding of timesteps."""


class ControlNetXSFamily:
    """Detects by the connections between the two encoders."""

    id = "controlnet_xs"
    shares: Mapping[str, float] = {"SD 1.x": 0.037, "SD 2.x": 0.036, "SDXL": 0.011}
    before: Sequence[str] = ()
    condition = KeyCondition(all_of=("enc_zero_convs_out.0.0.weight", "control_model.input_blocks.0.0.weight"))

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedXS:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        config = XSConfig.from_weights(outlines(weights), diffusers=metadata.get(NAMING) == "diffusers")
        config = replace(config, stated_heads=_heads(path, metadata, config))
        scales = tuple(float(each) for each in weights[_SCALES].flatten()) if _SCALES in weights else ()
        if scales and len(scales) != 2 * len(config.base) + 1:
            raise ModelFileError(
                f'"{path.name}" has not one scale for each connection',
                field="model",
                found=f"{len(scales)} scales for {2 * len(config.base) + 1} connections",
                remedy="download the file again, or choose another control model",
            )
        net = fill(
            lambda: ControlNetXS(config, Operations(), scales),
            weights,
            dtype=runtime.dtype,
            device="cpu",
            name=path.name,
            ignored=(_SCALES, "diffusion_model.*"),
            layout=runtime.layout,
        )
        return LoadedXS(path, net, float(metadata.get(TIME_MIX, "1")))

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        config = XSConfig.from_weights(outlines(weights))
        return Sheet(0, _made_for(config), lambda base: not _disagreement(config, base.config))


FAMILY = ControlNetXSFamily()


class LoadedXS(PlainModel):
    """One file's network. mix: how far its own embedding of the timesteps counts, where it has one."""

    def __init__(self, path: Path, net: ControlNetXS, mix: float) -> None:
        self.path = path
        self.net = net
        self.mix = mix
        self.residence = Residence(net, streams=False)

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where `base` has not the blocks with which the network takes turns."""
        check_base(self.path, base, _made_for(self.net.config), _disagreement(self.net.config, base.config))

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundXS:
        """The network with hints (1, C, H, W) of one size: one, or one for each image of the batch."""
        return BoundXS(self, joined(hints, self.net.config.hint_channels, settings, self.path), settings)


class BoundXS(BoundControl):
    """The network with one unit's hints. Its encoder computes between the U-Net's blocks, each seeing the other's."""

    in_layers = True

    def __init__(self, model: LoadedXS, hint: Tensor, settings: UnitSettings) -> None:
        self._model = model
        self._net = model.net
        self._hint = hint
        self._features: dict[tuple[int, int], Tensor] = {}
        count = len(model.net.config.base)
        self._factors = soft_ramp(count + 1) if settings.mode.soft else (1.0,) * (count + 1)
        """Of each level's connections, the middle's last."""
        self.regional = not model.net.config.learns_time
        """Its embedding of the timesteps takes the place of the U-Net's, which is one for the whole picture."""
        self._emb: Tensor | None = None
        self._control: list[Tensor] = []
        """Its features after each block of the U-Net call under way."""

    def attach(self, sites: UNetSites) -> None:
        """Places at the embedding, before and after each input block and the middle, and before each output block."""
        count = len(self._net.config.base)
        sites.after("time_embed", self._timed)
        if sites.has("label_emb"):
            sites.after("label_emb", self._labelled)
        for index in range(count):
            self._follow(sites, f"input_blocks.{index}", index)
        self._follow(sites, "middle_block", count)
        for index in range(count):
            self._lead(sites, f"output_blocks.{index}", index)

    def prepare(self, step: Step, plain: object) -> None:
        """The hint is read once a size."""
        del plain
        self._control, size = [], (int(step.x.shape[2]), int(step.x.shape[3]))
        if size not in self._features:
            wanted = (size[0] * 8, size[1] * 8)
            hint = self._hint.to(self._model.residence.place, self._net.dtype)
            if hint.shape[2:] != wanted:
                hint = functional.interpolate(hint, wanted, mode="bilinear", align_corners=False)
            self._features = {size: self._net.encode_hint(hint)}

    def predicted(self, step: Step, output: Tensor) -> Tensor:
        """Nothing is changed, but what the blocks gave is let go of."""
        self._control, self._emb = [], None
        return output

    def _timed(self, call: SiteCall, emb: Tensor) -> Tensor:
        """(B, E) of the timesteps -> what both encoders get."""
        if self._net.config.learns_time:
            share = self._model.mix**_SHARE
            with own_types((emb.device, self._model.residence.place)):
                own = self._net.embed(call.step.timesteps.to(self._model.residence.place)).to(emb)
            emb = own * share + emb * (1.0 - share)
        self._emb = emb
        return emb

    def _labelled(self, call: SiteCall, emb: Tensor) -> Tensor:
        """(B, E) of `y`, which is added to that of the timesteps."""
        del call
        self._emb = emb if self._emb is None else self._emb + emb
        return emb

    def _follow(self, sites: UNetSites, name: str, index: int) -> None:
        """Its own block `index` computes before the U-Net's of that name, and adds to what this gives."""
        net, factor, middle = self._net, self._factors[index], index == len(self._net.config.base)

        def entered(call: SiteCall, h: Tensor) -> Tensor:
            self._compute(call.step, index, h)
            return h

        def left(call: SiteCall, h: Tensor) -> Tensor:
            own = self._control[index]
            with own_types((h.device, own.device)):
                added = net.for_middle(own) if middle else net.for_encoder(index, own)
            return h + added.to(h) * (call.weight * factor)

        sites.before(name, entered)
        sites.after(name, left)

    def _lead(self, sites: UNetSites, name: str, index: int) -> None:
        """Adds to the trunk before the U-Net's output block `index`."""
        net, trunk = self._net, self._net.config.trunk[index]
        level = len(net.config.base) - 1 - index

        def entered(call: SiteCall, joined: Tensor) -> Tensor:
            own = self._control[level]
            with own_types((joined.device, own.device)):
                added = net.for_decoder(index, own).to(joined) * (call.weight * self._factors[level])
            return functional.pad(added, (0, 0, 0, 0, 0, joined.shape[1] - trunk)) + joined

        sites.before(name, entered)

    def _compute(self, step: Step, index: int, h: Tensor) -> None:
        """Its features after block `index`; `h` are the U-Net's before it."""
        place = self._model.residence.place, self._net.dtype
        with own_types((h.device, place[0])):
            if index == 0:
                (features,) = self._features.values()
                x = step.x[:, : self._net.config.in_channels].to(*place)
                self._control = [self._net.start(x, of_rows(features, step))]
                return
            emb = self._emb
            assert emb is not None
            given = (self._control[-1], h.to(*place), emb.to(*place), step.context.to(*place))
            last = index == len(self._net.config.base)
            self._control.append(self._net.middle(*given) if last else self._net.block(index, *given))


def _heads(path: Path, metadata: Mapping[str, str], config: XSConfig) -> tuple[tuple[int, int], ...]:
    """Of each width, as the `config.json` of diffusers says. Raises ModelFileError where it does not fit."""
    stated = [int(each) for each in metadata.get(HEADS, "").split(",") if each]
    if not stated:
        return ()
    widths = [config.channels[0]]  # of each level
    for block in config.blocks:
        widths += [widths[-1]] * block.halves
        widths[-1] = block.outputs
    stated = stated * len(widths) if len(stated) == 1 else stated
    pairs = tuple(zip(widths, stated, strict=False))
    if len(stated) != len(widths) or any(heads < 1 or width % heads for width, heads in pairs):
        raise ModelFileError(
            f'what lies beside "{path.name}" says other attention heads than its weights can have',
            field="model",
            found=f"{metadata[HEADS]} heads for widths {', '.join(map(str, widths))}",
            remedy="repair the config.json, or move it away",
        )
    return pairs


def _made_for(config: XSConfig) -> str:
    known = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}
    if config.base[0] == 320 and config.context_dim in known:
        return known[config.context_dim]
    return f"a U-Net of {config.base[0]} channels with a text width of {config.context_dim}"


def _disagreement(own: XSConfig, base: UNetConfig) -> str:
    """Why the two encoders cannot take turns, "" where they can."""
    return disagreements(
        ("input blocks", own.base, base.input_channels, own.base == base.input_channels),
        ("text width", own.context_dim, base.context_dim, own.context_dim == base.context_dim),
        ("width of embeddings", own.embedding, 4 * base.model_channels, own.embedding == 4 * base.model_channels),
        ("latent channels", own.in_channels, base.in_channels, own.in_channels <= base.in_channels),
    )
