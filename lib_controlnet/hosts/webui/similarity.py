"""How alike a picture and its prompt are, by the CLIP of the host's interrogator."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image


def prompt_similarity(picture: Image.Image, prompt: str) -> float | None:
    """The cosine of CLIP's picture and text, 0..1; None where the host has no CLIP in memory.

    None is loaded for this: it would be downloaded. "Interrogate CLIP" in img2img brings it.
    """
    from modules import shared

    interrogator: Any = getattr(shared, "interrogator", None)
    model, prepare = (getattr(interrogator, name, None) for name in ("clip_model", "clip_preprocess"))
    if model is None or prepare is None or not prompt.strip():
        return None
    import clip

    if hasattr(interrogator, "send_clip_to_gpu"):
        interrogator.send_clip_to_gpu()
    weight = next(model.parameters())
    with torch.no_grad():
        seen = model.encode_image(prepare(picture.convert("RGB")).unsqueeze(0).to(weight.device, weight.dtype))
        said = model.encode_text(clip.tokenize([prompt], truncate=True).to(weight.device))
    return max(0.0, float(torch.nn.functional.cosine_similarity(seen.float(), said.float())[0]))
