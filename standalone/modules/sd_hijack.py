"""What extensions look up at `model_hijack`: comments and infotext entries of the running job."""

from __future__ import annotations

from typing import Any

import torch


class EmbeddingDatabase:
    """Textual inversion embeddings. This host has none."""

    word_embeddings: dict[str, Any] = {}
    skipped_embeddings: dict[str, Any] = {}


class StableDiffusionModelHijack:
    """State of prompt processing; `comments` are shown under the picture."""

    def __init__(self) -> None:
        self.comments: list[str] = []
        self.extra_generation_params: dict[str, Any] = {}
        self.embedding_db = EmbeddingDatabase()
        self.clip: Any = None
        self.model: Any = None
        self.circular_enabled = False

    def hijack(self, m: Any) -> None:
        self.clip, self.model = m.cond_stage_model, m

    def undo_hijack(self, m: Any) -> None:
        self.apply_circular(False)
        self.clip = self.model = None

    def clear_comments(self) -> None:
        self.comments = []
        self.extra_generation_params = {}

    def apply_circular(self, enable: bool) -> None:
        """Tiling: convolutions continue at the opposite edge."""
        before, self.circular_enabled = self.circular_enabled, enable
        if before == enable:
            return
        for layer in self.model.modules() if self.model is not None else ():
            if isinstance(layer, torch.nn.Conv2d):
                layer.padding_mode = "circular" if enable else "zeros"

    def get_prompt_lengths(self, text: str) -> tuple[int, int]:
        """(tokens in the prompt, tokens after which a further chunk begins)."""
        if self.clip is None:
            return 0, 0
        _, count = self.clip.process_texts([text])
        return count, self.clip.get_target_prompt_token_count(count)


model_hijack = StableDiffusionModelHijack()
