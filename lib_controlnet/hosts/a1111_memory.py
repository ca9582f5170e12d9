"""What an A1111-type host says of its device's memory, and where it keeps the true weights of its U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_TRUE = {"weight": ("fp16_weight", "network_weights_backup"), "bias": ("fp16_bias", "network_bias_backup")}
"""Where the host's modules keep a parameter as the checkpoint has it: beside one in fp8 ("Cache FP16 weight"), and
beside one that a LoRA of the job before has changed."""


def is_short(model: Any) -> bool:
    """Whether only that part of the checkpoint is on the device that works (`--medvram`, `--lowvram`)."""
    return bool(getattr(model, "lowvram", False))


def is_shortest(model: Any) -> bool:
    """Whether that is one block of the U-Net (`--lowvram`)."""
    from modules import shared

    return is_short(model) and bool(getattr(shared.cmd_opts, "lowvram", False))


def reserve(size: int) -> None:
    """Makes room for a control model: with `--lowvram` the block that worked last goes home.

    With `--medvram` the whole U-Net is there, and its host would not bring it back before the call that has begun.
    """
    from modules import shared

    del size
    if not is_shortest(shared.sd_model):
        return
    from modules import lowvram

    lowvram.send_everything_to_cpu()


def keeps_fp8() -> bool:
    """Whether the checkpoint is held in fp8 (option "FP8 weight")."""
    from modules import devices

    return bool(getattr(devices, "fp8", False))


def true_weights(unet: nn.Module) -> Mapping[str, Tensor]:
    """The state dict of the U-Net as the checkpoint has it, as far as the host still knows."""
    weights: dict[str, Tensor] = dict(unet.state_dict())
    for name, module in unet.named_modules():
        for field, places in _TRUE.items():
            kept = next((value for place in places if (value := module.__dict__.get(place)) is not None), None)
            if isinstance(kept, Tensor) and f"{name}.{field}" in weights:
                weights[f"{name}.{field}"] = kept
    return weights


def is_rounded(unet: nn.Module) -> bool:
    """Whether the U-Net is held in fp8 and nothing better is known of it."""
    return keeps_fp8() and not any("fp16_weight" in module.__dict__ for module in unet.modules())
