"""BrushNet of diffusers' own blocks, wired after TencentARC's fork, and the base with it written out step by step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import (
    CrossAttnDownBlock2D,
    CrossAttnUpBlock2D,
    DownBlock2D,
    UNetMidBlock2D,
    UNetMidBlock2DCrossAttn,
    UpBlock2D,
)
from torch import Tensor, nn

from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.unet import UNetModel


class ReferenceBrushNet(nn.Module):
    """Keys as the fork's BrushNetModel; `hears`: with the attentions that PowerPaint's has."""

    def __init__(self, config: UNetConfig, hears: bool = False) -> None:
        super().__init__()
        widths = [mult * config.model_channels for mult in config.channel_mult]
        count, embedding, last = config.num_res_blocks, 4 * config.model_channels, len(widths) - 1
        self.time_proj = Timesteps(config.model_channels, True, 0)
        self.time_embedding = TimestepEmbedding(config.model_channels, embedding)
        if config.adm_channels is not None:
            self.add_embedding = TimestepEmbedding(config.adm_channels, embedding)
        self.conv_in_condition = nn.Conv2d(9, widths[0], 3, padding=1)
        given: dict[str, Any] = {"temb_channels": embedding, "resnet_eps": 1e-5, "resnet_groups": config.groups}
        text = {"num_attention_heads": config.num_heads, "cross_attention_dim": config.context_dim}
        depths = config.transformer_depth if hears else [0] * len(widths)

        def kind(level: int, plain: Any, attending: Any) -> Callable[..., nn.Module]:
            return partial(attending, **text, **given) if depths[level] else partial(plain, **given)

        self.down_blocks = nn.ModuleList(
            kind(i, DownBlock2D, CrossAttnDownBlock2D)(
                in_channels=widths[max(i - 1, 0)],
                out_channels=width,
                num_layers=count,
                add_downsample=i < last,
                downsample_padding=1,
            )
            for i, width in enumerate(widths)
        )
        if hears:
            self.mid_block = UNetMidBlock2DCrossAttn(in_channels=widths[-1], **text, **given)
        else:
            self.mid_block = UNetMidBlock2D(in_channels=widths[-1], add_attention=False, **given)
        self.up_blocks = nn.ModuleList(
            kind(last - i, UpBlock2D, CrossAttnUpBlock2D)(
                in_channels=widths[max(last - i - 1, 0)],
                prev_output_channel=widths[min(last - i + 1, last)],
                out_channels=widths[last - i],
                num_layers=count + 1,
                add_upsample=i < last,
            )
            for i in range(last + 1)
        )
        down = [widths[0], *(w for i, w in enumerate(widths) for _ in range(count + (i < last)))]
        up = [widths[last - i] for i in range(last + 1) for _ in range(count + 1 + (i < last))]
        self.brushnet_down_blocks = nn.ModuleList(nn.Conv2d(w, w, 1) for w in down)
        self.brushnet_mid_block = nn.Conv2d(widths[-1], widths[-1], 1)
        self.brushnet_up_blocks = nn.ModuleList(nn.Conv2d(w, w, 1) for w in up)

    def forward(
        self, x: Tensor, timesteps: Tensor, y: Tensor | None, context: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """x (B, 9, h, w) -> what is added to the base's encoder, middle and decoder."""
        heard = {} if context is None else {"encoder_hidden_states": context}

        def told(block: Any) -> dict[str, Tensor]:
            return heard if getattr(block, "has_cross_attention", False) else {}

        emb = self.time_embedding(self.time_proj(timesteps))
        if y is not None:
            emb = emb + self.add_embedding(y)
        h = self.conv_in_condition(x)
        skips = [h]
        for block in self.down_blocks:
            h, found = block(h, emb, **told(block))
            skips += found
        down = [conv(skip) for conv, skip in zip(self.brushnet_down_blocks, skips, strict=True)]
        h = self.mid_block(h, emb, **told(self.mid_block))
        middle = self.brushnet_mid_block(h)
        states: list[Tensor] = []

        def keep(_module: object, _args: object, output: Any) -> None:
            states.append(output[0] if isinstance(output, tuple) else output)

        for block in self.up_blocks:
            parts = [*(block.attentions if told(block) else block.resnets), *(block.upsamplers or [])]
            handles = [part.register_forward_hook(keep) for part in parts]
            mine, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
            size = skips[-1].shape[2:] if skips else None
            h = block(h, tuple(mine), emb, upsample_size=size, **told(block))
            for handle in handles:
                handle.remove()
        return down, middle, [conv(state) for conv, state in zip(self.brushnet_up_blocks, states, strict=True)]


def together(
    unet: UNetModel, inputs: dict[str, Tensor], added: tuple[list[Tensor], Tensor, list[Tensor]], scale: float
) -> Tensor:
    """The base with additions, each at its place: see the fork's UNet2DConditionModel.forward."""
    down, middle, up = [part * scale for part in added[0]], added[1] * scale, [part * scale for part in added[2]]
    emb, context = unet.embed(inputs["timesteps"], inputs.get("y")), inputs["context"]
    h = unet.input_blocks[0](inputs["x"], emb, context)
    skips = [h]
    h = h + down.pop(0)
    for block in list(unet.input_blocks)[1:]:
        h = block(h, emb, context) + down.pop(0)
        skips.append(h)
    h = unet.middle_block(h, emb, context) + middle
    for block in unet.output_blocks:
        h = torch.cat([h, skips.pop()], dim=1)
        layers = list(block)
        enlarging = layers.pop() if type(layers[-1]).__name__ == "Upsample" else None
        for layer in layers:
            h = layer(h, emb) if type(layer).__name__ == "ResBlock" else layer(h, context)
        h = h + up.pop(0)
        if enlarging is not None:
            h = enlarging(h) + up.pop(0)
    assert not down
    assert not up
    return unet.out(h)
