"""One iteration of a training in three ways: fine-tuning the U-Net, our ControlNet's, and diffusers' ControlNet's.

SD 1.5's layout at a share of its width, random weights, float32. The hint encoder shrinks too: it is 2 % of the
arithmetic of fine-tuning at the true width, and would be a third of it at a fifth of that. `launch.py bench` measures
the time. Memory is counted, not sampled: weights, gradients, optimizer states, and the storages that autograd keeps for
the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.config import config_from
from lib_controlnet.training.controlled import ControlledUNet
from lib_controlnet.training.export import diffusers_sizes
from lib_controlnet.training.kinds import kind_named
from lib_controlnet.training.kinds.residuals import ResidualControl
from lib_controlnet.training.optimizer import adamw
from lib_controlnet.training.options import TrainOptions
from lib_controlnet.training.planning import with_content

TRUE_WIDTH = 320
_HINT_WIDTHS = (16, 32, 96, 256)
_CONTEXT = 768

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""x (B, 4, h, w), timesteps (B,), context (B, 77, _CONTEXT), hints (B, 3, 8h, 8w)."""


@dataclass(frozen=True, eq=False)
class Case:
    """`step` is one iteration, `forward` its loss. `networks`: all that must be in memory."""

    forward: Callable[[], Tensor]
    networks: Sequence[nn.Module]
    optimizer: torch.optim.Optimizer

    def step(self) -> None:
        self.finish(self.forward())

    def finish(self, loss: Tensor) -> None:
        """What follows the forward pass."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([weight for group in self.optimizer.param_groups for weight in group["params"]], 1.0)
        self.optimizer.step()


def layout(width: int, levels: int = 4) -> UNetConfig:
    """SD 1.5's at another width, or only its first levels."""
    return UNetConfig(
        in_channels=4, out_channels=4, model_channels=width, channel_mult=(1, 2, 4, 4)[:levels], num_res_blocks=2,
        transformer_depth=(1, 1, 1, 0)[:levels], middle_depth=1, context_dim=_CONTEXT, num_heads=8, head_dim=None,
        use_linear=False, adm_channels=None,
    )  # fmt: skip


def cases(width: int, batch: int, latent: int, levels: int = 4) -> dict[str, Case]:
    """Fine-tuning the U-Net, our ControlNet training, diffusers' ControlNet training; the same sizes throughout."""
    return {name: case(name, width, batch, latent, levels) for name in WAYS}


def case(name: str, width: int, batch: int, latent: int, levels: int = 4) -> Case:
    """One of WAYS, or a kind of control (see `kind_cases`)."""
    if name not in WAYS:
        return kind_cases(width, batch, latent, [name], levels)[name]
    return WAYS[name](layout(width, levels), *_given(batch, latent))


def _given(batch: int, latent: int) -> tuple[Inputs, Tensor]:
    """What a network is asked, the same each time, and the noise that it should answer."""
    torch.manual_seed(0)
    x, noise = torch.randn(2, batch, 4, latent, latent)
    times, context = torch.randint(0, 1000, (batch,)), torch.randn(batch, 77, _CONTEXT)
    return (x, times, context, torch.rand(batch, 3, 8 * latent, 8 * latent)), noise


def _fine_tuning(sizes: UNetConfig, inputs: Inputs, noise: Tensor) -> Case:
    """Of our networks and with our optimizer, so that the ratio tells what the lock is worth."""
    tuned = UNetModel(sizes).train()
    optimizer = adamw(list(tuned.parameters()), TrainOptions(steps=1))
    return Case(lambda: F.mse_loss(tuned(*inputs[:3]), noise), [tuned], optimizer)


def _ours(sizes: UNetConfig, inputs: Inputs, noise: Tensor) -> Case:
    model = ControlledUNet(UNetModel(sizes), ResidualControl(_copy(sizes)))
    optimizer = adamw(list(model.control.parameters()), TrainOptions(steps=1))
    return Case(lambda: F.mse_loss(model(*inputs), noise), [model], optimizer)


