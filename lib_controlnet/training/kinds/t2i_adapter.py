"""T2I-Adapter (Mou et al., arXiv:2302.08453): features of the map, added within the U-Net's encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...families.t2i_adapter import LUMA
from ...loading.lazy import outlines
from ...nets.config import UNetConfig
from ...nets.t2i_adapter import AdapterConfig, BlockSizes, T2IAdapter, adapter_places
from ...nets.unet import UNetModel
from ..config import TrainConfig
from ..errors import TrainingError
from ..export import write_folder
from .base import Control, Writer, beside, fitting, load_into, other_kind, started
from .controlnet import write_file
from .weaving import Weave, woven_forward

_HINT_CHANNELS = 3
_BLOCKS, _LIGHT_BLOCKS, _SQUEEZE = 2, 4, 4


class T2IAdapterKind:
    id = "t2i_adapter"
    modelspec = "t2i-adapter"
    latent_hints = False

    @property
    def formats(self) -> Mapping[str, Writer]:
        return {"v1.1": write_file, "diffusers": _write_diffusers}

    def new(self, unet: UNetModel, config: TrainConfig) -> Control:
        """Of the published sizes, or the adapter of the file `base.start`."""
        weights = started(config, unet)
        if weights is None:
            fitting(config, _unfit(unet.config))
            channels = 1 if config.control.gray else _HINT_CHANNELS
            with beside(unet):
                net = T2IAdapter(adapter_config(unet.config, config.control.light, channels))
        else:
            if "body.0.block1.weight" not in weights and "body.0.in_conv.weight" not in weights:
                raise other_kind(config, "no T2I-Adapter", "one")
            net = T2IAdapter(AdapterConfig.from_weights(outlines(weights)))
            load_into(net, weights, config)
        return AdapterControl(net, adapter_places(unet.config, net.config.unshuffle))


KIND = T2IAdapterKind()


def _unfit(unet: UNetConfig) -> str:
    """Why no adapter of a known layout is for this U-Net."""
    levels = len(unet.channel_mult)
    return "" if levels in (3, 4) else f"a U-Net of {levels} levels"


def adapter_config(unet: UNetConfig, light: bool, hint_channels: int = _HINT_CHANNELS) -> AdapterConfig:
    """TencentARC's sizes at this U-Net's widths: two blocks a stage, or four squeezed ones."""
    channels = tuple(unet.model_channels * mult for mult in unet.channel_mult)
    unshuffle = 8
    if unet.adm_channels is not None and len(channels) == 3:  # SDXL's
        channels, unshuffle = (*channels, unet.middle_channels), 16
    read = hint_channels * unshuffle**2
    if light:
        inner = [max(width // _SQUEEZE, 1) for width in channels]
        stages = [(BlockSizes(width, width, 3),) * _LIGHT_BLOCKS for width in inner]
        return AdapterConfig(read, unshuffle, tuple(stages), channels, True)
    before = (channels[0], *channels[:-1])
    stages = [
        (BlockSizes(given, width, 1, 0 if given == width else 1), *[BlockSizes(width, width, 1)] * (_BLOCKS - 1))
        for given, width in zip(before, channels, strict=True)
    ]
    return AdapterConfig(read, unshuffle, tuple(stages), channels, False)


class AdapterControl(Control):
    """`places`: blocks, counted through encoder and middle, to whose output the features are added."""

    def __init__(self, net: T2IAdapter, places: Sequence[int]) -> None:
        super().__init__(net)
        self._places = tuple(places)

    def encode(self, hints: Tensor) -> tuple[Tensor, ...]:
        if self.net.config.hint_channels == 1:
            hints = (hints * hints.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
        unit = self.net.config.unshuffle
        size = [-(-side // unit) * unit for side in hints.shape[2:]]
        if list(hints.shape[2:]) != size:
            hints = functional.interpolate(hints, size, mode="bilinear", align_corners=False)
        return self.net(hints.to(next(self.net.parameters()).dtype))

    def predict(
        self, unet: UNetModel, x: Tensor, timesteps: Tensor, context: Tensor, features: tuple[Tensor, ...],
        y: Tensor | None = None, weight: float = 1.0,
    ) -> Tensor:  # fmt: skip
        added = {place: weight * part for place, part in zip(self._places, features, strict=True)}
        return woven_forward(unet, _Features(added), x, timesteps, context, y)


class _Features(Weave):
    def __init__(self, added: Mapping[int, Tensor]) -> None:
        self._added = added

    def left(self, index: int, h: Tensor) -> Tensor:
        added = self._added.get(index)
        return h if added is None else h + added.to(h.dtype)


def diffusers_adapter(config: AdapterConfig) -> Any:
    """diffusers' network of these sizes, without content."""
    from diffusers.models.adapter import T2IAdapter as Theirs

    kinds = {True: "light_adapter", False: "full_adapter"}
    kind = kinds[config.light] if config.unshuffle == 8 or config.light else "full_adapter_xl"
    channels = config.channels[:-1] if config.light else config.channels  # theirs repeats a light one's last
    with torch.device("meta"):
        return Theirs(
            in_channels=config.hint_channels, channels=list(channels), num_res_blocks=len(config.blocks[0]),
            downscale_factor=config.unshuffle, adapter_type=kind,
        )  # fmt: skip


def _write_diffusers(control: AdapterControl, path: Path, metadata: Mapping[str, str]) -> Mapping[str, Path]:
    """A folder for `T2IAdapter.from_pretrained`. Raises TrainingError where diffusers has no such structure."""
    del metadata
    from ...loading.canonical import canonical

    config = control.net.config
    if config.light and config.unshuffle == 16:
        raise TrainingError("diffusers has no light T2I-Adapter for SDXL", field="output.formats", found="diffusers",
                            remedy='use the format "v1.1", or control.light = false')  # fmt: skip
    model = diffusers_adapter(config)
    names = {key: torch.empty(0) for key in model.state_dict()}
    folder = path.with_name(f"{path.name}_diffusers")
    write_folder(model, dict(zip(canonical(names), names, strict=True)), control.weights(), folder)
    return {"diffusers": folder}
