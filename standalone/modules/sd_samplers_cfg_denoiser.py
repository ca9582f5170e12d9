"""Classifier-free guidance: one denoiser call = one to several U-Net calls over all rows of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from modules import prompt_parser, sd_samplers_common, shared
from modules.script_callbacks import (
    AfterCFGCallbackParams,
    CFGDenoisedParams,
    CFGDenoiserParams,
    cfg_after_cfg_callback,
    cfg_denoised_callback,
    cfg_denoiser_callback,
)
from torch import Tensor


def catenate_conds(conds: list[Any]) -> Any:
    if not isinstance(conds[0], dict):
        return torch.cat(conds)
    return {key: torch.cat([x[key] for x in conds]) for key in conds[0]}


def subscript_cond(cond: Any, a: int, b: int) -> Any:
    return {k: v[a:b] for k, v in cond.items()} if isinstance(cond, dict) else cond[a:b]


def pad_cond(tensor: Any, repeats: int, empty: Tensor) -> Any:
    """`tensor` (B, N, D) lengthened by `repeats` empty prompts."""
    if isinstance(tensor, dict):
        tensor["crossattn"] = pad_cond(tensor["crossattn"], repeats, empty)
        return tensor
    return torch.cat([tensor, empty.repeat((tensor.shape[0], repeats, 1))], dim=1)


@dataclass
class Rows:
    """All rows of a denoiser call: R cond rows, then B uncond rows (pix2pix: three groups of B)."""

    x: Tensor
    sigma: Tensor
    image_cond: Tensor
    cond: Any
    uncond: Any
    conds_list: list[list[tuple[int, float]]]
    edit: bool
    skip_uncond: bool = False

    @property
    def images(self) -> int:
        return len(self.conds_list)

    def first_rows(self, tensor: Tensor) -> Tensor:
        """The first cond row of every image."""
        return torch.cat([tensor[x[0][0] : x[0][0] + 1] for x in self.conds_list])


def _repeated(tensor: Tensor, repeats: list[int]) -> list[Tensor]:
    return [torch.stack([tensor[i]] * n) for i, n in enumerate(repeats)]


BEFORE_A_PASS: dict[str, Any] = {
    **dict.fromkeys(("p", "model_wrap", "mask", "nmask", "init_latent", "image_cfg_scale", "last_noise_uncond")),
    **dict.fromkeys(("padded_cond_uncond", "padded_cond_uncond_v0"), False),
    **dict.fromkeys(("need_last_noise_uncond", "mask_before_denoising"), False),
    "steps": None,
    "total_steps": None,
    "step": 0,
    "cond_scale_miltiplier": 1.0,
}
"""Attributes of the denoiser, which samplers and scripts read and write."""


class CFGDenoiser(torch.nn.Module):
    """Guidance with one or several prompts per image. `step` counts denoiser calls of the running pass."""

    def __init__(self, sampler: Any) -> None:
        super().__init__()
        for name, start in {**BEFORE_A_PASS, "sampler": sampler}.items():
            setattr(self, name, start)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @property
    def inner_model(self) -> Any:
        """The model as the sampler calls it; made anew after `update_inner_model`."""
        if self.model_wrap is None:
            self.model_wrap = self.wrapped_model()
        return self.model_wrap

    def wrapped_model(self) -> Any:
        raise NotImplementedError

    def combine_denoised(self, x_out: Tensor, conds_list: list[Any], uncond: Any, cond_scale: float) -> Tensor:
        base = x_out[-uncond.shape[0] :]
        denoised = torch.clone(base)
        for i, conds in enumerate(conds_list):
            for index, weight in conds:
                denoised[i] += (x_out[index] - base[i]) * (weight * cond_scale)
        return denoised

    def combine_denoised_for_edit_model(self, x_out: Tensor, cond_scale: float) -> Tensor:
        cond, img_cond, uncond = x_out.chunk(3)
        return uncond + cond_scale * (cond - img_cond) + self.image_cfg_scale * (img_cond - uncond)

    def update_inner_model(self) -> None:
        """After a model swap: a new wrapper, and the conditions of the new model."""
        self.sampler.sampler_extra_args.update(zip(("cond", "uncond"), self.p.get_conds(), strict=True))
        self.model_wrap = None

    def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        return x_out

    def pad_cond_uncond(self, cond: Any, uncond: Any) -> tuple[Any, Any]:
        """Equal lengths by appending empty prompts to the shorter one."""
        empty = shared.sd_model.cond_stage_model_empty_prompt
        repeats = (cond.shape[1] - uncond.shape[1]) // empty.shape[1]
        if repeats:
            self.padded_cond_uncond = True
        if repeats < 0:
            return pad_cond(cond, -repeats, empty), uncond
        return cond, pad_cond(uncond, repeats, empty) if repeats else uncond

    def pad_cond_uncond_v0(self, cond: Any, uncond: Any) -> tuple[Any, Any]:
        """Equal lengths by repeating the last token of the negative prompt, or cutting it."""
        text = uncond["crossattn"] if isinstance(uncond, dict) else uncond
        missing = cond.shape[1] - text.shape[1]
        self.padded_cond_uncond_v0 = missing != 0
        text = torch.hstack([text, text[:, -1:].repeat([1, missing, 1])]) if missing > 0 else text[:, : cond.shape[1]]
        if isinstance(uncond, dict):
            uncond["crossattn"] = text
            return cond, uncond
        return cond, text

    def _blend(self, latent: Tensor, sigma: Tensor) -> Tensor:
        """Inpainting: the original outside the mask."""
        blended = latent * self.nmask + self.init_latent * self.mask
        if self.p.scripts is None:
            return blended
        from modules import scripts

        args = scripts.MaskBlendArgs(
            latent, self.nmask, self.init_latent, self.mask, blended, denoiser=self, sigma=sigma
        )
        self.p.scripts.on_mask_blend(self.p, args)
        return args.blended_latent

    def _rows(self, x: Tensor, sigma: Tensor, cond: Any, uncond: Any, image_cond: Tensor) -> Rows:
        scale = self.image_cfg_scale
        edit = shared.sd_model.cond_stage_key == "edit" and scale is not None and scale != 1.0
        conds_list, tensor = prompt_parser.reconstruct_multicond_batch(cond, self.step)
        uncond = prompt_parser.reconstruct_cond_batch(uncond, self.step)
        if edit and any(len(conds) != 1 for conds in conds_list):
            raise AssertionError(
                "AND is not supported for InstructPix2Pix checkpoint (unless using Image CFG scale = 1.0)"
            )
        repeats = [len(conds) for conds in conds_list]
        adm = shared.sd_model.conditioning_key == "crossattn-adm"
        tails = [[x], [sigma], [torch.zeros_like(image_cond) if adm else image_cond]]
        if edit:
            tails = [[x, x], [sigma, sigma], [image_cond, torch.zeros_like(self.init_latent)]]
        x_in, sigma_in, image_in = (
            torch.cat(_repeated(t, repeats) + tail) for t, tail in zip((x, sigma, image_cond), tails, strict=True)
        )
        return Rows(x_in, sigma_in, image_in, tensor, uncond, conds_list, edit)

    def _ask_scripts(self, rows: Rows) -> None:
        state = shared.state
        params = CFGDenoiserParams(
            rows.x, rows.image_cond, rows.sigma, state.sampling_step, state.sampling_steps, rows.cond, rows.uncond, self
        )
        cfg_denoiser_callback(params)
        rows.x, rows.image_cond, rows.sigma = params.x, params.image_cond, params.sigma
        rows.cond, rows.uncond = params.text_cond, params.text_uncond

    def _decide_skip(self, rows: Rows, sigma: Tensor, s_min_uncond: float) -> None:
        """Leave the uncond rows out early (skip_early_cond) or late (NGMS)."""
        opts, extra = shared.opts, self.p.extra_generation_params
        if opts.skip_early_cond != 0.0 and self.step / (self.total_steps or 1) <= opts.skip_early_cond:
            rows.skip_uncond = True
            extra["Skip Early CFG"] = opts.skip_early_cond
        elif (
            (self.step % 2 or opts.s_min_uncond_all) and s_min_uncond > 0 and sigma[0] < s_min_uncond and not rows.edit
        ):
            rows.skip_uncond = True
            extra["NGMS"] = s_min_uncond
            if opts.s_min_uncond_all:
                extra["NGMS all steps"] = opts.s_min_uncond_all
        if rows.skip_uncond:  # image_cond keeps its rows, as in the real host: 9-channel models fail here there too
            rows.x, rows.sigma = rows.x[: -rows.images], rows.sigma[: -rows.images]

    def _pad(self, rows: Rows) -> None:
        self.padded_cond_uncond = self.padded_cond_uncond_v0 = False
        if rows.cond.shape[1] == rows.uncond.shape[1]:
            return
        if shared.opts.pad_cond_uncond_v0:
            rows.cond, rows.uncond = self.pad_cond_uncond_v0(rows.cond, rows.uncond)
        elif shared.opts.pad_cond_uncond:
            rows.cond, rows.uncond = self.pad_cond_uncond(rows.cond, rows.uncond)

    def _call(self, rows: Rows, a: int, b: int, text: Any, image: Tensor | None = None) -> Tensor:
        """The model on rows a..b."""
        image = rows.image_cond[a:b] if image is None else image
        if shared.sd_model.conditioning_key == "crossattn-adm":
            cond = {"c_crossattn": [text], "c_adm": image}
        elif isinstance(rows.uncond, dict):
            cond = {**text, "c_concat": [image]}
        else:
            cond = {"c_crossattn": [text], "c_concat": [image]}
        return self.inner_model(rows.x[a:b], rows.sigma[a:b], cond=cond)

    def _run_model(self, rows: Rows) -> Tensor:
        """Outputs of all rows: in one call, in calls of B rows, or conds and unconds apart when lengths differ."""
        count, images = len(rows.x), rows.images
        together = shared.opts.batch_cond_uncond
        if rows.cond.shape[1] == rows.uncond.shape[1] or rows.skip_uncond:
            groups = [rows.cond] if rows.skip_uncond else [rows.cond, rows.uncond] + [rows.uncond] * rows.edit
            text = catenate_conds(groups)
            if together:
                return self._call(rows, 0, count, text, rows.image_cond)
            size = images
            cuts = [(a, min(a + size, count)) for a in range(0, count, size)]
            return torch.cat([self._call(rows, a, b, subscript_cond(text, a, b)) for a, b in cuts])
        size, conds = images * 2 if together else images, rows.cond.shape[0]
        cuts = [(a, min(a + size, conds)) for a in range(0, conds, size)]
        out = [self._call(rows, a, b, subscript_cond(rows.cond, a, b)) for a, b in cuts]
        return torch.cat([*out, self._call(rows, count - rows.uncond.shape[0], count, rows.uncond)])

    def _combine(self, rows: Rows, x_out: Tensor, cond_scale: float) -> Tensor:
        if rows.edit:
            return self.combine_denoised_for_edit_model(x_out, cond_scale)
        return self.combine_denoised(x_out, rows.conds_list, rows.uncond, 1.0 if rows.skip_uncond else cond_scale)

    def _keep_preview(self, rows: Rows, x_out: Tensor, denoised: Tensor, sigma: Tensor) -> None:
        x_first = rows.first_rows(rows.x)
        self.sampler.last_latent = preview = self.get_pred_x0(x_first, rows.first_rows(x_out), sigma)
        subject = shared.opts.live_preview_content
        if subject == "Negative prompt":
            tail = rows.uncond.shape[0]
            preview = self.get_pred_x0(rows.x[-tail:], x_out[-tail:], sigma)
        elif subject == "Combined":
            preview = self.get_pred_x0(x_first, denoised, sigma)
        sd_samplers_common.store_latent(preview)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        uncond: Any,
        cond: Any,
        cond_scale: float,
        s_min_uncond: float,
        image_cond: Tensor,
    ) -> Tensor:
        """Guided prediction (B, C, h, w) for x (B, C, h, w) at sigma (B,) (timesteps for DDIM and the like)."""
        if shared.state.interrupted or shared.state.skipped:
            raise sd_samplers_common.InterruptedException
        if sd_samplers_common.apply_refiner(self, sigma):
            cond, uncond = (self.sampler.sampler_extra_args[name] for name in ("cond", "uncond"))
        if self.mask_before_denoising and self.mask is not None:
            x = self._blend(x, sigma)
        rows = self._rows(x, sigma, cond, uncond, image_cond)
        self._ask_scripts(rows)
        self._decide_skip(rows, sigma, s_min_uncond)
        self._pad(rows)
        x_out = self._run_model(rows)
        if rows.skip_uncond:
            x_out = torch.cat([x_out, rows.first_rows(x_out)])
        state = shared.state
        cfg_denoised_callback(CFGDenoisedParams(x_out, state.sampling_step, state.sampling_steps, self.inner_model))
        if self.need_last_noise_uncond:
            self.last_noise_uncond = torch.clone(x_out[-rows.uncond.shape[0] :])
        denoised = self._combine(rows, x_out, cond_scale * self.cond_scale_miltiplier)
        if not self.mask_before_denoising and self.mask is not None:
            denoised = self._blend(denoised, sigma)
        self._keep_preview(rows, x_out, denoised, sigma)
        params = AfterCFGCallbackParams(denoised, state.sampling_step, state.sampling_steps)
        cfg_after_cfg_callback(params)
        self.step += 1
        return params.x
