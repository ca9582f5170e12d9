"""Names of ControlNet-XS files: diffusers' brought to vislearn's."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from .resnet_names import RESNET

VISLEARN = "enc_zero_convs_out.0.0.weight"
DIFFUSERS = "control_to_base_for_conv_in.weight"
"""By which the two layouts are known; the other's is what it is translated to."""

_PREFIXES = ("", "control_model.", "model.")
_LEVEL = 3
"""Input blocks a level: two of residual layers, one that halves. Output blocks too."""
_TOP = {
    "conv_in": "control_model.input_blocks.0.0",
    "control_to_base_for_conv_in": "enc_zero_convs_out.0.0",
    "time_embedding.linear_1": "control_model.time_embed.0",
    "time_embedding.linear_2": "control_model.time_embed.2",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "mid_block.ctrl_to_base": "middle_block_out.0",
}
_RULES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"down_blocks\.(\d+)\.resnets\.(\d+)\.(.+)", "control_model.input_blocks.{after}.0.{rest}"),
        (r"down_blocks\.(\d+)\.attentions\.(\d+)\.(.+)", "control_model.input_blocks.{after}.1.{rest}"),
        (r"down_blocks\.(\d+)\.base_to_ctrl\.(\d+)()", "enc_zero_convs_in.{at}.0"),
        (r"down_blocks\.(\d+)\.ctrl_to_base\.(\d+)()", "enc_zero_convs_out.{after}.0"),
        (r"up_connections\.(\d+)\.ctrl_to_base\.(\d+)()", "dec_zero_convs_out.{at}.0"),
    )
)
_DOWN = re.compile(r"down_blocks\.(\d+)\.downsamplers\.conv")
_MIDDLERESNET = re.compile(r"mid_block\.midblock\.resnets\.(\d+)\.(.+)")
_MIDDLE_ATTENTION = "mid_block.midblock.attentions.0."
_HINT = re.compile(r"controlnet_cond_embedding\.blocks\.(\d+)")


def xs_names(names: Mapping[str, str]) -> dict[str, str] | None:
    """`names` (name -> key in the file) under vislearn's names where they are a ControlNet-XS's; None where not."""
    for prefix in _PREFIXES:
        if prefix + VISLEARN in names:
            return {key.removeprefix(prefix): origin for key, origin in names.items() if key.startswith(prefix)}
    if DIFFUSERS not in names:
        return None
    last = max((int(match[1]) for key in names if (match := _DOWN.match(key))), default=-1) + 1
    hints = 1 + max((int(match[1]) for key in names if (match := _HINT.match(key))), default=-1)
    return {_translated(key, last, hints): origin for key, origin in names.items()}


def is_diffusers_xs(keys: Collection[str]) -> bool:
    """Whether a file has diffusers' layout; `keys` are the file's own."""
    return any(key.endswith(DIFFUSERS) for key in keys)


def _translated(key: str, last: int, hints: int) -> str:
    module, _, leaf = key.rpartition(".")
    return f"{_module(module, last, hints)}.{leaf}" if module else key


def _module(name: str, last: int, hints: int) -> str:
    """`last`: number of the level that is not halved. `hints`: convolutions of the hint encoder between its ends."""
    if name in _TOP:
        return _TOP[name]
    if name == "mid_block.base_to_ctrl":
        return f"enc_zero_convs_in.{_LEVEL * last + 2}.0"
    if name == "controlnet_cond_embedding.conv_out":
        return f"input_hint_block.{2 * hints + 2}"
    if name.startswith(_MIDDLE_ATTENTION):
        return f"control_model.middle_block.1.{name.removeprefix(_MIDDLE_ATTENTION)}"
    if match := _HINT.fullmatch(name):
        return f"input_hint_block.{2 * int(match[1]) + 2}"
    if match := _DOWN.fullmatch(name):
        return f"control_model.input_blocks.{_LEVEL * (int(match[1]) + 1)}.0.op"
    if match := _MIDDLERESNET.fullmatch(name):
        return f"control_model.middle_block.{2 * int(match[1])}.{RESNET.get(match[2], match[2])}"
    for pattern, template in _RULES:
        if match := pattern.fullmatch(name):
            at = _LEVEL * int(match[1]) + int(match[2])
            return template.format(at=at, after=at + 1, rest=RESNET.get(match[3], match[3]))
    return name
