"""The text encoder of PowerPaint v2: CLIP's, with words of its own for what is to be done with a hole.

Zhuang et al., "A Task is Worth One Word: Learning with Task Prompts for High-Quality Versatile Image Inpainting", 2023
(arXiv:2312.03594); Radford et al., 2021 (arXiv:2103.00020) for the encoder. Keys as transformers' CLIPTextModel with
the token embedding that PowerPaint's authors wrap. Nobody writes here: a prompt is one task's vectors, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

TASKS = ("P_ctxt", "P_shape", "P_obj")
"""The words: what fits around it, what has the hole's shape, an object that the prompt names."""
_TOKENS = "text_model.embeddings.token_embedding"
_HEAD = 64


@dataclass(frozen=True)
class TaskTextConfig:
    """Sizes of the encoder; CLIP ViT-L's are 49408, 77, 768, 3072 and 12."""

    vocabulary: int
    positions: int
    width: int
    inner: int
    layers: int
    vectors: int
    """How many a task has, 10 in the published file."""

    @classmethod
    def from_weights(cls, outlines: Mapping[str, Tensor]) -> TaskTextConfig:
        """By shapes. Raises KeyError for tensors that are not there."""
        vocabulary, width = outlines[f"{_TOKENS}.wrapped.weight"].shape
        first = "text_model.encoder.layers.0.mlp.fc1.weight"
        layers = sum(key.endswith(".mlp.fc1.weight") for key in outlines)
        positions = outlines["text_model.embeddings.position_embedding.weight"].shape[0]
        return cls(
            vocabulary,
            positions,
            width,
            outlines[first].shape[0],
            layers,
            outlines[f"{_TOKENS}.trainable_embeddings.{TASKS[0]}"].shape[0],
        )


class TaskText(nn.Module):
    """Tells what a PowerPaint network hears."""

    def __init__(self, config: TaskTextConfig) -> None:
        super().__init__()
        self.text_model = _TextModel(config)

    def forward(self, tasks: Sequence[str]) -> Tensor:
        """tasks: of `TASKS`, or "" for an empty prompt; one a row -> (B, positions, width)."""
        return self.text_model(tasks)


class _TextModel(nn.Module):
    def __init__(self, config: TaskTextConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, tasks: Sequence[str]) -> Tensor:
        h = torch.stack([self.embeddings(task) for task in tasks])
        for layer in self.encoder.layers:
            h = layer(h)
        return self.final_layer_norm(h)


class _Embeddings(nn.Module):
    def __init__(self, config: TaskTextConfig) -> None:
        super().__init__()
        self.token_embedding = _Tokens(config)
        self.position_embedding = nn.Embedding(config.positions, config.width)

    def forward(self, task: str) -> Tensor:
        """(positions, width): the beginning, the task's vectors, and ends to the last position."""
        places, tokens = self.position_embedding.weight, self.token_embedding
        begin, end = tokens.wrapped.weight[-2:-1], tokens.wrapped.weight[-1:]
        words = [tokens.trainable_embeddings[task]] if task else []
        said = torch.cat([begin, *words])
        return torch.cat([said, end.expand(places.shape[0] - said.shape[0], -1)]) + places


class _Tokens(nn.Module):
    def __init__(self, config: TaskTextConfig) -> None:
        super().__init__()
        self.wrapped = nn.Embedding(config.vocabulary, config.width)
        self.trainable_embeddings = nn.ParameterDict(
            {task: nn.Parameter(torch.empty(config.vectors, config.width)) for task in TASKS}
        )


class _Encoder(nn.Module):
    def __init__(self, config: TaskTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))


class _Layer(nn.Module):
    def __init__(self, config: TaskTextConfig) -> None:
        super().__init__()
        self.self_attn = _SelfAttention(config.width)
        self.layer_norm1 = nn.LayerNorm(config.width)
        self.layer_norm2 = nn.LayerNorm(config.width)
        self.mlp = _MLP(config)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.self_attn(self.layer_norm1(h))
        return h + self.mlp(self.layer_norm2(h))


class _MLP(nn.Module):
    def __init__(self, config: TaskTextConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.inner)
        self.fc2 = nn.Linear(config.inner, config.width)

    def forward(self, h: Tensor) -> Tensor:
        h = self.fc1(h)
        return self.fc2(h * torch.sigmoid(1.702 * h))  # "quick GELU"


class _SelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self._heads = max(width // _HEAD, 1)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """No token sees those behind it."""
        q, k, v = (
            project(h).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))