def _theirs(sizes: UNetConfig, inputs: Inputs, noise: Tensor) -> Case:
    """diffusers' own script has a plain AdamW."""
    control, unet = _diffusers(_copy(sizes))
    x, times, context, hints = inputs

    def loss() -> Tensor:
        down, middle = control(x, times, encoder_hidden_states=context, controlnet_cond=hints, return_dict=False)
        answer = unet(
            x, times, encoder_hidden_states=context,
            down_block_additional_residuals=down, mid_block_additional_residual=middle, return_dict=False,
        )[0]  # fmt: skip
        return F.mse_loss(answer, noise)

    return Case(loss, [unet, control], torch.optim.AdamW(control.parameters(), lr=1e-5))


def _copy(sizes: UNetConfig) -> ControlNet:
    hint_widths = tuple(round(channels * sizes.model_channels / TRUE_WIDTH) for channels in _HINT_WIDTHS)
    return ControlNet(ControlNetConfig(sizes, hint_widths=hint_widths))


WAYS: dict[str, Callable[[UNetConfig, Inputs, Tensor], Case]] = {
    "fine-tune": _fine_tuning,
    "ours": _ours,
    "diffusers": _theirs,
}


def kind_cases(width: int, batch: int, latent: int, kinds: Sequence[str], levels: int = 4) -> dict[str, Case]:
    """The same for other kinds of control, at the sizes that `control.rank` and the like have by default."""
    made: dict[str, Case] = {}
    for kind in kinds:
        inputs, noise = _given(batch, latent)
        tables = {
            "base": {"checkpoint": "none", "hint_widths": [round(c * width / TRUE_WIDTH) for c in _HINT_WIDTHS]},
            "control": {"kind": kind},
            "train": {"steps": 1},
            "output": {"folder": "none", "name": "none"},
        }
        with torch.device("meta"):
            unet = UNetModel(layout(width, levels))
            model = ControlledUNet(unet, kind_named(kind).new(unet, config_from(tables, Path())))
        with_content(model)
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.02)
        made[kind] = _kind_case(model, inputs, noise)
    return made


def _kind_case(model: ControlledUNet, inputs: Inputs, noise: Tensor) -> Case:
    optimizer = adamw(model.control.trained(), TrainOptions(steps=1))
    return Case(lambda: F.mse_loss(model(*inputs), noise), [model], optimizer)


def _diffusers(ours: ControlNet) -> tuple[Any, Any]:
    """diffusers' ControlNet and locked U-Net of the same sizes."""
    from diffusers.models.controlnets.controlnet import ControlNetModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    sizes = diffusers_sizes(ours)
    own = {"conditioning_channels", "conditioning_embedding_out_channels"}
    up = tuple(kind.replace("Down", "Up") for kind in reversed(sizes["down_block_types"]))
    unet: Any = UNet2DConditionModel(**{k: v for k, v in sizes.items() if k not in own}, up_block_types=up)
    control: Any = ControlNetModel(**sizes)
    return control.train(), unet.requires_grad_(False)


def total_bytes(case: Case) -> int:
    """Weights, gradients, optimizer states and saved activations of a step.

    Counts without computing too: under FakeTensorMode the true width needs no memory.
    """
    saved = _step_counting(case)
    weights = list({id(w): w for network in case.networks for w in network.parameters()}.values())
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    states = [value for state in case.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.numel() * tensor.element_size() for tensor in [*weights, *gradients, *states]) + saved


def _step_counting(case: Case) -> int:
    """Makes a step; returns the bytes that autograd kept between forward and backward, weights excluded, each storage
    once."""
    weights = {weight.untyped_storage()._cdata for network in case.networks for weight in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = case.forward()  # all that is kept lives until its backward pass
    case.finish(loss)
    return sum(kept.values())
