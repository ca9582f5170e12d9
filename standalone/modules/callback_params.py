"""What callbacks receive: records that are equal only to themselves, so that tensors in them are never compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(eq=False)
class ImageSaveParams:
    """An image about to be (or just) written: `pnginfo["parameters"]` is the infotext."""

    image: Any
    p: Any
    filename: str
    pnginfo: dict[str, str]


@dataclass(eq=False)
class ExtraNoiseParams:
    """img2img: the `noise`, the clean latent `x`, the noisy latent `xi`."""

    noise: Tensor
    x: Tensor
    xi: Tensor


@dataclass(eq=False)
class CFGDenoiserParams:
    """All rows of one denoiser call before the U-Net sees them: conds first, unconds last."""

    x: Tensor
    image_cond: Tensor
    sigma: Tensor
    sampling_step: int
    total_sampling_steps: int
    text_cond: Any
    text_uncond: Any
    denoiser: Any = None


@dataclass(eq=False)
class AfterCFGCallbackParams:
    """The guided prediction `x`, one row per image."""

    x: Tensor
    sampling_step: int
    total_sampling_steps: int


@dataclass(eq=False)
class CFGDenoisedParams(AfterCFGCallbackParams):
    """The predictions `x` of all rows before guidance, and the wrapper that was called."""

    inner_model: Any


@dataclass(eq=False)
class UiTrainTabParams:
    txt2img_preview_params: Any


@dataclass(eq=False)
class ImageGridLoopParams:
    imgs: list[Any]
    cols: int
    rows: int


@dataclass
class BeforeTokenCounterParams:
    prompt: str
    steps: int
    styles: list[str]
    is_positive: bool = True
