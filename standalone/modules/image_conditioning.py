"""The channels that inpainting and pix2pix U-Nets get beside the latent."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from modules import devices, shared
from modules.sd_samplers_common import images_tensor_to_samples
from PIL import Image
from torch import Tensor

SEEING_A_PICTURE = ("hybrid", "concat")
"""`conditioning_key` of U-Nets that get a mask and a masked picture."""


def unused(latents: Tensor) -> Tensor:
    """What other U-Nets are given and do not look at: (B, 5, 1, 1)."""
    return latents.new_zeros(latents.shape[0], 5, 1, 1)


def txt2img_image_conditioning(sd_model: Any, x: Tensor, width: int, height: int) -> Tensor:
    """Nothing is kept: all masked, all grey (B, 5, h, w)."""
    if sd_model.conditioning_key not in SEEING_A_PICTURE:
        return unused(x)
    grey = torch.ones(x.shape[0], 3, height, width, device=x.device) * 0.5
    encoded = images_tensor_to_samples(grey)
    return torch.nn.functional.pad(encoded, (0, 0, 0, 0, 1, 0), value=1.0).to(x.dtype)


def _mask_tensor(mask: Tensor | Image.Image | None, picture: Tensor, rounded: bool) -> Tensor:
    """(1, 1, H, W) or what was given as a tensor; 1 is to be painted, everything where there is no mask."""
    if mask is None:
        return picture.new_ones(1, 1, *picture.shape[-2:])
    if isinstance(mask, Tensor):
        return mask
    array = np.array(mask.convert("L")).astype(np.float32) / 255.0
    tensor = torch.from_numpy(array[None, None])
    return torch.round(tensor) if rounded else tensor


def masked_picture(
    sd_model: Any, picture: Tensor, latent: Tensor, mask: Tensor | Image.Image | None, rounded: bool, weight: float
) -> Tensor:
    """Mask and latent of the masked picture (B, 5, h, w), from one of (B, 3, H, W) in -1..1; weight 0 masks nothing."""
    whole = _mask_tensor(mask, picture, rounded).to(device=picture.device, dtype=picture.dtype)
    seen = torch.lerp(picture, picture * (1.0 - whole), weight)
    encoded = sd_model.get_first_stage_encoding(sd_model.encode_first_stage(seen))
    small = torch.nn.functional.interpolate(whole, size=latent.shape[-2:]).expand(encoded.shape[0], -1, -1, -1)
    return torch.cat([small, encoded], dim=1).to(shared.device).type(devices.dtype)


class ImageConditioning:
    """The part of a job that makes these channels; the job has `sd_model`, `sampler`, `width` and `height`."""

    sd_model: Any
    sampler: Any
    width: int
    height: int
    is_using_inpainting_conditioning: bool

    def txt2img_image_conditioning(self, x: Tensor, width: int | None = None, height: int | None = None) -> Tensor:
        model = self.sd_model
        self.is_using_inpainting_conditioning = model.conditioning_key in SEEING_A_PICTURE
        return txt2img_image_conditioning(model, x, width or self.width, height or self.height)

    def inpainting_image_conditioning(
        self, source_image: Tensor, latent_image: Tensor, image_mask: Any = None, round_image_mask: bool = True
    ) -> Tensor:
        """Mask and masked picture for a 9-channel U-Net: (B, 5, h, w)."""
        self.is_using_inpainting_conditioning = True
        weight = getattr(self, "inpainting_mask_weight", shared.opts.inpainting_mask_weight)
        return masked_picture(self.sd_model, source_image, latent_image, image_mask, round_image_mask, weight)

    def edit_image_conditioning(self, source_image: Tensor) -> Tensor:
        """The picture's latent, not sampled and not scaled, for pix2pix U-Nets."""
        return self.sd_model.encode_first_stage(source_image).mode()

    def img2img_image_conditioning(
        self, source_image: Tensor, latent_image: Tensor, image_mask: Any = None, round_image_mask: bool = True
    ) -> Tensor:
        """What the model of the job wants to see of a picture (B, 3, H, W) in -1..1."""
        picture = devices.cond_cast_float(source_image)
        if self.sd_model.cond_stage_key == "edit":
            return self.edit_image_conditioning(picture)
        if self.sampler.conditioning_key not in SEEING_A_PICTURE:
            return unused(latent_image)
        return self.inpainting_image_conditioning(picture, latent_image, image_mask, round_image_mask)
