"""The Generate button of img2img, and its batches over folders."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from modules import images, scripts, shared
from modules.gradio_versions import picture_and_mask
from modules.infotext_utils import create_override_settings_dict
from modules.known_words import refuse_unknown
from modules.processing import Processed, StableDiffusionProcessingImg2Img, create_binary_mask, process_images
from modules.txt2img import WHOLE, as_outputs, whole_numbers
from PIL import Image

import gradio as gr  # isort: skip

SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"]


def _mask_for(file: str, mask_dir: str) -> str | None:
    """The mask of the same name, or the only one there is."""
    masks = list(shared.walk_files(mask_dir, SUFFIXES)) if mask_dir else []
    same = [x for x in masks if Path(x).stem == Path(file).stem]
    return (same or (masks if len(masks) == 1 else []) or [None])[0]


def process_batch(
    p: Any,
    input: Any,
    output_dir: str,
    inpaint_mask_dir: str,
    args: tuple[Any, ...],
    to_scale: bool = False,
    scale_by: float = 1.0,
) -> Processed | None:
    """All pictures of a folder (or list) with one and the same `p`: `process_images` is called once for each."""
    files = [getattr(x, "name", x) for x in input] if isinstance(input, list) else shared.walk_files(input, SUFFIXES)
    files = list(files)
    shared.state.job_count = len(files) * p.n_iter
    seed, result = p.seed, None
    if output_dir:
        p.outpath_samples = output_dir
        p.override_settings["save_to_dirs"] = False
    for i, file in enumerate(files):
        shared.state.job = f"{i + 1} out of {len(files)}"
        shared.state.skipped = False
        if shared.state.interrupted or shared.state.stopping_generation:
            break
        picture = images.read(file)
        if to_scale:
            p.width, p.height = int(picture.width * scale_by), int(picture.height * scale_by)
        p.init_images = [picture] * p.batch_size
        mask = _mask_for(file, inpaint_mask_dir)
        if inpaint_mask_dir:
            if mask is None:
                raise FileNotFoundError(f"no mask for {file} in {inpaint_mask_dir}")
            p.image_mask = create_binary_mask(images.read(mask))
        p.seed = seed
        made = scripts.scripts_img2img.run(p, *args) or process_images(p)
        if result is None:
            result = made
        else:
            result.images.extend(made.images)
            result.infotexts.extend(made.infotexts)
    return result


def _source(mode: str, pictures: dict[str, Any]) -> tuple[Any, Any]:
    """(picture, mask) of the tab in use."""
    if mode == "inpaint":
        image, mask = picture_and_mask(pictures["img2maskimg"])
        return image, None if mask is None else create_binary_mask(mask)
    if mode == "inpaint_upload":
        return pictures["img_inpaint_base"], pictures["img_inpaint_mask"]
    return pictures["img2img_image"], None


def img2img(
    request: gr.Request, mode: str, pictures: dict[str, Any], settings: dict[str, Any], args: tuple[Any, ...]
) -> tuple[list[Any], str, str, str, str]:
    """Run a job with the page's values; `mode` names the tab of the init picture."""
    image, mask = _source(mode, pictures)
    image, mask = images.fix_image(image), images.fix_image(mask)
    folders = {x: settings.pop(x) for x in ("batch_input_dir", "batch_output_dir", "batch_mask_dir")}
    by_scale, scale = settings.pop("scale_tab") == 1, settings.pop("scale_by")
    if by_scale and mode != "batch":
        if not isinstance(image, Image.Image):
            raise ValueError("Can't scale by because no image is selected")
        settings["width"], settings["height"] = int(image.width * scale), int(image.height * scale)
    overrides = create_override_settings_dict(settings.pop("override_settings", None) or [])
    p = StableDiffusionProcessingImg2Img(
        outpath_samples=shared.opts.outdir_samples or shared.opts.outdir_img2img_samples,
        outpath_grids=shared.opts.outdir_grids or shared.opts.outdir_img2img_grids,
        init_images=[image],
        mask=mask,
        override_settings=overrides,
        **whole_numbers(settings, WHOLE),
    )
    p.scripts = scripts.scripts_img2img
    p.script_args = args
    p.user = getattr(request, "username", None)
    with closing(p):
        refuse_unknown(p.prompt, shared.sd_model)
        if mode == "batch":
            inputs = (folders["batch_input_dir"], folders["batch_output_dir"], folders["batch_mask_dir"])
            processed = process_batch(p, *inputs, args, to_scale=by_scale, scale_by=scale)
            return as_outputs(processed or Processed(p, [], p.seed, ""))
        processed = scripts.scripts_img2img.run(p, *args)
        return as_outputs(processed or process_images(p))
