"""Bodies and answers of the routes, as pydantic 1 (A1111) and 2 (Forge) models; OpenAPI is made from them.

The prefix keeps their names apart from the host's in its schema.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import BaseModel, Field

_PYDANTIC_1 = pydantic.VERSION.startswith("1.")


class _Open(BaseModel):
    """Unknown keys are kept, so that the route can say what becomes of them."""

    if _PYDANTIC_1:

        class Config:
            extra = "allow"
    else:
        model_config = {"extra": "allow"}

    def unknown(self) -> list[str]:
        """The keys that are no fields."""
        fields: Any = getattr(type(self), "__fields__" if _PYDANTIC_1 else "model_fields")
        return [key for key in {**vars(self), **(getattr(self, "model_extra", None) or {})} if key not in fields]


def _schema(**words: Any) -> dict[str, Any]:
    """Words of JSON schema for a field that pydantic is not to read: its floats end at integers of 309 digits."""
    return words if _PYDANTIC_1 else {"json_schema_extra": words}


def _number(description: str) -> Any:
    return Field(-1, description=description, **_schema(type="number"))


def _points() -> Any:
    return Field(None, **_schema(items={"type": "number"}))


class _Answer(BaseModel):
    """The keys are the peers', also those beginning with `model_`, which pydantic 2 wants for itself."""

    if not _PYDANTIC_1:
        model_config = {"protected_namespaces": ()}


class ControlNetDetect(_Open):
    """What to preprocess, and how."""

    controlnet_module: str = Field("none", description="Id, label or alias of the preprocessor")
    controlnet_input_images: list[str] = Field([], description="Pictures as base64, with or without data URI")
    controlnet_images: list[str] = Field([], description="The same under the name that webuiapi sends")
    controlnet_masks: list[str | None] = Field([], description="One mask for each picture, white = masked")
    controlnet_processor_res: Any = _number("Resolution, -1 for the preprocessor's default")
    controlnet_threshold_a: Any = _number("First setting, -1 for the preprocessor's default")
    controlnet_threshold_b: Any = _number("Second setting, -1 for the preprocessor's default")
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
    info: str = Field("Success", description="Followed by what was passed over or replaced in the request")


class ControlNetMeasure(_Open):
    """Pictures, the maps that they are to follow, and the preprocessor that makes such maps."""

    controlnet_module: str = Field("none", description="Id, label or alias of the preprocessor")
    controlnet_input_images: list[str] = Field([], description="Pictures as base64, with or without data URI")
    controlnet_images: list[str] = Field([], description="The same under the name that webuiapi sends")
    controlnet_maps: list[str] = Field([], description="One map for all pictures, or one for each")
    controlnet_poses: list[dict[str, Any]] = Field([], description="In place of maps: poses in OpenPose's JSON")
    controlnet_masks: list[str | None] = Field([], description="What is scored of each map: white; all without")
    controlnet_model: str = Field("", description="Of a preprocessor that takes maps: for what model they are")
    controlnet_processor_res: Any = _number("Resolution, -1 for that of the map")
    controlnet_threshold_a: Any = _number("First setting, -1 for the preprocessor's default")
    controlnet_threshold_b: Any = _number("Second setting, -1 for the preprocessor's default")
    error_maps: bool = Field(False, description="Send maps of where each picture follows its map")


class ControlNetMeasured(_Answer):
    """How well each picture follows its map, in their order."""

    measures: list[dict[str, Any]] = Field(
        ..., description="Each metric under the field's name (null where not taken), `adherence` 0..1, `measured`"
    )
    adherence: float | None = Field(..., description="Mean of the pictures")
    images: list[str] = Field([], description="Error maps as base64 PNG, where asked for and the kind has places")
    info: str = "Success"


class ControlNetPerson(BaseModel):
    """A person in OpenPose's JSON: x, y, confidence for each key point. What else OpenPose writes is not drawn."""

    pose_keypoints_2d: list[Any] | None = _points()
    hand_left_keypoints_2d: list[Any] | None = _points()
    hand_right_keypoints_2d: list[Any] | None = _points()
    face_keypoints_2d: list[Any] | None = _points()


class ControlNetPose(BaseModel):
    """A pose in OpenPose's JSON, as `detect` returns it."""

    people: list[ControlNetPerson] = []
    animals: list[list[Any] | None] = []
    canvas_width: Any = Field(..., **_schema(type="integer"))
    canvas_height: Any = Field(..., **_schema(type="integer"))

    def content(self) -> dict[str, Any]:
        """As `draw_json` takes it."""
        dump: Any = getattr(self, "dict" if _PYDANTIC_1 else "model_dump")
        return dump()


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
