"""CtrLoRA (arXiv 2410.09400) for SD 1.x: a condition as low-rank changes to a ControlNet made for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..core.hints import Hint
from ..loading.build import fill
from ..loading.companion import companion
from ..loading.detect import CTRLORA_BASE, KeyCondition
from ..loading.lazy import RenamedWeights, outline, outlines
from ..loading.low_rank import CTRLORA, merge_base
from ..nets.config import ControlNetConfig, UNetConfig
from ..nets.ctrlora import LatentControlNet
from ..nets.operations import Operations
from .base import CONTROLNET_SHARES, Runtime, Sheet, UnitSettings, Weights
from .controlnet import BoundControlNet, LoadedControlNet, Reading, sheet_of_blocks
from .hinted import joined

_OWN = ("lora_layer", "zero_convs.", "middle_block_out.", "norm")
"""Parts of the names of what each condition has for itself; the base's are those of the last it was trained on."""


class CtrLoraFamily:
    """Detects by factors beside zero convolutions, without the encoder that they change."""

    id = "ctrlora"
    shares: Mapping[str, float] = CONTROLNET_SHARES
    before: Sequence[str] = ("controlnet", "control_lora")
    condition = KeyCondition(
        all_of=("zero_convs.0.0.weight", "middle_block_out.0.weight"),
        any_of=("*.lora_layer.down.weight",),
        none_of=("input_blocks.0.0.weight", "input_hint_block.0.weight"),
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedCtrLora:
        """Builds the network from the file and its base. Raises ModelFileError where names or shapes do not fit."""
        del metadata
        whole = merge_base(weights, _base_of(path), CTRLORA)
        unet = UNetConfig.from_weights(outlines(whole))
        config = ControlNetConfig(replace(unet, out_channels=unet.in_channels))
        net = fill(
            lambda: LatentControlNet(config, Operations()),
            whole,
            dtype=runtime.dtype,
            device="cpu",
            name=path.name,
            layout=runtime.layout,
        )
        return LoadedCtrLora(path, net, config, Reading(pooled=False), holds_base=False)

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        blocks = sum(f"zero_convs.{index}.0.weight" in weights for index in range(len(weights)))
        text = next((key for key in weights if key.endswith(f".attn2.to_k{CTRLORA.down}")), None)
        return sheet_of_blocks(blocks, 0 if text is None else outline(weights, text).shape[1])


FAMILY = CtrLoraFamily()


class LoadedCtrLora(LoadedControlNet[LatentControlNet]):
    """One file's network."""

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundCtrLora:
        """The network with hints (1, 3, H, W) of one size: one, or one for each image of the batch.

        The authors give the VAE, which takes -1..1, the map in 0..1: black is a middle grey to it.
        """
        pixels = joined(hints, self.config.hint_channels, settings, self.path).clamp(min=0.0)
        return BoundCtrLora(self, settings.checkpoint().encode((pixels + 1.0) / 2.0), pooled=False)


class BoundCtrLora(BoundControlNet[LatentControlNet]):
    """The network with the latents of one unit's hints."""

    def __init__(self, model: LoadedCtrLora, hint: Tensor, *, pooled: bool) -> None:
        super().__init__(model, hint, pooled=pooled)
        self.piecewise = False

    def _encoded_at(self, x: Tensor) -> Tensor:
        return self._model.net.encode_hint(self._hint.to(x))


def _base_of(path: Path) -> Weights:
    """What the base ControlNet gives to every condition. Raises ModelFileError where there is not one beside `path`."""
    weights = companion(
        path,
        CTRLORA_BASE,
        f'"{path.name}" is a change to a base ControlNet, and which one is not known',
        "put the base (ctrlora_sd15_basecn700k) into the same folder",
    )
    shared = {key: key for key in weights if not any(part in key for part in _OWN)}
    return RenamedWeights(weights, shared)
