"""PowerPaint's two files with random weights under its authors' names, and what transformers' CLIP says of them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from lib_controlnet.nets.config import UNetConfig
from tests.families.brushnet_reference import ReferenceBrushNet
from tests.nets.ldm_oracle import randomise

WORDS = ("P_ctxt", "P_shape", "P_obj")
_VOCABULARY, _POSITIONS, _VECTORS = 60, 21, 10
_TOKENS = "text_model.embeddings.token_embedding"


class Speaker:
    """transformers' text encoder with vectors of its own for three words."""

    def __init__(self, width: int, seed: int = 1) -> None:
        config = CLIPTextConfig(
            vocab_size=_VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=max(width // 64, 1),
            max_position_embeddings=_POSITIONS,
            bos_token_id=_VOCABULARY - 2,
            eos_token_id=_VOCABULARY - 1,
            pad_token_id=_VOCABULARY - 1,
        )
        self._model = CLIPTextModel(config).eval()
        randomise(self._model, seed)
        generator = torch.Generator().manual_seed(seed)
        self._words = {word: torch.randn(_VECTORS, width, generator=generator) for word in WORDS}

    @property
    def file(self) -> dict[str, Tensor]:
        """As the authors' `pytorch_model.bin`: CLIP's names, the token embedding wrapped."""
        prefix = "" if any(key.startswith("text_model.") for key in self._model.state_dict()) else "text_model."
        named = {f"{prefix}{key}": value for key, value in self._model.state_dict().items()}
        table = named.pop(f"{_TOKENS}.weight")
        own = {f"{_TOKENS}.trainable_embeddings.{word}": value for word, value in self._words.items()}
        return {**named, **own, f"{_TOKENS}.wrapped.weight": table}

    @torch.no_grad()
    def says(self, word: str) -> Tensor:
        """(N, D) of a prompt that is one word, or none: each vector stands in the place of a token."""
        ids = torch.full((1, _POSITIONS), _VOCABULARY - 1)
        ids[0, 0] = _VOCABULARY - 2
        table = next(
            m for m in self._model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == _VOCABULARY
        )
        count = _VECTORS if word else 0

        def put(_module: nn.Module, _ids: object, found: Tensor) -> Tensor:
            found = found.clone()
            if count:
                found[0, 1 : 1 + count] = self._words[word]
            return found

        handle = table.register_forward_hook(put)
        try:
            return self._model(ids).last_hidden_state[0]
        finally:
            handle.remove()


def write(path: Path, config: UNetConfig, seed: int = 8) -> tuple[ReferenceBrushNet, Speaker]:
    """The network under `path`, and its text encoder beside it."""
    net, speaker = ReferenceBrushNet(config, hears=True), Speaker(config.context_dim, seed)
    randomise(net, seed)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, path)
    torch.save(speaker.file, path.with_name("pytorch_model.bin"))
    return net, speaker
