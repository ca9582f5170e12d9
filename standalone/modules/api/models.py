"""Requests and responses of /sdapi/v1."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Optional

from modules.api.script_info import ScriptArg, ScriptInfo
from modules.options import Options
from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img
from modules.shared_cmd_options import parser
from pydantic import BaseModel, Field, create_model

__all__ = ["ScriptArg", "ScriptInfo"]

NOT_IN_API = {
    "sd_model", "outpath_samples", "outpath_grids", "sampler_index", "extra_generation_params", "overlay_images",
    "do_not_reload_embeddings", "seed_enable_extras", "prompt_for_display", "ddim_discretize",
}  # fmt: skip
TYPES: dict[str, Any] = {
    "prompt": str, "negative_prompt": str, "seed": int, "subseed": int, "hr_prompt": str, "hr_negative_prompt": str,
    "firstpass_image": str, "latent_mask": str, "inpaint_full_res": bool, "mask_blur": int, "init_images": list,
    "mask": str,
}  # fmt: skip
COMMON: dict[str, tuple[Any, Any]] = {
    "sampler_index": (str | None, "Euler"),
    "script_name": (str | None, None),
    "script_args": (list | None, []),
    "send_images": (bool | None, True),
    "save_images": (bool | None, False),
    "alwayson_scripts": (dict | None, {}),
    "force_task_id": (str | None, None),
    "infotext": (str | None, None),
}


def _request_model(name: str, source: type, further: dict[str, tuple[Any, Any]]) -> Any:
    """A model with the constructor arguments of a job class; unknown fields are ignored, as the host does."""
    hints = typing.get_type_hints(source)
    fields: dict[str, Any] = {}
    for item in dataclasses.fields(source):
        if not item.init or item.name in NOT_IN_API:
            continue
        default = item.default if not isinstance(item.default, (property, dataclasses._MISSING_TYPE)) else None
        kind = TYPES.get(item.name, hints.get(item.name, Any))
        fields[item.name] = (Optional[kind], default)  # noqa: UP045 - `kind` is a value
    return create_model(name, **{**fields, **further})


StableDiffusionTxt2ImgProcessingAPI: Any = _request_model(
    "StableDiffusionProcessingTxt2Img", StableDiffusionProcessingTxt2Img, COMMON
)
StableDiffusionImg2ImgProcessingAPI: Any = _request_model(
    "StableDiffusionProcessingImg2Img",
    StableDiffusionProcessingImg2Img,
    {**COMMON, "include_init_images": (bool | None, False)},
)


def as_dict(model: BaseModel, only_set: bool = False) -> dict[str, Any]:
    """Fields of a model under pydantic 1 and 2."""
    dump = getattr(model, "model_dump", None) or model.dict
    return dump(exclude_unset=only_set)


class TextToImageResponse(BaseModel):
    images: list[str] | None = Field(default=None, title="Image", description="The pictures, base64.")
    parameters: dict
    info: str


class ImageToImageResponse(TextToImageResponse):
    pass


class PNGInfoRequest(BaseModel):
    image: str = Field(title="Image", description="The base64 encoded PNG image")


class PNGInfoResponse(BaseModel):
    info: str = Field(title="Image info", description="The text the picture was made from")
    items: dict = Field(title="Items", description="All other fields the image had")
    parameters: dict = Field(title="Parameters", description="The parsed text")


class ProgressRequest(BaseModel):
    skip_current_image: bool = Field(default=False, title="Skip current image")


class ProgressResponse(BaseModel):
    progress: float = Field(title="Progress", description="0 to 1")
    eta_relative: float = Field(title="ETA in secs")
    state: dict = Field(title="State", description="The current state snapshot")
    current_image: str | None = Field(default=None, title="Current image", description="Live preview, base64")
    textinfo: str | None = Field(default=None, title="Info text")
    current_task: str | None = Field(default=None, title="Running task")


class SamplerItem(BaseModel):
    name: str = Field(title="Name")
    aliases: list[str] = Field(title="Aliases")
    options: dict[str, str] = Field(title="Options")


class SchedulerItem(BaseModel):
    name: str = Field(title="Name")
    label: str = Field(title="Label")
    aliases: list[str] | None = Field(default=None, title="Aliases")
    default_rho: float | None = Field(default=None, title="Default Rho")
    need_inner_model: bool | None = Field(default=None, title="Needs Inner Model")


class UpscalerItem(BaseModel):
    name: str = Field(title="Name")
    upscaler_model: str | None = Field(default=None, alias="model_name", title="Model Name")
    upscaler_path: str | None = Field(default=None, alias="model_path", title="Path")
    upscaler_url: str | None = Field(default=None, alias="model_url", title="URL")
    scale: float | None = Field(default=None, title="Scale")


class LatentUpscalerModeItem(BaseModel):
    name: str = Field(title="Name")


class SDModelItem(BaseModel):
    title: str = Field(title="Title")
    checkpoint_name: str = Field(alias="model_name", title="Model Name")
    hash: str | None = Field(default=None, title="Short hash")
    sha256: str | None = Field(default=None, title="sha256 hash")
    filename: str = Field(title="Filename")
    config: str | None = Field(default=None, title="Config file")


class EmbeddingsResponse(BaseModel):
    loaded: dict = Field(title="Loaded", description="Embeddings loaded for the current model")
    skipped: dict = Field(title="Skipped", description="Embeddings that do not fit the current model")


class MemoryResponse(BaseModel):
    ram: dict = Field(title="RAM", description="System memory stats")
    cuda: dict = Field(title="CUDA", description="nVidia CUDA memory stats")


class ScriptsList(BaseModel):
    txt2img: list = Field(default=[], title="Txt2img", description="Titles of scripts (txt2img)")
    img2img: list = Field(default=[], title="Img2img", description="Titles of scripts (img2img)")


class ExtensionItem(BaseModel):
    name: str = Field(title="Name")
    remote: str = Field(title="Remote")
    branch: str = Field(title="Branch")
    commit_hash: str = Field(title="Commit Hash")
    version: str = Field(title="Version")
    commit_date: str = Field(title="Commit Date")
    enabled: bool = Field(title="Enabled")


def options_model(opts: Options) -> Any:
    """All settings; whole numbers are answered as floats, as the real host does."""
    fields: dict[str, Any] = {}
    for key, info in opts.data_labels.items():
        if info.do_not_save:
            continue
        kind = opts.typemap.get(type(info.default), type(info.default)) if info.default else Any
        fields[key] = (Optional[kind], Field(default=info.default, description=info.label))  # noqa: UP045 - `kind` is a value
    return create_model("Options", **fields)


def flags_model() -> Any:
    """All options of the command line."""
    fields: dict[str, Any] = {}
    for action in parser._actions:
        if action.dest == "help":
            continue
        kind = Any if action.default is None else type(action.default)
        fields[action.dest] = (Optional[kind], Field(default=action.default, description=action.help))  # noqa: UP045 - `kind` is a value
    return create_model("Flags", **fields)
