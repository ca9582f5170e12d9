"""The job object: what a picture is made from, and the state while it is made."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from modules import devices, extra_networks, images, job_fields, prompt_parser, rng, sd_samplers, shared
from modules.image_conditioning import ImageConditioning
from modules.job_fields import job_class
from modules.sd_samplers_common import decode_first_stage
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


def _setting_up(stored: str, empty: Callable[[], Any]) -> property:
    """A property kept in `stored`; once both scripts and their arguments are known, the scripts' `setup` is called."""

    def get(self: Any) -> Any:
        value = getattr(self, stored)
        return empty() if value is None else value

    def put(self: Any, value: Any) -> None:
        setattr(self, stored, value)
        if self.scripts and self.script_args and not self.scripts_setup_complete:
            self.setup_scripts()

    return property(get, put)


def empty_cache() -> list[Any]:
    """[what conditions were made from, the conditions]; nothing yet."""
    return [None, None]


class StableDiffusionProcessing(job_class("Job", job_fields.COMMON, job_fields.COMMON_STATE), ImageConditioning):
    """What txt2img and img2img share: the constructor's arguments, then the running state."""

    token_merging_ratio: ClassVar[float] = 0
    token_merging_ratio_hr: ClassVar[float] = 0
    cached_c, cached_uc = empty_cache(), empty_cache()
    scripts = _setting_up("scripts_value", lambda: None)
    script_args = _setting_up("script_args_value", dict)

    @property
    def sd_model(self) -> Any:
        return shared.sd_model

    @sd_model.setter
    def sd_model(self, value: Any) -> None:
        """The host's model is used, whatever is passed."""

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

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def setup_scripts(self) -> None:
        self.scripts_setup_complete = True
        self.scripts.setup_scrips(self, is_ui=not self.is_api)

    # conditions

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

    def parse_extra_network_prompts(self) -> None:
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    def get_conds(self) -> tuple[Any, Any]:
        return self.c, self.uc

    # life

    def before_sampling(self, x: Tensor, noise: Tensor, c: Any, uc: Any) -> Tensor:
        """Tell the scripts that a pass starts from `x` and `noise`, both (B, C, h, w); gives the noise to use."""
        if self.scripts is not None:
            self.scripts.process_before_every_sampling(p=self, x=x, noise=noise, c=c, uc=uc)
        return noise

    def noise_source(self, shape: Sequence[int]) -> rng.ImageRNG:
        """Noise of the present batch for latents (C, h, w) of this shape."""
        resized = self.seed_resize_from_h, self.seed_resize_from_w
        return rng.ImageRNG(shape, self.seeds, self.subseeds, self.subseed_strength, *resized)

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
        self.sampler = self.c = self.uc = None
        if not shared.opts.persistent_cond_cache:
            StableDiffusionProcessing.cached_c, StableDiffusionProcessing.cached_uc = empty_cache(), empty_cache()

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        return self.token_merging_ratio_hr if for_hr else self.token_merging_ratio

    def save_samples(self) -> bool:
        """Whether pictures are to be written to disk."""
        stopped = shared.state.interrupted or shared.state.skipped
        wanted = shared.opts.samples_save and not self.do_not_save_samples
        return wanted and (shared.opts.save_incomplete_images or not stopped)


def uncrop(image: Image.Image, dest_size: tuple[int, int], paste_loc: tuple[int, int, int, int]) -> Image.Image:
    """The picture resized into its place in an otherwise transparent one."""
    x, y, w, h = paste_loc
    base = Image.new("RGBA", dest_size)
    base.paste(images.resize_image(1, image, w, h), (x, y))
    return base


def apply_overlay(image: Image.Image, paste_loc: Any, overlay: Image.Image | None) -> tuple[Image.Image, Image.Image]:
    """(the picture with the original over it, the picture before that)."""
    if overlay is not None and paste_loc is not None:
        image = uncrop(image, overlay.size, paste_loc)
    plain = image.copy()
    if overlay is None:
        return image, plain
    covered = image.convert("RGBA")
    covered.alpha_composite(overlay)
    return covered.convert("RGB"), plain
