"""Jobs under the names extensions use. `process_images_inner` is looked up at call time, as in the real host."""

from __future__ import annotations

from typing import Any

from modules import errors, sd_models, sd_samplers, shared
from modules.image_conditioning import txt2img_image_conditioning
from modules.options import OnThePageOnly
from modules.processing_base import (
    DecodedSamples,
    StableDiffusionProcessing,
    apply_overlay,
    create_binary_mask,
    decode_latent_batch,
    get_fixed_seed,
    opt_C,
    opt_f,
    uncrop,
)
from modules.processing_img2img import StableDiffusionProcessingImg2Img
from modules.processing_loop import run_job
from modules.processing_result import Processed, create_infotext, program_version
from modules.processing_txt2img import StableDiffusionProcessingTxt2Img
from modules.rng import slerp
from modules.sd_samplers_common import decode_first_stage, images_tensor_to_samples

__all__ = [
    "DecodedSamples",
    "Processed",
    "StableDiffusionProcessing",
    "StableDiffusionProcessingImg2Img",
    "StableDiffusionProcessingTxt2Img",
    "apply_overlay",
    "create_binary_mask",
    "create_infotext",
    "decode_first_stage",
    "decode_latent_batch",
    "fix_seed",
    "get_fixed_seed",
    "images_tensor_to_samples",
    "opt_C",
    "opt_f",
    "process_images",
    "process_images_inner",
    "program_version",
    "slerp",
    "txt2img_image_conditioning",
    "uncrop",
]


def fix_seed(p: Any) -> None:
    p.seed = get_fixed_seed(p.seed)
    p.subseed = get_fixed_seed(p.subseed)


def _apply_override_settings(p: Any) -> None:
    """The job's own settings; without a checkpoint among them, the chosen one is loaded (a refiner may be)."""
    overrides = p.override_settings
    restricted = shared.opts.restricted(overrides)
    if restricted:
        raise OnThePageOnly(restricted)
    if sd_models.checkpoint_aliases.get(overrides.get("sd_model_checkpoint")) is None:
        overrides.pop("sd_model_checkpoint", None)
        sd_models.reload_model_weights()
    for key, value in overrides.items():
        if key not in shared.opts.data_labels:
            raise errors.WrongRequest(f"override_settings: there is no setting {key!r}")
        shared.opts.set(key, value, is_api=True, run_callbacks=False)
        if key == "sd_model_checkpoint":
            sd_models.reload_model_weights()


def process_images(p: StableDiffusionProcessing) -> Processed:
    """Run a job: before_process, settings and model, then `process_images_inner`."""
    if p.scripts is not None:
        p.scripts.before_process(p)
    overrides = p.override_settings or {}
    stored = {k: shared.opts.data[k] for k in overrides if k in shared.opts.data}
    try:
        _apply_override_settings(p)
        sd_models.apply_token_merging(p.sd_model, p.get_token_merging_ratio())
        sd_samplers.fix_p_invalid_sampler_and_scheduler(p)
        return process_images_inner(p)
    finally:
        if p.override_settings_restore_afterwards:
            for key, value in stored.items():
                setattr(shared.opts, key, value)


def process_images_inner(p: StableDiffusionProcessing) -> Processed:
    """The main loop; `p.init` once, `p.sample` once per batch."""
    return run_job(p)
