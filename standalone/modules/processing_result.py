"""`Processed`, the result of a job, and the infotext of its pictures."""

from __future__ import annotations

import json
from typing import Any

from modules import errors, infotext_utils, launch_utils, sd_samplers_common, shared


def program_version() -> str | None:
    tag = launch_utils.git_tag()
    return None if tag == "<none>" else tag


def _parameters(p: Any, index: int, main: bool, all_seeds: Any, all_subseeds: Any) -> dict[str, Any]:
    opts = shared.opts
    clip_skip = getattr(p, "clip_skip", opts.CLIP_stop_at_last_layers)
    ensd = opts.eta_noise_seed_delta
    uses_ensd = ensd != 0 and sd_samplers_common.is_sampler_using_eta_noise_seed_delta(p)
    varied = p.subseed_strength != 0
    resized = p.seed_resize_from_w > 0 and p.seed_resize_from_h > 0
    mask_weight = getattr(p, "inpainting_mask_weight", opts.inpainting_mask_weight)
    return {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler,
        "CFG scale": p.cfg_scale,
        "Image CFG scale": getattr(p, "image_cfg_scale", None),
        "Seed": p.all_seeds[0] if main else all_seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model hash": p.sd_model_hash if opts.add_model_hash_to_info else None,
        "Model": p.sd_model_name if opts.add_model_name_to_info else None,
        "Variation seed": (p.all_subseeds[0] if main else all_subseeds[index]) if varied else None,
        "Variation seed strength": p.subseed_strength if varied else None,
        "Seed resize from": f"{p.seed_resize_from_w}x{p.seed_resize_from_h}" if resized else None,
        "Denoising strength": p.extra_generation_params.get("Denoising strength"),
        "Conditional mask weight": mask_weight if p.is_using_inpainting_conditioning else None,
        "Clip skip": None if clip_skip <= 1 else clip_skip,
        "ENSD": ensd if uses_ensd else None,
        "Init image hash": getattr(p, "init_img_hash", None),
        "RNG": opts.randn_source if opts.randn_source != "GPU" else None,
        "Tiling": "True" if p.tiling else None,
        **p.extra_generation_params,
        "Version": program_version() if opts.add_version_to_infotext else None,
        "User": p.user if opts.add_user_name_to_info else None,
    }


def create_infotext(
    p: Any,
    all_prompts: list[str],
    all_seeds: list[int],
    all_subseeds: list[int],
    comments: Any = None,
    iteration: int = 0,
    position_in_batch: int = 0,
    use_main_prompt: bool = False,
    index: int | None = None,
    all_negative_prompts: Any = None,
) -> str:
    """Prompt, negative prompt and parameters of one picture.

    A parameter may be a value, a list (by picture), or a function of this function's variables.
    """
    here = int(position_in_batch + iteration * p.batch_size) if index is None else index
    index = 0 if use_main_prompt else here
    all_negative_prompts = p.all_negative_prompts if all_negative_prompts is None else all_negative_prompts
    prompt_text, negative_prompt = (
        (p.main_prompt, p.main_negative_prompt)
        if use_main_prompt
        else (all_prompts[index], all_negative_prompts[index])
    )
    generation_params = _parameters(p, index, use_main_prompt, all_seeds, all_subseeds)
    known = dict(locals())
    values = {key: _value(key, value, index, known) for key, value in generation_params.items()}
    shown = {k: v for k, v in values.items() if v is not None}
    line = ", ".join(k if k == v else f"{k}: {infotext_utils.quote(v)}" for k, v in shown.items())
    negative_text = f"\nNegative prompt: {negative_prompt}" if negative_prompt else ""
    return f"{prompt_text}{negative_text}\n{line}".strip()


def _value(key: str, value: Any, index: int, known: dict[str, Any]) -> Any:
    try:
        if isinstance(value, list):
            return value[index]
        return value(**known) if callable(value) else value
    except Exception:  # noqa: BLE001 - a broken entry is left out
        errors.report(f'Error creating infotext for key "{key}"', exc_info=True)
        return None


COPIED = (
    "prompt", "negative_prompt", "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps",
    "batch_size", "restore_faces", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash",
    "seed_resize_from_w", "seed_resize_from_h", "extra_generation_params", "styles", "eta", "ddim_discretize",
    "s_churn", "s_tmin", "s_tmax", "s_noise", "s_min_uncond", "sampler_noise_scheduler_override",
    "is_using_inpainting_conditioning", "token_merging_ratio", "token_merging_ratio_hr",
)  # fmt: skip
REPORTED = (
    "prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed",
    "all_subseeds", "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size",
    "restore_faces", "face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash",
    "seed_resize_from_w", "seed_resize_from_h", "denoising_strength", "extra_generation_params",
    "index_of_first_image", "infotexts", "styles", "job_timestamp", "clip_skip",
    "is_using_inpainting_conditioning", "version",
)  # fmt: skip


def _one_and_all(value: Any, given: list[Any] | None, of_the_job: list[Any] | None) -> tuple[Any, list[Any]]:
    """The first of a job's values, and one for each picture."""
    one = value[0] if isinstance(value, list) else value
    return one, given or of_the_job or [one]


def _whole(seed: Any) -> int:
    one = seed[0] if isinstance(seed, list) else seed
    return -1 if one is None else int(one)


class Processed:
    """Pictures and what they were made from. With a grid, `index_of_first_image` is 1."""

    def __init__(
        self,
        p: Any,
        images_list: list[Any],
        seed: Any = -1,
        info: str = "",
        subseed: Any = None,
        all_prompts: Any = None,
        all_negative_prompts: Any = None,
        all_seeds: Any = None,
        all_subseeds: Any = None,
        index_of_first_image: int = 0,
        infotexts: list[str] | None = None,
        comments: str = "",
    ) -> None:
        for name in COPIED:
            setattr(self, name, getattr(p, name))
        self.images = images_list
        self.info = info
        self.comments = "".join(f"{x}\n" for x in p.comments) + comments
        self.image_cfg_scale = getattr(p, "image_cfg_scale", None)
        self.denoising_strength = getattr(p, "denoising_strength", None)
        self.face_restoration_model = None
        self.index_of_first_image = index_of_first_image
        self.job_timestamp = shared.state.job_timestamp
        self.clip_skip = shared.opts.CLIP_stop_at_last_layers
        self.version, self.infotexts = program_version(), infotexts or [info] * len(images_list)
        self.prompt, self.all_prompts = _one_and_all(p.prompt, all_prompts, p.all_prompts)
        self.negative_prompt, self.all_negative_prompts = _one_and_all(
            p.negative_prompt, all_negative_prompts, p.all_negative_prompts
        )
        self.seed, self.all_seeds = _one_and_all(_whole(seed), all_seeds, p.all_seeds)
        self.subseed, self.all_subseeds = _one_and_all(_whole(subseed), all_subseeds, p.all_subseeds)

    def js(self) -> str:
        """The result as JSON, without the pictures."""
        values = {name: getattr(self, name) for name in REPORTED}
        values["prompt"], values["negative_prompt"] = self.all_prompts[0], self.all_negative_prompts[0]
        return json.dumps(values, default=lambda _: None)

    def infotext(self, p: Any, index: int) -> str:
        size = p.batch_size
        return create_infotext(
            p,
            self.all_prompts,
            self.all_seeds,
            self.all_subseeds,
            position_in_batch=index % size,
            iteration=index // size,
        )

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        return self.token_merging_ratio_hr if for_hr else self.token_merging_ratio  # type: ignore[attr-defined]
