"""revision: SDXL is told a picture instead of a prompt, by CLIP bigG's embedding of it in place of the pooled prompt.

ReVision (Stability AI, 2023) as sd-webui-controlnet does it (scripts/hook.py, "Revision").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ..core.errors import BaseModelError
from ..core.hints import Hint
from ..core.placed import Placed
from ..core.step import Step
from .base import BaseModel, BoundControl, OwnControl, UnitSettings

_EMBEDDING = "image_embeds"


class Revision(BoundControl):
    """The one slider is how far the embedding is noised, 0..1 of the way. Several units' embeddings add up."""

    obeys_mode = spatial = regional = stepwise = False

    def __init__(self, hints: Sequence[Hint], settings: UnitSettings) -> None:
        del hints
        seed = settings.checkpoint().seed
        self._ignores_prompt = bool(settings.options["ignores_prompt"]) or settings.checkpoint().no_prompt
        embedding = settings.tensors[0][_EMBEDDING].float()
        timestep = min(max(int(settings.params[0] * 1000), 0), 999)
        noise = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(seed))
        kept = _alphas_cumprod()[timestep].to(embedding)
        vector = (kept.sqrt() * embedding + (1.0 - kept).sqrt() * noise) * settings.weight
        self._vector = Placed(vector)

    def condition(self, step: Step) -> Step:
        """The first channels of `y` are the picture's for cond rows and 0 for the others."""
        if step.y is None:
            return step
        y, vector = step.y.clone(), self._vector.like(step.y)
        known = step.kept.flags([row in step.told for row in range(step.batch)], y.device)[:, None]
        told = torch.where(known, y[:, : vector.shape[1]], torch.zeros_like(vector))
        is_cond = step.kept.flags(step.is_cond, y.device)[:, None]
        y[:, : vector.shape[1]] = torch.where(is_cond, told + vector, torch.zeros_like(vector))
        context = torch.zeros_like(step.context) if self._ignores_prompt else step.context
        return replace(step, y=y, told=frozenset(range(step.batch)), context=context)


def check(base: BaseModel) -> None:
    """Raises BaseModelError unless for SDXL."""
    if base.config.adm_channels is None:
        raise BaseModelError(
            "revision steers SDXL only",
            field="module",
            found=f'checkpoint "{base.title}" is {base.kind}, which takes no pooled prompt',
            remedy="load a checkpoint of SDXL, or choose another preprocessor",
        )


@cache
def _alphas_cumprod() -> Tensor:
    """LDM's "linear" schedule, which is linear in the roots of its betas, from 1e-4 to 2e-2."""
    betas = torch.linspace(1e-4**0.5, 2e-2**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


EFFECT = OwnControl("revision", Revision, check)
