"""img2img and inpainting."""

from __future__ import annotations

import hashlib
from typing import Any

import cv2
import numpy as np
import torch
from modules import devices, errors, images, job_fields, masking, rng, scripts, sd_samplers, shared
from modules.job_fields import job_class
from modules.processing_base import StableDiffusionProcessing, create_binary_mask, opt_f
from modules.sd_hijack import model_hijack
from modules.sd_samplers_common import images_tensor_to_samples
from PIL import Image, ImageOps
from torch import Tensor

BLANK_MASK = 'Unable to perform "Inpaint Only mask" because mask is blank, switch to img2img mode.'


def blur_mask(mask: Image.Image, blur_x: int, blur_y: int) -> Image.Image:
    """Gaussian blur, sideways with sigma `blur_x`, then up and down with `blur_y`."""
    for sigma, horizontal in ((blur_x, True), (blur_y, False)):
        if sigma > 0:
            size = 2 * int(2.5 * sigma + 0.5) + 1
            kernel = (size, 1) if horizontal else (1, size)
            mask = Image.fromarray(cv2.GaussianBlur(np.array(mask), kernel, sigma))
    return mask


class StableDiffusionProcessingImg2Img(
    job_class("Img2ImgJob", job_fields.IMG2IMG, job_fields.IMG2IMG_STATE, StableDiffusionProcessing)
):
    image_mask: Any
    mask: Any

    @property
    def mask_blur(self) -> int | None:
        """Both blurs where they agree."""
        return self.mask_blur_x if self.mask_blur_x == self.mask_blur_y else None

    @mask_blur.setter
    def mask_blur(self, value: Any) -> None:
        if isinstance(value, int):
            self.mask_blur_x = self.mask_blur_y = value

    def __post_init__(self) -> None:
        super().__post_init__()
        self.image_mask, self.mask = self.mask, None  # the mask is the one in the latents' size from now on
        if self.initial_noise_multiplier is None:
            self.initial_noise_multiplier = shared.opts.initial_noise_multiplier

    def _prepared_mask(self) -> Image.Image | None:
        """The mask as L, inverted and blurred as asked, in its own size."""
        if self.image_mask is None:
            return None
        extra = self.extra_generation_params
        mask = create_binary_mask(self.image_mask, round=self.mask_round)
        if self.inpainting_mask_invert:
            mask = ImageOps.invert(mask)
            extra["Mask mode"] = "Inpaint not masked"
        if self.mask_blur_x > 0 or self.mask_blur_y > 0:
            extra["Mask blur"] = self.mask_blur
        return blur_mask(mask, self.mask_blur_x, self.mask_blur_y)

    def _fit_mask(self, mask: Image.Image) -> tuple[Image.Image | None, Any]:
        """(mask in the job's size, region of the picture to be processed or None)."""
        if not self.inpaint_full_res:
            mask = images.resize_image(self.resize_mode, mask, self.width, self.height)
            doubled = np.clip(np.array(mask).astype(np.float32) * 2, 0, 255).astype(np.uint8)
            self.mask_for_overlay: Any = Image.fromarray(doubled)
            return mask, None
        self.mask_for_overlay = mask
        region = masking.get_crop_region_v2(mask, self.inpaint_full_res_padding)
        if region is None:
            self.mask_for_overlay = None
            self.inpaint_full_res = False
            model_hijack.comments.append(BLANK_MASK)
            return None, None
        region = masking.expand_crop_region(region, self.width, self.height, mask.width, mask.height)
        x1, y1, x2, y2 = region
        self.paste_to = (x1, y1, x2 - x1, y2 - y1)
        self.extra_generation_params["Inpaint area"] = "Only masked"
        self.extra_generation_params["Masked area padding"] = self.inpaint_full_res_padding
        return images.resize_image(2, mask.crop(region), self.width, self.height), region

    def _add_overlay(self, image: Image.Image) -> None:
        """What is kept of the original, to lay over the result."""
        if self.mask_for_overlay.size != image.size:
            size = image.width, image.height
            self.mask_for_overlay = images.resize_image(self.resize_mode, self.mask_for_overlay, *size)
        kept = Image.new("RGBa", image.size)
        kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(self.mask_for_overlay.convert("L")))
        self.overlay_images.append(kept.convert("RGBA"))

    def _prepared_image(self, img: Any, mask: Any, region: Any, latent_mask: Any) -> np.ndarray:
        """One init image in the job's size: (3, H, W) float32 in 0..1."""
        if img is None:
            raise errors.WrongRequest("img2img needs an init image")
        if shared.opts.save_init_img:
            self.init_img_hash = hashlib.md5(img.tobytes()).hexdigest()
            images.save_image(
                img, shared.opts.outdir_init_images, None, forced_filename=self.init_img_hash, save_to_dirs=False
            )
        image = images.flatten(img, shared.opts.img2img_background_color)
        if region is None and self.resize_mode != 3:
            image = images.resize_image(self.resize_mode, image, self.width, self.height)
        if mask is not None:
            self._add_overlay(image)
        if region is not None:
            image = images.resize_image(2, image.crop(region), self.width, self.height)
        if mask is not None and self.inpainting_fill != 1:
            image = masking.fill(image, latent_mask)
            if self.inpainting_fill == 0:
                self.extra_generation_params["Masked content"] = "fill"
        return np.moveaxis(np.array(image).astype(np.float32) / 255.0, 2, 0)

    def _batch(self, arrays: list[np.ndarray]) -> np.ndarray:
        if len(arrays) == 1:
            if self.overlay_images is not None:
                self.overlay_images = self.overlay_images * self.batch_size
            return arrays[0][None].repeat(self.batch_size, axis=0)
        if len(arrays) > self.batch_size:
            raise errors.WrongRequest(
                f"bad number of images passed: {len(arrays)}; expecting {self.batch_size} or less"
            )
        self.batch_size = len(arrays)
        return np.array(arrays)

    def _mask_latent(self, latent_mask: Image.Image, all_seeds: Any) -> None:
        """Masks in latent size (1 = keep), and what the masked part starts from."""
        latent = self.init_latent
        small = latent_mask.convert("RGB").resize((latent.shape[3], latent.shape[2]))
        mask = np.moveaxis(np.array(small, dtype=np.float32), 2, 0)[0] / 255
        if self.mask_round:
            mask = np.around(mask)
        mask = np.tile(mask[None], (latent.shape[1], 1, 1))
        self.mask = torch.asarray(1.0 - mask).to(shared.device).type(devices.dtype)
        self.nmask = torch.asarray(mask).to(shared.device).type(devices.dtype)
        if self.inpainting_fill == 2:
            noise = rng.ImageRNG(latent.shape[1:], all_seeds[: latent.shape[0]]).next()
            self.init_latent = latent * self.mask + noise * self.nmask
            self.extra_generation_params["Masked content"] = "latent noise"
        elif self.inpainting_fill == 3:
            self.init_latent = latent * self.mask
            self.extra_generation_params["Masked content"] = "latent nothing"

    def init(self, all_prompts: Any, all_seeds: Any, all_subseeds: Any) -> None:
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        if shared.sd_model.cond_stage_key != "edit":
            self.image_cfg_scale = None
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        mask: Any = self._prepared_mask()
        region = None
        if mask is not None:
            mask, region = self._fit_mask(mask)
            self.overlay_images = []
        latent_mask: Any = mask if self.latent_mask is None or mask is None else self.latent_mask.resize(mask.size)
        arrays = [self._prepared_image(img, mask, region, latent_mask) for img in self.init_images]
        image = torch.from_numpy(self._batch(arrays)).to(shared.device, dtype=devices.dtype_vae)
        self.init_latent = images_tensor_to_samples(image, None, self.sd_model)
        devices.torch_gc()
        if self.resize_mode == 3:
            size = (self.height // opt_f, self.width // opt_f)
            self.init_latent = torch.nn.functional.interpolate(self.init_latent, size=size, mode="bilinear")
        if mask is not None:
            self._mask_latent(latent_mask, all_seeds)
        self.image_conditioning = self.img2img_image_conditioning(
            image * 2 - 1, self.init_latent, mask, self.mask_round
        )

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: Any,
        subseeds: Any,
        subseed_strength: float,
        prompts: Any,
    ) -> Tensor:
        conds = conditioning, unconditional_conditioning
        noise = self._starting_noise()
        noise = self.before_sampling(self.init_latent, noise, *conds)
        latents = self.sampler.sample_img2img(
            self, self.init_latent, noise, *conds, image_conditioning=self.image_conditioning
        )
        if self.mask is not None:
            latents = self._final_blend(latents)
        devices.torch_gc()
        return latents

    def _starting_noise(self) -> Tensor:
        factor = self.initial_noise_multiplier
        if factor == 1.0:
            return self.rng.next()
        self.extra_generation_params["Noise multiplier"] = factor
        return self.rng.next() * factor

    def _final_blend(self, samples: Tensor) -> Tensor:
        original: Tensor = self.init_latent
        masks: tuple[Tensor, Tensor] = self.nmask, self.mask
        args = scripts.MaskBlendArgs(samples, masks[0], original, masks[1], samples * masks[0] + original * masks[1])
        if self.scripts is not None:
            self.scripts.on_mask_blend(self, args)
        return args.blended_latent
