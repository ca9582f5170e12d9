"""The host's own settings: the ones this host acts on, under the real host's keys and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modules.options import OptionInfo, options_section
from modules.paths_internal import default_output_dir

RESTRICTED = {
    "outdir_samples",
    "outdir_txt2img_samples",
    "outdir_img2img_samples",
    "outdir_grids",
    "outdir_txt2img_grids",
    "outdir_img2img_grids",
    "outdir_init_images",
}


def _slider(low: float, high: float, step: float) -> dict[str, Any]:
    return {"minimum": low, "maximum": high, "step": step}


def _out(name: str) -> str:
    return str(Path(default_output_dir) / name)


def _checkpoint_titles() -> dict[str, Any]:
    from modules import sd_models

    return {"choices": sd_models.checkpoint_tiles()}


def _refresh_checkpoints() -> None:
    from modules import sd_models

    sd_models.list_models()


def _upscaler_names() -> dict[str, Any]:
    from modules import shared

    return {"choices": [x.name for x in shared.sd_upscalers]}


def _saving() -> dict[str, OptionInfo]:
    info = OptionInfo
    images = options_section(
        ("saving-images", "Saving images/grids", "saving"),
        {
            "samples_save": info(True, "Always save all generated images"),
            "samples_format": info("png", "File format for images", "Radio", {"choices": ["png", "jpg", "webp"]}),
            "grid_save": info(True, "Always save all generated image grids"),
            "grid_format": info("png", "File format for grids", "Radio", {"choices": ["png", "jpg", "webp"]}),
            "grid_only_if_multiple": info(True, "Do not save grids consisting of one picture"),
            "grid_extended_filename": info(False, "Add seed and prompt to the file name of a grid"),
            "grid_prevent_empty_spots": info(False, "Prevent empty spots in grid"),
            "grid_background_color": info("#ffffff", "Background color for image grids"),
            "n_rows": info(-1, "Grid row count; -1 = automatic, 0 = batch size", "Slider", _slider(-1, 16, 1)),
            "save_images_before_highres_fix": info(False, "Save a copy of image before applying highres fix."),
            "save_mask": info(False, "For inpainting, save a copy of the greyscale mask"),
            "save_mask_composite": info(False, "For inpainting, save a masked composite"),
            "jpeg_quality": info(80, "Quality for saved jpeg images", "Slider", _slider(1, 100, 1)),
            "save_init_img": info(False, "Save init images when using img2img"),
            "save_incomplete_images": info(False, "Save incomplete images"),
        },
    )
    folders = options_section(
        ("saving-paths", "Paths for saving", "saving"),
        {
            "outdir_samples": info("", "Output directory for images; if empty, the three below"),
            "outdir_txt2img_samples": info(_out("txt2img-images"), "Output directory for txt2img images"),
            "outdir_img2img_samples": info(_out("img2img-images"), "Output directory for img2img images"),
            "outdir_grids": info("", "Output directory for grids; if empty, the two below"),
            "outdir_txt2img_grids": info(_out("txt2img-grids"), "Output directory for txt2img grids"),
            "outdir_img2img_grids": info(_out("img2img-grids"), "Output directory for img2img grids"),
            "outdir_init_images": info(_out("init-images"), "Directory for saving init images"),
            "save_to_dirs": info(True, "Save images to a subdirectory named by the date"),
            "grid_save_to_dirs": info(True, "Save grids to a subdirectory named by the date"),
        },
    )
    return {**images, **folders}


def _model() -> dict[str, OptionInfo]:
    info = OptionInfo
    schedules = {"choices": ["Default", "Zero Terminal SNR"]}
    emphases = {"choices": ["None", "Ignore", "Original", "No norm"]}
    return options_section(
        ("sd", "Stable Diffusion", "sd"),
        {
            "sd_model_checkpoint": info(
                None,
                "Stable Diffusion checkpoint",
                "Dropdown",
                _checkpoint_titles,
                refresh=_refresh_checkpoints,
                infotext="Model hash",
            ),
            "sd_checkpoints_limit": info(
                1, "Maximum number of checkpoints loaded at once", "Slider", _slider(1, 10, 1)
            ),
            "sd_checkpoints_keep_in_cpu": info(True, "Only keep one model on device"),
            "sd_checkpoint_hash": info("", "SHA256 hash of the current checkpoint"),
            "sd_vae": info("Automatic", "SD VAE", "Dropdown", {"choices": ["Automatic", "None"]}),
            "sd_unet": info("Automatic", "SD Unet", "Dropdown", {"choices": ["Automatic", "None"]}),
            "enable_quantization": info(False, "Enable quantization in K samplers"),
            "emphasis": info("Original", "Emphasis mode", "Radio", emphases, infotext="Emphasis"),
            "comma_padding_backtrack": info(20, "Prompt word wrap length limit", "Slider", _slider(0, 74, 1)),
            "CLIP_stop_at_last_layers": info(1, "Clip skip", "Slider", _slider(1, 12, 1), infotext="Clip skip"),
            "upcast_attn": info(False, "Upcast cross attention layer to float32"),
            "randn_source": info(
                "GPU", "Random number generator source.", "Radio", {"choices": ["GPU", "CPU", "NV"]}, infotext="RNG"
            ),
            "tiling": info(False, "Tiling", infotext="Tiling"),
            "sd_noise_schedule": info("Default", "Noise schedule", "Radio", schedules, infotext="Noise Schedule"),
            "use_downcasted_alpha_bar": info(False, "Downcast model alphas_cumprod to fp16"),
            "use_old_scheduling": info(False, "Use old prompt editing timelines."),
            "use_old_karras_scheduler_sigmas": info(False, "Use old karras scheduler sigmas (0.1 to 10)."),
            "no_dpmpp_sde_batch_determinism": info(False, "Do not make DPM++ SDE deterministic across batch sizes."),
            "hires_fix_use_firstpass_conds": info(False, "Hires fix: calculate conds of second pass before the first"),
            "hires_fix_refiner_pass": info(
                "second pass",
                "Hires fix: which pass to enable refiner for",
                "Radio",
                {"choices": ["first pass", "second pass", "both passes"]},
                infotext="Hires refiner",
            ),
            "refiner_switch_by_sample_steps": info(False, "Switch to refiner by sampling steps"),
        },
    )


def _img2img() -> dict[str, OptionInfo]:
    info = OptionInfo
    return options_section(
        ("img2img", "img2img", "sd"),
        {
            "inpainting_mask_weight": info(
                1.0,
                "Inpainting conditioning mask strength",
                "Slider",
                _slider(0, 1, 0.01),
                infotext="Conditional mask weight",
            ),
            "initial_noise_multiplier": info(
                1.0, "Noise multiplier for img2img", "Slider", _slider(0, 1.5, 0.001), infotext="Noise multiplier"
            ),
            "img2img_extra_noise": info(
                0.0,
                "Extra noise multiplier for img2img and hires fix",
                "Slider",
                _slider(0, 1, 0.01),
                infotext="Extra noise",
            ),
            "img2img_fix_steps": info(False, "With img2img, do exactly the amount of steps the slider specifies."),
            "img2img_background_color": info("#ffffff", "With img2img, fill transparent parts with this color."),
            "overlay_inpaint": info(True, "Overlay original for inpaint"),
            "upscaler_for_img2img": info(None, "Upscaler for img2img", "Dropdown", _upscaler_names),
            "return_mask": info(False, "For inpainting, include the greyscale mask in results for web"),
            "return_mask_composite": info(False, "For inpainting, include masked composite in results for web"),
        },
    )


def _optimizations() -> dict[str, OptionInfo]:
    info = OptionInfo
    return options_section(
        ("optimizations", "Optimizations", "sd"),
        {
            "s_min_uncond": info(
                0.0, "Negative Guidance minimum sigma", "Slider", _slider(0, 15, 0.01), infotext="NGMS"
            ),
            "s_min_uncond_all": info(False, "Negative Guidance minimum sigma all steps", infotext="NGMS all steps"),
            "skip_early_cond": info(
                0.0,
                "Ignore negative prompt during early sampling",
                "Slider",
                _slider(0, 1, 0.01),
                infotext="Skip Early CFG",
            ),
            "pad_cond_uncond": info(False, "Pad prompt/negative prompt", infotext="Pad conds"),
            "pad_cond_uncond_v0": info(False, "Pad prompt/negative prompt (v0)", infotext="Pad conds v0"),
            "persistent_cond_cache": info(True, "Persistent cond cache"),
            "batch_cond_uncond": info(True, "Batch cond/uncond"),
        },
    )


def _samplers() -> dict[str, OptionInfo]:
    info = OptionInfo
    return options_section(
        ("sampler-params", "Sampler parameters", "sd"),
        {
            "hide_samplers": info([], "Hide samplers in user interface"),
            "eta_ddim": info(0.0, "Eta for DDIM", "Slider", _slider(0, 1, 0.01), infotext="Eta DDIM"),
            "eta_ancestral": info(1.0, "Eta for k-diffusion samplers", "Slider", _slider(0, 1, 0.01), infotext="Eta"),
            "s_churn": info(0.0, "sigma churn", "Slider", _slider(0, 100, 0.01), infotext="Sigma churn"),
            "s_tmin": info(0.0, "sigma tmin", "Slider", _slider(0, 10, 0.01), infotext="Sigma tmin"),
            "s_tmax": info(0.0, "sigma tmax", "Slider", _slider(0, 999, 0.01), infotext="Sigma tmax"),
            "s_noise": info(1.0, "sigma noise", "Slider", _slider(0, 1.1, 0.001), infotext="Sigma noise"),
            "sigma_min": info(0.0, "sigma min", "Number", infotext="Schedule min sigma"),
            "sigma_max": info(0.0, "sigma max", "Number", infotext="Schedule max sigma"),
            "rho": info(0.0, "rho", "Number", infotext="Schedule rho"),
            "eta_noise_seed_delta": info(0, "Eta noise seed delta", "Number", {"precision": 0}, infotext="ENSD"),
            "always_discard_next_to_last_sigma": info(
                False, "Always discard next-to-last sigma", infotext="Discard penultimate sigma"
            ),
            "sgm_noise_multiplier": info(False, "SGM noise multiplier", infotext="SGM noise multiplier"),
            "uni_pc_variant": info(
                "bh1", "UniPC variant", "Radio", {"choices": ["bh1", "bh2"]}, infotext="UniPC variant"
            ),
            "uni_pc_skip_type": info(
                "time_uniform",
                "UniPC skip type",
                "Radio",
                {"choices": ["time_uniform", "time_quadratic", "logSNR"]},
                infotext="UniPC skip type",
            ),
            "uni_pc_order": info(3, "UniPC order", "Slider", _slider(1, 50, 1), infotext="UniPC order"),
            "uni_pc_lower_order_final": info(True, "UniPC lower order final", infotext="UniPC lower order final"),
            "beta_dist_alpha": info(0.6, "Beta scheduler - alpha", "Slider", _slider(0.01, 1, 0.01)),
            "beta_dist_beta": info(0.6, "Beta scheduler - beta", "Slider", _slider(0.01, 1, 0.01)),
        },
    )


def _interface() -> dict[str, OptionInfo]:
    info = OptionInfo
    page = options_section(
        ("ui", "User interface", "ui"),
        {
            "return_grid": info(True, "Show grid in gallery"),
            "do_not_show_images": info(False, "Do not show any images in gallery"),
            "samplers_in_dropdown": info(True, "Use dropdown for sampler selection"),
            "interrupt_after_current": info(True, "Don't Interrupt in the middle"),
            "live_previews_enable": info(True, "Show live previews of the created image"),
            "show_progress_every_n_steps": info(10, "Live preview period (steps)", "Slider", _slider(-1, 32, 1)),
            "show_progress_grid": info(True, "Show previews of all images of a batch as a grid"),
            "live_preview_content": info(
                "Prompt", "Live preview subject", "Radio", {"choices": ["Combined", "Prompt", "Negative prompt"]}
            ),
            "live_previews_image_format": info(
                "png", "Live preview format", "Radio", {"choices": ["jpeg", "png", "webp"]}
            ),
        },
    )
    text = options_section(
        ("infotext", "Infotext", "ui"),
        {
            "enable_pnginfo": info(True, "Write infotext to metadata of the generated image"),
            "save_txt": info(False, "Create a text file with infotext next to every generated image"),
            "add_model_name_to_info": info(True, "Add model name to infotext"),
            "add_model_hash_to_info": info(True, "Add model hash to infotext"),
            "add_user_name_to_info": info(False, "Add user name to infotext when authenticated"),
            "add_version_to_infotext": info(True, "Add program version to infotext"),
            "disable_weights_auto_swap": info(True, "Disregard checkpoint information from pasted infotext"),
            "infotext_skip_pasting": info([], "Disregard fields from pasted infotext"),
        },
    )
    api = options_section(
        ("API", "API", "system"),
        {
            "api_enable_requests": info(
                True, "Allow http:// and https:// URLs for input images in API", restrict_api=True
            ),
            "api_forbid_local_requests": info(True, "Forbid URLs to local resources", restrict_api=True),
            "api_useragent": info("", "User agent for requests", restrict_api=True),
        },
    )
    hidden = options_section(
        (None, "Hidden options"),
        {
            "disabled_extensions": info([], "Disable these extensions"),
            "disable_all_extensions": info(
                "none", "Disable all extensions", "Radio", {"choices": ["none", "extra", "all"]}
            ),
        },
    )
    return {**page, **text, **api, **hidden}


def options_templates() -> dict[str, OptionInfo]:
    """All settings of the host, fresh."""
    return {**_saving(), **_model(), **_img2img(), **_optimizations(), **_samplers(), **_interface()}
