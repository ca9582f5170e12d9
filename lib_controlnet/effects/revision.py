"""revision: SDXL is told a picture instead of a prompt, by CLIP bigG's embedding of it in place of the pooled prompt.

ReVision (Stability AI, 2023) as sd-webui-controlnet does it (scripts/hook.py, "Revision").
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..core.errors import BaseModelError
from .base import Effect, Setup

IDS = ("revision",)
_EMBEDDING = "image_embeds"


class Revision(Effect):
    """The one slider is how far the embedding is noised, 0..1 of the way. Raises BaseModelError unless for SDXL."""

    def __init__(self, setup: Setup) -> None:
        if not setup.sdxl:
            raise BaseModelError(
                f"{setup.preprocessor} steers SDXL only",
                field="module",
                found="a checkpoint that takes no pooled prompt",
                remedy="load a checkpoint of SDXL, or choose another preprocessor",
            )
        self.ignores_prompt = bool(setup.options["ignores_prompt"]) or setup.sampling.no_prompt
        embedding = setup.tensors[0][_EMBEDDING].float()
        timestep = min(max(int(setup.params[0] * 1000), 0), 999)
        noise = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(setup.sampling.seed))
        kept = _alphas_cumprod()[timestep].to(embedding)
        self._vector = (kept.sqrt() * embedding + (1.0 - kept).sqrt() * noise) * setup.weight

    def vector(self) -> Tensor:
        return self._vector


@cache
def _alphas_cumprod() -> Tensor:
    """LDM's "linear" schedule, which is linear in the roots of its betas, from 1e-4 to 2e-2."""
    betas = torch.linspace(1e-4**0.5, 2e-2**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


EFFECT = Revision
