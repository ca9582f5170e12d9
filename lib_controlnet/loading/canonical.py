"""One naming for every file of a kind: LDM's, without prefixes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

from .lazy import RenamedWeights
from .resnet_names import RESNET
from .xs import xs_names

DIFFERENCE_KEY = "difference"

_WRAPPERS = ("state_dict.", "controlnet.", "module.", "model.", "adapter.")
_CONTROL = "control_model."
_DIFFUSERS = "controlnet_cond_embedding.conv_in.weight"
_ONE_LAYER = "controlnet_cond_embedding.weight"
"""A SparseCtrl's hint encoder where the hint is a latent."""
_BRUSH = "conv_in_condition.weight"
"""A BrushNet's first layer."""
_ADAPTER = "body.0.resnets.0.block1.weight"
_IP_ADAPTER = {"image_proj_model.": "image_proj.", "adapter_modules.": "ip_adapter."}
"""As the training scripts of IP-Adapter name what the released files call otherwise."""
_PULID = (
    (re.compile(r"id_adapter_attn_layers\.(\d+)\.id_to_([kv])\."), r"ip_adapter.\1.to_\2_ip."),
    (re.compile(r"id_adapter\."), "image_proj."),
)
"""PuLID's authors' names, and those of the files that were made for IP-Adapter's loaders."""
_UNET = "unet."

_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_in_condition": "input_blocks.0.0",
    "brushnet_mid_block": "middle_block_out.0",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding": "input_hint_block.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
}


