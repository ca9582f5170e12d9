"""The Generate button of txt2img."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from modules import processing, scripts, shared
from modules.infotext_utils import create_override_settings_dict
from modules.known_words import refuse_unknown
from modules.ui_common import plaintext_to_html
from modules.ui_results import saved_html, stopped_html

import gradio as gr  # isort: skip


def as_outputs(processed: Any) -> tuple[list[Any], str, str, str, str]:
    """(pictures, generation info, infotext, where the pictures are, comments) for the output panel."""
    shared.total_tqdm.clear()
    pictures = [] if shared.opts.do_not_show_images else processed.images
    comments = plaintext_to_html(processed.comments, classname="comments") + stopped_html(shared.state)
    return pictures, processed.js(), plaintext_to_html(processed.info), saved_html(processed.images), comments


def whole_numbers(settings: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """gradio's numbers may come as floats."""
    return {k: int(v) if k in names else v for k, v in settings.items()}


WHOLE = ("n_iter", "batch_size", "width", "height", "steps", "seed", "subseed", "hr_second_pass_steps", "hr_resize_x",
         "hr_resize_y", "mask_blur", "inpaint_full_res_padding")  # fmt: skip


def txt2img(
    request: gr.Request, settings: dict[str, Any], args: tuple[Any, ...]
) -> tuple[list[Any], str, str, str, str]:
    """Run a job with the page's values; `args` are the scripts' arguments."""
    overrides = create_override_settings_dict(settings.pop("override_settings", None) or [])
    p = processing.StableDiffusionProcessingTxt2Img(
        outpath_samples=shared.opts.outdir_samples or shared.opts.outdir_txt2img_samples,
        outpath_grids=shared.opts.outdir_grids or shared.opts.outdir_txt2img_grids,
        override_settings=overrides,
        **whole_numbers(settings, WHOLE),
    )
    p.scripts = scripts.scripts_txt2img
    p.script_args = args
    p.user = getattr(request, "username", None)
    with closing(p):
        refuse_unknown(p.prompt, shared.sd_model)
        processed = scripts.scripts_txt2img.run(p, *p.script_args)
        return as_outputs(processed or processing.process_images(p))
