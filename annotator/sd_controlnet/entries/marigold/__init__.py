"""Depth by a diffusion model that learned it from rendered pictures (Ke et al., 2024, arXiv:2312.02145)."""

from __future__ import annotations

from typing import Any

from ...spec import FLOAT16, Detector, Library, PreprocessorSpec, Runtime, WeightFile, resolution_slider

_KILOBYTE, _MEGABYTE = 1_000, 1_000_000
_HUB: dict[str, Any] = {"folder": "marigold", "licence": "Apache-2.0", "repo": "prs-eth/marigold-v1-0"}
PARTS = {
    "unet": (
        WeightFile(name="unet/config.json", size=2 * _KILOBYTE, **_HUB),
        WeightFile(name="unet/diffusion_pytorch_model.safetensors", size=3464 * _MEGABYTE, **_HUB),
    ),
    "vae": (
        WeightFile(name="vae/config.json", size=1 * _KILOBYTE, **_HUB),
        WeightFile(name="vae/diffusion_pytorch_model.safetensors", size=335 * _MEGABYTE, **_HUB),
    ),
    "text_encoder": (
        WeightFile(name="text_encoder/config.json", size=1 * _KILOBYTE, **_HUB),
        WeightFile(name="text_encoder/model.safetensors", size=1362 * _MEGABYTE, **_HUB),
    ),
    "scheduler": (WeightFile(name="scheduler/scheduler_config.json", size=1 * _KILOBYTE, **_HUB),),
}
"""By part, the configuration and the weights, if it has any."""

SPEC = PreprocessorSpec(
    id="depth_marigold",
    control_types=("Depth",),
    finds="depth",
    resolution=resolution_slider(768),
    half=FLOAT16,
    weights=tuple(weight for part in PARTS.values() for weight in part),
    libraries=(Library("diffusers", minimum="0.28"), Library("transformers", minimum="4.30")),
)


def load(runtime: Runtime) -> Detector:
    """A U-Net, a variational autoencoder, and once the empty prompt."""
    from .detector import Marigold

    return Marigold(runtime, PARTS)
