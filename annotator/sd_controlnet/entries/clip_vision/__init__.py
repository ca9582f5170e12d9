"""What CLIP sees in a picture, as numbers: for style adapters, IP-Adapters and ReVision (Radford et al., 2021)."""

from __future__ import annotations

from typing import Any

from ...spec import Detector, Library, PreprocessorSpec, Runtime, Slider, WeightFile

CLIP_L = WeightFile(
    name="clip_vitl.pth",
    folder="clip_vision",
    size=1_710_671_599,
    licence="MIT",
    repo="openai/clip-vit-large-patch14",
    path="pytorch_model.bin",
)
CLIP_H = WeightFile(
    name="clip_h.pth",
    folder="clip_vision",
    size=2_528_481_905,
    licence="Apache-2.0",
    repo="h94/IP-Adapter",
    path="models/image_encoder/pytorch_model.bin",
)
CLIP_G = WeightFile(
    name="clip_g.pth", folder="clip_vision", size=3_689_911_098, licence="MIT", repo="lllyasviel/Annotators"
)
CENTRE_CROP = Slider("Centre crop", 0.0, 1.0, 1.0, 0.0)
"""1: the middle square of the picture, as in CLIP's training; 0: all of it, squashed into a square."""
TRANSFORMERS = Library("transformers", minimum="4.30")

_EMBEDS: dict[str, Any] = {
    "libraries": (TRANSFORMERS,),
    "resolution": None,
    "returns_image": False,
    "hides_control_mode": True,
    "full_because": "roundings grow from layer to layer to more than 1/255 of the embedding's range",
}
_IP_ADAPTER: dict[str, Any] = {
    "control_types": ("IP-Adapter",),
    "accepts_mask": True,
    "sliders": (CENTRE_CROP,),
    **_EMBEDS,
}
_REVISION: dict[str, Any] = {
    "control_types": ("Revision",),
    "weights": (CLIP_G,),
    "sliders": (Slider("Noise Augmentation", 0.0, 1.0, 0.01, 0.0),),
    "model_free": True,
    "effect": "revision",
    **_EMBEDS,
}

SPECS = (
    PreprocessorSpec(
        id="clip_vision",
        label="t2ia_style_clipvision",
        control_types=("T2I-Adapter",),
        weights=(CLIP_L,),
        embedding="clip_l",
        **_EMBEDS,
    ),
    PreprocessorSpec(
        id="ip-adapter_clip_sd15",
        label="ip-adapter_clip_h",
        aliases=("CLIP-ViT-H (IPAdapter)",),
        rank=100,
        weights=(CLIP_H,),
        embedding="clip_h",
        **_IP_ADAPTER,
    ),
    PreprocessorSpec(
        id="ip-adapter_clip_sdxl",
        label="ip-adapter_clip_g",
        aliases=("CLIP-ViT-bigG (IPAdapter)",),
        weights=(CLIP_G,),
        embedding="clip_g",
        **_IP_ADAPTER,
    ),
    PreprocessorSpec(id="ip-adapter_clip_sdxl_plus_vith", weights=(CLIP_H,), embedding="clip_h", **_IP_ADAPTER),
    PreprocessorSpec(
        id="revision_clipvision",
        aliases=("CLIP-G (Revision)",),
        rank=100,
        effect_options={"ignores_prompt": False},
        **_REVISION,
    ),
    PreprocessorSpec(
        id="revision_ignore_prompt",
        aliases=("CLIP-G (Revision ignore prompt)",),
        effect_options={"ignores_prompt": True},
        **_REVISION,
    ),
)
_CROPPED = {spec.id for spec in SPECS if CENTRE_CROP in spec.sliders}
_WEIGHTS = {spec.id: spec.weights[0] for spec in SPECS}


def load(runtime: Runtime, id_: str) -> Detector:
    """Entries of the same weights share one network."""
    from .detector import ClipVision

    return ClipVision(runtime, _WEIGHTS[id_], crops=id_ in _CROPPED)
