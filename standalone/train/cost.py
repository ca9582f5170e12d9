"""What training a ControlNet costs beside fine-tuning the U-Net, and beside diffusers' way of doing it.

    python -m standalone.train.cost [--width 64] [--rounds 5] [--batch 2] [--latent 32]

SD 1.5's layout with random weights, AdamW, float32, one thread. Time is CPU time of the process, the least of the
rounds, in which the variants take turns. Memory is counted, not sampled: weights, gradients, optimizer states, and the
storages that autograd keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.controlnet import trainable_copy
from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.controlled import ControlledUNet
from lib_controlnet.training.export import diffusers_sizes

_CONTEXT = 768


@dataclass(frozen=True, eq=False)
class Case:
    """`step` is one iteration, `forward` its loss. `networks`: all that must be in memory."""

    forward: Callable[[], Tensor]
    networks: Sequence[nn.Module]
    optimizer: torch.optim.Optimizer

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.forward().backward()
        self.optimizer.step()


def layout(width: int) -> UNetConfig:
    """SD 1.5's at another width."""
    return UNetConfig(
        in_channels=4, out_channels=4, model_channels=width, channel_mult=(1, 2, 4, 4), num_res_blocks=2,
        transformer_depth=(1, 1, 1, 0), middle_depth=1, context_dim=_CONTEXT, num_heads=8, head_dim=None,
        use_linear=False, adm_channels=None,
    )  # fmt: skip


def cases(width: int, batch: int, latent: int) -> dict[str, Case]:
    """Fine-tuning the U-Net, our ControlNet training, diffusers' ControlNet training; the same sizes throughout."""
    torch.manual_seed(0)
    x, noise = torch.randn(2, batch, 4, latent, latent)
    times, context = torch.randint(0, 1000, (batch,)), torch.randn(batch, 77, _CONTEXT)
    hints = torch.rand(batch, 3, 8 * latent, 8 * latent)
    tuned = UNetModel(layout(width)).train()
    locked = UNetModel(layout(width))
    ours = ControlledUNet(locked, trainable_copy(locked))
    control, unet = _diffusers(ours)

    def theirs() -> Tensor:
        down, middle = control(x, times, encoder_hidden_states=context, controlnet_cond=hints, return_dict=False)
        answer = unet(
            x, times, encoder_hidden_states=context,
            down_block_additional_residuals=down, mid_block_additional_residual=middle, return_dict=False,
        )[0]  # fmt: skip
        return F.mse_loss(answer, noise)

    return {
        "fine-tune": Case(lambda: F.mse_loss(tuned(x, times, context), noise), [tuned], _adam(tuned)),
        "ours": Case(lambda: F.mse_loss(ours(x, times, context, hints), noise), [ours], _adam(ours)),
        "diffusers": Case(theirs, [unet, control], _adam(control)),
    }


def _adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([weight for weight in network.parameters() if weight.requires_grad], lr=1e-5)


def _diffusers(ours: ControlledUNet) -> tuple[Any, Any]:
    """diffusers' ControlNet and locked U-Net of the same sizes."""
    from diffusers.models.controlnets.controlnet import ControlNetModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    sizes = diffusers_sizes(ours.control)
    own = {"conditioning_channels", "conditioning_embedding_out_channels"}
    up = tuple(kind.replace("Down", "Up") for kind in reversed(sizes["down_block_types"]))
    unet: Any = UNet2DConditionModel(**{k: v for k, v in sizes.items() if k not in own}, up_block_types=up)
    control: Any = ControlNetModel(**sizes)
    return control.train(), unet.requires_grad_(False)


def saved_bytes(case: Case) -> int:
    """Bytes autograd keeps between forward and backward, weights excluded; each storage once."""
    weights = {weight.untyped_storage().data_ptr() for network in case.networks for weight in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = case.forward()
        found = sum(kept.values())
        loss.backward()
    return found


def total_bytes(case: Case) -> int:
    """Weights, gradients, optimizer states and saved activations, after a step has been made."""
    case.step()
    weights = [weight for network in case.networks for weight in network.parameters()]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    states = [value for state in case.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    held = sum(tensor.numel() * tensor.element_size() for tensor in [*weights, *gradients, *states])
    return held + saved_bytes(case)


def measure(width: int, batch: int, latent: int, rounds: int) -> dict[str, dict[str, float]]:
    """Per variant: seconds and MB, and their ratios to fine-tuning."""
    found = cases(width, batch, latent)
    memory = {name: total_bytes(case) for name, case in found.items()}
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, case in found.items():
            began = time.process_time()
            case.step()
            seconds[name].append(time.process_time() - began)
    least = {name: min(times) for name, times in seconds.items()}
    return {
        name: {
            "seconds": round(least[name], 3),
            "time_ratio": round(least[name] / least["fine-tune"], 3),
            "mb": round(memory[name] / 2**20, 1),
            "memory_ratio": round(memory[name] / memory["fine-tune"], 3),
        }
        for name in found
    }


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="standalone.train.cost", description=__doc__)
    for name, value in (("width", 64), ("batch", 2), ("latent", 32), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(json.dumps(measure(options.width, options.batch, options.latent, options.rounds), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
