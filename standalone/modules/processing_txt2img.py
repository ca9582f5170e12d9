"""txt2img, with the second pass of hires fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from modules import (
    devices,
    errors,
    extra_networks,
    images,
    job_fields,
    lowvram,
    prompt_parser,
    sd_models,
    sd_samplers,
    shared,
)
from modules.job_fields import job_class
from modules.processing_base import (
    DecodedSamples,
    StableDiffusionProcessing,
    decode_latent_batch,
    empty_cache,
    opt_f,
)
from modules.processing_result import create_infotext
from modules.sd_samplers_common import decode_first_stage, images_tensor_to_samples
from PIL import Image
from torch import Tensor


def hires_size(width: int, height: int, scale: float, resize_x: int, resize_y: int) -> tuple[int, int, int, int]:
    """(width, height, latent columns to cut, latent rows to cut) of the second pass."""
    if resize_x == 0 and resize_y == 0:
        return int(width * scale), int(height * scale), 0, 0
    by_width = resize_y == 0 or (resize_x != 0 and width / height < resize_x / resize_y)
    if by_width:
        up = resize_x, resize_x * height // width
    else:
        up = resize_y * width // height, resize_y
    if resize_x == 0 or resize_y == 0:
        return *up, 0, 0
    return *up, (up[0] - resize_x) // opt_f, (up[1] - resize_y) // opt_f


def to_array(image: Image.Image) -> np.ndarray:
    """(3, H, W) float32 in 0..1."""
    return np.moveaxis(np.array(image).astype(np.float32) / 255.0, 2, 0)


class StableDiffusionProcessingTxt2Img(
    job_class("Txt2ImgJob", job_fields.TXT2IMG, job_fields.TXT2IMG_STATE, StableDiffusionProcessing)
):
    cached_hr_c, cached_hr_uc = empty_cache(), empty_cache()

    def __post_init__(self) -> None:
        super().__post_init__()
        first = self.firstphase_width, self.firstphase_height
        if first != (0, 0):
            self.hr_upscale_to_x, self.hr_upscale_to_y = self.width, self.height
            self.width, self.height = first
        self.cached_hr_uc = StableDiffusionProcessingTxt2Img.cached_hr_uc
        self.cached_hr_c = StableDiffusionProcessingTxt2Img.cached_hr_c

    def calculate_target_resolution(self) -> None:
        x, y = self.hr_resize_x, self.hr_resize_y
        if x == 0 and y == 0:
            self.extra_generation_params["Hires upscale"] = self.hr_scale
        else:
            self.extra_generation_params["Hires resize"] = f"{x}x{y}"
        size = hires_size(self.width, self.height, self.hr_scale, x, y)
        self.hr_upscale_to_x, self.hr_upscale_to_y, self.truncate_x, self.truncate_y = size

    def init(self, all_prompts: Any, all_seeds: Any, all_subseeds: Any) -> None:
        if not self.enable_hr:
            return
        extra = self.extra_generation_params
        extra["Denoising strength"] = self.denoising_strength
        self._find_hr_checkpoint()
        if self.hr_sampler_name is not None and self.hr_sampler_name != self.sampler_name:
            extra["Hires sampler"] = self.hr_sampler_name
        extra["Hires prompt"] = self._different(lambda p: p.all_hr_prompts, "prompt_text")
        extra["Hires negative prompt"] = self._different(lambda p: p.all_hr_negative_prompts, "negative_prompt")
        extra["Hires schedule type"] = None  # its place in the text; the sampler sets it
        if self.hr_scheduler is None:
            self.hr_scheduler = self.scheduler
        self._find_upscaler()
        self.calculate_target_resolution()
        self._count_jobs()
        if self.hr_second_pass_steps:
            extra["Hires steps"] = self.hr_second_pass_steps
        if self.hr_upscaler is not None:
            extra["Hires upscaler"] = self.hr_upscaler

    @staticmethod
    def _different(prompts_of: Any, name: str) -> Any:
        def value(p: Any, index: int, **known: Any) -> str | None:
            prompt = prompts_of(p)[index]
            return prompt if prompt != known[name] else None

        return value

    def _find_hr_checkpoint(self) -> None:
        name = self.hr_checkpoint_name
        if not name or name == "Use same checkpoint":
            return
        self.hr_checkpoint_info = sd_models.get_closet_checkpoint_match(name)
        if self.hr_checkpoint_info is None:
            raise errors.WrongRequest(f"Could not find checkpoint with name {name}")
        self.extra_generation_params["Hires checkpoint"] = self.hr_checkpoint_info.short_title

    def _find_upscaler(self) -> None:
        name = self.hr_upscaler if self.hr_upscaler is not None else shared.latent_upscale_default_mode
        self.latent_scale_mode = shared.latent_upscale_modes.get(name)
        if self.latent_scale_mode is None and not any(x.name == name for x in shared.sd_upscalers):
            raise errors.WrongRequest(f"could not find upscaler named {name}")

    def _count_jobs(self) -> None:
        state = shared.state
        if state.processing_has_refined_job_count:
            return
        if state.job_count == -1:
            state.job_count = self.n_iter
        second = self.hr_second_pass_steps or self.steps
        first = 0 if getattr(self, "txt2img_upscale", False) else self.steps
        shared.total_tqdm.updateTotal((first + second) * state.job_count)
        state.job_count *= 2
        state.processing_has_refined_job_count = True

    def _from_firstpass_image(self) -> tuple[Tensor | None, Tensor | None]:
        """(latents, pictures) of a given first-pass picture; one of them is None."""
        array = torch.from_numpy(to_array(self.firstpass_image)[None])
        if self.latent_scale_mode is None:
            return None, array * 2.0 - 1.0
        image = array.to(shared.device, dtype=devices.dtype_vae)
        return images_tensor_to_samples(image, None, self.sd_model), None

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: Any,
        subseeds: Any,
        subseed_strength: float,
        prompts: Any,
    ) -> Any:
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        samples: Any
        decoded: Tensor | None = None
        if self.firstpass_image is not None and self.enable_hr:
            samples, decoded = self._from_firstpass_image()
        else:
            x = self.rng.next()
            x = self.before_sampling(x, x, conditioning, unconditional_conditioning)
            condition = self.txt2img_image_conditioning(x)
            samples = self.sampler.sample(
                self, x, conditioning, unconditional_conditioning, image_conditioning=condition
            )
            if not self.enable_hr:
                return samples
            if self.latent_scale_mode is None:
                decoded = torch.stack(self._decoded(samples)).to(dtype=torch.float32)
        with sd_models.SkipWritingToConfig():
            sd_models.reload_model_weights(info=self.hr_checkpoint_info)
        return self.sample_hr_pass(samples, decoded, seeds, subseeds, subseed_strength, prompts)

    def _decoded(self, samples: Tensor) -> DecodedSamples:
        devices.torch_gc()
        return decode_latent_batch(self.sd_model, samples, target_device=devices.cpu, check_for_nans=True)

    def _save_intermediate(self, image: Image.Image, index: int) -> None:
        """The first pass's picture, if the user wants it kept."""
        if not self.save_samples() or not shared.opts.save_images_before_highres_fix:
            return
        info = create_infotext(
            self,
            self.all_prompts,
            self.all_seeds,
            self.all_subseeds,
            [],
            iteration=self.iteration,
            position_in_batch=index,
        )
        images.save_image(
            image, self.outpath_samples or "", "", self.seeds[index], self.prompts[index], shared.opts.samples_format,
            info=info, p=self, suffix="-before-highres-fix",
        )  # fmt: skip

    def _upscale_latent(self, samples: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
        """(latents, image conditioning) of the second pass."""
        if shared.opts.save_images_before_highres_fix:
            for i in range(samples.shape[0]):
                self._save_intermediate(sd_samplers.sample_to_image(samples, i, approximation=0), i)
        size = (height // opt_f, width // opt_f)
        samples = torch.nn.functional.interpolate(samples, size=size, **(self.latent_scale_mode or {}))
        if getattr(self, "inpainting_mask_weight", shared.opts.inpainting_mask_weight) < 1.0:
            return samples, self.img2img_image_conditioning(decode_first_stage(self.sd_model, samples), samples)
        return samples, self.txt2img_image_conditioning(samples, width, height)

    def _upscale_pixels(self, decoded: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
        """(latents, image conditioning) of the second pass from pictures (B, 3, H, W) in -1..1."""
        arrays = []
        for i, picture in enumerate(torch.clamp((decoded + 1.0) / 2.0, min=0.0, max=1.0)):
            array = 255.0 * np.moveaxis(picture.cpu().numpy(), 0, 2)
            image = Image.fromarray(array.astype(np.uint8))
            self._save_intermediate(image, i)
            arrays.append(to_array(images.resize_image(0, image, width, height, upscaler_name=self.hr_upscaler)))
        pictures = torch.from_numpy(np.array(arrays)).to(shared.device, dtype=devices.dtype_vae)
        samples = images_tensor_to_samples(pictures)
        return samples, self.img2img_image_conditioning(pictures, samples)

    def _truncate(self, samples: Tensor) -> Tensor:
        x, y = self.truncate_x, self.truncate_y
        rows, columns = samples.shape[2], samples.shape[3]
        return samples[:, :, y // 2 : rows - (y + 1) // 2, x // 2 : columns - (x + 1) // 2]

    def sample_hr_pass(
        self, samples: Any, decoded_samples: Any, seeds: Any, subseeds: Any, subseed_strength: float, prompts: Any
    ) -> Any:
        """The second pass; samples come back decoded."""
        if shared.state.interrupted:
            return samples
        by_pixels = self.latent_scale_mode is None
        self.is_hr_pass = True
        self.sampler = sd_samplers.create_sampler(self.hr_sampler_name or self.sampler_name, self.sd_model)
        size = self.hr_upscale_to_x, self.hr_upscale_to_y
        upscaled = self._upscale_pixels(decoded_samples, *size) if by_pixels else self._upscale_latent(samples, *size)
        shared.state.nextjob()
        decoded = self._decoded(self._sample_again(self._truncate(upscaled[0]), upscaled[1]))
        self.is_hr_pass = False
        return decoded

    def _sample_again(self, latents: Tensor, image_conditioning: Tensor) -> Tensor:
        """Latents (B, C, h, w) of the second pass, sampled."""
        self.rng = self.noise_source(latents.shape[1:])
        noise = self.rng.next()
        if not self.disable_extra_networks:
            extra_networks.activate(self, self.hr_extra_network_data)
        with devices.autocast():
            self.calculate_hr_conds()
        noise = self.before_hr_sampling(latents, noise)
        steps = self.hr_second_pass_steps or self.steps
        sampler: Any = self.sampler
        samples = sampler.sample_img2img(self, latents, noise, self.hr_c, self.hr_uc, steps, image_conditioning)
        self.sampler = None
        return samples

    def before_hr_sampling(self, latents: Tensor, noise: Tensor) -> Tensor:
        """As `before_sampling`, for the second pass."""
        if self.scripts is not None:
            self.scripts.before_hr(self)
        return self.before_sampling(latents, noise, self.hr_c, self.hr_uc)

    def close(self) -> None:
        super().close()
        self.hr_c = self.hr_uc = None
        if not shared.opts.persistent_cond_cache:
            kind = StableDiffusionProcessingTxt2Img
            kind.cached_hr_c, kind.cached_hr_uc = empty_cache(), empty_cache()

    def setup_prompts(self) -> None:
        super().setup_prompts()
        if self.enable_hr:
            for name in ("prompt", "negative_prompt"):
                self._setup_hr_prompts(name)

    def _setup_hr_prompts(self, name: str) -> None:
        """The second pass's prompts for every picture; an empty one is the first pass's."""
        given = getattr(self, f"hr_{name}")
        prompt = getattr(self, name) if given == "" else given
        listed = prompt if isinstance(prompt, list) else [prompt] * (self.batch_size * self.n_iter)
        setattr(self, f"hr_{name}", prompt)
        setattr(self, f"all_hr_{name}s", listed)

    def calculate_hr_conds(self) -> None:
        if self.hr_c is not None:
            return
        size: dict[str, Any] = {"width": self.hr_upscale_to_x, "height": self.hr_upscale_to_y}
        prompts = prompt_parser.SdConditioning(self.hr_prompts, **size)
        negatives = prompt_parser.SdConditioning(self.hr_negative_prompts, is_negative_prompt=True, **size)
        config = sd_samplers.find_sampler_config(self.hr_sampler_name or self.sampler_name)
        steps = self.hr_second_pass_steps or self.steps
        total = config.total_steps(steps) if config else steps
        data, first = self.hr_extra_network_data, self.firstpass_steps
        self.hr_uc = self.get_conds_with_caching(
            prompt_parser.get_learned_conditioning, negatives, first, [self.cached_hr_uc, self.cached_uc], data, total
        )
        self.hr_c = self.get_conds_with_caching(
            prompt_parser.get_multicond_learned_conditioning,
            prompts,
            first,
            [self.cached_hr_c, self.cached_c],
            data,
            total,
        )

    def setup_conds(self) -> None:
        self.hr_c = self.hr_uc = None
        if self.is_hr_pass:  # the refiner asks, in the second pass
            self.calculate_hr_conds()
            return
        super().setup_conds()
        early = self.enable_hr and self.hr_checkpoint_info is None
        if early and shared.opts.hires_fix_use_firstpass_conds:
            self.calculate_hr_conds()
        elif early and lowvram.is_enabled(shared.sd_model):  # the text encoder is on the device now, later it is not
            extra_networks.activate(self, self.hr_extra_network_data)
            self.calculate_hr_conds()
            extra_networks.activate(self, self.extra_network_data)

    def get_conds(self) -> tuple[Any, Any]:
        return (self.hr_c, self.hr_uc) if self.is_hr_pass else super().get_conds()

    def parse_extra_network_prompts(self) -> None:
        super().parse_extra_network_prompts()
        if self.enable_hr:
            part = slice(self.iteration * self.batch_size, (self.iteration + 1) * self.batch_size)
            self.hr_negative_prompts = self.all_hr_negative_prompts[part]
            self.hr_prompts, self.hr_extra_network_data = extra_networks.parse_prompts(self.all_hr_prompts[part])