def canonical(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`weights` under LDM names, without `module.`, `adapter.` and the like; no tensor is read or changed.

    Of a whole-model file (`control_model.` beside `model.diffusion_model.`) only the ControlNet remains. Diffusers
    ControlNet, ControlNet-XS and T2I-Adapter names are translated, so are those of PuLID and of IP-Adapters as they are
    trained, beside which the untrained U-Net may lie; keys of other kinds, and those a kind adds, keep their names.
    """
    names = {key: key for key in weights}
    for prefix in _WRAPPERS:
        if names and all(key.startswith(prefix) for key in names):
            names = {key.removeprefix(prefix): origin for key, origin in names.items()}
    xs = xs_names(names)
    if xs is not None:
        return RenamedWeights(weights, xs)
    if any(key.startswith(_CONTROL) for key in names):
        names = {
            key.removeprefix(_CONTROL): origin
            for key, origin in names.items()
            if key.startswith(_CONTROL) or key == DIFFERENCE_KEY
        }
    if any(key in names for key in (_DIFFUSERS, _ONE_LAYER, _BRUSH)):
        translate = _Translation(names)
        names = {translate(key): origin for key, origin in names.items()}
    if _ADAPTER in names:
        names = _adapter_names(names)
    if any(key.startswith(tuple(_IP_ADAPTER)) for key in names):
        names = {_released(key): origin for key, origin in names.items() if not key.startswith(_UNET)}
    if any(key.startswith("id_adapter") for key in names):
        names = {_as_ip_adapter(key): origin for key, origin in names.items()}
    return RenamedWeights(weights, names)


def is_diffusers(keys: Collection[str]) -> bool:
    """Whether a ControlNet's file has diffusers' names."""
    return any(key.endswith(_DIFFUSERS) for key in keys)


def _released(key: str) -> str:
    for trained, released in _IP_ADAPTER.items():
        if key.startswith(trained):
            return released + key.removeprefix(trained)
    return key


def _as_ip_adapter(key: str) -> str:
    for pattern, name in _PULID:
        if pattern.match(key):
            return pattern.sub(name, key, count=1)
    return key


def _adapter_names(names: Mapping[str, str]) -> dict[str, str]:
    """Diffusers' T2I-Adapter names to TencentARC's. Full adapters number their blocks through, light ones a stage."""
    block = re.compile(r"body\.(\d+)\.resnets\.(\d+)\.(.+)")
    entry = re.compile(r"body\.(\d+)\.(in_conv\..+)")
    light = "conv_in.weight" not in names
    each = 1 + max(int(match[2]) for key in names if (match := block.fullmatch(key)))

    def translated(key: str) -> str:
        if match := block.fullmatch(key):
            stage, index, rest = int(match[1]), int(match[2]), match[3]
            return f"body.{stage}.body.{index}.{rest}" if light else f"body.{each * stage + index}.{rest}"
        if not light and (match := entry.fullmatch(key)):
            return f"body.{each * int(match[1])}.{match[2]}"
        return key

    return {translated(key): origin for key, origin in names.items()}


class _Translation:
    """Diffusers' ControlNet names to LDM's. Counts what LDM numbers through: blocks a level, layers of the hint."""

    def __init__(self, keys: Iterable[str]) -> None:
        per_level = re.compile(r"down_blocks\.0\.resnets\.(\d+)\.conv1\.weight")
        hint = re.compile(r"controlnet_cond_embedding\.blocks\.(\d+)\.weight")
        self._level = 1
        self._hint_blocks = 0
        self._attending = set[str]()
        """Levels of a decoder with transformers."""
        attention = re.compile(r"up_blocks\.(\d+)\.attentions\.")
        for key in keys:
            if match := per_level.fullmatch(key):
                self._level = max(self._level, int(match[1]) + 2)
            if match := attention.match(key):
                self._attending.add(match[1])
            if match := hint.fullmatch(key):
                self._hint_blocks = max(self._hint_blocks, int(match[1]) + 1)

    def __call__(self, key: str) -> str:
        module, _, leaf = key.rpartition(".")
        return f"{self._module(module)}.{leaf}" if module else key

    def _module(self, name: str) -> str:
        if name in _TOP:
            return _TOP[name]
        for pattern, rule in self._RULES:
            if match := pattern.fullmatch(name):
                return rule(self, *match.groups())
        return name

    def _resnet(self, level: str, index: str, rest: str) -> str:
        return f"input_blocks.{self._level * int(level) + int(index) + 1}.0.{RESNET.get(rest, rest)}"

    def _attention(self, level: str, index: str, rest: str) -> str:
        return f"input_blocks.{self._level * int(level) + int(index) + 1}.1.{rest}"

    def _downsampler(self, level: str) -> str:
        return f"input_blocks.{self._level * (int(level) + 1)}.0.op"

    def _decoder_resnet(self, level: str, index: str, rest: str) -> str:
        return f"output_blocks.{self._level * int(level) + int(index)}.0.{RESNET.get(rest, rest)}"

    def _decoder_attention(self, level: str, index: str, rest: str) -> str:
        return f"output_blocks.{self._level * int(level) + int(index)}.1.{rest}"

    def _upsampler(self, level: str) -> str:
        return f"output_blocks.{self._level * (int(level) + 1) - 1}.{2 if level in self._attending else 1}.conv"

    def _added_to_decoder(self, index: str) -> str:
        return f"up_zero_convs.{index}.0"

    def _middle_resnet(self, index: str, rest: str) -> str:
        return f"middle_block.{2 * int(index)}.{RESNET.get(rest, rest)}"

    def _middle_attention(self, rest: str) -> str:
        return f"middle_block.1.{rest}"

    def _hint(self, index: str) -> str:
        return f"input_hint_block.{2 * int(index) + 2}"

    def _hint_out(self) -> str:
        return f"input_hint_block.{2 * self._hint_blocks + 2}"

    def _zero_conv(self, index: str) -> str:
        return f"zero_convs.{index}.0"

    _RULES = (
        (re.compile(r"down_blocks\.(\d+)\.resnets\.(\d+)\.(.+)"), _resnet),
        (re.compile(r"down_blocks\.(\d+)\.attentions\.(\d+)\.(.+)"), _attention),
        (re.compile(r"down_blocks\.(\d+)\.downsamplers\.0\.conv"), _downsampler),
        (re.compile(r"mid_block\.resnets\.(\d+)\.(.+)"), _middle_resnet),
        (re.compile(r"mid_block\.attentions\.0\.(.+)"), _middle_attention),
        (re.compile(r"controlnet_cond_embedding\.blocks\.(\d+)"), _hint),
        (re.compile(r"controlnet_cond_embedding\.conv_out"), _hint_out),
        (re.compile(r"controlnet_down_blocks\.(\d+)"), _zero_conv),
        (re.compile(r"brushnet_down_blocks\.(\d+)"), _zero_conv),
        (re.compile(r"up_blocks\.(\d+)\.resnets\.(\d+)\.(.+)"), _decoder_resnet),
        (re.compile(r"up_blocks\.(\d+)\.attentions\.(\d+)\.(.+)"), _decoder_attention),
        (re.compile(r"up_blocks\.(\d+)\.upsamplers\.0\.conv"), _upsampler),
        (re.compile(r"brushnet_up_blocks\.(\d+)"), _added_to_decoder),
    )
