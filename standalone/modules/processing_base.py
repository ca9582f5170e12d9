"""The job object: what a picture is made from, and the state while it is made."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from modules import devices, extra_networks, images, prompt_parser, rng, sd_samplers, shared
from modules.sd_samplers_common import decode_first_stage, images_tensor_to_samples
from PIL import Image
from torch import Tensor

opt_C = 4
opt_f = 8


class DecodedSamples(list):
    """Pictures (3, H, W) in about -1..1: samples that need no decoding any more."""

    already_decoded = True


def get_fixed_seed(seed: Any) -> Any:
    """A seed; -1, "" and nonsense become a random one."""
    if isinstance(seed, str):
        seed = int(seed) if seed.strip().lstrip("-").isdigit() else -1
    return random.randrange(4294967294) if seed is None or seed == -1 else rng.checked(seed)


def create_binary_mask(image: Image.Image, round: bool = True) -> Image.Image:
    """L mask of a picture: its alpha channel when it has one that says something, else its brightness."""
    if image.mode != "RGBA" or image.getextrema()[-1] == (255, 255):
        return image.convert("L")
    alpha = image.split()[-1].convert("L")
    return alpha.point(lambda x: 255 if x > 128 else 0) if round else alpha


def decode_latent_batch(
    model: Any, batch: Tensor, target_device: torch.device | None = None, check_for_nans: bool = False
) -> DecodedSamples:
    """Pictures of latents (B, C, h, w), decoded one by one; a VAE that gives NaN is tried again in float32."""
    if check_for_nans:
        devices.test_for_nans(batch, "unet")
    samples = DecodedSamples()
    for i in range(batch.shape[0]):
        sample = decode_first_stage(model, batch[i : i + 1])[0]
        if check_for_nans:
            sample = _without_nans(model, batch[i : i + 1], sample)
        samples.append(sample if target_device is None else sample.to(target_device))
    return samples


def _without_nans(model: Any, latent: Tensor, sample: Tensor) -> Tensor:
    try:
        devices.test_for_nans(sample, "vae")
    except devices.NansException:
        if devices.dtype_vae == torch.float32:
            raise
        devices.dtype_vae = torch.float32
        model.first_stage_model.to(torch.float32)
        sample = decode_first_stage(model, latent.float())[0]
        devices.test_for_nans(sample, "vae")
    return sample


def txt2img_image_conditioning(sd_model: Any, x: Tensor, width: int, height: int) -> Tensor:
    """Channels an inpainting U-Net gets beside the latent when nothing is kept: all masked, all grey."""
    if sd_model.model.conditioning_key not in ("hybrid", "concat"):
        return x.new_zeros(x.shape[0], 5, 1, 1)
    grey = torch.ones(x.shape[0], 3, height, width, device=x.device) * 0.5
    encoded = images_tensor_to_samples(grey)
    return torch.nn.functional.pad(encoded, (0, 0, 0, 0, 1, 0), value=1.0).to(x.dtype)


@dataclass(repr=False)
class StableDiffusionProcessing:
    """What txt2img and img2img share. Constructor arguments first, then the running state."""

    sd_model: Any = None
    outpath_samples: str | None = None
    outpath_grids: str | None = None
    prompt: Any = ""
    prompt_for_display: str | None = None
    negative_prompt: Any = ""
    styles: list[str] | None = None
    seed: Any = -1
    subseed: Any = -1
    subseed_strength: float = 0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    seed_enable_extras: bool = True
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    extra_generation_params: Any = None
    overlay_images: Any = None
    eta: float | None = None
    do_not_reload_embeddings: bool = False
    denoising_strength: float | None = None
    ddim_discretize: str | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    override_settings: Any = None
    override_settings_restore_afterwards: bool = True
    sampler_index: Any = None
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool = False
    firstpass_image: Any = None

    token_merging_ratio: ClassVar[float] = 0
    token_merging_ratio_hr: ClassVar[float] = 0
    cached_uc = [None, None]
    cached_c = [None, None]

    scripts_value: Any = field(default=None, init=False)
    script_args_value: Any = field(default=None, init=False)
    scripts_setup_complete: bool = field(default=False, init=False)
    comments: dict[str, int] = field(default_factory=dict, init=False)
    sampler: Any = field(default=None, init=False)
    is_using_inpainting_conditioning: bool = field(default=False, init=False)
    paste_to: Any = field(default=None, init=False)
    is_hr_pass: bool = field(default=False, init=False)
    c: Any = field(default=None, init=False)
    uc: Any = field(default=None, init=False)
    rng: Any = field(default=None, init=False)
    step_multiplier: int = field(default=1, init=False)
    firstpass_steps: int = field(default=0, init=False)
    color_corrections: Any = field(default=None, init=False)
    all_prompts: Any = field(default=None, init=False)
    all_negative_prompts: Any = field(default=None, init=False)
    all_seeds: Any = field(default=None, init=False)
    all_subseeds: Any = field(default=None, init=False)
    iteration: int = field(default=0, init=False)
    batch_index: int = field(default=0, init=False)
    main_prompt: Any = field(default=None, init=False)
    main_negative_prompt: Any = field(default=None, init=False)
    prompts: Any = field(default=None, init=False)
    negative_prompts: Any = field(default=None, init=False)
    seeds: Any = field(default=None, init=False)
    subseeds: Any = field(default=None, init=False)
    extra_network_data: Any = field(default=None, init=False)
    user: str | None = field(default=None, init=False)
    sd_model_name: str | None = field(default=None, init=False)
    sd_model_hash: str | None = field(default=None, init=False)
    sd_vae_name: str | None = field(default=None, init=False)
    sd_vae_hash: str | None = field(default=None, init=False)
    is_api: bool = field(default=False, init=False)
    sampler_noise_scheduler_override: Any = field(default=None, init=False)
    refiner_checkpoint_info: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.sampler_index is not None:
            print("sampler_index does not do anything; use sampler_name", file=sys.stderr)
        self.styles = self.styles or []
        self.extra_generation_params = self.extra_generation_params or {}
        self.override_settings = self.override_settings or {}
        if not self.seed_enable_extras:
            self.subseed, self.subseed_strength = -1, 0
            self.seed_resize_from_h = self.seed_resize_from_w = 0
        self.cached_uc = StableDiffusionProcessing.cached_uc
        self.cached_c = StableDiffusionProcessing.cached_c

    def fill_fields_from_opts(self) -> None:
        for name in ("s_min_uncond", "s_churn", "s_tmin", "s_tmax", "s_noise"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(shared.opts, name))
        self.s_tmax = self.s_tmax or float("inf")

    # model, scripts

    @property
    def scripts(self) -> Any:
        return self.scripts_value

    @scripts.setter
    def scripts(self, value: Any) -> None:
        self.scripts_value = value
        self._setup_scripts_once()

    @property
    def script_args(self) -> Any:
        return {} if self.script_args_value is None else self.script_args_value

    @script_args.setter
    def script_args(self, value: Any) -> None:
        self.script_args_value = value
        self._setup_scripts_once()

    def _setup_scripts_once(self) -> None:
        if self.scripts_value and self.script_args_value and not self.scripts_setup_complete:
            self.setup_scripts()

    def setup_scripts(self) -> None:
        self.scripts_setup_complete = True
        self.scripts.setup_scrips(self, is_ui=not self.is_api)

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    # conditions

    def txt2img_image_conditioning(self, x: Tensor, width: int | None = None, height: int | None = None) -> Tensor:
        self.is_using_inpainting_conditioning = self.sd_model.model.conditioning_key in {"hybrid", "concat"}
        return txt2img_image_conditioning(self.sd_model, x, width or self.width, height or self.height)

    def inpainting_image_conditioning(
        self, source_image: Tensor, latent_image: Tensor, image_mask: Any = None, round_image_mask: bool = True
    ) -> Tensor:
        """Mask and masked picture for a 9-channel U-Net: (B, 5, h, w)."""
        self.is_using_inpainting_conditioning = True
        if image_mask is None:
            mask = source_image.new_ones(1, 1, *source_image.shape[-2:])
        elif torch.is_tensor(image_mask):
            mask = image_mask
        else:
            array = np.array(image_mask.convert("L")).astype(np.float32) / 255.0
            mask = torch.from_numpy(array[None, None])
            mask = torch.round(mask) if round_image_mask else mask
        mask = mask.to(device=source_image.device, dtype=source_image.dtype)
        strength = getattr(self, "inpainting_mask_weight", shared.opts.inpainting_mask_weight)
        picture = torch.lerp(source_image, source_image * (1.0 - mask), strength)
        model = self.sd_model
        encoded = model.get_first_stage_encoding(model.encode_first_stage(picture))
        mask = torch.nn.functional.interpolate(mask, size=latent_image.shape[-2:]).expand(encoded.shape[0], -1, -1, -1)
        return torch.cat([mask, encoded], dim=1).to(shared.device).type(model.dtype)

    def edit_image_conditioning(self, source_image: Tensor) -> Tensor:
        """The picture's latent, not sampled and not scaled, for pix2pix U-Nets."""
        return self.sd_model.encode_first_stage(source_image).mode()

    def img2img_image_conditioning(
        self, source_image: Tensor, latent_image: Tensor, image_mask: Any = None, round_image_mask: bool = True
    ) -> Tensor:
        source_image = devices.cond_cast_float(source_image)
        if self.sd_model.cond_stage_key == "edit":
            return self.edit_image_conditioning(source_image)
        if self.sampler.conditioning_key in {"hybrid", "concat"}:
            return self.inpainting_image_conditioning(source_image, latent_image, image_mask, round_image_mask)
        return latent_image.new_zeros(latent_image.shape[0], 5, 1, 1)

    def setup_prompts(self) -> None:
        """One prompt and negative prompt for every picture of the job."""
        if isinstance(self.prompt, list):
            self.all_prompts = self.prompt
        else:
            listed = isinstance(self.negative_prompt, list)
            self.all_prompts = [self.prompt] * (len(self.negative_prompt) if listed else self.batch_size * self.n_iter)
        negative = self.negative_prompt
        self.all_negative_prompts = negative if isinstance(negative, list) else [negative] * len(self.all_prompts)
        counts = len(self.all_prompts), len(self.all_negative_prompts)
        if counts[0] != counts[1]:
            raise RuntimeError(
                f"Received a different number of prompts ({counts[0]}) and negative prompts ({counts[1]})"
            )
        styles = shared.prompt_styles
        self.all_prompts = [styles.apply_styles_to_prompt(x, self.styles) for x in self.all_prompts]
        negatives = self.all_negative_prompts
        self.all_negative_prompts = [styles.apply_negative_styles_to_prompt(x, self.styles) for x in negatives]
        self.main_prompt = self.all_prompts[0]
        self.main_negative_prompt = self.all_negative_prompts[0]

    def cached_params(
        self,
        required_prompts: Any,
        steps: int,
        extra_network_data: Any,
        hires_steps: int | None = None,
        use_old_scheduling: bool = False,
    ) -> tuple[Any, ...]:
        """All a condition depends on."""
        opts = shared.opts
        return (
            required_prompts, steps, hires_steps, use_old_scheduling, opts.CLIP_stop_at_last_layers,
            shared.sd_model.sd_checkpoint_info, extra_network_data, self.width, self.height, opts.emphasis,
        )  # fmt: skip

    def get_conds_with_caching(
        self,
        function: Callable[..., Any],
        required_prompts: Any,
        steps: int,
        caches: list[list[Any]],
        extra_network_data: Any,
        hires_steps: int | None = None,
    ) -> Any:
        """`function(model, prompts, steps, ...)`, or what it gave for these arguments; new results go to caches[0]."""
        old = shared.opts.use_old_scheduling
        params = self.cached_params(required_prompts, steps, extra_network_data, hires_steps, old)
        for cache in caches:
            if cache[0] is not None and params == cache[0]:
                return cache[1]
        with devices.autocast():
            caches[0][1] = function(shared.sd_model, required_prompts, steps, hires_steps, old)
        caches[0][0] = params
        return caches[0][1]

    def setup_conds(self) -> None:
        size: dict[str, Any] = {"width": self.width, "height": self.height}
        prompts = prompt_parser.SdConditioning(self.prompts, **size)
        negatives = prompt_parser.SdConditioning(self.negative_prompts, is_negative_prompt=True, **size)
        config = sd_samplers.find_sampler_config(self.sampler_name)
        total = config.total_steps(self.steps) if config else self.steps
        self.step_multiplier = total // self.steps
        self.firstpass_steps = total
        data = self.extra_network_data
        learned, multi = prompt_parser.get_learned_conditioning, prompt_parser.get_multicond_learned_conditioning
        self.uc = self.get_conds_with_caching(learned, negatives, total, [self.cached_uc], data)
        self.c = self.get_conds_with_caching(multi, prompts, total, [self.cached_c], data)

    def get_conds(self) -> tuple[Any, Any]:
        return self.c, self.uc

    def parse_extra_network_prompts(self) -> None:
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    # life

    def init(self, all_prompts: Any, all_seeds: Any, all_subseeds: Any) -> None: ...

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: Any,
        subseeds: Any,
        subseed_strength: float,
        prompts: Any,
    ) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.sampler = None
        self.c = None
        self.uc = None
        if not shared.opts.persistent_cond_cache:
            StableDiffusionProcessing.cached_c = [None, None]
            StableDiffusionProcessing.cached_uc = [None, None]

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        return self.token_merging_ratio_hr if for_hr else self.token_merging_ratio

    def save_samples(self) -> bool:
        """Whether pictures are to be written to disk."""
        stopped = shared.state.interrupted or shared.state.skipped
        wanted = shared.opts.samples_save and not self.do_not_save_samples
        return wanted and (shared.opts.save_incomplete_images or not stopped)


def _sd_model_property() -> property:
    def set_nothing(self: Any, value: Any) -> None:
        """The host's model is used, whatever is passed."""

    return property(lambda self: shared.sd_model, set_nothing)


StableDiffusionProcessing.sd_model = _sd_model_property()  # type: ignore[assignment] # after @dataclass took the field


def uncrop(image: Image.Image, dest_size: tuple[int, int], paste_loc: tuple[int, int, int, int]) -> Image.Image:
    """The picture resized into its place in an otherwise transparent one."""
    x, y, w, h = paste_loc
    base = Image.new("RGBA", dest_size)
    base.paste(images.resize_image(1, image, w, h), (x, y))
    return base


def apply_overlay(image: Image.Image, paste_loc: Any, overlay: Image.Image | None) -> tuple[Image.Image, Image.Image]:
    """(the picture with the original over it, the picture before that)."""
    if overlay is None:
        return image, image.copy()
    if paste_loc is not None:
        image = uncrop(image, (overlay.width, overlay.height), paste_loc)
    denoised = image.copy()
    image = image.convert("RGBA")
    image.alpha_composite(overlay)
    return image.convert("RGB"), denoised
