"""One denoiser call: cond and uncond rows by the sampling function of this family, its callback, its blending."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, replace
from typing import Any

import torch
from modules import prompt_parser, sd_samplers_common, shared
from modules.script_callbacks import (
    AfterCFGCallbackParams,
    CFGDenoiserParams,
    cfg_after_cfg_callback,
    cfg_denoiser_callback,
)
from modules.scripts_args import MaskBlendArgs
from torch import Tensor

from standalone.forge import passes
from standalone.forge.variants import Variant

COND, UNCOND = 0, 1
LONGEST_REPEAT = 4
"""Prompts of different lengths pass together when none has to be repeated more often than this."""


@dataclass(frozen=True)
class Chunk:
    """One prompt for all B images: `kind` COND or UNCOND, text (B, N, D)."""

    kind: int
    text: Tensor
    strength: float = 1.0


def chunks_of(cond: Tensor, composition: list[list[tuple[int, float]]], uncond: Tensor | None) -> list[Chunk]:
    """Chunks in the order in which they are put together: conds first, each the n-th prompt of every image."""
    conds = []
    for parts in zip(*composition, strict=False):
        rows = [row for row, _ in parts]
        conds.append(Chunk(COND, cond[rows], parts[-1][1]))
    return conds if uncond is None else [*conds, Chunk(UNCOND, uncond)]


def _fit_together(first: Tensor, second: Tensor) -> bool:
    a, b = first.shape[1], second.shape[1]
    return math.lcm(a, b) // min(a, b) <= LONGEST_REPEAT


def groups_of(chunks: list[Chunk]) -> list[list[Chunk]]:
    """Chunks that pass the U-Net together. Each group is turned round, which puts the uncond rows first."""
    groups, left = [], list(chunks)
    while left:
        together = [x for x in left if _fit_together(left[0].text, x.text)]
        left = [x for x in left if not any(x is y for y in together)]
        groups.append(together[::-1])
    return groups


def _joined(texts: list[Tensor]) -> Tensor:
    """All rows (R, N, D); shorter texts are repeated as a whole."""
    length = math.lcm(*(x.shape[1] for x in texts))
    return torch.cat([x.repeat(1, length // x.shape[1], 1) for x in texts])


def row_marks(variant: Variant, kinds: list[int], sigma: Tensor) -> dict[str, Any]:
    """What the transformer options tell of the rows."""
    options: dict[str, Any] = {"cond_or_uncond": list(kinds), "sigmas": sigma}
    if not variant.marks_rows:
        return {**options, "uuids": [uuid.uuid4() for _ in kinds]}
    rows = [kind for kind in kinds for _ in range(len(sigma))]
    return {
        **options,
        "cond_mark": torch.tensor(rows).to(sigma),
        "cond_indices": [i for i, kind in enumerate(rows) if kind == COND],
        "uncond_indices": [i for i, kind in enumerate(rows) if kind == UNCOND],
    }


def _ask_control(variant: Variant, patcher: Any, rows: Tensor, sigmas: Tensor, c: dict[str, Any], chunks: int) -> None:
    """Puts the answer of the newest control object into `c`; it asks the others itself."""
    control, options = patcher.controlnet_linked_list, c["transformer_options"]
    if control is None:
        return
    if variant.options_argument:
        c["control"] = control.get_control(rows, sigmas, c, chunks, options)
        return
    for one in patcher.list_controlnets():
        one.transformer_options = options
    c["control"] = control.get_control(rows, sigmas, c.copy(), chunks)
    if variant.control_model:
        c["control_model"] = control


def _call(variant: Variant, patcher: Any, group: list[Chunk], x: Tensor, sigma: Tensor, image: Any) -> list[Tensor]:
    """The clean latents (B, C, h, w) that each chunk of a group predicts."""
    model_options, count = patcher.model_options, len(group)
    kinds = [chunk.kind for chunk in group]
    rows, sigmas = torch.cat([x] * count), torch.cat([sigma] * count)
    c: dict[str, Any] = {"c_crossattn": _joined([chunk.text for chunk in group])}
    if image is not None and image.shape[0] == x.shape[0] and image.shape[2:] == x.shape[2:]:
        c["c_concat"] = torch.cat([image] * count)
    c["transformer_options"] = {**model_options["transformer_options"], **row_marks(variant, kinds, sigma)}
    _ask_control(variant, patcher, rows, sigmas, c, count)
    apply_model, wrapper = patcher.model.apply_model, model_options.get("model_function_wrapper")
    if wrapper is None:
        return list(apply_model(rows, sigmas, **c).chunk(count))
    call = {"input": rows, "timestep": sigmas, "c": c, "cond_or_uncond": kinds}
    return list(wrapper(apply_model, call).chunk(count))


def sample(
    variant: Variant, patcher: Any, params: CFGDenoiserParams, composition: list[Any], scale: float
) -> tuple[Tensor, Tensor]:
    """(guided prediction, uncond prediction) of clean latents (B, C, h, w); the second is 0 where there was none."""
    x, sigma = params.x, params.sigma
    dropped = math.isclose(scale, 1.0) and not patcher.model_options.get("disable_cfg1_optimization", False)
    chunks = chunks_of(params.text_cond, composition, None if dropped else params.text_uncond)
    image = params.image_cond if patcher.extra_concat_condition is None else patcher.extra_concat_condition
    total = sum(chunk.strength for chunk in chunks if chunk.kind == COND)
    cond, uncond = torch.zeros_like(x), torch.zeros_like(x)
    for group in groups_of(chunks):
        for chunk, output in zip(group, _call(variant, patcher, group, x, sigma, image), strict=True):
            if chunk.kind == UNCOND:
                uncond += output
            else:
                cond += output * chunk.strength
    cond /= total
    return uncond + (cond - uncond) * scale * total, uncond


def _scale(denoiser: Any, sigma: Tensor, scale: float, s_min_uncond: float) -> float:
    """The CFG scale of this call, with its entry in the infotext when it is 1 for this call only."""
    p, opts = denoiser.p, shared.opts
    early = opts.skip_early_cond > 0 and denoiser.step / denoiser.total_steps <= opts.skip_early_cond
    late = (denoiser.step % 2 or opts.s_min_uncond_all) and s_min_uncond > 0 and sigma[0] < s_min_uncond
    if early:
        p.extra_generation_params["Skip Early CFG"] = opts.skip_early_cond
    elif late:
        p.extra_generation_params["NGMS"] = s_min_uncond
    if early or late:
        return 1.0
    return p.hr_cfg if p.is_hr_pass else scale


def _original_outside(denoiser: Any, x: Tensor, sigma: Tensor, predictor: Any) -> Tensor:
    """x with the original, as noisy as x, where nothing is to be painted."""
    original = denoiser.init_latent
    noisy = predictor.noise_scaling(sigma[:, None, None, None], torch.randn_like(original), original)
    return x * denoiser.nmask + noisy * denoiser.mask


def _blend(denoiser: Any, latent: Tensor, sigma: Tensor) -> Tensor:
    original, mask, nmask = denoiser.init_latent, denoiser.mask, denoiser.nmask
    args = MaskBlendArgs(latent, nmask, original, mask, latent * nmask + original * mask, denoiser, sigma)
    if denoiser.p.scripts is not None:
        denoiser.p.scripts.on_mask_blend(denoiser.p, args)
    return args.blended_latent


@dataclass(frozen=True)
class Call:
    """One call of a denoiser, but for the latents."""

    variant: Variant
    denoiser: Any
    cond: Any
    uncond: Any
    scale: float
    s_min_uncond: float
    image: Any


def _refined(call: Call, x: Tensor, sigma: Tensor) -> Call:
    """The call with the conditions of the refiner when it takes over; the pass ends for one model and begins for it."""
    before = shared.sd_model.forge_objects.unet
    if not sd_samplers_common.apply_refiner(call.denoiser, sigma):
        return call
    passes.cleanup(before)
    passes.prepare(call.variant, shared.sd_model.forge_objects.unet, x)
    known = call.denoiser.sampler.sampler_extra_args
    return replace(call, cond=known["cond"], uncond=known["uncond"])


def guided(call: Call, x: Tensor, sigma: Tensor) -> Tensor:
    """Guided clean latents (B, C, h, w) for x (B, C, h, w) at sigma (B,)."""
    state, denoiser = shared.state, call.denoiser
    if state.interrupted or state.skipped:
        raise sd_samplers_common.InterruptedException
    call = _refined(call, x, sigma)
    composition, texts = prompt_parser.reconstruct_multicond_batch(call.cond, denoiser.step)
    negative = None if call.uncond is None else prompt_parser.reconstruct_cond_batch(call.uncond, denoiser.step)
    patcher = shared.sd_model.forge_objects.unet
    if denoiser.mask is not None:
        x = _original_outside(denoiser, x, sigma, patcher.model.schedule)
    steps = state.sampling_step, state.sampling_steps
    params = CFGDenoiserParams(x, call.image, sigma, *steps, texts, negative, denoiser)
    cfg_denoiser_callback(params)
    scale = _scale(denoiser, sigma, call.scale, call.s_min_uncond)
    denoised, unguided = sample(call.variant, patcher, params, composition, scale)
    if denoiser.need_last_noise_uncond:
        denoiser.last_noise_uncond = (x - unguided) / sigma[:, None, None, None]
    if denoiser.mask is not None:
        denoised = _blend(denoiser, denoised, sigma)
    denoiser.sampler.last_latent = denoised
    sd_samplers_common.store_latent(denoised)
    after = AfterCFGCallbackParams(denoised, *steps)
    cfg_after_cfg_callback(after)
    denoiser.step += 1
    return after.x
