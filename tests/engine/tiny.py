"""Tiny networks with random weights, and cldm's controlled forward written out as the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lib_controlnet.core.residuals import Residuals
from lib_controlnet.core.step import Step
from lib_controlnet.engine.injection import UNetCall
from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.unet import UNetModel

SD1_SHAPED = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=32,
    channel_mult=(1, 2, 2, 2),
    num_res_blocks=2,
    transformer_depth=(1, 1, 1, 0),
    middle_depth=1,
    context_dim=24,
    num_heads=8,
    head_dim=None,
    use_linear=False,
    adm_channels=None,
)
SDXL_SHAPED = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=32,
    channel_mult=(1, 2, 4),
    num_res_blocks=2,
    transformer_depth=(0, 1, 2),
    middle_depth=2,
    context_dim=2048,
    num_heads=None,
    head_dim=64,
    use_linear=True,
    adm_channels=40,
)
HINT_WIDTHS = (8, 8, 16, 16)


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter drawn anew, so that nothing starts at zero and an omission shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.dim() < 2 else 0.7 / max(1, parameter[0].numel()) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return module.eval()


def tiny_unet(config: UNetConfig = SD1_SHAPED, seed: int = 1) -> UNetModel:
    """A U-Net with random weights."""
    return randomise(UNetModel(config), seed)  # type: ignore[return-value]


def tiny_controlnet(config: UNetConfig = SD1_SHAPED, seed: int = 2) -> ControlNet:
    """A ControlNet for `config` with random weights."""
    return randomise(ControlNet(ControlNetConfig(config, 3, HINT_WIDTHS)), seed)  # type: ignore[return-value]


class Adding:
    """A PassControl that adds what `answer` gives for each call; what blocks passed by is kept in `left`."""

    def __init__(self, answer: Callable[[Step], Residuals | None] | Residuals | None, end: Any = None) -> None:
        self._answer = answer
        self._end = end
        self.left: list[str] = []
        self.calls_done = 0

    def begin(self, given: UNetCall) -> tuple[Step, Residuals | None]:
        rows = len(given.x)
        step = Step(*given.tensors, (True,) * rows, (0,) * rows, 0.5)
        return step, self._answer(step) if callable(self._answer) else self._answer

    def end(self, output: Tensor, left: Sequence[str]) -> Tensor:
        self.left += left
        return output if self._end is None else self._end(output)

    def done(self) -> None:
        self.calls_done += 1


def inputs(config: UNetConfig, batch: int = 2, size: int = 16, seed: int = 3) -> dict[str, Tensor | None]:
    """x, timesteps, context, y of one call; `size` in latent pixels."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(batch, config.in_channels, size, size, generator=generator),
        "timesteps": torch.rand(batch, generator=generator) * 999,
        "context": torch.randn(batch, 7, config.context_dim, generator=generator),
        "y": None if config.adm_channels is None else torch.randn(batch, config.adm_channels, generator=generator),
    }


def cldm_forward(
    unet: UNetModel,
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    y: Tensor | None,
    control: Sequence[Tensor],
    *,
    only_mid_control: bool = False,
) -> Tensor:
    """ControlledUnetModel.forward of the ControlNet repository (cldm/cldm.py), step by step: residuals are popped from
    the end, the last to the middle block's output, the others to the skips before concatenation."""
    residuals = list(control)
    emb = unet.embed(timesteps, y)
    h, skips = x, []
    for module in unet.input_blocks:
        h = module(h, emb, context)
        skips.append(h)
    h = unet.middle_block(h, emb, context)
    h = h + residuals.pop()
    for module in unet.output_blocks:
        skip = skips.pop() if only_mid_control else skips.pop() + residuals.pop()
        h = module(torch.cat([h, skip], dim=1), emb, context)
    return unet.out(h)


def hook_counts(unet: nn.Module) -> list[tuple[int, int, bool]]:
    """Hooks and overridden forwards of every module: equal before and after, or something was left."""
    return [(len(m._forward_pre_hooks), len(m._forward_hooks), "forward" in m.__dict__) for m in unet.modules()]
