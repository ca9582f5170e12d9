"""What kind of model a file is, told from its keys: conditions as data, which can be printed and tested."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class KeyCondition:
    """Keys that must all, of which any, or of which none must be there. `*` in a key stands for anything."""

    all_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()

    def matches(self, keys: Collection[str]) -> bool:
        """True where nothing is `missing`. A mapping's `keys()` is quickest."""
        return (
            all(_has(keys, key) for key in self.all_of)
            and (not self.any_of or any(_has(keys, key) for key in self.any_of))
            and not any(_has(keys, key) for key in self.none_of)
        )

    def missing(self, keys: Collection[str]) -> tuple[str, ...]:
        """Why it does not match, each reason in words; empty where it does."""
        reasons = [f"no {key}" for key in self.all_of if not _has(keys, key)]
        if self.any_of and not any(_has(keys, key) for key in self.any_of):
            reasons.append(f"none of {', '.join(self.any_of)}")
        reasons += [f"{key}, which it must not have" for key in self.none_of if _has(keys, key)]
        return tuple(reasons)


@dataclass(frozen=True)
class Kind:
    """A kind of model that users put among control models, in words for the user."""

    name: str
    condition: KeyCondition
    backbone: str = ""
    """The network that it was made for, where that is none of Stable Diffusion's U-Nets."""


def _has(keys: Collection[str], wanted: str) -> bool:
    if "*" not in wanted:
        return wanted in keys
    return any(fnmatchcase(key, wanted) for key in keys)


CTRLORA_BASE = KeyCondition(
    all_of=("zero_convs.0.0.weight", "middle_block_out.0.weight", "input_blocks.0.0.weight"),
    none_of=("input_hint_block.*", "control_model.*"),
)
"""By canonical keys: a ControlNet without a hint encoder, which CtrLoRAs change."""

POWERPAINT_TEXT = KeyCondition(all_of=("text_model.embeddings.token_embedding.trainable_embeddings.*",))
"""PowerPaint's text encoder."""

_LORA = (
    "*.lora_up.*",
    "*.lora_down.*",
    "*.lora_A.*",
    "*.lora.up.*",
    "*lora_linear_layer.up.*",
    "*.hada_w1_a",
    "*.lokr_w1*",
    "*.oft_blocks",
)


def _kind(
    name: str, *all_of: str, any_of: tuple[str, ...] = (), none_of: tuple[str, ...] = (), backbone: str = ""
) -> Kind:
    return Kind(name, KeyCondition(all_of, any_of, none_of), backbone)


_BLOCKS = "controlnet_blocks.0.weight"
_EMBEDDER = "controlnet_x_embedder.weight"
_OTHER_BACKBONES: tuple[Kind, ...] = (
    _kind(
        "a ControlLLLite model for Anima",
        any_of=("*lllite_dit_blocks*", "lllite_conditioning1.*"),
        backbone="Anima",
    ),
    _kind("a HunyuanDiT ControlNet", "after_proj_list.18.bias", backbone="HunyuanDiT"),
    _kind("a Flux ControlNet (XLabs)", _BLOCKS, "double_blocks.0.img_attn.norm.key_norm.scale", backbone="Flux"),
    _kind("a Flux ControlNet (MistoLine)", "controlnet_blocks.0.linear.weight", backbone="Flux"),
    _kind("an SD3.5 ControlNet", _BLOCKS, "transformer_blocks.0.adaLN_modulation.1.bias", backbone="SD 3.5"),
    _kind("an SD3 ControlNet", _BLOCKS, "pos_embed_input.proj.weight", backbone="SD 3"),
    _kind("a Qwen-Image ControlNet", _BLOCKS, "transformer_blocks.0.img_mlp.net.0.proj.weight", backbone="Qwen-Image"),
    _kind("a Flux ControlNet Union", _EMBEDDER, "controlnet_mode_embedder.weight", backbone="Flux"),
    _kind("a Flux ControlNet", _BLOCKS, _EMBEDDER, backbone="Flux"),
    _kind("a Qwen-Image control patch", "controlnet_blocks.0.y_rms.weight", backbone="Qwen-Image"),
    _kind("a Qwen-Image control model (Fun)", "control_img_in.weight", "control_blocks.*", backbone="Qwen-Image"),
    _kind("a Z-Image control model (Fun)", "control_all_x_embedder.2-1.weight", "control_layers.*", backbone="Z-Image"),
    _kind(
        "a Stable Cascade ControlNet",
        any_of=("backbone.0.0.weight", "backbone.10.blocks.0.weight"),
        backbone="Stable Cascade",
    ),
    _kind("a PuLID for Flux", any_of=("pulid_encoder.*", "pulid_ca.*"), backbone="Flux"),
    _kind(
        "a Flux IP-Adapter",
        any_of=("*double_blocks.0.processor.ip_adapter*", "double_blocks.0.ip_adapter*"),
        backbone="Flux",
    ),
)
"""Control models for networks of other kinds. Sources of the keys: diffusers' classes, ComfyUI, XLabs, DiffSynth."""

