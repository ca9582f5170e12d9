"""Networks that tell apart what is in a picture, and one that fills holes.

Three have no class in any library we use: their files are written from ours, of smaller sizes where the file tells
them, and the tests beside this folder compute from the names in the file what the network should answer.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that keep differences between pixels alive through many layers."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            value.normal_(0, 1.2 / value[0].numel() ** 0.5, generator=draw)
        elif "running_var" in name:
            value.uniform_(0.5, 1.5, generator=draw)
        elif "running_mean" in name or name.endswith("bias"):
            value.normal_(0, 0.1, generator=draw)
    return network


def uniformer(file: Path) -> None:
    from transformers import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetHead

    from annotator.sd_controlnet.entries.segmentation.net import Segmentor, UniFormer

    widths = (8, 16, 64, 128)
    config = UperNetConfig(hidden_size=16)
    config.num_labels = 150
    head = UperNetHead(config, list(widths))
    network = lively(Segmentor(UniFormer(widths, (16, 32, 96, 128), (1, 2, 2, 1)), head))
    weights: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if name.startswith("decode_head."):
            name = name.replace(".batch_norm.", ".bn.").replace(".classifier.", ".conv_seg.")
        weights[name] = value
    weights["auxiliary_head.conv_seg.weight"] = torch.zeros(150, 4, 1, 1)  # in the true file, for training only
    torch.save({"meta": {"CLASSES": ("wall",)}, "state_dict": weights}, file)


def anime_face(file: Path) -> None:
    from annotator.sd_controlnet.entries.anime_face_segment.net import UNet

    torch.save({f"module.{name}": value for name, value in lively(UNet()).state_dict().items()}, file)


def lama(file: Path) -> None:
    from annotator.sd_controlnet.entries.lama.net import Generator

    torch.save(lively(Generator(width=8, blocks=2)).state_dict(), file)


MAKERS = {"upernet_global_small.pth": uniformer, "UNet.pth": anime_face, "ControlNetLama.pth": lama}
