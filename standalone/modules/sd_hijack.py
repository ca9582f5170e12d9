"""What extensions look up at `model_hijack`: comments and infotext entries of the running job."""

from __future__ import annotations

from typing import Any


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

    def hijack(self, m: Any) -> None:
        self.clip = m.cond_stage_model

    def undo_hijack(self, m: Any) -> None:
        self.clip = None

    def clear_comments(self) -> None:
        self.comments = []
        self.extra_generation_params = {}

    def apply_circular(self, enable: bool) -> None:
        """Tiling is not offered; asking for it is said, not ignored."""
        if enable:
            self.comments.append("Tiling is not supported by this host; the picture was made without it.")

    def get_prompt_lengths(self, text: str) -> tuple[int, int]:
        """(tokens in the prompt, tokens after which a further chunk begins)."""
        if self.clip is None:
            return 0, 0
        _, count = self.clip.process_texts([text])
        return count, self.clip.get_target_prompt_token_count(count)


model_hijack = StableDiffusionModelHijack()