# In the order in which they are tried: what adds keys to another kind comes before it. Sources of the marker keys: the
# loaders of the ControlNet extensions and of ComfyUI, and diffusers' models.
KINDS: tuple[Kind, ...] = (
    _kind("a Control-LoRA", "lora_controlnet"),
    _kind("a Control-LoRA", "*input_hint_block.0.weight", "*zero_convs.0.0.weight", "*.lora_down.weight"),
    _kind(
        "a CtrLoRA (its base ControlNet lies beside it)",
        "*zero_convs.0.0.weight",
        "*.lora_layer.down.weight",
        none_of=("*input_hint_block.0.weight", "*input_blocks.0.0.weight"),
    ),
    _kind(
        "the base ControlNet of CtrLoRAs (it lies beside them, and one of them is chosen)",
        "*zero_convs.0.0.weight",
        "*middle_block_out.0.weight",
        "*input_blocks.0.0.weight",
        none_of=("*input_hint_block.*", "*output_blocks.0.*"),
    ),
    _kind(
        "a SparseCtrl model",
        "*motion_modules.*",
        any_of=("*controlnet_cond_embedding.*", "*input_hint_block.*"),
    ),
    _kind("an SVD ControlNet (video)", "*temporal_res_block*", any_of=("controlnet_*",)),
    _kind("an AnimateDiff motion module", "*motion_modules.*"),
    _kind(
        "the fuser of CoAdapters (it acts where several of them do, and need not be chosen)",
        "*seq_proj",
        "*task_embedding",
    ),
    _kind(
        "a PowerPaint model (its text encoder lies beside it)",
        "conv_in_condition.weight",
        "down_blocks.0.attentions.0.proj_in.weight",
    ),
    Kind("PowerPaint's text encoder (it lies beside the network, and that is chosen)", POWERPAINT_TEXT),
    _kind("a BrushNet model", "conv_in_condition.weight"),
    _kind("a ControlNet-XS model", any_of=("control_to_base_for_conv_in.weight", "*enc_zero_convs_out.0.0.weight")),
    _kind("a ControlNet Union model", any_of=("*control_add_embedding.linear_1.bias", "*task_embedding")),
    _kind(
        "a ControlNet for Stable Diffusion",
        "*input_hint_block.0.weight",
        "*zero_convs.0.0.weight",
        "*middle_block_out.0.weight",
    ),
    _kind(
        "a ControlNet for Stable Diffusion",
        "controlnet_cond_embedding.conv_in.weight",
        "controlnet_down_blocks.0.weight",
        "controlnet_mid_block.weight",
    ),
    _kind(
        "an incomplete ControlNet for Stable Diffusion",
        any_of=("*input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"),
    ),
    *_OTHER_BACKBONES,
    _kind("a ControlLLLite model", any_of=("*lllite_unet*", "*lllite*conditioning1*")),
    _kind("a T2I-Adapter style model", "style_embedding"),
    _kind(
        "a T2I-Adapter",
        any_of=("*body.0.in_conv.weight", "*body.0.block1.weight", "*body.0.resnets.0.block1.weight"),
    ),
    _kind("a PuLID", any_of=("id_adapter.*", "id_adapter_attn_layers.*")),
    _kind("an IP-Adapter", any_of=("image_proj.*", "image_proj_model.*", "ip_adapter.*")),
    _kind(
        "a LoRA (it belongs into models/Lora and into the prompt)",
        any_of=_LORA,
    ),
    _kind(
        "a textual inversion (it belongs into embeddings and into the prompt)",
        any_of=("emb_params", "string_to_param.*", "clip_l"),
    ),
    _kind(
        "a whole Stable Diffusion checkpoint without a ControlNet",
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.decoder.conv_in.weight",
    ),
    _kind("a Flux checkpoint", any_of=("*double_blocks.0.img_attn.*",)),
    _kind("an SD3 checkpoint", any_of=("*joint_blocks.0.context_block.*",)),
    _kind(
        "a Stable Diffusion U-Net",
        any_of=("*output_blocks.0.0.in_layers.0.weight", "up_blocks.0.resnets.0.conv1.weight"),
        none_of=("decoder.*",),
    ),
    _kind(
        "a VAE (it belongs into models/VAE)",
        any_of=("*decoder.conv_in.weight", "*decoder.mid_block.resnets.0.conv1.weight"),
    ),
    _kind("a TAESD decoder", "1.weight", "3.conv.0.weight"),
    _kind("a CLIP text encoder", any_of=("*text_model.encoder.layers.0.*", "*transformer.resblocks.0.attn.*")),
    _kind("a CLIP image encoder", any_of=("vision_model.encoder.layers.0.*",)),
    _kind("an upscaler", any_of=("model.1.sub.0.RDB1.*", "RRDB_trunk.0.*", "body.0.rdb1.*", "conv_first.weight")),
)


def kind_of(keys: Collection[str]) -> Kind | None:
    """The kind of the file with these keys; None where it is not known."""
    return next((kind for kind in KINDS if kind.condition.matches(keys)), None)


def describe_kind(keys: Collection[str]) -> str:
    """What the file with these keys seems to be, in words for the user; its first keys where it is not known."""
    kind = kind_of(keys)
    if kind is not None:
        return kind.name
    some = ", ".join(list(keys)[:3])
    return f"a file of an unknown kind with {len(keys)} tensors ({some}, ...)"
