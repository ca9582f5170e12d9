"""Control models that are offered for download: what to begin with, by control type and checkpoint.

The addresses are those of the hub's repositories; what is published of a file is checked when it has come, and the
hub's own record in any case.
"""

from __future__ import annotations

from dataclasses import dataclass

SD1, SDXL = "SD 1.x", "SDXL"
_FP16 = "comfyanonymous/ControlNet-v1-1_fp16_safetensors"
_FULL = 722_600_000


@dataclass(frozen=True, kw_only=True)
class OfferedModel:
    """A file of a hub repository, with the fields of a preprocessor's weights (core/preprocessors.py, WeightFile).

    control_types: for which it is offered. base: the checkpoints it controls, as `BaseModel.kind`. size: bytes, about.
    """

    name: str
    control_types: tuple[str, ...]
    base: str
    size: int
    licence: str
    repo: str
    path: str = ""
    sha256: str = ""
    folder: str = ""
    repo_type: str = "model"
    note: str = ""

    @property
    def label(self) -> str:
        """How it is named in the page."""
        return self.name

    @property
    def weights(self) -> tuple[OfferedModel, ...]:
        """Its files: itself."""
        return (self,)

    @property
    def source(self) -> str:
        """Its address."""
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.path or self.name}"


def _first(name: str, *control_types: str) -> OfferedModel:
    """Of ControlNet 1.1, halved to float16."""
    return OfferedModel(
        name=f"control_{name}_fp16.safetensors",
        control_types=control_types,
        base=SD1,
        size=_FULL,
        licence="OpenRAIL",
        repo=_FP16,
    )


MODELS = (
    _first("v11p_sd15_canny", "Canny"),
    _first("v11f1p_sd15_depth", "Depth"),
    _first("v11p_sd15_inpaint", "Inpaint"),
    _first("v11e_sd15_ip2p", "InstructP2P"),
    _first("v11p_sd15_lineart", "Lineart"),
    _first("v11p_sd15_mlsd", "MLSD"),
    _first("v11p_sd15_normalbae", "NormalMap"),
    _first("v11p_sd15_openpose", "OpenPose"),
    _first("v11p_sd15_scribble", "Scribble"),
    _first("v11p_sd15_seg", "Segmentation"),
    _first("v11e_sd15_shuffle", "Shuffle"),
    _first("v11p_sd15_softedge", "SoftEdge"),
    _first("v11f1e_sd15_tile", "Tile"),
    OfferedModel(
        name="controlnet-union-sdxl-promax.safetensors",
        control_types=(
            "Canny",
            "Depth",
            "Inpaint",
            "Lineart",
            "MLSD",
            "NormalMap",
            "OpenPose",
            "Scribble",
            "Segmentation",
            "SoftEdge",
            "Tile",
        ),
        base=SDXL,
        size=2_513_000_000,
        licence="Apache-2.0",
        repo="xinsir/controlnet-union-sdxl-1.0",
        path="diffusion_pytorch_model_promax.safetensors",
    ),
)


def recommended(control_type: str, base: str) -> OfferedModel | None:
    """What is offered for a type and a checkpoint's kind; None where nothing is known to fit."""
    return next((model for model in MODELS if control_type in model.control_types and model.base == base), None)


def named(name: str) -> OfferedModel | None:
    """The offered model of that file name."""
    return next((model for model in MODELS if model.name == name), None)
