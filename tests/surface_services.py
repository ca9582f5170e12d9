"""The services that panel and routes use, real but small: two preprocessors of our own making, empty model files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotator.sd_controlnet import weights as annotator_weights
from annotator.sd_controlnet.registry import Entry, Registry
from annotator.sd_controlnet.spec import Detection, PreprocessorSpec, Runtime, Slider
from lib_controlnet.core.errors import HostError
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.engine.library import ModelLibrary
from lib_controlnet.engine.model_cache import ModelCache
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.engine.services import PageServices
from lib_controlnet.engine.weights import WeightFiles
from lib_controlnet.families.base import BaseModel
from lib_controlnet.families.registry import discover

MODEL_NAMES = ("control_v11p_sd15_canny", "control_sd15_depth", "own_model")


def identity(_runtime: Runtime) -> Any:
    return lambda image, **_options: image[..., :3].copy()


def threshold(_runtime: Runtime) -> Any:
    """White where a pixel is brighter than params[0]; params[1] is subtracted from white; resolution in the corner."""

    def detect(image: np.ndarray, *, resolution: int, params: tuple[float, ...], **_options: Any) -> np.ndarray:
        bright = image[..., :3].max(axis=2) > params[0]
        result = np.repeat((bright * (255 - params[1])).astype(np.uint8)[..., None], 3, axis=2)
        result[0, 0] = resolution // 8 % 256
        return result

    return detect


def with_alpha(_runtime: Runtime) -> Any:
    def detect(image: np.ndarray, *, mask: np.ndarray | None, **_options: Any) -> np.ndarray:
        assert mask is not None
        return np.dstack([image[..., :3], mask])

    return detect


POSE = {"people": [{"pose_keypoints_2d": [0.5, 0.25, 1.0]}], "animals": [], "canvas_width": 64, "canvas_height": 64}


def posed(_runtime: Runtime) -> Any:
    return lambda image, **_options: Detection(image[..., :3].copy(), pose=POSE)


def embedding(_runtime: Runtime) -> Any:
    """The mean colour, as an embedding of three numbers, and how many pixels it was taken of."""

    def detect(image: np.ndarray, **_options: Any) -> Detection:
        mean = torch.tensor(image[..., :3].reshape(-1, 3).mean(axis=0), dtype=torch.float32)[None]
        return Detection(tensors={"mean": mean, "pixels": torch.tensor([[float(image.shape[0] * image.shape[1])]])})

    return detect


def failing(_runtime: Runtime) -> Any:
    def detect(*_args: Any, **_options: Any) -> np.ndarray:
        raise ValueError("the net is broken")

    return detect


def make_registry() -> Registry:
    registry = Registry()
    for spec, load in (
        (PreprocessorSpec(id="none", rank=10), identity),
        (
            PreprocessorSpec(
                id="canny",
                control_types=("Canny",),
                rank=100,
                sliders=(Slider("Low Threshold", 1, 255, 1, 100), Slider("High Threshold", 1, 255, 1, 200)),
            ),
            threshold,
        ),
        (
            PreprocessorSpec(
                id="invert",
                label="invert (from white bg & black line)",
                control_types=("Canny", "Scribble"),
                rank=20,
                resolution=None,
            ),
            identity,
        ),
        (
            PreprocessorSpec(
                id="inpaint",
                label="inpaint_global_harmonious",
                control_types=("Inpaint",),
                resolution=None,
                accepts_mask=True,
                requires_mask=True,
                keeps_alpha=True,
            ),
            with_alpha,
        ),
        (PreprocessorSpec(id="broken"), failing),
        (PreprocessorSpec(id="openpose", control_types=("OpenPose",)), posed),
        (PreprocessorSpec(id="clip_vision", control_types=("T2I-Adapter",), returns_image=False), embedding),
        (
            PreprocessorSpec(
                id="reference_only",
                control_types=("Reference",),
                resolution=None,
                sliders=(Slider("Style Fidelity", 0, 1, 0.01, 0.5),),
                model_free=True,
                hides_control_mode=True,
            ),
            identity,
        ),
    ):
        registry.register(Entry(spec, load))
    return registry


def no_checkpoint() -> BaseModel:
    raise HostError("no checkpoint is loaded yet")


def make_services(folder: Path, settings: dict[str, Any] | None = None) -> PageServices:
    """Services over a folder with the files of MODEL_NAMES (valid, empty safetensors, so that only names count)."""
    header = json.dumps({}).encode()
    for name in MODEL_NAMES:
        (folder / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    registry = make_registry()
    known = settings if settings is not None else {}
    return PageServices(
        library=ModelLibrary(lambda: [folder]),
        annotators=registry,  # type: ignore[arg-type]
        preprocess=PreprocessRunner(registry, Runtime),  # type: ignore[arg-type]
        models=ModelCache(discover(), lambda: 1 << 30),
        setting=lambda key, default: known.get(key, default),
        facts=FactReader(discover()),
        weights=WeightFiles(annotator_weights, lambda: [folder / "weights"]),
        presets=folder / "presets",
        base_model=no_checkpoint,
        has_pose_editor=lambda: False,
        caption=lambda pixels: f"a picture {pixels.shape[1]} wide",
        draw_pose=lambda pose: np.zeros((pose["canvas_height"], pose["canvas_width"], 3), np.uint8),
    )
