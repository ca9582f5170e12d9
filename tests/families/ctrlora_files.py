"""Random CtrLoRAs with their base, under the names of the authors' files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from tests.nets.ldm_oracle import randomise

OWN = ("zero_convs", "middle_block_out", "norm")


def files(config: UNetConfig, seed: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor], ControlNet]:
    """What the authors' tools write: the base with another condition's parts in it, the condition; and both as one.

    Bases of two seeds are the same.
    """
    base, condition = (ControlNet(ControlNetConfig(config)) for _ in range(2))
    for index, net in enumerate((base, condition)):
        randomise(net, seed * index)
    whole = base.state_dict()
    whole |= {key: value for key, value in condition.state_dict().items() if any(part in key for part in OWN)}
    lora = {key: value for key, value in whole.items() if any(part in key for part in OWN)}
    random = torch.Generator().manual_seed(seed)
    for name, module in base.named_modules():
        if isinstance(module, nn.Linear) and module.weight.dim() == 2:
            up, down = (
                torch.randn(*size, generator=random) / 8 for size in ((module.out_features, 4), (4, module.in_features))
            )
            lora |= {f"{name}.lora_layer.up.weight": up, f"{name}.lora_layer.down.weight": down}
            whole[f"{name}.weight"] = whole[f"{name}.weight"] + up @ down
    stored = {key: value for key, value in base.state_dict().items() if "input_hint_block" not in key}
    stored["time_embed.0.lora_layer.down.weight"] = torch.ones(4, 32)
    merged = ControlNet(ControlNetConfig(config))
    merged.load_state_dict(whole)
    return (
        {f"control_model.{key}": value for key, value in stored.items()},
        {f"control_model.{key}": value for key, value in lora.items()},
        merged,
    )
