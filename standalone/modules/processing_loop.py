"""The main loop of a job: batches, decoding, overlay, saving, grid."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modules import devices, errors, extra_networks, images, lowvram, paths, scripts, sd_models, sd_unet, shared
from modules.processing_base import apply_overlay, decode_latent_batch, get_fixed_seed, opt_C, opt_f
from modules.processing_result import Processed, create_infotext
from modules.sd_hijack import model_hijack
from modules.shared_cmd_options import cmd_opts
from PIL import Image
from torch import Tensor

without_gradients = torch.no_grad
"""What a job computes in."""


class _Output:
    """Pictures and infotexts so far."""

    def __init__(self) -> None:
        self.images: list[Image.Image] = []
        self.infotexts: list[str] = []


_LEAST = {"steps": 1, "batch_size": 1, "n_iter": 1, "width": 8, "height": 8}


def _prepare(p: Any) -> None:
    """Names, prompts and seeds of the whole job."""
    if p.prompt is None or p.prompt == []:
        raise errors.WrongRequest("the job has no prompt")
    _refuse_endless(p)
    _refuse_nothing(p)
    devices.torch_gc()
    seed, subseed = get_fixed_seed(p.seed), get_fixed_seed(p.subseed)
    if p.restore_faces:
        raise errors.WrongRequest("restore_faces is not supported by this host")
    p.tiling = shared.opts.tiling if p.tiling is None else p.tiling
    if p.refiner_checkpoint not in (None, "", "None", "none"):
        p.refiner_checkpoint_info = sd_models.get_closet_checkpoint_match(p.refiner_checkpoint)
        if p.refiner_checkpoint_info is None:
            raise errors.WrongRequest(f"Could not find checkpoint with name {p.refiner_checkpoint}")
    model = shared.sd_model
    if model is None:
        raise RuntimeError("no checkpoint is loaded; see the console for the reason")
    p.sd_model_name, p.sd_model_hash = model.sd_checkpoint_info.name_for_extra, model.sd_model_hash
    model_hijack.apply_circular(bool(p.tiling))
    model_hijack.clear_comments()
    p.fill_fields_from_opts()
    p.setup_prompts()
    prompts = [*p.all_prompts, *p.all_negative_prompts]
    prompts += [*(getattr(p, "all_hr_prompts", None) or ()), *(getattr(p, "all_hr_negative_prompts", None) or ())]
    if any("\ud800" <= letter <= "\udfff" for prompt in set(prompts) for letter in prompt):
        raise errors.WrongRequest("a prompt holds halves of letters (surrogates), which no tokenizer reads")
    count = range(len(p.all_prompts))
    step = 1 if p.subseed_strength == 0 else 0
    p.all_seeds = seed if isinstance(seed, list) else [int(seed) + x * step for x in count]
    p.all_subseeds = subseed if isinstance(subseed, list) else [int(subseed) + x for x in count]


def _refuse_endless(p: Any) -> None:
    """No number of a job may be NaN or infinite, but for the end of the range of sigmas with churn."""
    numbers = ((field.name, getattr(p, field.name, None)) for field in fields(p))
    for name, value in numbers:
        if isinstance(value, float) and not math.isfinite(value) and not (name == "s_tmax" and value > 0):
            raise errors.WrongRequest(f"{name} is not a finite number: {value}")


def _refuse_nothing(p: Any) -> None:
    """A job has a step, a picture and a size."""
    for name, least in _LEAST.items():
        value = getattr(p, name, None)
        if value is not None and value < least:
            raise errors.WrongRequest(f"{name} must be at least {least}: {value}")


def _slice_batch(p: Any, n: int) -> None:
    part = slice(n * p.batch_size, (n + 1) * p.batch_size)
    p.prompts, p.negative_prompts = p.all_prompts[part], p.all_negative_prompts[part]
    p.seeds, p.subseeds = p.all_seeds[part], p.all_subseeds[part]


def tell_of_batch(event: str, p: Any, n: int) -> None:
    """Calls "before_process_batch" or "process_batch" of the scripts for batch `n`."""
    if p.scripts is not None:
        method = getattr(p.scripts, event)
        method(p, batch_number=n, prompts=p.prompts, seeds=p.seeds, subseeds=p.subseeds)


def _write_params_txt(p: Any) -> None:
    if not cmd_opts.no_prompt_history:
        text = Processed(p, []).infotext(p, 0)
        (Path(paths.data_path) / "params.txt").write_text(text, encoding="utf-8")


def _start_batch(p: Any, n: int) -> bool:
    """Noise, extra networks and conditions of batch `n`; False when there is nothing to make."""
    p.iteration = n
    sd_models.reload_model_weights()  # the refiner or hires pass may have left another model
    _slice_batch(p, n)
    torch.manual_seed(int((p.seeds or p.all_seeds)[0]))  # as for `init`: a hires pass encodes pictures too
    channels = getattr(shared.sd_model, "latent_channels", opt_C)
    p.rng = p.noise_source((channels, p.height // opt_f, p.width // opt_f))
    tell_of_batch("before_process_batch", p, n)
    if len(p.prompts) == 0:
        return False
    p.parse_extra_network_prompts()
    if not p.disable_extra_networks:
        extra_networks.activate(p, p.extra_network_data)
    tell_of_batch("process_batch", p, n)
    p.setup_conds()
    p.extra_generation_params.update(model_hijack.extra_generation_params)
    if n == 0:
        _write_params_txt(p)
    p.comments.update(dict.fromkeys(model_hijack.comments, 1))
    if p.n_iter > 1:
        shared.state.job = f"Batch {n + 1} out of {p.n_iter}"
    return True


def _sample_batch(p: Any) -> Any:
    """Samples of the batch, through `post_sample`."""
    sd_models.apply_alpha_schedule_override(p.sd_model, p)
    with devices.without_autocast() if devices.unet_needs_upcast else devices.autocast():
        samples = p.sample(
            conditioning=p.c,
            unconditional_conditioning=p.uc,
            seeds=p.seeds,
            subseeds=p.subseeds,
            subseed_strength=p.subseed_strength,
            prompts=p.prompts,
        )
    if p.scripts is None:
        return samples
    args = scripts.PostSampleArgs(samples)
    p.scripts.post_sample(p, args)
    return args.samples


def _decode_batch(p: Any, samples: Any) -> Tensor:
    """Pictures (B, 3, H, W) in 0..1, float32."""
    if not getattr(samples, "already_decoded", False):
        devices.test_for_nans(samples, "unet")
        samples = decode_latent_batch(p.sd_model, samples, target_device=devices.cpu, check_for_nans=True)
    return torch.clamp((torch.stack(list(samples)).float() + 1.0) / 2.0, min=0.0, max=1.0)


def _tell_scripts(p: Any, n: int, pictures: Tensor) -> list[Tensor]:
    if p.scripts is None:
        return list(pictures)
    p.scripts.postprocess_batch(p, pictures, batch_number=n)
    part = slice(n * p.batch_size, (n + 1) * p.batch_size)
    p.prompts, p.negative_prompts = p.all_prompts[part], p.all_negative_prompts[part]
    args = scripts.PostprocessBatchListArgs(list(pictures))
    p.scripts.postprocess_batch_list(p, args, batch_number=n)
    return args.images


def _infotext(p: Any, index: int = 0, use_main_prompt: bool = False) -> str:
    return create_infotext(
        p,
        p.prompts,
        p.seeds,
        p.subseeds,
        use_main_prompt=use_main_prompt,
        index=index,
        all_negative_prompts=p.negative_prompts,
    )


def _overlay_of(p: Any, i: int) -> tuple[Any, Any]:
    """(mask, overlay) of picture `i`, after the scripts had their say."""
    overlays = getattr(p, "overlay_images", None) if shared.opts.overlay_inpaint else None
    overlay = overlays[i] if overlays is not None and i < len(overlays) else None
    mask = getattr(p, "mask_for_overlay", None)
    if p.scripts is None:
        return mask, overlay
    args = scripts.PostProcessMaskOverlayArgs(i, mask, overlay)
    p.scripts.postprocess_maskoverlay(p, args)
    return args.mask_for_overlay, args.overlay_image


def _save(p: Any, image: Image.Image, i: int, suffix: str = "") -> None:
    images.save_image(
        image,
        p.outpath_samples,
        "",
        p.seeds[i],
        p.prompts[i],
        shared.opts.samples_format,
        info=_infotext(p, i),
        p=p,
        suffix=suffix,
    )


def _add_mask_images(p: Any, i: int, mask: Any, image: Image.Image, denoised: Image.Image, out: _Output) -> None:
    opts, save = shared.opts, p.save_samples()
    if opts.return_mask or opts.save_mask:
        picture = mask.convert("RGB")
        if save and opts.save_mask:
            _save(p, picture, i, "-mask")
        if opts.return_mask:
            out.images.append(picture)
    if opts.return_mask_composite or opts.save_mask_composite:
        stencil = images.resize_image(2, mask, image.width, image.height).convert("L")
        empty = Image.new("RGBa", image.size)
        picture = Image.composite(denoised.convert("RGBA").convert("RGBa"), empty, stencil).convert("RGBA")
        if save and opts.save_mask_composite:
            _save(p, picture, i, "-mask-composite")
        if opts.return_mask_composite:
            out.images.append(picture)


def _finish_image(p: Any, i: int, sample: Tensor, out: _Output) -> None:
    """One picture (3, H, W) in 0..1 through the scripts, under its overlay, to disk and into the result."""
    p.batch_index = i
    array = 255.0 * np.moveaxis(sample.cpu().numpy(), 0, 2)
    image = Image.fromarray(array.astype(np.uint8))
    if p.scripts is not None:
        args = scripts.PostprocessImageArgs(image)
        p.scripts.postprocess_image(p, args)
        image = args.image
    mask, overlay = _overlay_of(p, i)
    image, denoised = apply_overlay(image, p.paste_to, overlay)
    if p.scripts is not None:
        args = scripts.PostprocessImageArgs(image)
        p.scripts.postprocess_image_after_composite(p, args)
        image = args.image
    if p.save_samples():
        _save(p, image, i)
    text = _infotext(p, i)
    out.infotexts.append(text)
    if shared.opts.enable_pnginfo:
        image.info["parameters"] = text
    out.images.append(image)
    if mask is not None:
        _add_mask_images(p, i, mask, image, denoised, out)


def _run_batch(p: Any, n: int, out: _Output) -> bool:
    """Make batch `n`; False ends the job."""
    if not _start_batch(p, n):
        return False
    pictures = _decode_batch(p, _sample_batch(p))
    if lowvram.is_enabled(shared.sd_model):
        lowvram.send_everything_to_cpu()
    devices.torch_gc()
    shared.state.nextjob()
    for i, sample in enumerate(_tell_scripts(p, n, pictures)):
        _finish_image(p, i, sample, out)
    devices.torch_gc()
    return True


def _add_grid(p: Any, out: _Output) -> int:
    """A grid in front of the pictures if wanted; returns the index of the first picture."""
    opts = shared.opts
    single = len(out.images) < 2 and opts.grid_only_if_multiple
    if not (opts.return_grid or opts.grid_save) or p.do_not_save_grid or single or not out.images:
        return 0
    grid = images.image_grid(out.images, p.batch_size)
    text = _infotext(p, use_main_prompt=True)
    if opts.return_grid:
        out.infotexts.insert(0, text)
        if opts.enable_pnginfo:
            grid.info["parameters"] = text
        out.images.insert(0, grid)
    if opts.grid_save:
        short = not opts.grid_extended_filename
        images.save_image(
            grid, p.outpath_grids, "grid", p.all_seeds[0], p.all_prompts[0], opts.grid_format, info=text,
            short_filename=short, p=p, grid=True,
        )  # fmt: skip
    return 1 if opts.return_grid else 0


def run_job(p: Any) -> Processed:
    """Everything between `process` and `postprocess`."""
    _prepare(p)
    if p.scripts is not None:
        p.scripts.process(p)
    out = _Output()
    with without_gradients(), p.sd_model.ema_scope():
        with devices.autocast():
            torch.manual_seed(int(p.all_seeds[0]))  # the autoencoder draws from the global generator
            p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
            sd_unet.apply_unet()
        if shared.state.job_count == -1:
            shared.state.job_count = p.n_iter
        for n in range(p.n_iter):
            p.iteration = n
            shared.state.skipped = False
            if shared.state.interrupted or shared.state.stopping_generation or not _run_batch(p, n, out):
                break
        if not out.infotexts:
            out.infotexts.append(Processed(p, []).infotext(p, 0))
        first = _add_grid(p, out)
    if not p.disable_extra_networks and p.extra_network_data:
        extra_networks.deactivate(p, p.extra_network_data)
    devices.torch_gc()
    result = Processed(
        p,
        images_list=out.images,
        seed=p.all_seeds[0],
        info=out.infotexts[0],
        subseed=p.all_subseeds[0],
        index_of_first_image=first,
        infotexts=out.infotexts,
    )
    if p.scripts is not None:
        p.scripts.postprocess(p, result)
    return result
