"""AlexNet's layers and LPIPS's heads with random weights, under the names that their files have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LAYERS = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
"""Of AlexNet's convolutions: number among its layers -> channels out and in, size."""


def backbone() -> dict[str, Tensor]:
    """torchvision's `alexnet().state_dict()` with weights of our own, and a stub of what tells classes apart."""
    rng = np.random.default_rng(7)
    found: dict[str, Tensor] = {"classifier.6.weight": torch.zeros(2, 2)}
    for number, (out, into, size) in LAYERS.items():
        weight = rng.standard_normal((out, into, size, size)) * (2 / (into * size * size)) ** 0.5
        found[f"features.{number}.weight"] = torch.tensor(weight, dtype=torch.float32)
        found[f"features.{number}.bias"] = torch.tensor(rng.standard_normal(out) * 0.1, dtype=torch.float32)
    return found


def heads() -> dict[str, Tensor]:
    """As in lpips' `weights/v0.1/alex.pth`: none below 0."""
    rng = np.random.default_rng(8)
    return {
        f"lin{number}.model.1.weight": torch.tensor(rng.random((1, out, 1, 1)), dtype=torch.float32)
        for number, (out, _, _) in enumerate(LAYERS.values())
    }


def write(folder: Path, *, older: bool = False) -> None:
    """Both files into `folder`, as PyTorch writes them; `older`: under the names and in the format of before 2021."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "alexnet-owt-4df8aa71.pth" if older else "alexnet-owt-7be5be79.pth"
    torch.save(backbone(), folder / name, _use_new_zipfile_serialization=not older)
    torch.save(heads(), folder / "alex.pth", _use_new_zipfile_serialization=not older)
