"""txt2img, with the second pass of hires fix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from modules import devices, errors, extra_networks, images, lowvram, prompt_parser, rng, sd_models, sd_samplers, shared
from modules.processing_base import DecodedSamples, StableDiffusionProcessing, decode_latent_batch, opt_f
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


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    enable_hr: bool = False
    denoising_strength: float = 0.75
    firstphase_width: int = 0
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: Any = ""
    hr_negative_prompt: Any = ""
    force_task_id: str | None = None

    cached_hr_uc = [None, None]
    cached_hr_c = [None, None]

    hr_checkpoint_info: Any = field(default=None, init=False)
    hr_upscale_to_x: int = field(default=0, init=False)
    hr_upscale_to_y: int = field(default=0, init=False)
    truncate_x: int = field(default=0, init=False)
    truncate_y: int = field(default=0, init=False)
    latent_scale_mode: Any = field(default=None, init=False)
    hr_c: Any = field(default=None, init=False)
    hr_uc: Any = field(default=None, init=False)
    all_hr_prompts: Any = field(default=None, init=False)
    all_hr_negative_prompts: Any = field(default=None, init=False)
    hr_prompts: Any = field(default=None, init=False)
    hr_negative_prompts: Any = field(default=None, init=False)
    hr_extra_network_data: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.firstphase_width != 0 or self.firstphase_height != 0:
            self.hr_upscale_to_x, self.hr_upscale_to_y = self.width, self.height
            self.width, self.height = self.firstphase_width, self.firstphase_height
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
            if self.scripts is not None:
                self.scripts.process_before_every_sampling(
                    p=self, x=x, noise=x, c=conditioning, uc=unconditional_conditioning
                )
            condition = self.txt2img_image_conditioning(x)
            samples = self.sampler.sample(
                self, x, conditioning, unconditional_conditioning, image_conditioning=condition
            )
            if not self.enable_hr:
                return samples
            devices.torch_gc()
            if self.latent_scale_mode is None:
                pictures = decode_latent_batch(self.sd_model, samples, target_device=devices.cpu, check_for_nans=True)
                decoded = torch.stack(pictures).to(dtype=torch.float32)
        with sd_models.SkipWritingToConfig():
            sd_models.reload_model_weights(info=self.hr_checkpoint_info)
        return self.sample_hr_pass(samples, decoded, seeds, subseeds, subseed_strength, prompts)

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
        samples = torch.nn.functional.interpolate(samples, size=size, **self.latent_scale_mode)
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
        self.is_hr_pass = True
        self.sampler = sd_samplers.create_sampler(self.hr_sampler_name or self.sampler_name, self.sd_model)
        size = self.hr_upscale_to_x, self.hr_upscale_to_y
        if self.latent_scale_mode is not None:
            samples, image_conditioning = self._upscale_latent(samples, *size)
        else:
            samples, image_conditioning = self._upscale_pixels(decoded_samples, *size)
        shared.state.nextjob()
        samples = self._truncate(samples)
        self.rng = rng.ImageRNG(
            samples.shape[1:], self.seeds, subseeds=self.subseeds, subseed_strength=self.subseed_strength,
            seed_resize_from_h=self.seed_resize_from_h, seed_resize_from_w=self.seed_resize_from_w,
        )  # fmt: skip
        noise = self.rng.next()
        devices.torch_gc()
        if not self.disable_extra_networks:
            with devices.autocast():
                extra_networks.activate(self, self.hr_extra_network_data)
        with devices.autocast():
            self.calculate_hr_conds()
        if self.scripts is not None:
            self.scripts.before_hr(self)
            self.scripts.process_before_every_sampling(p=self, x=samples, noise=noise, c=self.hr_c, uc=self.hr_uc)
        steps = self.hr_second_pass_steps or self.steps
        samples = self.sampler.sample_img2img(
            self, samples, noise, self.hr_c, self.hr_uc, steps=steps, image_conditioning=image_conditioning
        )
        self.sampler = None
        devices.torch_gc()
        decoded: DecodedSamples = decode_latent_batch(
            self.sd_model, samples, target_device=devices.cpu, check_for_nans=True
        )
        self.is_hr_pass = False
        return decoded

    def close(self) -> None:
        super().close()
        self.hr_c = None
        self.hr_uc = None
        if not shared.opts.persistent_cond_cache:
            StableDiffusionProcessingTxt2Img.cached_hr_uc = [None, None]
            StableDiffusionProcessingTxt2Img.cached_hr_c = [None, None]

    def setup_prompts(self) -> None:
        super().setup_prompts()
        if not self.enable_hr:
            return
        self.hr_prompt = self.prompt if self.hr_prompt == "" else self.hr_prompt
        self.hr_negative_prompt = self.negative_prompt if self.hr_negative_prompt == "" else self.hr_negative_prompt
        count = self.batch_size * self.n_iter

        def listed(prompt: Any) -> list[str]:
            return prompt if isinstance(prompt, list) else [prompt] * count

        self.all_hr_prompts = listed(self.hr_prompt)
        self.all_hr_negative_prompts = listed(self.hr_negative_prompt)

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
        if self.is_hr_pass:  # the refiner asks, in the second pass
            self.hr_c = None
            self.calculate_hr_conds()
            return
        super().setup_conds()
        self.hr_uc = None
        self.hr_c = None
        if not self.enable_hr or self.hr_checkpoint_info is not None:
            return
        if shared.opts.hires_fix_use_firstpass_conds:
            self.calculate_hr_conds()
        elif lowvram.is_enabled(shared.sd_model):  # the text encoder is on the device now, later it is not
            with devices.autocast():
                extra_networks.activate(self, self.hr_extra_network_data)
            self.calculate_hr_conds()
            with devices.autocast():
                extra_networks.activate(self, self.extra_network_data)

    def get_conds(self) -> tuple[Any, Any]:
        return (self.hr_c, self.hr_uc) if self.is_hr_pass else super().get_conds()

    def parse_extra_network_prompts(self) -> None:
        super().parse_extra_network_prompts()
        if self.enable_hr:
            part = slice(self.iteration * self.batch_size, (self.iteration + 1) * self.batch_size)
            self.hr_negative_prompts = self.all_hr_negative_prompts[part]
            self.hr_prompts, self.hr_extra_network_data = extra_networks.parse_prompts(self.all_hr_prompts[part])
