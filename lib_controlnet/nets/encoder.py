"""The half of the U-Net that a ControlNet copies: embeddings, input blocks, middle block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import SpatialTransformer
from .blocks import Downsample, ResBlock, TimestepEmbedSequential, embedding_mlp, timestep_embedding
from .config import UNetConfig
from .operations import Operations


class Encoder(nn.Module):
    """`time_embed`, `label_emb`, `input_blocks` and `middle_block` under LDM's names.

    `num_classes` is "sequential" where the network takes `y`, else None: hosts and extensions ask for it.
    """

    def __init__(self, config: UNetConfig, operations: Operations) -> None:
        super().__init__()
        self.config = config
        self.operations = operations
        self.model_channels = config.model_channels
        self.num_classes = None if config.adm_channels is None else "sequential"
        embedding = 4 * config.model_channels
        self.time_embed = embedding_mlp(config.model_channels, embedding, operations)
        if config.adm_channels is not None:
            self.label_emb = nn.Sequential(embedding_mlp(config.adm_channels, embedding, operations))
        self.input_blocks = nn.ModuleList(self._input_blocks())
        self.middle_block = self._middle_block()

    @property
    def dtype(self) -> torch.dtype:
        """dtype in which the network computes."""
        return self.operations.compute_dtype or next(self.time_embed.parameters()).dtype

    def use_checkpointing(self, enabled: bool = True) -> None:
        """Compute activations again in the backward pass instead of keeping them."""
        for module in self.modules():
            if isinstance(module, TimestepEmbedSequential):
                module.checkpointing = enabled

    def embed(self, timesteps: Tensor, y: Tensor | None) -> Tensor:
        """(B,) timesteps and (B, adm_channels) `y` -> (B, 4 * model_channels)."""
        if (y is None) != (self.num_classes is None):
            wanted = "no y" if self.num_classes is None else f"y of {self.config.adm_channels} channels"
            raise ValueError(f"this network takes {wanted}, got {None if y is None else tuple(y.shape)}")
        embedding = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(self.dtype))
        return embedding if y is None else embedding + self.label_emb(y.to(self.dtype))

    def res_block(self, inputs: int, outputs: int) -> ResBlock:
        return ResBlock(inputs, 4 * self.model_channels, outputs, self.config.groups, self.operations)

    def transformer(self, channels: int, depth: int) -> SpatialTransformer:
        config = self.config
        heads = config.heads(channels)
        return SpatialTransformer(
            channels, config.context_dim, heads, depth, config.use_linear, config.groups, self.operations
        )

    def _input_blocks(self) -> list[TimestepEmbedSequential]:
        config, width = self.config, self.model_channels
        blocks = [TimestepEmbedSequential(self.operations.conv(config.in_channels, width, 3))]
        for level, (mult, depth) in enumerate(zip(config.channel_mult, config.transformer_depth, strict=True)):
            if level:
                blocks.append(TimestepEmbedSequential(Downsample(width, self.operations)))
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [self.res_block(width, mult * self.model_channels)]
                width = mult * self.model_channels
                if depth:
                    layers.append(self.transformer(width, depth))
                blocks.append(TimestepEmbedSequential(*layers))
        return blocks

    def _middle_block(self) -> TimestepEmbedSequential:
        width, depth = self.config.middle_channels, self.config.middle_depth
        between = nn.Identity() if depth < 0 else self.transformer(width, depth)
        return TimestepEmbedSequential(self.res_block(width, width), between, self.res_block(width, width))
