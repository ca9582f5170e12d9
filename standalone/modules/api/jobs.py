"""txt2img and img2img over HTTP: requests become jobs."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from fastapi.exceptions import HTTPException
from modules import infotext_utils, progress, scripts, sd_models, sd_samplers, sd_schedulers, shared
from modules.api import models
from modules.api.echo import echo
from modules.api.images_io import decode_base64_to_image, encode_pil_to_base64
from modules.call_queue import running_job
from modules.processing import (
    StableDiffusionProcessingImg2Img,
    StableDiffusionProcessingTxt2Img,
    process_images,
)

NOT_FOR_JOB = ("script_name", "script_args", "alwayson_scripts", "infotext", "send_images", "save_images",
               "include_init_images", "sampler_index")  # fmt: skip
PICTURES = {"firstpass_image": "RGB", "latent_mask": "RGB"}
"""Settings of a job that a request gives as base64, and the mode the job wants them in."""


def default_script_args(runner: Any) -> list[Any]:
    """Values of all scripts' widgets; scripts whose `ui()` gives nothing have no arguments.

    `ui()` is called twice per script here, in a throw-away page, as the real host does. The list is shared by all
    requests and copied shallowly: what is mutable in it is the same object every time.
    """
    args: list[Any] = [None] * max([1, *(x.args_to or 1 for x in runner.scripts)])
    args[0] = 0
    if not any(x.controls for x in runner.scripts):
        return args
    import gradio as gr

    with gr.Blocks():
        for script in runner.scripts:
            if script.ui(script.is_img2img):
                args[script.args_from : script.args_to] = [x.value for x in script.ui(script.is_img2img)]
    return args


def _script(name: str, candidates: list[Any]) -> tuple[Any, int]:
    titles = [x.title().lower() for x in candidates]
    if name.lower() not in titles:
        raise HTTPException(status_code=422, detail=f"Script '{name}' not found")
    index = titles.index(name.lower())
    return candidates[index], index


def _always_on(request: Any, runner: Any, args: list[Any]) -> None:
    """Arguments by script title overwrite the defaults in order; what is too much is dropped."""
    for name, given in (request.alwayson_scripts or {}).items():
        script, _ = _script(name, runner.scripts)
        if script.alwayson is False:
            detail = "Cannot have a selectable script in the always on scripts params"
            raise HTTPException(status_code=422, detail=detail)
        if not isinstance(given, dict):
            raise HTTPException(status_code=422, detail=f'The script "{name}" takes an object with a list of args')
        if not given:
            continue
        if set(given) != {"args"}:
            found = ", ".join(map(repr, list(given)[:3]))
            detail = f'The script "{name}" takes an object with a list of args, and nothing else. Found: {found}'
            raise HTTPException(status_code=422, detail=detail)
        if not isinstance(given["args"], list):
            raise HTTPException(status_code=422, detail=f'The args of the script "{name}" must be a list')
        count = min(script.args_to - script.args_from, len(given["args"]))
        for i in range(count):
            args[script.args_from + i] = given["args"][i]


def _field_value(field: Any, request: Any, params: dict[str, Any]) -> Any:
    """A parameter of an infotext in the type of the request's field or of the widget's value."""
    value = field.function(params) if field.function else params.get(field.label)
    if isinstance(value, dict) and value.get("__type__") == "generic_update":
        value = value.get("value")
    current = getattr(request, field.api) if field.api else field.component.value
    if value is None or current is None or isinstance(value, type(current)):
        return value
    return type(current)(value)


def _apply_infotext(request: Any, tabname: str, runner: Any, args: list[Any]) -> None:
    """Fill fields the request does not set, settings, and script arguments from `request.infotext`."""
    if not request.infotext:
        return
    fields = infotext_utils.paste_fields.get(tabname, {}).get("fields", [])
    explicit = models.as_dict(request, only_set=True)
    params = infotext_utils.parse_generation_parameters(request.infotext)
    for field in (x for x in fields if x.api and x.api not in explicit):
        value = _field_value(field, request, params)
        if value is not None:
            setattr(request, field.api, value)
    overrides = dict(request.override_settings or {})
    for _, setting, value in infotext_utils.get_override_settings(params):
        overrides.setdefault(setting, value)
    request.override_settings = overrides
    positions = {id(x): i for i, x in enumerate(runner.inputs)}
    for field in (x for x in fields if id(x.component) in positions and not x.api):
        value = _field_value(field, request, params)
        if value is not None:
            args[positions[id(field.component)]] = value


def _script_args(request: Any, runner: Any, tabname: str, defaults: list[Any]) -> tuple[list[Any], Any]:
    """(all script arguments, the selected script or None)."""
    args = defaults.copy()
    _apply_infotext(request, tabname, runner, args)
    selected = None
    if request.script_name:
        selected, index = _script(request.script_name, runner.selectable_scripts)
        args[selected.args_from : selected.args_to] = request.script_args
        args[0] = index + 1
    _always_on(request, runner, args)
    return args, selected


def _refuse_unknown_names(request: Any) -> None:
    """The real host makes the job with something else, and without a word; this one does not."""
    sampler, scheduler = request.sampler_name or request.sampler_index, request.scheduler
    checkpoint = (request.override_settings or {}).get("sd_model_checkpoint")
    detail = None
    if sampler and not sd_samplers.knows(sampler):
        detail = f"there is no sampler {sampler!r}; GET /sdapi/v1/samplers tells which there are"
    elif scheduler and scheduler not in sd_schedulers.schedulers_map:
        detail = f"there is no scheduler {scheduler!r}; GET /sdapi/v1/schedulers tells which there are"
    elif checkpoint and checkpoint not in sd_models.checkpoint_aliases:
        detail = f"there is no checkpoint {checkpoint!r}; GET /sdapi/v1/sd-models tells which there are"
    if detail:
        raise HTTPException(status_code=422, detail=detail)


def _job_settings(request: Any) -> dict[str, Any]:
    sampler, scheduler = sd_samplers.get_sampler_and_scheduler(
        request.sampler_name or request.sampler_index, request.scheduler
    )
    # null means that the job has its own default, of every kind
    settings = {k: v for k, v in vars(request).items() if k not in NOT_FOR_JOB and v is not None}
    settings["sampler_name"] = sampler
    if not settings.get("scheduler") and scheduler != "Automatic":
        settings["scheduler"] = scheduler
    for name in ("do_not_save_samples", "do_not_save_grid"):
        settings[name] = not request.save_images
    for name, mode in PICTURES.items():
        text = settings.pop(name, None)
        if text:
            settings[name] = decode_base64_to_image(text).convert(mode)
    return settings


def _run(request: Any, tabname: str, job: Any, args: list[Any], selected: Any, task: str) -> tuple[list[str], str]:
    runner = scripts.scripts_txt2img if tabname == "txt2img" else scripts.scripts_img2img
    p = job
    p.is_api = True
    p.scripts = runner
    p.outpath_grids = shared.opts.outdir_grids or getattr(shared.opts, f"outdir_{tabname}_grids")
    p.outpath_samples = shared.opts.outdir_samples or getattr(shared.opts, f"outdir_{tabname}_samples")
    try:
        with running_job(f"scripts_{tabname}", task):
            p.script_args = args if selected is not None else tuple(args)
            processed = process_images(p) if selected is None else runner.run(p, *p.script_args)
    finally:
        shared.total_tqdm.clear()
    pictures = [encode_pil_to_base64(x).decode() for x in processed.images] if request.send_images else []
    return pictures, processed.js()


class Jobs:
    """The two routes that make pictures. `lock` is the host's queue."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.default_script_arg_txt2img = default_script_args(scripts.scripts_txt2img)
        self.default_script_arg_img2img = default_script_args(scripts.scripts_img2img)

    def text2imgapi(self, txt2imgreq: models.StableDiffusionTxt2ImgProcessingAPI) -> Any:  # pyright: ignore[reportInvalidTypeForm] # made at start
        _refuse_unknown_names(txt2imgreq)
        task = txt2imgreq.force_task_id or progress.create_task_id("txt2img")
        runner = scripts.scripts_txt2img
        args, selected = _script_args(txt2imgreq, runner, "txt2img", self.default_script_arg_txt2img)
        settings = _job_settings(txt2imgreq)
        progress.add_task_to_queue(task)
        with self.lock, closing(StableDiffusionProcessingTxt2Img(**settings)) as p:
            images, info = _run(txt2imgreq, "txt2img", p, args, selected, task)
        return models.TextToImageResponse(images=images, parameters=echo(vars(txt2imgreq)), info=info)

    def img2imgapi(self, img2imgreq: models.StableDiffusionImg2ImgProcessingAPI) -> Any:  # pyright: ignore[reportInvalidTypeForm] # made at start
        if img2imgreq.init_images is None:
            raise HTTPException(status_code=404, detail="Init image not found")
        _refuse_unknown_names(img2imgreq)
        task = img2imgreq.force_task_id or progress.create_task_id("img2img")
        mask = decode_base64_to_image(img2imgreq.mask) if img2imgreq.mask else None
        runner = scripts.scripts_img2img
        args, selected = _script_args(img2imgreq, runner, "img2img", self.default_script_arg_img2img)
        settings = {**_job_settings(img2imgreq), "mask": mask}
        settings["init_images"] = [decode_base64_to_image(x) for x in img2imgreq.init_images]
        progress.add_task_to_queue(task)
        with self.lock, closing(StableDiffusionProcessingImg2Img(**settings)) as p:
            images, info = _run(img2imgreq, "img2img", p, args, selected, task)
        if not img2imgreq.include_init_images:
            img2imgreq.init_images = None
            img2imgreq.mask = None
        return models.ImageToImageResponse(images=images, parameters=echo(vars(img2imgreq)), info=info)
