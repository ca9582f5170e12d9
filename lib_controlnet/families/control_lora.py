"""Control-LoRA (Stability AI): a ControlNet stored as low-rank changes to the checkpoint it is used with.

Factors may have kohya-ss's names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..loading.detect import KeyCondition
from ..loading.kohya import DOWN, as_stabilitys
from ..loading.lazy import outline
from ..loading.low_rank import MARK, merge_base
from ..nets.controlnet import ControlNet
from .base import CONTROLNET_SHARES, Runtime, Sheet, Weights
from .controlnet import AnyControlNet, LoadedControlNet, load_controlnet, sheet_of_blocks


class ControlLoraFamily:
    """Detects by the mark, or by factors beside a whole hint encoder."""

    id = "control_lora"
    shares: Mapping[str, float] = CONTROLNET_SHARES
    before: Sequence[str] = ("controlnet",)
    condition = KeyCondition(
        all_of=("input_hint_block.0.weight", "zero_convs.0.0.weight", "middle_block_out.0.weight"),
        any_of=(MARK, "*.in_layers.2.up", f"*{DOWN}"),
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> AnyControlNet:
        """Builds the network for the loaded checkpoint. Raises ModelFileError where names or shapes do not fit."""
        base = runtime.needed_base(path)
        merged = merge_base(as_stabilitys(weights, base.keys()), base)
        return load_controlnet(
            path, merged, metadata, runtime, holds_base=True, network=ControlNet, model=LoadedControlNet
        )

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        blocks = sum(f"zero_convs.{index}.0.weight" in weights for index in range(len(weights)))
        widths = [
            outline(weights, key).shape[1]
            for key in weights
            if key.endswith((".attn2.to_k.down", ".attn2.to_k.weight", f"attn2.to_k{DOWN}", f"attn2_to_k{DOWN}"))
        ]
        return sheet_of_blocks(blocks, widths[0] if widths else 0)


FAMILY = ControlLoraFamily()
