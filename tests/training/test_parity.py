"""Step by step against the training loop of diffusers' examples/controlnet/train_controlnet.py, written out here on
diffusers' own networks: same batches, noise, timesteps, dropped prompts and optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, DDPMScheduler
from torch import Tensor

from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.controlnet import trainable_copy
from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.chance import draw, step_generator
from lib_controlnet.training.dataset import Batch
from lib_controlnet.training.kinds.residuals import ResidualControl
from lib_controlnet.training.noise import NoiseSchedule
from lib_controlnet.training.options import TrainOptions
from lib_controlnet.training.trainer import ControlTrainer
from tests.nets.ldm_oracle import TIME_DIM, TIME_IDS, diffusers_controlnet, diffusers_unet, randomise, to_diffusers

STEPS, COUNT = 5, 2
SIZES = torch.tensor([[512.0, 640.0, 0.0, 8.0, 512.0, 640.0]]).expand(COUNT, -1)
COMMON: dict[str, Any] = {"in_channels": 4, "out_channels": 4, "channel_mult": (1, 2), "groups": 8}
SD1 = UNetConfig(
    **COMMON,
    model_channels=32,
    num_res_blocks=2,
    transformer_depth=(1, 0),
    middle_depth=1,
    context_dim=24,
    num_heads=4,
    head_dim=None,
    use_linear=False,
    adm_channels=None,
)
SDXL = UNetConfig(
    **COMMON,
    model_channels=64,
    num_res_blocks=1,
    transformer_depth=(0, 1),
    middle_depth=1,
    context_dim=24,
    num_heads=None,
    head_dim=64,
    use_linear=True,
    adm_channels=16 + TIME_IDS * TIME_DIM,
)


class FixedData:
    """Two examples; the prompts differ from the empty one. `pooled` is set for a U-Net that takes `y`."""

    groups = ((0, 1),)

    def __init__(self, config: UNetConfig) -> None:
        chance = torch.Generator().manual_seed(5)
        self.latents = torch.randn(COUNT, 4, 8, 8, generator=chance)
        self.context = torch.randn(COUNT, 7, config.context_dim, generator=chance)
        self.empty = torch.randn(1, 7, config.context_dim, generator=chance)
        self.hints = torch.rand(COUNT, 3, 64, 64, generator=chance)
        adm = config.adm_channels
        self.pooled = None if adm is None else torch.randn(COUNT, adm - TIME_IDS * TIME_DIM, generator=chance)
        self.empty_pooled = None if self.pooled is None else torch.zeros_like(self.pooled)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        y = None if self.pooled is None else _with_sizes(self.pooled)[indices]
        empty_y = None if self.empty_pooled is None else _with_sizes(self.empty_pooled)[indices]
        return Batch(self.latents[indices], self.context[indices], self.empty, self.hints[indices], y, empty_y)


def _with_sizes(pooled: Tensor) -> Tensor:
    frequencies = 10000.0 ** -(torch.arange(TIME_DIM // 2) / (TIME_DIM // 2))
    angles = SIZES[..., None] * frequencies
    return torch.cat([pooled, torch.cat([angles.cos(), angles.sin()], dim=-1).flatten(1)], dim=1)


def their_training(
    config: UNetConfig, unet: UNetModel, net: ControlNetModel, data: FixedData, run: ControlTrainer
) -> list[float]:
    """The loop of train_controlnet.py: losses of the steps; `net` is trained."""
    options = run.options
    oracle = diffusers_unet(config, unet.state_dict())
    scheduler = DDPMScheduler(
        1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="epsilon" if run.noise.prediction == "epsilon" else "v_prediction",
    )  # fmt: skip
    net.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=options.learning_rate, betas=options.betas, weight_decay=options.weight_decay
    )
    losses: list[float] = []
    for step in range(STEPS):
        indices = run.order.indices(step)
        chance = draw(step_generator(options.seed, step, 0), (COUNT, 4, 8, 8), 1000, options.empty_prompts)
        latents = data.latents[indices]
        noisy = scheduler.add_noise(latents, chance.noise, chance.timesteps)
        context = torch.where(chance.dropped[:, None, None], data.empty, data.context[indices])
        added: dict[str, Any] = {}
        if data.pooled is not None and data.empty_pooled is not None:
            pooled = torch.where(chance.dropped[:, None], data.empty_pooled[indices], data.pooled[indices])
            added["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": SIZES[indices]}
        down, middle = net(
            noisy, chance.timesteps, encoder_hidden_states=context, controlnet_cond=data.hints[indices],
            return_dict=False, **added,
        )  # fmt: skip
        predicted = oracle(
            noisy, chance.timesteps, encoder_hidden_states=context,
            down_block_additional_residuals=down, mid_block_additional_residual=middle, **added,
        ).sample  # fmt: skip
        target = chance.noise if run.noise.prediction == "epsilon" else None
        if target is None:
            target = scheduler.get_velocity(latents, chance.noise, chance.timesteps)
        loss = F.mse_loss(predicted.float(), target.float(), reduction="mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), options.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("prediction", ["epsilon", "velocity"])
@pytest.mark.parametrize("config", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_five_steps_equal_diffusers_training(config: UNetConfig, prediction: Any) -> None:
    """The networks start from random zero convolutions too, so that every weight moves from the first step on."""
    unet = UNetModel(config)
    randomise(unet, seed=1)
    control = trainable_copy(unet, hint_widths=(8, 8, 16, 16))
    randomise(control, seed=2)
    with torch.no_grad():
        for zero in (control.zero_convs, control.middle_block_out):
            for weight in zero.parameters():
                weight.mul_(0.1)
    start = {key: value.clone() for key, value in control.state_dict().items()}
    theirs = diffusers_controlnet(control.control_config, {key: value.clone() for key, value in start.items()})
    options = TrainOptions(steps=STEPS, batch_size=COUNT, learning_rate=1e-4, seed=9)
    data = FixedData(config)
    run = ControlTrainer(
        unet, ResidualControl(control), data, NoiseSchedule.scaled_linear(prediction=prediction), options
    )
    losses = their_training(config, unet, theirs, data, run)
    assert [run.train_step().loss for _ in range(STEPS)] == pytest.approx(losses, abs=1e-5)
    assert len(set(losses)) == STEPS
    trained = to_diffusers(control.control_config, control.state_dict())
    before = to_diffusers(control.control_config, start)
    for key, value in theirs.state_dict().items():
        assert not torch.equal(value, before[key]), key
        assert (trained[key].reshape(value.shape) - value).abs().max() <= 1e-5, key
