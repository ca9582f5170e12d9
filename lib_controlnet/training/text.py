"""Prompts to what the U-Net reads: the text encoders of SD 1.x, SD 2.x and SDXL checkpoints.

The networks are transformers' CLIPTextModel, the names are translated by diffusers' own converters. Prompts are taken
as they are (no weighting syntax) and cut at 77 tokens, as in the training scripts of diffusers and of the paper.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import TrainingError

TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "demo" / "clip"
"""CLIP's vocabulary, which all of these models share; it comes with the repository."""

_LDM_CLIP = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
_OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.", "conditioner.embedders.0.model.")
TEXT_KEYS = (*_LDM_CLIP, *_OPEN_CLIP)
_END_TOKEN, _LENGTH = 49407, 77


@dataclass(frozen=True, eq=False)
class Encoded:
    """`context` (n, 77, D); `pooled` (n, P) where the U-Net takes it (SDXL)."""

    context: Tensor
    pooled: Tensor | None


class TextEncoders:
    """One encoder, or SDXL's two, whose features lie side by side."""

    def __init__(self, encoders: Sequence[_Encoder]) -> None:
        self._encoders = encoders
        self._tokenizer = _tokenizer()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Encoded:
        """All `prompts` at once."""
        tokens = self._tokenizer(list(prompts), padding="max_length", max_length=_LENGTH, truncation=True)
        ids = torch.tensor(tokens["input_ids"])
        results = [encoder(ids) for encoder in self._encoders]
        pooled = [result.pooled for result in results if result.pooled is not None]
        return Encoded(torch.cat([result.context for result in results], dim=-1), pooled[-1] if pooled else None)

    def to(self, device: torch.device | str) -> TextEncoders:
        """Moves the networks."""
        for encoder in self._encoders:
            encoder.model.to(device)
        return self


def longer_than_read(captions: Sequence[str]) -> set[str]:
    """Those of `captions` whose end is cut off."""
    long = [caption for caption in captions if len(caption.encode("utf-8", "replace")) > _LENGTH - 2]
    if not long:
        return set()  # a token has at least a byte
    tokenizer = _tokenizer()
    return {caption for caption in long if len(tokenizer(caption)["input_ids"]) > _LENGTH}


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(TOKENIZER), local_files_only=True)


@dataclass(frozen=True, eq=False)
class _Encoder:
    """`penultimate`: the features before the last layer are used (`normed`: with the last norm: SD 2.x). `pad`: token
    that fills a prompt up. `pools`: the projected features of the end token are wanted too."""

    model: Any
    penultimate: bool = False
    normed: bool = True
    pad: int = _END_TOKEN
    pools: bool = False

    def __call__(self, ids: Tensor) -> Encoded:
        device = next(self.model.parameters()).device
        ids = _padded(ids, self.pad).to(device)
        answer = self.model(ids, output_hidden_states=True)
        inner = getattr(self.model, "text_model", self.model)
        context = answer.hidden_states[-2] if self.penultimate else answer.hidden_states[-1]
        if self.normed:
            context = inner.final_layer_norm(context)
        return Encoded(context, answer.text_embeds if self.pools else None)


def _padded(ids: Tensor, pad: int) -> Tensor:
    """Everything behind the first end token becomes `pad`."""
    ended = (ids == _END_TOKEN).cumsum(1) - (ids == _END_TOKEN).long()
    return torch.where(ended > 0, pad, ids)


def load_text_encoders(weights: Mapping[str, Tensor]) -> TextEncoders:
    """The text encoders in a checkpoint, told from its keys. Raises TrainingError where there are none."""
    clip = next((prefix for prefix in _LDM_CLIP if _any(weights, prefix)), None)
    open_clip = next((prefix for prefix in _OPEN_CLIP if _any(weights, prefix)), None)
    is_xl = open_clip == "conditioner.embedders.1.model."
    encoders: list[_Encoder] = []
    if clip:
        encoders.append(_Encoder(_clip(weights, clip), penultimate=is_xl, normed=not is_xl))
    if open_clip:
        model = _open_clip(weights, open_clip, projected=is_xl)
        encoders.append(_Encoder(model, penultimate=True, normed=not is_xl, pad=0, pools=is_xl))
    if not encoders:
        raise TrainingError("the checkpoint has no text encoder", field="base.checkpoint",
                            remedy="use a whole SD 1.x, SD 2.x or SDXL file")  # fmt: skip
    return TextEncoders(encoders)


def _any(weights: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in weights)


def _clip(weights: Mapping[str, Tensor], prefix: str) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    own = {k.removeprefix(prefix).removeprefix("text_model."): weights[k] for k in weights if k.startswith(prefix)}
    return _filled(CLIPTextModel(CLIPTextConfig(**_sizes(own), hidden_act="quick_gelu")), own)


def _open_clip(weights: Mapping[str, Tensor], prefix: str, *, projected: bool) -> Any:
    """OpenCLIP's text tower; `projected` keeps the matrix that makes the pooled text."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width = weights[f"{prefix}token_embedding.weight"].shape[1]
    part = {key: weights[key] for key in weights if key.startswith(prefix)}
    # The converter asks the model for its width only, to cut OpenCLIP's joint projections in three.
    stand_in: Any = type("Sized", (), {"config": type("Config", (), {"hidden_size": width})})
    converted = convert_open_clip_checkpoint(stand_in, part, prefix=prefix)
    own = {key.removeprefix("text_model."): value for key, value in converted.items()}
    kind: Any = CLIPTextModelWithProjection if projected else CLIPTextModel
    return _filled(kind(CLIPTextConfig(**_sizes(own), hidden_act="gelu")), own)


def _sizes(own: Mapping[str, Tensor]) -> dict[str, Any]:
    """CLIPTextConfig's sizes from the shapes; heads have 64 channels, as in every CLIP text model."""
    vocabulary, width = own["embeddings.token_embedding.weight"].shape
    layers = {int(match[1]) for key in own if (match := re.match(r"encoder\.layers\.(\d+)\.", key))}
    projection = own.get("text_projection.weight")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": own["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": own["embeddings.position_embedding.weight"].shape[0],
        "projection_dim": width if projection is None else projection.shape[0],
        "bos_token_id": 49406,
        "eos_token_id": _END_TOKEN,
    }


def _filled(model: Any, own: Mapping[str, Tensor]) -> Any:
    """`model` with its weights, whatever prefix this generation of transformers gives them."""
    wanted = model.state_dict()
    taken = {key: own[short].float() for key in wanted if (short := key.removeprefix("text_model.")) in own}
    missing = [key for key in wanted if key not in taken and not key.endswith("position_ids")]
    if missing:
        raise TrainingError("the checkpoint's text encoder is not whole", field="base.checkpoint",
                            found=f"missing: {', '.join(missing[:3])}")  # fmt: skip
    model.load_state_dict(taken, strict=False)
    return model.eval().requires_grad_(False)
