"""Names of ControlLLLite files: those of the U-Net's layers with underscores, in LDM's or in diffusers' naming."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .lazy import RenamedWeights

_LEVEL = 3
"""Input or output blocks a level, in SD 1.x, SD 2.x and SDXL."""
_BLOCKS = (
    (re.compile(r"down_blocks_(\d+)_attentions_(\d+)_"), "input_blocks_{}_1_", 1),
    (re.compile(r"up_blocks_(\d+)_attentions_(\d+)_"), "output_blocks_{}_1_", 0),
)
_MIDDLE = ("mid_block_attentions_0_", "middle_block_1_")
_WORDS = re.compile(
    "input_blocks|middle_block|output_blocks|transformer_blocks|to_[a-z]+|proj_in|proj_out|in_layers|out_layers"
    "|emb_layers|skip_connection|[a-z0-9]+"
)
"""What is between the dots of an LDM name."""


def ldm_names(weights: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """`weights` whose keys name layers as LDM does. Keys begin with `prefix`, or keep their names."""
    return RenamedWeights(weights, {_translated(key, prefix): key for key in weights})


def _translated(key: str, prefix: str) -> str:
    if not key.startswith(prefix):
        return key
    place = key.removeprefix(prefix)
    if place.startswith(_MIDDLE[0]):
        return prefix + _MIDDLE[1] + place.removeprefix(_MIDDLE[0])
    for pattern, name, first in _BLOCKS:
        if match := pattern.match(place):
            number = _LEVEL * int(match[1]) + int(match[2]) + first
            return prefix + name.format(number) + place[match.end() :]
    return key


def layer_of(place: str) -> str:
    """A layer's LDM name, from that of the module that acts before it, in which underscores stand for dots too."""
    return ".".join(_WORDS.findall(place))
