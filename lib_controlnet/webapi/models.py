"""Bodies and answers of the routes, as pydantic 1 (A1111) and 2 (Forge) models; OpenAPI is made from them.

The prefix keeps their names apart from the host's in its schema.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import BaseModel, Field

_PYDANTIC_1 = pydantic.VERSION.startswith("1.")


class _Strict(BaseModel):
    """Unknown keys are an error: a misspelt one would be dropped without a word."""

    if _PYDANTIC_1:

        class Config:
            extra = "forbid"
    else:
        model_config = {"extra": "forbid"}


class _Answer(BaseModel):
    """The keys are the peers', also those beginning with `model_`, which pydantic 2 wants for itself."""

    if not _PYDANTIC_1:
        model_config = {"protected_namespaces": ()}


class ControlNetDetect(_Strict):
    """What to preprocess, and how."""

    controlnet_module: str = Field("none", description="Id, label or alias of the preprocessor")
    controlnet_input_images: list[str] = Field([], description="Pictures as base64, with or without data URI")
    controlnet_images: list[str] = Field([], description="The same under the name that webuiapi sends")
    controlnet_masks: list[str | None] = Field([], description="One mask for each picture, white = masked")
    controlnet_processor_res: int = Field(-1, description="Resolution, -1 for the preprocessor's default")
    controlnet_threshold_a: float = Field(-1, description="First setting, -1 for the preprocessor's default")
    controlnet_threshold_b: float = Field(-1, description="Second setting, -1 for the preprocessor's default")
    low_vram: bool = Field(False, description="Unload the preprocessors' networks when it is done")
    controlnet_tensor_format: Literal["safetensors", "torch"] = Field(
        "safetensors", description='How embeddings are sent; "torch" (torch.save) is for clients of sd-webui-controlnet'
    )


class ControlNetDetected(_Answer):
    """What was found in each picture, in their order; a key that does not apply to the preprocessor is absent."""

    images: list[str] | None = Field(None, description="Maps as base64 PNG")
    poses: list[dict[str, Any]] | None = Field(
        None, description="Poses in OpenPose's JSON, as render_openpose_json takes"
    )
    tensor: list[str] | None = Field(None, description="Embeddings in base64, in the form that was asked for")
    info: str = "Success"


class ControlNetPerson(BaseModel):
    """A person in OpenPose's JSON: x, y, confidence for each key point. What else OpenPose writes is not drawn."""

    pose_keypoints_2d: list[float] | None = None
    hand_left_keypoints_2d: list[float] | None = None
    hand_right_keypoints_2d: list[float] | None = None
    face_keypoints_2d: list[float] | None = None


class ControlNetPose(BaseModel):
    """A pose in OpenPose's JSON, as `detect` returns it."""

    people: list[ControlNetPerson] = []
    animals: list[list[float] | None] = []
    canvas_width: int
    canvas_height: int


class ControlNetRendered(_Answer):
    """The drawn poses, as base64 PNG."""

    images: list[str] | None = None
    info: str = "Success"


class ControlNetVersion(_Answer):
    """The number of this interface, as in sd-webui-controlnet."""

    version: int


class ControlNetModelList(_Answer):
    """Display names of the control models: `name [hash]`."""

    model_list: list[str]


class ControlNetSliderDetail(_Answer):
    """A setting of a preprocessor."""

    name: str
    value: float
    min: float
    max: float
    step: float


class ControlNetModuleDetail(_Answer):
    """What a preprocessor offers; its sliders are resolution, threshold a, threshold b, as far as there are."""

    model_free: bool
    sliders: list[ControlNetSliderDetail]


class ControlNetModuleList(_Answer):
    """The preprocessors in the page's order."""

    module_list: list[str]
    module_detail: dict[str, ControlNetModuleDetail]


class ControlNetTypeDetail(_Answer):
    """The preprocessors and models of a control type."""

    module_list: list[str]
    model_list: list[str]
    default_option: str
    default_model: str


class ControlNetTypes(_Answer):
    """Control types by name."""

    control_types: dict[str, ControlNetTypeDetail]


class ControlNetSettings(_Answer):
    """What a client must know of this server."""

    control_net_unit_count: int


class ControlNetRefusal(_Answer):
    """Why a request was refused, to be shown to the user."""

    detail: Any
