"""The text encoder with prompts of any length (chunks of 75 tokens) and weighted words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from modules import devices, prompt_parser, shared
from torch import Tensor, nn

CHUNK = 75


@dataclass
class PromptChunk:
    """77 tokens (start, 75, end) and a weight for each."""

    tokens: list[int] = field(default_factory=list)
    multipliers: list[float] = field(default_factory=list)
    fixes: list[Any] = field(default_factory=list)


class ClipEmbedder(nn.Module):
    """CLIP text model and its tokenizer, as the checkpoint's `cond_stage_model`."""

    def __init__(self, transformer: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.tokenizer = tokenizer


class _Chunker:
    """Collects weighted tokens of one prompt into chunks."""

    def __init__(self, start: int, end: int, comma: int | None) -> None:
        self.start, self.end, self.comma = start, end, comma
        self.chunks: list[PromptChunk] = []
        self.current = PromptChunk()
        self.last_comma = -1

    def close(self) -> None:
        missing = CHUNK - len(self.current.tokens)
        tokens = [self.start, *self.current.tokens, *[self.end] * missing, self.end]
        self.chunks.append(PromptChunk(tokens, [1.0, *self.current.multipliers, *[1.0] * missing, 1.0]))
        self.current = PromptChunk()
        self.last_comma = -1

    def add(self, token: int, weight: float) -> None:
        full = len(self.current.tokens) == CHUNK
        if token == self.comma:
            self.last_comma = len(self.current.tokens)
        elif full and self._words_after_comma():
            self._move_words_after_comma()
        if len(self.current.tokens) == CHUNK:
            self.close()
        self.current.tokens.append(token)
        self.current.multipliers.append(weight)

    def _words_after_comma(self) -> bool:
        """Whether a comma is near enough that what follows it should start the next chunk."""
        limit = shared.opts.comma_padding_backtrack
        return limit != 0 and self.last_comma != -1 and len(self.current.tokens) - self.last_comma <= limit

    def _move_words_after_comma(self) -> None:
        cut = self.last_comma + 1
        tokens, multipliers = self.current.tokens[cut:], self.current.multipliers[cut:]
        del self.current.tokens[cut:], self.current.multipliers[cut:]
        self.close()
        self.current.tokens, self.current.multipliers = tokens, multipliers


class TextConditioner(nn.Module):
    """Prompts to conditions (B, 77 * chunks, D)."""

    chunk_length = CHUNK
    is_trainable = False
    input_key = "txt"

    def __init__(self, wrapped: ClipEmbedder, hijack: Any) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.hijack = hijack
        tokenizer = wrapped.tokenizer
        self.tokenizer = tokenizer
        self.comma_token = tokenizer.get_vocab().get(",</w>", None)
        self.id_start = tokenizer.bos_token_id
        self.id_end = tokenizer.eos_token_id
        self.id_pad = self.id_end

    @property
    def transformer(self) -> Any:
        return self.wrapped.transformer

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=False, add_special_tokens=False)["input_ids"]

    def empty_chunk(self) -> PromptChunk:
        return PromptChunk([self.id_start, *[self.id_end] * (CHUNK + 1)], [1.0] * (CHUNK + 2))

    def get_target_prompt_token_count(self, token_count: int) -> int:
        return -(-max(token_count, 1) // CHUNK) * CHUNK

    def tokenize_line(self, line: str) -> tuple[list[PromptChunk], int]:
        """Chunks of one prompt, and its number of tokens."""
        plain = shared.opts.emphasis == "None"
        parsed = [[line, 1.0]] if plain else prompt_parser.parse_prompt_attention(line)
        chunker = _Chunker(self.id_start, self.id_end, self.comma_token)
        count = 0
        for tokens, (text, weight) in zip(self.tokenize([text for text, _ in parsed]), parsed, strict=True):
            if text == "BREAK" and weight == -1:
                count += CHUNK - len(chunker.current.tokens)
                chunker.close()
                continue
            count += len(tokens)
            for token in tokens:
                chunker.add(token, weight)
        if chunker.current.tokens or not chunker.chunks:
            chunker.close()
        return chunker.chunks, count

    def process_texts(self, texts: list[str]) -> tuple[list[list[PromptChunk]], int]:
        lines = {text: self.tokenize_line(text) for text in texts}
        return [lines[x][0] for x in texts], max(count for _, count in lines.values())

    def forward(self, texts: list[str]) -> Tensor:
        """(B, 77 * chunks, D) of B texts; shorter ones are filled with empty chunks."""
        batch, _ = self.process_texts(texts)
        columns = []
        for index in range(max(map(len, batch))):
            chunks = [x[index] if index < len(x) else self.empty_chunk() for x in batch]
            columns.append(self.process_tokens([x.tokens for x in chunks], [x.multipliers for x in chunks]))
        if any("(" in x or "[" in x for x in texts) and shared.opts.emphasis != "Original":
            self.hijack.extra_generation_params["Emphasis"] = shared.opts.emphasis
        return torch.hstack(columns)

    def process_tokens(self, tokens: list[list[int]], multipliers: list[list[float]]) -> Tensor:
        """One chunk of each text through the encoder, words weighted: (B, 77, D)."""
        z = self.encode_with_transformers(torch.asarray(tokens).to(devices.device))
        return emphasize(z, torch.asarray(multipliers).to(devices.device))

    def encode_with_transformers(self, tokens: Tensor) -> Tensor:
        skip = shared.opts.CLIP_stop_at_last_layers
        outputs = self.transformer(input_ids=tokens, output_hidden_states=skip > 1)
        if skip <= 1:
            return outputs.last_hidden_state
        text_model = getattr(self.transformer, "text_model", self.transformer)
        return text_model.final_layer_norm(outputs.hidden_states[-skip])


def emphasize(z: Tensor, multipliers: Tensor) -> Tensor:
    """Weight tokens of z (B, N, D) by multipliers (B, N); "Original" keeps the mean of all numbers."""
    if shared.opts.emphasis in ("None", "Ignore"):
        return z
    weighted = z * multipliers[..., None]
    return weighted if shared.opts.emphasis == "No norm" else weighted * (z.mean() / weighted.mean())
