"""What script methods receive beside `p`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

AlwaysVisible = object()


@dataclass(eq=False)
class MaskBlendArgs:
    """Blending of the original into the masked latent; `blended_latent` may be replaced."""

    current_latent: Any
    nmask: Any
    init_latent: Any
    mask: Any
    blended_latent: Any
    denoiser: Any = None
    sigma: Any = None
    is_final_blend: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_final_blend = self.denoiser is None


@dataclass(eq=False)
class PostSampleArgs:
    samples: Any


@dataclass(eq=False)
class PostprocessImageArgs:
    image: Any


@dataclass(eq=False)
class PostProcessMaskOverlayArgs:
    index: int
    mask_for_overlay: Any
    overlay_image: Any


@dataclass(eq=False)
class PostprocessBatchListArgs:
    images: list[Any]


@dataclass
class OnComponent:
    component: Any
