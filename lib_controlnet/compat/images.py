"""`scripts.utils` and `annotator.util`: the peers' helpers on pictures that preprocessor packs are written with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.hints import inpaint_display
from ..loading.reader import read_weights
from .preprocessor import three_channels

Pixels = NDArray[Any]


def HWC3(x: Any) -> Pixels:  # noqa: N802 (the peers' name)
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 -> (H, W, 3); transparent parts become white."""
    return three_channels(x)


def pad64(x: int) -> int:
    """What is missing to the next multiple of 64."""
    return -x % 64


def safer_memory(x: Pixels) -> Pixels:
    """A contiguous copy."""
    return np.ascontiguousarray(x).copy()


def align_dim_latent(x: int) -> int:
    """Down to a multiple of 8: a side of a latent in pixels."""
    return x // 8 * 8


def resize_image_with_pad(img: Pixels, resolution: int, *_more: Any) -> tuple[Pixels, Callable[[Pixels], Pixels]]:
    """The picture (H, W, C) with its shorter side of `resolution`, its edges repeated up to multiples of 64 on the
    right and below; and the function that cuts a result of that size back."""
    import cv2

    picture = three_channels(img) if np.asarray(img).ndim == 2 else np.asarray(img)
    height, width = picture.shape[:2]
    scale = resolution / min(height, width)
    height, width = round(height * scale), round(width * scale)
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    resized = cv2.resize(picture, (width, height), interpolation=method)
    padding = [(0, pad64(height)), (0, pad64(width)), (0, 0)][: resized.ndim]
    return safer_memory(np.pad(resized, padding, mode="edge")), lambda x: safer_memory(x[:height, :width])


def resize_image(input_image: Pixels, resolution: int) -> Pixels:
    """The picture with its shorter side near `resolution`, both sides multiples of 64 (ControlNet's own scripts)."""
    import cv2

    height, width = input_image.shape[:2]
    scale = resolution / min(height, width)
    sides = (round(width * scale / 64) * 64, round(height * scale / 64) * 64)
    return cv2.resize(input_image, sides, interpolation=cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA)


def npimg2tensor(img: Pixels) -> Tensor:
    """(H, W, C) uint8 -> (1, C, H, W) float 0..1."""
    return torch.from_numpy(np.ascontiguousarray(img)).float().permute(2, 0, 1)[None] / 255.0


def tensor2npimg(t: Tensor) -> Pixels:
    """(1, C, H, W) float 0..1 -> (H, W, C) uint8."""
    return (t[0].permute(1, 2, 0) * 255.0).to(torch.uint8).cpu().numpy()


def visualize_inpaint_mask(img: Pixels) -> Pixels:
    """(H, W, 4) with its mask shown half transparent; everything else unchanged."""
    return inpaint_display(img) if img.ndim == 3 and img.shape[2] == 4 else img


def get_unique_axis0(data: Any) -> Pixels:
    """The distinct rows of (N, K), sorted."""
    return np.unique(np.asarray(data), axis=0)


def load_state_dict(ckpt_path: str, location: str = "cpu") -> dict[str, Any]:
    """The tensors of a file, read as ours are: safetensors or a weights-only pickle. Raises ModelFileError."""
    return {key: tensor.to(location).clone() for key, tensor in read_weights(Path(ckpt_path)).weights.items()}


def get_state_dict(d: Any) -> Any:
    """The weights of a checkpoint's dict, or the dict."""
    return d.get("state_dict", d)
