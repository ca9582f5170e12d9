"""What a job is made from: names, types and defaults, which scripts and clients of the API know by name."""

from __future__ import annotations

from dataclasses import field, make_dataclass
from typing import Any

Arguments = list[tuple[str, Any, Any]]


def job_class(name: str, arguments: Arguments, state: dict[str, Any], base: type = object) -> Any:
    """A class of jobs whose constructor takes `arguments` (name, type, default) after those of `base`.

    Its instances also have `state`: names, and what they start with; a class there is called for each.
    """
    fields: list[Any] = [(argument, kind, field(default=default)) for argument, kind, default in arguments]
    for attribute, start in state.items():
        starting: Any = {"default_factory": start} if isinstance(start, type) else {"default": start}
        fields.append((attribute, Any, field(init=False, **starting)))
    return make_dataclass(name, fields, bases=(base,), repr=False)


def nothing(names: str) -> dict[str, Any]:
    """None for each name."""
    return dict.fromkeys(names.split())


Text, Number, Flag = str | None, float | None, bool | None

COMMON: Arguments = [
    ("sd_model", Any, None),
    ("outpath_samples", Text, None),
    ("outpath_grids", Text, None),
    ("prompt", Any, ""),
    ("prompt_for_display", Text, None),
    ("negative_prompt", Any, ""),
    ("styles", list[str] | None, None),
    ("seed", Any, -1),
    ("subseed", Any, -1),
    ("subseed_strength", float, 0),
    ("seed_resize_from_h", int, -1),
    ("seed_resize_from_w", int, -1),
    ("seed_enable_extras", bool, True),
    ("sampler_name", Text, None),
    ("scheduler", Text, None),
    ("batch_size", int, 1),
    ("n_iter", int, 1),
    ("steps", int, 50),
    ("cfg_scale", float, 7.0),
    ("width", int, 512),
    ("height", int, 512),
    ("restore_faces", Flag, None),
    ("tiling", Flag, None),
    ("do_not_save_samples", bool, False),
    ("do_not_save_grid", bool, False),
    ("extra_generation_params", Any, None),
    ("overlay_images", Any, None),
    ("eta", Number, None),
    ("do_not_reload_embeddings", bool, False),
    ("denoising_strength", Number, None),
    ("ddim_discretize", Text, None),
    ("s_min_uncond", Number, None),
    ("s_churn", Number, None),
    ("s_tmax", Number, None),
    ("s_tmin", Number, None),
    ("s_noise", Number, None),
    ("override_settings", Any, None),
    ("override_settings_restore_afterwards", bool, True),
    ("sampler_index", Any, None),
    ("refiner_checkpoint", Text, None),
    ("refiner_switch_at", Number, None),
    ("disable_extra_networks", bool, False),
    ("firstpass_image", Any, None),
]
COMMON_STATE: dict[str, Any] = {
    **nothing(
        "scripts_value script_args_value sampler paste_to c uc rng color_corrections all_prompts "
        "all_negative_prompts all_seeds all_subseeds main_prompt main_negative_prompt prompts "
        "negative_prompts seeds subseeds extra_network_data user sd_model_name sd_model_hash sd_vae_name "
        "sd_vae_hash sampler_noise_scheduler_override refiner_checkpoint_info"
    ),
    "scripts_setup_complete": False,
    "comments": dict,
    "is_using_inpainting_conditioning": False,
    "is_hr_pass": False,
    "step_multiplier": 1,
    "firstpass_steps": 0,
    "iteration": 0,
    "batch_index": 0,
    "is_api": False,
}

TXT2IMG: Arguments = [
    ("enable_hr", bool, False),
    ("denoising_strength", float, 0.75),
    ("firstphase_width", int, 0),
    ("firstphase_height", int, 0),
    ("hr_scale", float, 2.0),
    ("hr_upscaler", Text, None),
    ("hr_second_pass_steps", int, 0),
    ("hr_resize_x", int, 0),
    ("hr_resize_y", int, 0),
    ("hr_checkpoint_name", Text, None),
    ("hr_sampler_name", Text, None),
    ("hr_scheduler", Text, None),
    ("hr_prompt", Any, ""),
    ("hr_negative_prompt", Any, ""),
    ("force_task_id", Text, None),
]
TXT2IMG_STATE: dict[str, Any] = {
    **nothing(
        "hr_checkpoint_info latent_scale_mode hr_c hr_uc all_hr_prompts all_hr_negative_prompts hr_prompts "
        "hr_negative_prompts hr_extra_network_data"
    ),
    "hr_upscale_to_x": 0,
    "hr_upscale_to_y": 0,
    "truncate_x": 0,
    "truncate_y": 0,
}

IMG2IMG: Arguments = [
    ("init_images", Any, None),
    ("resize_mode", int, 0),
    ("denoising_strength", float, 0.75),
    ("image_cfg_scale", Number, None),
    ("mask", Any, None),
    ("mask_blur_x", int, 4),
    ("mask_blur_y", int, 4),
    ("mask_blur", Any, None),
    ("mask_round", bool, True),
    ("inpainting_fill", int, 0),
    ("inpaint_full_res", Any, True),
    ("inpaint_full_res_padding", int, 0),
    ("inpainting_mask_invert", int, 0),
    ("initial_noise_multiplier", Number, None),
    ("latent_mask", Any, None),
    ("force_task_id", Text, None),
]
IMG2IMG_STATE = nothing("image_mask nmask image_conditioning init_img_hash mask_for_overlay init_latent")
